"""The change feed: every replica learns what changed, whoever changed it, and what it missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from services.catalog import changes
from services.catalog.changes import Changes
from services.catalog.store.refreshing import refreshed
from services.chassis.database import Database, Transaction
from tests.catalog.conftest import Shelf, level_changed

SECONDS = 20.0


async def note(tx: Transaction, product_ids: Sequence[str]) -> None:
    """As when only numbers of free units moved."""
    refreshed(tx, await tx.connection.fetch("SELECT * FROM refresh_products($1, '{}')", product_ids))


class Listening:
    """What a replica's feed told."""

    def __init__(self, feed: Changes) -> None:
        self.feed = feed
        self.told: set[str] = set()
        self.missed = 0
        self._more = asyncio.Event()
        feed.listen(self._hear)

    def _hear(self, product_ids: Collection[str] | None) -> None:
        if product_ids is None:
            self.missed += 1
        else:
            self.told.update(product_ids)
        self._more.set()

    async def until(self, *product_ids: str) -> None:
        async with asyncio.timeout(SECONDS):
            while not self.told.issuperset(product_ids):
                self._more.clear()
                await self._more.wait()

    async def until_missed(self) -> None:
        async with asyncio.timeout(SECONDS):
            while not self.missed:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def running(feed: Changes) -> AsyncIterator[Listening]:
    listening = Listening(feed)
    task = asyncio.create_task(feed.run())
    try:
        await listening.until_missed()  # the first reading knows of nothing before it
        yield listening
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def replica(shelf: Shelf) -> AsyncIterator[Database]:
    """The pool of another process."""
    opened = Database(shelf.database._url, "catalog", pool_size=2)
    await opened.open()
    yield opened
    await opened.close()


async def listeners_there(shelf: Shelf, count: int) -> None:
    query = (
        "SELECT count(*) AS listening FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'catalog-session' AND query LIKE 'LISTEN%'"
    )
    async with asyncio.timeout(SECONDS):
        while (await shelf.database.fetch(query))[0]["listening"] < count:
            await asyncio.sleep(0.01)


async def test_another_replica_is_told_without_polling(
    shelf: Shelf, replica: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(changes, "PING_SECONDS", 3600.0)
    async with running(shelf.app.changes), running(Changes(replica)) as there:
        await listeners_there(shelf, 2)
        await shelf.feed({"id": "a-1", "item_group_id": "a"}, {"id": "b-1", "item_group_id": "b"})
        await there.until("a", "b")
        there.told.clear()
        await shelf.hear(level_changed("a-1", 3))
        await there.until("a")
        assert there.told == {"a"}


async def test_what_nobody_told_of_is_found_by_polling(
    shelf: Shelf, replica: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "POLL_SECONDS", 0.05)
    async with running(Changes(replica)) as there:
        shelf.database.tell = lambda ids: None  # as if the process died after its commit
        await shelf.feed({"id": "a-1", "item_group_id": "a"})
        await there.until("a")


async def test_a_transaction_that_commits_late_is_not_passed_over(shelf: Shelf, replica: Database) -> None:
    feed = Changes(replica)
    listening = Listening(feed)
    await feed.catch_up()
    shelf.database.tell = lambda ids: None
    async with shelf.database.transaction() as late:
        await note(late, ["late"])  # drew its number first
        async with shelf.database.transaction() as early:
            await note(early, ["early"])
        await feed.catch_up()
        assert listening.told == {"early"}
        listening.told.clear()
    await feed.catch_up()
    assert listening.told == {"late"}
    listening.told.clear()
    await feed.catch_up()
    assert not listening.told


async def test_what_was_told_while_the_session_was_lost_is_read(
    shelf: Shelf, replica: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PING_SECONDS", 0.05)
    async with running(Changes(replica)) as there:
        await listeners_there(shelf, 1)
        await shelf.database.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'catalog-session'"
        )
        await shelf.feed({"id": "a-1", "item_group_id": "a"})
        await there.until("a")


async def test_who_was_away_longer_than_notes_are_kept_takes_it_that_everything_changed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Changes(shelf.database)
    listening = Listening(feed)
    await feed.catch_up()
    await feed.catch_up()
    assert listening.missed == 1
    monkeypatch.setattr(changes, "COUNTED_SECONDS", -1.0)
    await feed.catch_up()
    assert listening.missed == 2


async def test_old_notes_are_deleted_and_young_ones_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shelf.database.transaction() as tx:
        await note(tx, ["old-1", "old-2", "young"])
        await tx.connection.execute(
            "UPDATE product_changes SET note_time = now() - interval '1 hour' WHERE product_id LIKE 'old-%'"
        )
    monkeypatch.setattr(changes, "FORGET_ROWS", 1)
    async with shelf.database.transaction() as tx:
        assert [await changes.forget(tx.connection) for _ in range(3)] == [1, 1, 0]
    rows = await shelf.database.fetch("SELECT product_id FROM product_changes")
    assert [row["product_id"] for row in rows] == ["young"]


async def test_a_change_that_is_rolled_back_is_not_told(shelf: Shelf) -> None:
    listening = Listening(shelf.app.changes)
    with pytest.raises(ZeroDivisionError):
        async with shelf.database.transaction() as tx:
            await note(tx, ["a"])
            raise ZeroDivisionError
    await shelf.app.changes.catch_up()
    assert not listening.told


def test_however_many_ids_fit_into_words_of_the_allowed_size() -> None:
    ids = [f"{number}-" + "ä" * 58 for number in range(1000)]
    words = changes.payloads("me", ids)
    assert [one for word in words for one in json.loads(word)[1]] == ids
    assert {json.loads(word)[0] for word in words} == {"me"}
    assert max(len(word.encode()) for word in words) < 8000
    assert changes.payloads("me", []) == []


async def test_a_process_hears_of_its_own_changes_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "POLL_SECONDS", 3600.0)
    heard: list[list[str]] = []
    async with running(shelf.app.changes) as here:
        await listeners_there(shelf, 1)
        here.feed.listen(lambda ids: heard.append(sorted(ids or ())))
        async with shelf.database.transaction() as tx:
            await note(tx, ["a"])
        await here.until("a")
        await shelf.database.pool.execute(
            "SELECT pg_notify('products', $1)", changes.payloads("somebody else", ["b"])[0]
        )
        await here.until("b")  # comes after our own word
    assert heard == [["a"], ["b"]]
