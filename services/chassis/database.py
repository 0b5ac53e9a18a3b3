"""PostgreSQL: the pool, transactions that announce facts, and what counts as an outage."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from services.chassis import outbox, telemetry
from services.chassis.errors import Conflict, TooMuch, Unavailable
from services.chassis.facts import Fact
from services.chassis.waiting import to_the_end

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
# asyncpg says InterfaceError of a connection that was lost, but also of a mistake of ours.
PERHAPS_OUTAGES: tuple[type[BaseException], ...] = (*OUTAGES, asyncpg.InterfaceError)
# The reason of the refusal that says so.
DATABASE_AWAY = "DATABASE_AWAY"
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
        # Told to `Database.tell` after the commit.
        self.changed: set[str] = set()

    async def append(self, facts: Iterable[Fact]) -> None:
        """Saves facts with the state. Lock the aggregate's row first: the order of a key is the order of its locks."""
        facts = tuple(facts)
        if facts:
            carried = telemetry.carrier()
            await self.append_carried((fact, carried) for fact in facts)

    async def append_carried(self, facts: Iterable[tuple[Fact, Mapping[str, str]]]) -> None:
        """As `append`, for facts of different journeys: each with its own carrier of trace context and baggage."""
        time = datetime.now(UTC).isoformat()
        await self.send([outbox.row(fact, self._service, time, carried) for fact, carried in facts])

    async def send(self, rows: Sequence[outbox.Row]) -> None:
        """Saves messages as they are, to be sent if the transaction commits."""
        if rows:
            self.has_facts = True
            await outbox.write(self.connection, rows)

    def tell(self, ids: Iterable[str]) -> None:
        """Says which aggregates changed: `Database.tell` is told once, after the commit. It may be lost in a crash."""
        self.changed.update(ids)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Runs the callback in this process once the transaction is committed. It may be lost in a crash."""
        self._after_commit.append(callback)

    def committed(self) -> None:
        """Called by the database once the commit is through."""
        for callback in self._after_commit:
            callback()


class PooledConnection(asyncpg.Connection):
    """A connection that leaves nothing behind in its session, and so needs no round trip to clean up when given back.

    What outlives a transaction (LISTEN, session locks, SET without LOCAL) belongs on a session of its own: `connect`.
    """

    def get_reset_query(self) -> str:
        return ""


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
        # Told, after every commit that changed some, which aggregates did.
        self.tell: Callable[[Collection[str]], None] = lambda ids: None

    async def open(self) -> None:
        """Connects, once. Raises what asyncpg raises when the server is away."""
        if self._pool is not None:
            return
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=2,
            max_size=self._pool_size,
            connection_class=PooledConnection,
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
            raise Unavailable("the database is not open yet", reason=DATABASE_AWAY)
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
        finished in any case, and whoever waits for it is told.
        """
        async with self._borrowed() as connection:
            transaction = connection.transaction()
            work = Transaction(connection, self.service)
            try:
                # Its end is known also when the caller is cancelled while it begins.
                await to_the_end(transaction.start())
                yield work
            except BaseException:
                if not _is_lost(connection) and connection.is_in_transaction():
                    await to_the_end(transaction.rollback())
                raise
            await to_the_end(self._commit(transaction, work))

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Runs one statement outside a transaction, and returns its rows. Raises as `transaction` does."""
        async with self._borrowed() as connection:
            return await connection.fetch(query, *arguments)

    async def _commit(self, transaction: asyncpg.transaction.Transaction, work: Transaction) -> None:
        await transaction.commit()
        work.committed()
        if work.has_facts:
            self.wake_relay()
        if work.changed:
            self.tell(work.changed)

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Connection]:
        """A connection of the pool. What goes wrong with it inside the block is told apart from mistakes of ours."""
        pool = self.pool
        try:
            connection = await pool.acquire(timeout=self._acquire_seconds)
        except TimeoutError:
            raise TooMuch("no database connection became free in time", reason="OVERLOADED") from None
        except OUTAGES as error:
            raise _away() from error
        try:
            yield connection
        except RACES as error:
            raise Conflict("another change came first; try again", reason="BUSY") from error
        except PERHAPS_OUTAGES as error:
            if not (_is_of_the_database(error) or _is_lost(connection)):
                raise
            raise _away() from error
        finally:
            # The transaction is over by now: a connection that breaks on its way back is replaced, nothing is lost.
            with suppress(*PERHAPS_OUTAGES):
                await pool.release(connection)  # goes on when the caller is cancelled


def _away() -> Unavailable:
    return Unavailable("the database does not answer", reason=DATABASE_AWAY)


def _is_of_the_database(error: BaseException) -> bool:
    """Whether the error alone tells of an outage. An OSError may also be raised by the block itself."""
    if isinstance(error, asyncpg.InterfaceError):
        return False
    if not isinstance(error, OSError):  # TimeoutError is one, too
        return True
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("asyncpg.") for frame, _ in frames)


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool took a connection back that broke while it was lent.
        return True
