"""What every part of a stack tells about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .supervision import Program

Say = Callable[[str], None]


def _nothing(say: Say) -> None:
    pass


@dataclass(frozen=True)
class Part:
    """One process of the stack: how to get it ready, run it, and know that it answers."""

    program: Program
    is_ready: Callable[[], bool]
    """Asked again and again; any exception means not yet."""
    ports: tuple[str, ...] = ()
    """Names in `Ports` it listens on."""
    needs: tuple[str, ...] = ()
    """Parts that are ready before this one is prepared."""
    prepare: Callable[[Say], None] = field(default=_nothing)
    """Before the start, when it is not running: files, schema, jars."""
    finish: Callable[[Say], None] = field(default=_nothing)
    """After it is ready: what can only be set up in a running part."""
    seconds: float = 60
    """From start to ready, at the very most."""

    @property
    def name(self) -> str:
        return self.program.name
