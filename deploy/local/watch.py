"""Ends a stack when the process it was started for has ended, however that ended.

python -m deploy.local.watch <pid to watch> <pid file of the stack's manager>
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import psutil


def main() -> None:
    watched, manager = int(sys.argv[1]), Path(sys.argv[2])
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(watched).wait()
    psutil.Process(int(manager.read_text())).terminate()


if __name__ == "__main__":
    main()
