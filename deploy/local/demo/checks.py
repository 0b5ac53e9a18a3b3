"""What the steps of the story are held against."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    probe: Callable[[], Awaitable[T | None]], what: str, *, seconds: float = 15, pause: float = 0.01
) -> T:
    """Asks until there is an answer: what is shown follows the facts. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        found = await probe()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(pause)


def check(holds: bool, what: str) -> None:
    """Raises AssertionError, also where assertions are switched off."""
    if not holds:
        raise AssertionError(what)
