"""What can go wrong with a stack, said so that the reader knows what to do next.

StackError
 ├── PortTaken      somebody else listens where parts should
 ├── PartFailed     a part ended, or was not ready in time
 ├── NotRunning     asked of a stack, or a part of it, that is not up
 └── JarError       (jars.py) a jar could not be had, or is not the one that was locked
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

OFFSET = "SHOP_PORT_OFFSET"
TAIL_LINES = 15


class StackError(Exception):
    """Base of all; its text is for the person at the terminal."""


class PortTaken(StackError):
    """All that are taken at once, each as (port, wanted for, its owner, the setting that moves it)."""

    def __init__(self, taken: Sequence[tuple[int, str, str, str]]) -> None:
        lines = (f"  port {port} for {name}: {owner}; move it with {move}=<port>" for port, name, owner, move in taken)
        super().__init__(
            "other processes listen where this shop should:\n"
            + "\n".join(lines)
            + "\nNothing was started or stopped. End those processes, or move single ports as above, or all of them: "
            f"{OFFSET}=100 make up"
        )
        self.taken = tuple(taken)


class PartFailed(StackError):
    def __init__(self, part: str, what: str, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        tail = "\n".join(f"    {line}" for line in lines[-TAIL_LINES:]) or "    (nothing logged)"
        super().__init__(f"{part} {what}. Its log, {log}, ends with:\n{tail}")
        self.part, self.what, self.log = part, what, log


class NotRunning(StackError):
    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not running. Start it with: make up")
