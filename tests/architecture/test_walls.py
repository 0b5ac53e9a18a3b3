"""The walls between the parts, as import-linter reads them from pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_whoever_speaks_to_kafka_does_so_as_the_settings_say() -> None:
    """Clients are made from `brokers.client`, which knows about TLS, never from addresses alone."""
    knows = {ROOT / "services/chassis" / name for name in ("brokers.py", "settings.py")}
    others = set((ROOT / "services").rglob("*.py")) - knows
    assert [str(file.relative_to(ROOT)) for file in others if "bootstrap_servers" in file.read_text()] == []


def test_nobody_climbs_a_wall() -> None:
    linted = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout
