"""The latest word of another service: the newest wins whatever comes when, and every process shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from time import monotonic

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from deploy.local.stack import Stack
from services.chassis import latest
from services.chassis.database import Database
from services.chassis.errors import Unavailable
from services.chassis.latest import Latest
from services.chassis.migrations import migrate

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
USUAL = ErrorInfo(reason="usual", domain="ours")


@pytest.fixture(scope="module")
async def database(infrastructure: Stack) -> AsyncIterator[Database]:
    url = infrastructure.database_url("loyalty")
    await migrate(url, Path("services/loyalty/sql"))
    opened = Database(url, "loyalty", pool_size=2)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def word(database: Database) -> Latest[ErrorInfo]:
    await database.pool.execute("DELETE FROM latest")
    return Latest(database, "word", USUAL)


async def hear(database: Database, word: Latest[ErrorInfo], said: ErrorInfo, as_of: datetime, version: int) -> None:
    async with database.transaction() as tx:
        await word.hear(tx, said, as_of, version)


async def test_before_anything_was_heard_the_usual_is_shown(word: Latest[ErrorInfo]) -> None:
    assert await word.read() == USUAL


async def test_what_was_said_is_shown_at_once_and_the_usual_where_it_says_nothing(
    database: Database, word: Latest[ErrorInfo]
) -> None:
    await word.read()
    await hear(database, word, ErrorInfo(reason="said"), NOON, 1)
    assert await word.read() == ErrorInfo(reason="said", domain="ours")


async def test_the_newest_wins_whatever_comes_when(database: Database, word: Latest[ErrorInfo]) -> None:
    """A service that was restored from a backup counts its versions again: its time says that it is newer."""
    said = {(NOON, 8): "first", (NOON, 9): "second", (NOON + timedelta(minutes=1), 3): "restored"}
    for order in permutations(said):
        await database.pool.execute("DELETE FROM latest")
        for as_of, version in order:
            await hear(database, word, ErrorInfo(reason=said[as_of, version]), as_of, version)
        assert (await Latest(database, "word", USUAL).read()).reason == "restored"


async def test_a_clock_that_was_ahead_does_not_shut_out_what_is_said_later(
    database: Database, word: Latest[ErrorInfo]
) -> None:
    await hear(database, word, ErrorInfo(reason="early"), datetime.now(UTC) + timedelta(days=300), 1)
    await hear(database, word, ErrorInfo(reason="later"), datetime.now(UTC) + timedelta(seconds=1), 2)
    assert (await word.read()).reason == "later"


async def test_what_is_rolled_back_is_not_shown(database: Database, word: Latest[ErrorInfo]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await word.hear(tx, ErrorInfo(reason="said"), NOON, 1)
            raise ZeroDivisionError
    assert await word.read() == USUAL


async def test_another_process_reads_it_and_an_outage_takes_nothing_off(
    database: Database, word: Latest[ErrorInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> object:
        raise Unavailable("the database does not answer")

    clock = monotonic()
    monkeypatch.setattr(latest, "monotonic", lambda: clock)
    replica = Latest(database, "word", USUAL)
    assert await replica.read() == USUAL
    await hear(database, word, ErrorInfo(reason="said"), NOON, 1)
    assert await replica.read() == USUAL
    clock += latest.REFRESH_SECONDS
    assert (await replica.read()).reason == "said"
    clock += latest.REFRESH_SECONDS
    monkeypatch.setattr(database, "fetch", away)
    assert (await replica.read()).reason == "said"


async def test_each_name_has_its_own(database: Database, word: Latest[ErrorInfo]) -> None:
    await hear(database, word, ErrorInfo(reason="said"), NOON, 1)
    assert await Latest(database, "other", USUAL).read() == USUAL
