"""A wrong call of `make import` is told the right one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.local.service import ROOT


@pytest.mark.parametrize(
    ("service", "file", "told"),
    [
        ("loyalty", "Makefile", "make import SERVICE=catalog FILE=<file> or make import SERVICE=inventory FILE=<file>"),
        ("catalog", "nowhere.tsv", "there is no file nowhere.tsv"),
    ],
)
def test_a_wrong_import_says_what_is_wrong(service: str, file: str, told: str) -> None:
    command = [sys.executable, "-m", "deploy.local", "import", service, file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert told in done.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [((), "whose? make import"), (("SERVICE=inventory",), "which? make import SERVICE=inventory FILE=<file>")],
)
def test_make_asks_for_what_is_missing(given: tuple[str, ...], told: str) -> None:
    # Without running any recipe.
    done = subprocess.run(["make", "-n", "import", *given], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert told in done.stderr
