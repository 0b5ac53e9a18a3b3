"""How many calls and streams a server takes in at once, and how it stops taking in any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from services.chassis.errors import Unavailable
from services.chassis.grpc_errors import Overloaded


def going_away() -> Unavailable:
    """What a client is told by a server that drains."""
    return Unavailable("this server is going away; another one will answer", reason="DRAINING")


class Admission:
    """Counts the calls that are being handled, and says when there are enough of them."""

    def __init__(self, max_calls: int, max_streams: int, shed: Callable[[], None]) -> None:
        self.calls = 0
        self.streams: set[asyncio.Timeout] = set()
        self._max_calls = max_calls
        self._max_streams = max_streams
        self._shed = shed
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """Takes in a unary call. Raises `Overloaded` or, while the server drains, `Unavailable`."""
        if self._draining:
            raise going_away()
        if self.calls >= self._max_calls:
            self._shed()
            raise Overloaded("the server is busy; try again")
        self.calls += 1

    def leave(self) -> None:
        """The call is over."""
        self.calls -= 1
        self._tell_if_idle()

    def enter_stream(self) -> asyncio.Timeout:
        """Takes in a stream; returns the scope that ends it when the server drains. Raises as `enter` does."""
        if self._draining:
            raise going_away()
        if len(self.streams) >= self._max_streams:
            self._shed()
            raise Overloaded("the server has too many streams; try again")
        scope = asyncio.timeout(None)
        self.streams.add(scope)
        return scope

    def leave_stream(self, scope: asyncio.Timeout) -> None:
        """The stream is over."""
        self.streams.discard(scope)
        self._tell_if_idle()

    async def drain(self, seconds: float) -> bool:
        """Takes in nothing more, ends all streams, waits for the calls; False when some did not end in time."""
        self._draining = True
        now = asyncio.get_running_loop().time()
        for scope in self.streams:
            with suppress(RuntimeError):  # It is ending by itself.
                scope.reschedule(now)
        self._idle.clear()
        self._tell_if_idle()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _tell_if_idle(self) -> None:
        if self._draining and not self.calls and not self.streams:
            self._idle.set()
