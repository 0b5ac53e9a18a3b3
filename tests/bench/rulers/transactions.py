"""The second ruler: bare asyncpg transactions that write the rows of a real call, and nothing else.

It keeps its connections: no pool's reset between two transactions. For an order, a bare call stands in their middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import asyncpg
import grpc

from ..recording import Connection
from ..replay import Replay
from .process import Obeying, obey, timed


class Connections:
    """A fixed number of connections, lent to callers in their turn."""

    def __init__(self, free: list[Connection]) -> None:
        self._free = free
        # A queue would let whoever just gave one back take it again, past those who wait.
        self._turns = asyncio.Semaphore(len(free))

    @classmethod
    async def opened(cls, url: str, number: int) -> Connections:
        return cls([await asyncpg.connect(url) for _ in range(number)])

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        async with self._turns:
            connection = self._free.pop()
            try:
                yield connection
            finally:
                self._free.append(connection)

    async def close(self) -> None:
        """Only while none is lent."""
        for connection in self._free:
            await connection.close()


@dataclass(frozen=True, slots=True)
class BareTransactions:
    """What to write where. `call`: address and method of a bare call after the first transaction."""

    database_url: str
    replay: Replay
    connections: int = 10
    call: tuple[str, str] | None = None
    # What must be there beforehand: written by "prepare", not measured.
    before: tuple[tuple[str, Replay], ...] = ()


async def setup(given: BareTransactions) -> Obeying:
    connections = await Connections.opened(given.database_url, given.connections)
    prepared = [(await Connections.opened(url, 4), replay) for url, replay in given.before]
    channel = grpc.aio.insecure_channel(given.call[0]) if given.call else None
    bare_call: Callable[[bytes], Awaitable[bytes]] | None = None
    if channel and given.call:
        bare_call = cast(Callable[[bytes], Awaitable[bytes]], channel.unary_unary(f"/{given.call[1]}"))

    async def once(number: int) -> None:
        if bare_call is None:
            async with connections.one() as connection:
                await given.replay.run(connection, number)
            return
        async with connections.one() as connection:
            await given.replay.run(connection, number, slice(0, 1))
        await bare_call(number.to_bytes(4, "big"))
        async with connections.one() as connection:
            await given.replay.run(connection, number, slice(1, None))

    async def run(
        first: int, callers: int, calls: int | None = None, seconds: float | None = None
    ) -> Mapping[str, object]:
        return await timed(once, first, callers, calls=calls, seconds=seconds)

    async def prepare(first: int, calls: int) -> Mapping[str, object]:
        for lent, replay in prepared:

            async def write(number: int, lent: Connections = lent, replay: Replay = replay) -> None:
                async with lent.one() as connection:
                    await replay.run(connection, number)

            await timed(write, first, 4, calls=calls, seconds=None)
        return {}

    async def close() -> None:
        for each in (connections, *(lent for lent, _ in prepared)):
            await each.close()
        if channel:
            await channel.close()

    return {}, {"run": run, "prepare": prepare}, close


if __name__ == "__main__":
    obey(setup)
