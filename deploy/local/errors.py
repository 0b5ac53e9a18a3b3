"""What can go wrong with a stack, said so that the reader knows what to do next.

StackError
 ├── PortTaken      somebody else listens where a part should
 ├── PartFailed     a part ended, or was not ready in time
 ├── NotRunning     asked of a stack, or a part of it, that is not up
 └── JarError       (jars.py) a jar could not be had, or is not the one that was locked
"""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 15


class StackError(Exception):
    """Base of all; its text is for the person at the terminal."""


class PortTaken(StackError):
    def __init__(self, port: int, part: str, owner: str, setting: str) -> None:
        super().__init__(
            f"port {port}, wanted for {part}, is taken by {owner}.\n"
            f"End that process, or choose another port: {setting}=<port> make up"
        )
        self.port, self.part, self.owner, self.setting = port, part, owner, setting


class PartFailed(StackError):
    def __init__(self, part: str, what: str, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        tail = "\n".join(f"    {line}" for line in lines[-TAIL_LINES:]) or "    (nothing logged)"
        super().__init__(f"{part} {what}. Its log, {log}, ends with:\n{tail}")
        self.part, self.what, self.log = part, what, log


class NotRunning(StackError):
    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not running. Start it with: make up")
