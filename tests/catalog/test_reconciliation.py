"""The copy compared with inventory: whatever became of it, it ends as inventory says."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime

import pytest

from services.catalog import reconciliation, usecases
from services.catalog.reconciliation import Reconciliation
from services.catalog.store import stock
from services.catalog.store.stock import Level
from tests.catalog.conftest import PARTITIONS, Shelf, level_changed


def reconciliation_of(shelf: Shelf) -> Reconciliation:
    return shelf.app.reconciliation


async def copied(shelf: Shelf) -> dict[str, int]:
    return {row["sku"]: row["free"] for row in await shelf.database.fetch("SELECT sku, free FROM stock_copy")}


async def broken(shelf: Shelf) -> None:
    """Six SKUs, and one thing wrong with each but the first."""
    names = ("fine", "missing", "stale", "wrong", "ahead", "lapsed")
    await shelf.feed(*({"id": name} for name in (*names, "extra")))
    await shelf.stock(**dict.fromkeys(names, 2))
    await shelf.hear(level_changed("extra", 1), level_changed("ahead", 9, version=50))
    shelf.inventory.put("stale", 0)
    await shelf.database.pool.execute("DELETE FROM stock_copy WHERE sku = 'missing'")
    await shelf.database.pool.execute("UPDATE stock_copy SET free = 7 WHERE sku = 'wrong'")
    # A hold that ran out and was not written down yet: more is free at the same version.
    shelf.inventory._levels["lapsed", "vienna-1"].on_hand = 3


async def test_all_that_can_be_wrong_is_healed_and_counted_by_kind(shelf: Shelf) -> None:
    await broken(shelf)
    healed = await reconciliation_of(shelf).compare(settle=False)
    assert healed == Counter(missing=1, stale=1, wrong=1, ahead=1, lapsed=1, extra=1)
    assert await copied(shelf) == {"fine": 2, "missing": 2, "stale": 0, "wrong": 2, "ahead": 2, "lapsed": 3}
    assert set(await shelf.listed()) == {"fine", "missing", "wrong", "ahead", "lapsed"}
    assert await reconciliation_of(shelf).compare(settle=False) == Counter()


async def test_a_version_that_is_ahead_is_healed_though_as_many_units_are_free(shelf: Shelf) -> None:
    """Else what is sold next would not be heard: inventory was restored, and counts on from a lower version."""
    await shelf.feed({"id": "one"})
    shelf.inventory.put("one", 2)
    await shelf.hear(level_changed("one", 2, version=50))
    assert await reconciliation_of(shelf).compare(settle=False) == Counter(ahead=1)
    sold = shelf.inventory.put("one", 0)
    await shelf.hear(level_changed("one", 0, sold.version))
    assert await shelf.listed() == {}
    assert await reconciliation_of(shelf).compare(settle=False) == Counter()


async def test_what_is_healed_is_announced(shelf: Shelf) -> None:
    await shelf.feed({"id": "one"}, {"id": "two"})
    await shelf.stock(one=1)
    await shelf.database.pool.execute("DELETE FROM outbox")
    shelf.inventory.put("one", 0)
    shelf.inventory.put("two", 1)
    await reconciliation_of(shelf).compare(settle=False)
    assert sorted(await shelf.facts()) == [("ProductDelisted", "one"), ("ProductRelisted", "two")]


async def test_a_copy_that_was_lost_is_rebuilt_over_many_pages(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.catalog.clients.PAGE_SIZE", 3)
    monkeypatch.setattr(reconciliation, "MOST_SKUS", 4)
    names = [f"s{number:02}" for number in range(20)]
    await shelf.feed(*({"id": name} for name in names))
    await shelf.stock(**{name: number % 3 for number, name in enumerate(names)})
    expected = await copied(shelf)
    listed = await shelf.listed()
    await shelf.hear(*(level_changed(f"extra{number}", 1) for number in range(9)))
    await shelf.database.pool.execute("DELETE FROM stock_copy WHERE sku LIKE 's%'")
    await reconciliation_of(shelf).compare(settle=False)
    assert await copied(shelf) == expected
    assert await shelf.listed() == listed


async def test_what_is_heard_while_inventory_is_asked_is_kept(shelf: Shelf) -> None:
    """The answer is older than the fact; and a new SKU that the answer does not know is not taken for a surplus."""
    await shelf.feed({"id": "one"}, {"id": "new"})
    await shelf.stock(one=5)
    asked = await shelf.now()
    answer = [Level("one", "vienna-1", version=2, free=4)]
    await shelf.hear(level_changed("one", 0, version=3), level_changed("new", 1))
    async with shelf.database.transaction() as tx:
        assert await usecases.heal_stock(tx, answer, asked) == []
        assert await usecases.drop_stock(tx, answer, ["one", "new"], asked) == []
    assert await copied(shelf) == {"one": 0, "new": 1}


async def test_what_is_taken_out_is_locked_in_the_order_of_what_is_heard(shelf: Shelf) -> None:
    """Written in another order than they are locked in: without an order of its own the deletion would take the last
    first, and each would wait for the other."""
    names = [f"s{number:02}" for number in range(20)]
    await shelf.feed(*({"id": name} for name in names))
    await shelf.hear(*(level_changed(name, 1) for name in names))
    for name in reversed(names):
        await shelf.database.pool.execute("UPDATE stock_copy SET free = 1 WHERE sku = $1", name)
    asked = await shelf.now()
    async with shelf.database.transaction() as hearing:
        first = [Level(names[0], "vienna-1", version=2, free=2)]
        await stock.hear(hearing, first, {})
        dropping = asyncio.create_task(drop(shelf, names, asked))
        await until_somebody_waits(shelf)
        # The deletion waits for the first place and must hold none of the others.
        await usecases.hear_stock(hearing, [Level(name, "vienna-1", version=2, free=2) for name in names], {})
    assert await dropping == []


async def drop(shelf: Shelf, skus: list[str], asked: datetime) -> list[str]:
    async with shelf.database.transaction() as tx:
        # Small tables are read by their index anyway, which hides the order in which the rows stand.
        await tx.connection.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")
        return await usecases.drop_stock(tx, [], skus, asked)


async def until_somebody_waits(shelf: Shelf) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while not await shelf.database.fetch(waiting):
            await asyncio.sleep(0.01)


async def test_a_full_comparison_makes_the_copy_as_fresh_as_it_was_read(shelf: Shelf) -> None:
    await shelf.be_stale()
    await reconciliation_of(shelf).compare(settle=False)
    ages = await shelf.database.fetch("SELECT clock_timestamp() - as_of < interval '1 minute' AS fresh FROM watermarks")
    assert [row["fresh"] for row in ages] == [True] * len(PARTITIONS)


async def test_what_is_only_late_is_not_counted_as_drift(shelf: Shelf) -> None:
    await shelf.feed({"id": "one"})
    await shelf.stock(one=5)
    late = shelf.inventory.put("one", 4)
    comparing = asyncio.create_task(reconciliation_of(shelf).compare(settle=True))
    await shelf.until_compared()
    await shelf.hear(level_changed("one", 4, late.version))
    await shelf.be_fresh()
    assert await comparing == Counter()


async def test_an_inventory_that_is_away_does_not_keep_catalog_from_serving(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "READY_PAUSE_SECONDS", 0.0)
    shelf.inventory.away = True
    async with asyncio.timeout(30):
        await shelf.app.ready()


async def test_partitions_that_nothing_was_heard_of_count_as_stale(shelf: Shelf) -> None:
    async def six() -> int:
        return 6

    shelf.inventory.away = True
    freshness = shelf.app._freshness
    assert await freshness.stale_since() is None
    unknown = Reconciliation(shelf.database, shelf.app._inventory, six, lambda count, labels: None)
    await unknown._expect_partitions()
    rows = await shelf.database.fetch("SELECT count(*) AS known, min(as_of) = 'epoch' AS never FROM watermarks")
    assert dict(rows[0]) == {"known": 6, "never": True}
