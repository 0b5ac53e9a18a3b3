"""Waiting: backoff with jitter, steps done again and again, and several works of which the first to end ends all."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from services.chassis.errors import Conflict, TooMuch, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")


class Pause:
    """Waits longer each time it is called, up to `most` seconds, with jitter, until it is reset."""

    def __init__(self, first: float = 0.1, most: float = 2.0) -> None:
        self._first = self._next = first
        self._most = most

    def reset(self) -> None:
        """Begins again with the shortest wait."""
        self._next = self._first

    def next(self) -> float:
        """The seconds to wait this time."""
        seconds = self._next * random.uniform(0.5, 1.0)  # noqa: S311
        self._next = min(self._next * 2, self._most)
        return seconds

    async def __call__(self) -> None:
        """Waits."""
        await asyncio.sleep(self.next())


async def every(seconds: float, step: Callable[[], Awaitable[object]]) -> None:
    """Does a step until cancelled: again at once when it returned something to go on with, else after so many seconds.

    What passes by itself (a part is away or busy, a race is lost) is waited out, and told once. All else is raised.
    """
    away = False
    while True:
        found: object = None
        try:
            found = await step()
        except (Unavailable, TooMuch, Conflict) as refusal:
            if not away:
                work = getattr(step, "__qualname__", "background")
                log.warning("background work waits", extra={"work": work, "reason": refusal.reason})
            away = True
        else:
            away = False
        if not found:
            await asyncio.sleep(seconds)


async def first_to_end(*works: Coroutine[Any, Any, Any]) -> None:
    """Runs all until one ends, cancels the others, and raises what that one raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def to_the_end(work: Awaitable[T]) -> T:
    """Awaits work that must not be left in the middle. A cancelled caller is cancelled once the work has ended."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    await asyncio.gather(task, return_exceptions=True)
    raise cancelled
