"""The database session that holds the relay's lock: who has it may relay, and a frozen process loses it."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import asyncpg

from services.chassis.database import OUTAGES

LOCK = 5_309_002
STANDBY_SECONDS = 0.5
# The server ends the session of a holder that is silent for this long. The holder itself gives up earlier.
SILENT_MS = 4_000
STALE_SECONDS = 3.0


class LockLost(Exception):
    """The session with the lock is gone, or may be."""


# asyncpg says InterfaceError for a connection that is gone already.
SESSION_ENDS: tuple[type[BaseException], ...] = (*OUTAGES, asyncpg.InterfaceError, LockLost)


class LockSession:
    """The database session that holds the lock. One statement at a time; knows when it last was alive."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection
        self._one_at_a_time = asyncio.Lock()
        self._alive = monotonic()

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._one_at_a_time:
            asked = monotonic()
            try:
                rows: list[asyncpg.Record] = await self.connection.fetch(query, *arguments)
            except SESSION_ENDS as error:
                raise LockLost from error
            self._alive = asked
            return rows

    def check(self) -> None:
        """Raises `LockLost` when the server may have ended the session, as after a freeze."""
        if self.connection.is_closed() or monotonic() - self._alive > STALE_SECONDS:
            raise LockLost


async def take_lock(connection: asyncpg.Connection[asyncpg.Record]) -> LockSession:
    """Waits until nobody else holds the lock. (A blocking wait would keep a snapshot, and the outbox from vacuum.)"""
    # Deleting need not wait for the disk: what a crash of the server brings back is sent twice.
    await connection.execute(f"SET idle_session_timeout = {SILENT_MS}; SET synchronous_commit = off")
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):  # noqa: ASYNC110
        await asyncio.sleep(STANDBY_SECONDS)
    return LockSession(connection)
