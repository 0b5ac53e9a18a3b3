"""Files handed to the running shop: the product feed to catalog, the stock file to inventory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import StackError
from .service import ROOT
from .stack import Stack

COMMANDS = {"catalog": "import-products", "inventory": "import-stock"}


def import_file(stack: Stack, service: str, file: Path, locale: str = "") -> int:
    """Run the service's own import as an operator; returns its exit code. Raises StackError when there is none.

    `locale`: of a product feed in another language than the shop's own.
    """
    command = COMMANDS.get(service)
    if command is None:
        takes = " or ".join(f"make import SERVICE={name} FILE=<file>" for name in COMMANDS)
        raise StackError(f"{service} takes no file; try {takes}")
    if not file.is_file():
        raise StackError(f"there is no file {file}")
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "operator"
        token.touch(mode=0o600)
        token.write_text(stack.mint("operator"))
        called = [sys.executable, "-m", f"services.{service}", command, str(file.absolute())]
        called += ["--address", stack.address(service), "--token-file", str(token)]
        called += ["--locale", locale] if locale else []
        return subprocess.run(called, cwd=ROOT, check=False).returncode
