"""The documents stay true: every test, file and make target they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TESTING = (ROOT / "docs" / "testing.md").read_text()
DOCUMENTS = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("services/*/README.md"), ROOT / "deploy/README.md"]


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", TESTING))))
def test_every_test_named_exists(named: str) -> None:
    file, _, test = named.partition("::")
    assert (ROOT / file).exists(), file
    if test:
        assert re.search(rf"def {test}\(", (ROOT / file).read_text()), named


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_target_exists(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (document.parent / link).exists(), f"{document}: {link}"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"^make ([a-z]+)|`make ([a-z]+)", text, re.MULTILINE):
        assert "".join(target) in targets, f"{document}: make {''.join(target)}"
