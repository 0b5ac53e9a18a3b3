"""PostgreSQL: the pool, transactions that announce facts, and what counts as an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from services.chassis import outbox
from services.chassis.errors import Conflict, TooMuch, Unavailable
from services.chassis.facts import Fact

if TYPE_CHECKING:
    # Generic in the stubs only.
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection

# The database, or the way to it, is away; or the server is shutting down or short of something. Passes by itself.
OUTAGES: tuple[type[BaseException], ...] = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    # What asyncpg says of a connection on which the server has taken its leave, until it is closed.
    asyncpg.InternalClientError,
)
# Lost a race that a repeat from the start wins.
RACES: tuple[type[BaseException], ...] = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)


class Transaction:
    """One transaction: its connection, and the facts that are announced if it commits."""

    def __init__(self, connection: Connection, service: str) -> None:
        self.connection = connection
        self._service = service
        self._after_commit: list[Callable[[], None]] = []
        self.has_facts = False

    async def append(self, facts: Iterable[Fact]) -> None:
        """Saves facts with the state. Lock the aggregate's row first: the order of a key is the order of its locks."""
        facts = tuple(facts)
        if facts:
            self.has_facts = True
            await outbox.append(self.connection, self._service, facts)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Runs the callback in this process once the transaction is committed. It may be lost in a crash."""
        self._after_commit.append(callback)

    def committed(self) -> None:
        """Called by the database once the commit is through."""
        for callback in self._after_commit:
            callback()


class Database:
    """The pool of one service's own database."""

    def __init__(self, url: str, service: str, *, pool_size: int = 10, acquire_seconds: float = 5) -> None:
        self._url = url
        self.service = service
        self._pool_size = pool_size
        self._acquire_seconds = acquire_seconds
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        # Told after every commit that left facts in the outbox.
        self.wake_relay: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Connects, once. Raises what asyncpg raises when the server is away."""
        if self._pool is not None:
            return
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=2,
            max_size=self._pool_size,
            command_timeout=15,
            server_settings={
                "application_name": self.service,
                "idle_in_transaction_session_timeout": "20000",
                "lock_timeout": "5000",
                "timezone": "UTC",
            },
        )

    async def close(self) -> None:
        """Closes the pool; waits at most 5 s for connections in use."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), 5)
            except TimeoutError:
                self._pool.terminate()

    @property
    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        """The open pool, for reads that need no transaction."""
        if self._pool is None:
            raise Unavailable("the database is not open yet", reason="DATABASE_AWAY")
        return self._pool

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection of its own, outside the pool: for locks that live as long as their session."""
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            self._url, command_timeout=15, server_settings={"application_name": f"{self.service}-session"}
        )
        try:
            yield connection
        finally:
            connection.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that commits when the block ends well and rolls back when it raises.

        Raises `Unavailable` when the database is away, `TooMuch` when no connection is free in time, and `Conflict`
        when another transaction won. A cancelled caller never leaves the connection in between: the commit is
        finished in any case.
        """
        pool = self.pool
        try:
            connection = await pool.acquire(timeout=self._acquire_seconds)
        except TimeoutError:
            raise TooMuch("no database connection became free in time", reason="OVERLOADED") from None
        except OUTAGES as error:
            raise Unavailable("the database does not answer", reason="DATABASE_AWAY") from error
        try:
            transaction = connection.transaction()
            try:
                await transaction.start()
                work = Transaction(connection, self.service)
                try:
                    yield work
                except BaseException:
                    if not _is_lost(connection):
                        await asyncio.shield(transaction.rollback())
                    raise
                await asyncio.shield(transaction.commit())
            except RACES as error:
                raise Conflict("another change came first; try again", reason="BUSY") from error
            except OUTAGES as error:
                raise Unavailable("the database does not answer", reason="DATABASE_AWAY") from error
            except asyncpg.InterfaceError as error:
                # asyncpg says so for a connection that was lost, but also for a mistake of ours.
                if not _is_lost(connection):
                    raise
                raise Unavailable("the database does not answer", reason="DATABASE_AWAY") from error
        finally:
            # The transaction is over by now: a connection that breaks on its way back is replaced, nothing is lost.
            with suppress(*OUTAGES, asyncpg.InterfaceError):
                await asyncio.shield(pool.release(connection))
        work.committed()
        if work.has_facts:
            self.wake_relay()

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Reads rows outside a transaction. Raises `Unavailable` when the database is away."""
        try:
            return await self.pool.fetch(query, *arguments)
        except OUTAGES as error:
            raise Unavailable("the database does not answer", reason="DATABASE_AWAY") from error


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool took a connection back that broke while it was lent.
        return True
