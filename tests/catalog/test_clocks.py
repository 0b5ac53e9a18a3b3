"""Two databases have two clocks: how old the copy is does not hang on what inventory's says."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from services.catalog import freshness
from services.chassis.values import to_timestamp
from shop.inventory.events.v1.facts_pb2 import StockWatermark
from tests.catalog.conftest import PARTITIONS, Shelf

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def always_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "READING_SECONDS", 0.0)


async def compare(shelf: Shelf, ahead: timedelta) -> None:
    shelf.inventory.clock_ahead = ahead
    await shelf.app.reconciliation.compare(settle=False)


async def hear_watermarks(shelf: Shelf, ahead: timedelta) -> None:
    """All partitions are heard up to now, by a clock that is ahead by this."""
    as_of = to_timestamp(await shelf.now() + ahead)
    for partition in PARTITIONS:
        await shelf.hear(StockWatermark(as_of=as_of), partition=partition)


async def minutes_pass(shelf: Shelf) -> None:
    """Nothing was heard for five minutes."""
    await shelf.database.pool.execute(
        "UPDATE watermarks SET as_of = as_of - interval '5 minutes', heard_time = heard_time - interval '5 minutes'"
    )


async def test_a_clock_behind_ours_makes_nothing_stale(shelf: Shelf) -> None:
    await shelf.database.pool.execute("DELETE FROM watermarks")
    await hear_watermarks(shelf, -HOUR)
    await compare(shelf, -HOUR)
    assert await shelf.app._freshness.stale_since() is None
    await minutes_pass(shelf)
    stale_since = await shelf.app._freshness.stale_since()
    assert stale_since is not None
    # By our clock, in the words of which customers are told.
    assert timedelta(0) < await shelf.now() - stale_since < HOUR


async def test_a_clock_ahead_of_ours_hides_nothing(shelf: Shelf) -> None:
    await hear_watermarks(shelf, HOUR)
    assert await shelf.app._freshness.stale_since() is None
    await minutes_pass(shelf)
    assert await shelf.app._freshness.stale_since() is not None


async def test_what_is_heard_late_is_old_by_any_clock(shelf: Shelf) -> None:
    await compare(shelf, HOUR)
    await shelf.database.pool.execute("DELETE FROM watermarks")
    await hear_watermarks(shelf, HOUR - timedelta(minutes=5))
    assert await shelf.app._freshness.stale_since() is not None


async def test_a_clock_that_went_back_does_not_stop_the_watermarks(shelf: Shelf) -> None:
    await hear_watermarks(shelf, HOUR)
    await compare(shelf, timedelta(0))
    await minutes_pass(shelf)
    assert await shelf.app._freshness.stale_since() is not None
    await hear_watermarks(shelf, timedelta(0))
    assert await shelf.app._freshness.stale_since() is None


@pytest.mark.parametrize(("ahead", "warned"), [(timedelta(0), 0), (HOUR, 1), (-HOUR, 1)])
async def test_clocks_that_disagree_are_told(
    shelf: Shelf, caplog: pytest.LogCaptureFixture, ahead: timedelta, warned: int
) -> None:
    await compare(shelf, ahead)
    told = [record for record in caplog.records if record.message == "inventory's clock and ours disagree"]
    assert [record.levelno for record in told] == [logging.WARNING] * warned
    assert round(shelf.app.reconciliation.clock_ahead_seconds / 60) == ahead.total_seconds() / 60
