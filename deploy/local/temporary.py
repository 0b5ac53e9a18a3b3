"""A stack for a while: on free ports, with its own state, beside any `make up`. For tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from .ports import Ports
from .stack import EVERYTHING, Progress, Stack, silent

PREFIX, OWNER = "shop-", "owner"


@contextmanager
def temporary_stack(parts: Sequence[str] = EVERYTHING, progress: Progress = silent) -> Iterator[Stack]:
    """A stack of these parts, gone afterwards whatever happens: also on Ctrl-C, and when this process is killed."""
    _sweep()
    # Directly in the temporary directory: a longer path would be too long for the manager's socket.
    state = Path(tempfile.mkdtemp(prefix=PREFIX))
    (state / OWNER).write_text(str(os.getpid()))
    state.chmod(0o711)  # PostgreSQL runs unprivileged below it when we are root
    stack = Stack(state, Ports.free(), parts, bound_to=os.getpid())
    with _sigterm_unwinds():
        try:
            stack.up(progress)
            yield stack
        finally:
            stack.down()
            shutil.rmtree(state, ignore_errors=True)


def _sweep() -> None:
    """Remove what stacks left on disk whose process was killed outright; their parts have ended with it."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        if not psutil.pid_exists(int(owner.read_text() or os.getpid())):
            shutil.rmtree(owner.parent, ignore_errors=True)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """A process told to end leaves through `finally`, as on Ctrl-C."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
