"""Make `.venv` with the locked packages, unless it has them already. Runs on a bare Python.

python3 -I deploy/local/install.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements-dev.lock"
VENV = ROOT / ".venv"
STAMP = VENV / "installed"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older one is turned away
        print(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")
        return 1
    # Of the interpreter too: a machine's new Python makes the old environment useless.
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return 0
    began = time.monotonic()
    print("installing the locked packages into .venv (about a minute, once)", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)])
    if made.returncode != 0:
        print("No virtual environment could be made. On Debian it takes: apt-get install python3-venv")
        return 1
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)])
    if done.returncode != 0:
        print("The packages could not be installed (above says why). Is the network there? Run the command again.")
        return 1
    STAMP.write_text(wanted)
    print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
