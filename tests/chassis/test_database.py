"""Transactions: cancelled callers leak nothing, races and outages are told apart."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.chassis import logs
from services.chassis.database import Database
from services.chassis.errors import Conflict, TooMuch, Unavailable


@pytest.fixture(scope="module")
async def database(infrastructure: Stack) -> AsyncIterator[Database]:
    opened = Database(infrastructure.database_url("loyalty"), "loyalty", pool_size=4)
    await opened.open()
    await opened.pool.execute("CREATE TABLE IF NOT EXISTS trial (id int PRIMARY KEY, n int NOT NULL)")
    yield opened
    await opened.pool.execute("DROP TABLE trial")
    await opened.close()


@pytest.fixture(autouse=True)
async def empty(database: Database) -> None:
    await database.pool.execute("TRUNCATE trial")


async def in_transaction(database: Database) -> int:
    """Sessions of the pool that are inside a transaction."""
    rows = await database.fetch(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'loyalty' AND datname = current_database()"
        " AND state LIKE 'idle in transaction%'"
    )
    found: int = rows[0]["n"]
    return found


async def test_commits_when_the_block_ends_well(database: Database) -> None:
    after = []
    async with database.transaction() as tx:
        await tx.connection.execute("INSERT INTO trial VALUES (1, 1)")
        tx.after_commit(lambda: after.append("done"))
        assert not after
    assert after == ["done"]
    assert len(await database.fetch("SELECT * FROM trial")) == 1


async def test_rolls_back_when_it_raises(database: Database) -> None:
    after = []
    with pytest.raises(ValueError, match="no"):
        async with database.transaction() as tx:
            await tx.connection.execute("INSERT INTO trial VALUES (1, 1)")
            tx.after_commit(lambda: after.append("done"))
            raise ValueError("no")
    assert not after
    assert not await database.fetch("SELECT * FROM trial")


async def test_a_commit_that_has_begun_is_finished_and_told_though_the_caller_is_cancelled(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, after = asyncpg.transaction.Transaction.commit, []
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(transaction: Any) -> None:
        began.set()
        await may_end.wait()
        await commit(transaction)

    async def work() -> None:
        async with database.transaction() as tx:
            await tx.connection.execute("INSERT INTO trial VALUES (1, 1)")
            tx.has_facts = True
            tx.after_commit(lambda: after.append("done"))

    monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", slowly)
    monkeypatch.setattr(database, "wake_relay", lambda: after.append("woken"))
    task = asyncio.create_task(work())
    await began.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert after == ["done", "woken"]
    assert len(await database.fetch("SELECT * FROM trial")) == 1


async def test_a_storm_of_cancellations_leaks_no_connection(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    async def work(number: int) -> None:
        async with database.transaction() as tx:
            tx.after_commit(lambda: told.append(number))
            await tx.connection.execute("INSERT INTO trial VALUES ($1, 1)", number)

    began = time.monotonic()
    for number in range(2000, 2020):
        await work(number)
    whole = (time.monotonic() - began) / 20
    for round_number in range(120):
        tasks = [asyncio.create_task(work(round_number * 10 + number)) for number in range(4)]
        # Cancels each round's somewhere else, from before their beginning until after their commit.
        await asyncio.sleep(whole * round_number / 40)
        for task in tasks:
            task.cancel()
        # And some again, while they roll back.
        for _ in range(round_number % 6):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(work(3000 + number) for number in range(8)))
    assert sorted(told) == [row["id"] for row in await database.fetch("SELECT id FROM trial ORDER BY id")]
    assert await in_transaction(database) == 0
    assert database.pool.get_size() - database.pool.get_idle_size() == 0
    # The pool complains of a connection that comes back inside a transaction.
    assert "with an active transaction" not in caplog.text


async def test_a_lost_race_is_a_conflict(database: Database) -> None:
    await database.pool.execute("INSERT INTO trial VALUES (1, 1), (2, 1)")
    first, second = asyncio.Event(), asyncio.Event()

    async def lock(one: int, other: int, mine: asyncio.Event, theirs: asyncio.Event) -> None:
        async with database.transaction() as tx:
            await tx.connection.execute("UPDATE trial SET n = 2 WHERE id = $1", one)
            mine.set()
            await theirs.wait()
            await tx.connection.execute("UPDATE trial SET n = 2 WHERE id = $1", other)

    outcomes = await asyncio.gather(lock(1, 2, first, second), lock(2, 1, second, first), return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1
    assert sum(outcome is None for outcome in outcomes) == 1


async def test_a_lost_connection_is_an_outage(database: Database) -> None:
    with pytest.raises(Unavailable) as refused:
        async with database.transaction() as tx:
            pid = await tx.connection.fetchval("SELECT pg_backend_pid()")
            await database.pool.execute("SELECT pg_terminate_backend($1)", pid)
            await tx.connection.execute("SELECT 1")
    assert refused.value.reason == "DATABASE_AWAY"
    async with database.transaction() as tx:
        assert await tx.connection.fetchval("SELECT 1") == 1
    with pytest.raises(Unavailable) as refused:
        await database.fetch("SELECT pg_terminate_backend(pg_backend_pid())")
    assert refused.value.reason == "DATABASE_AWAY"


async def test_a_statement_that_takes_too_long_is_an_outage(database: Database) -> None:
    with pytest.raises(Unavailable) as refused:
        async with database.transaction() as tx:
            await tx.connection.execute("SELECT pg_sleep(60)", timeout=0.01)
    assert refused.value.reason == "DATABASE_AWAY"


@pytest.mark.parametrize("mistake", [TimeoutError("mine"), ConnectionResetError("mine"), FileNotFoundError("mine")])
async def test_what_the_block_itself_raises_is_no_outage_of_the_database(database: Database, mistake: OSError) -> None:
    with pytest.raises(type(mistake), match="mine"):
        async with database.transaction() as tx:
            await tx.connection.execute("INSERT INTO trial VALUES (1, 1)")
            raise mistake
    assert not await database.fetch("SELECT * FROM trial")


async def test_what_is_committed_stays_a_success_when_the_connection_breaks_afterwards(
    database: Database, infrastructure: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, broken = asyncpg.pool.Pool.release, []

    async def break_and_release(pool: Any, connection: Any, **options: Any) -> None:
        killer = await asyncpg.connect(infrastructure.database_server_url)
        broken.append(await killer.fetchval("SELECT pg_terminate_backend($1, 5000)", connection.get_server_pid()))
        await killer.close()
        await release(pool, connection, **options)

    after = []
    monkeypatch.setattr(asyncpg.pool.Pool, "release", break_and_release)
    async with database.transaction() as tx:
        await tx.connection.execute("INSERT INTO trial VALUES (1, 1)")
        tx.after_commit(lambda: after.append("done"))
    monkeypatch.undo()
    assert (broken, after) == ([True], ["done"])
    assert len(await database.fetch("SELECT * FROM trial")) == 1


async def test_a_mistake_of_ours_is_no_outage(database: Database) -> None:
    with pytest.raises(asyncpg.InterfaceError):
        async with database.transaction() as tx:
            await tx.connection.fetch("SELECT $1::int")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as tx:
            await tx.connection.execute("INSERT INTO trial VALUES (1, 1), (1, 1)")


async def test_no_free_connection_is_shed(infrastructure: Stack) -> None:
    small = Database(infrastructure.database_url("loyalty"), "loyalty", pool_size=2, acquire_seconds=0.05)
    await small.open()
    async with small.transaction(), small.transaction():
        with pytest.raises(TooMuch) as refused:
            async with small.transaction():
                pass
        with pytest.raises(TooMuch):
            await small.fetch("SELECT 1")
    assert refused.value.reason == "OVERLOADED"
    await small.close()


async def test_the_log_tells_where_a_statement_failed_and_no_value_of_the_row(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, root, name = io.StringIO(), logging.getLogger(), "Jane Doe"
    monkeypatch.setattr("sys.stdout", out)
    handlers, level = root.handlers[:], root.level
    await database.pool.execute("CREATE TABLE IF NOT EXISTS people (name text, n int CHECK (n > 0))")
    try:
        logs.configure("loyalty", "INFO")
        try:
            async with database.transaction() as tx:
                await tx.connection.execute("INSERT INTO people VALUES ($1, 0)", name)
        except asyncpg.CheckViolationError as error:
            assert name in str(error)
            try:
                raise Unavailable("our own words") from error
            except Unavailable:
                logging.getLogger("services.somewhere").exception("it failed")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        await database.pool.execute("DROP TABLE people")
    stack = json.loads(out.getvalue())["stack"].splitlines()
    assert "CheckViolationError" in stack
    assert any("test_database.py" in line for line in stack)
    assert stack[-1] == "Unavailable: our own words"
    assert name not in out.getvalue()
