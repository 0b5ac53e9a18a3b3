"""Prices begin and end by the database's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from services.catalog import editing, price_clock
from services.catalog.domain.editing import SetPrice
from services.chassis.database import Database
from services.chassis.values import to_timestamp
from shop.catalog.v1 import catalog_pb2 as pb
from tests.catalog.conftest import Shelf
from tests.catalog.test_records import euros, record, set_price

SECONDS = 20.0


async def price(shelf: Shelf, product_id: str = "a") -> str:
    """The price now, or that there is none."""
    answer = await shelf.storefront.GetProduct(pb.GetProductRequest(product_id=product_id))
    return euros(answer.product.variants[0].price) if answer.product.variants else "none"


async def until(shelf: Shelf, wanted: str) -> datetime:
    """Waits for the price; returns when it was there by the database's clock."""
    async with asyncio.timeout(SECONDS):
        while await price(shelf) != wanted:
            await asyncio.sleep(0.02)
    return await shelf.now()


async def until_time(shelf: Shelf, instant: datetime) -> None:
    async with asyncio.timeout(SECONDS):
        while await shelf.now() < instant:
            await asyncio.sleep(0.02)


async def until_somebody_waits(shelf: Shelf) -> None:
    async with asyncio.timeout(SECONDS):
        while not await shelf.database.pool.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        ):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def ticking(*databases: Database) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(price_clock.keep_moving(database)) for database in databases]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def tick(shelf: Shelf) -> int:
    """Everything that is due. Returns in how many goes."""
    for goes in range(1, 20):
        async with shelf.database.transaction() as tx:
            if not await price_clock.move_on(tx):
                return goes
    raise AssertionError("it never ends")


async def write(shelf: Shelf, sku: str, amount: int, start: datetime, end: datetime | None = None) -> None:
    """A reduction as it stands in the table, as if time had passed since it was written."""
    await shelf.database.pool.execute(
        "INSERT INTO prices (sku, currency, reduced, start_time, end_time, amount)"
        " VALUES ($1, 'EUR', true, $2, coalesce($3::timestamptz, 'infinity'), $4)",
        sku,
        start,
        end,
        amount,
    )


@pytest.fixture(autouse=True)
async def clock(shelf: Shelf) -> None:
    await shelf.database.pool.execute("UPDATE price_clock SET moved_until = now() - interval '1 day', moved_sku = ''")
    await shelf.feed({"id": "a"})
    await shelf.stock(a=1)


async def test_a_reduction_begins_and_ends_at_its_instants(shelf: Shelf) -> None:
    now = await shelf.now()
    begins, ends = now + timedelta(seconds=0.6), now + timedelta(seconds=1.6)
    await set_price(shelf, "80", sku="a", reduced=True, start_time=to_timestamp(begins), end_time=to_timestamp(ends))
    assert await price(shelf) == "100"
    async with ticking(shelf.database, shelf.database):
        assert await until(shelf, "80") >= begins
        assert await until(shelf, "100") >= ends
    moves = await shelf.database.fetch("SELECT product_id, note_time FROM product_changes ORDER BY note_time")
    assert [row["product_id"] for row in moves[-2:]] == ["a", "a"]
    # By when each was written: the bound of the promise, with room for a machine that is busy.
    assert begins <= moves[-2]["note_time"]
    assert ends <= moves[-1]["note_time"]


async def test_what_was_missed_is_made_up_for_in_goes_of_a_bounded_size(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_clock, "AT_ONCE", 3)
    names = [f"s{number}" for number in range(8)]
    await shelf.feed(*({"id": name} for name in names))
    await shelf.stock(**dict.fromkeys(names, 1))
    long_ago = await shelf.now() - timedelta(hours=2)
    for name in names:  # all at one instant: the position within it counts
        await write(shelf, name, 80, long_ago)
    await write(shelf, "a", 70, long_ago, long_ago + timedelta(hours=1))  # begun and over
    assert await tick(shelf) == 4
    assert [await price(shelf, name) for name in (*names, "a")] == ["80"] * 8 + ["100"]
    assert await tick(shelf) == 1


async def test_a_price_that_is_committed_after_it_began_is_not_passed_over(shelf: Shelf) -> None:
    """The writer saw it not yet begun; the clock moves on meanwhile for another one."""
    now = await shelf.now()
    await shelf.feed({"id": "b"})
    await shelf.stock(b=1)
    await write(shelf, "b", 60, now - timedelta(seconds=1))
    begins = now + timedelta(seconds=0.3)
    async with shelf.database.transaction() as writing:
        await editing.set_price(writing, "a", SetPrice(Decimal(80), "EUR", begins, None, True), "", "operator:olga")
        await until_time(shelf, begins)
        moving = asyncio.create_task(tick(shelf))
        await until_somebody_waits(shelf)
        assert not moving.done()
    await moving
    assert (await price(shelf), await price(shelf, "b")) == ("80", "60")


async def test_the_end_of_the_only_price_takes_a_variant_from_sale(shelf: Shelf) -> None:
    now = await shelf.now()
    await set_price(shelf, "100", sku="a", end_time=to_timestamp(now + timedelta(seconds=0.3)))
    assert await price(shelf) == "100"
    async with ticking(shelf.database):
        await until(shelf, "none")
    assert await shelf.listed() == {}
    assert len((await record(shelf)).variants[0].prices) == 1


async def test_one_replica_works_at_a_time(shelf: Shelf) -> None:
    long_ago = await shelf.now() - timedelta(hours=2)
    await write(shelf, "a", 80, long_ago)
    async with shelf.database.transaction() as first:
        assert not await price_clock.move_on(first)
        second = asyncio.create_task(tick(shelf))
        await until_somebody_waits(shelf)
        assert not second.done()
    await second
    notes = "SELECT count(*) FROM product_changes WHERE product_id = 'a' AND note_time > $1"
    assert await price(shelf) == "80"
    assert await shelf.database.pool.fetchval(notes, long_ago) == 3  # the feed, the stock, and one move
