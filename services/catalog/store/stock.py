"""The copy of inventory's stock, and how far all of it was heard; inside a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from services.catalog.publishes import ListingChanged
from services.catalog.store.refreshing import FEED_LOCK, refreshed, share_feed
from services.chassis.database import Connection, Transaction

HEAR = f"SELECT * FROM hear_stock({FEED_LOCK}, $1, $2, $3, $4, $5, $6, $7)"
# A row that was heard before the question was asked is as old as the answer at most, so the answer replaces it whatever
# the versions say (higher ones come from before inventory was restored from a backup); a row heard since is replaced
# only by something newer. A hold that ran out and that inventory has not written down yet makes more units free at the
# same version ("lapsed"): that is the truth already and the fact that follows has a higher version, so it is taken too.
# A version that moved without changing `free` (a hold became an order) is not worth a write; one that is ahead of
# inventory's is, since it would hide the facts to come.
HEAL = """
INSERT INTO stock_copy AS known (sku, location, version, free, received_total, heard_time)
SELECT told.*, clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
    AS told(sku, location, version, free, received_total)
ORDER BY sku COLLATE "C", location COLLATE "C"
ON CONFLICT (sku, location) DO UPDATE SET version = excluded.version, free = excluded.free,
    received_total = excluded.received_total, heard_time = excluded.heard_time
WHERE (known.free <> excluded.free OR known.version > excluded.version)
    AND (known.heard_time < $6 OR excluded.version > known.version)
RETURNING new.sku, CASE
    WHEN old.sku IS NULL THEN CASE WHEN new.free > 0 THEN 'missing' END
    WHEN old.version < new.version THEN 'stale'
    WHEN old.version > new.version THEN 'ahead'
    WHEN old.free < new.free THEN 'lapsed'
    ELSE 'wrong' END AS kind
"""
# Locks what it deletes in the order in which the others lock, so that none waits for another in a circle.
DROP = """
WITH extra AS (
    SELECT sku, location, free FROM stock_copy c
    WHERE sku = ANY($3::text[]) AND heard_time < $4 AND NOT EXISTS (
        SELECT FROM unnest($1::text[], $2::text[]) AS told(sku, location)
        WHERE told.sku = c.sku AND told.location = c.location
    )
    ORDER BY sku, location FOR UPDATE
)
DELETE FROM stock_copy c USING extra WHERE c.sku = extra.sku AND c.location = extra.location
RETURNING c.sku, CASE WHEN c.free > 0 THEN 'extra' END AS kind
"""
DIFFER = """
SELECT EXISTS (
    SELECT FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS told(sku, location, version, free, received_total)
    LEFT JOIN stock_copy c USING (sku, location)
    WHERE coalesce(c.free, 0) <> told.free OR c.version > told.version
)
"""


@dataclass(frozen=True, slots=True)
class Level:
    """Free units of a SKU at a location, as of a version of inventory's."""

    sku: str
    location: str
    version: int
    free: int
    # Units that ever physically came in.
    received_total: int = 0


async def hear(
    tx: Transaction, levels: Iterable[Level], watermarks: Mapping[int, datetime]
) -> tuple[list[ListingChanged], dict[str, int]]:
    """Keeps what is newer than what is known, each place once, and up to when each partition was heard.

    Returns what became of products, and of each SKU that somebody waits for how many units physically came in.
    """
    partitions = sorted(watermarks)
    rows = await tx.connection.fetch(
        HEAR, *_columns(levels), partitions, [watermarks[partition] for partition in partitions]
    )
    arrived = {row["sku"]: row["units"] for row in rows if row["sku"] is not None}
    return refreshed(tx, [row for row in rows if row["sku"] is None]), arrived


async def count_received(
    connection: Connection, received: Mapping[tuple[str, str], int], asked: datetime
) -> dict[str, int]:
    """Takes in how many units ever came in at each (SKU, location), as inventory said when it was asked at this time of
    our clock. Returns how many of each SKU came in since they were last counted."""
    places = sorted(received)
    rows = await connection.fetch(
        "SELECT * FROM count_received($1, $2, $3, $4)",
        [sku for sku, _ in places],
        [place for _, place in places],
        [received[place] for place in places],
        asked,
    )
    return {row["sku"]: row["units"] for row in rows}


async def expect_partitions(connection: Connection, count: int) -> None:
    """Counts partitions that nothing was heard of as never heard, instead of not at all."""
    await connection.execute(
        "INSERT INTO watermarks (partition_number, as_of, heard_time)"
        " SELECT n, 'epoch', 'epoch' FROM generate_series(0, $1::bigint - 1) AS n"
        " ON CONFLICT DO NOTHING",
        count,
    )


async def reach_all(connection: Connection, as_of: datetime, asked: datetime) -> None:
    """The whole copy was compared with inventory as it was then; `asked` is the time of our clock before that.

    What was heard before we asked is from before the answer, so a watermark that is ahead of it is from a clock that
    went back since, and would not move again until that clock has caught up.
    """
    await connection.execute(
        "UPDATE watermarks SET as_of = $1, heard_time = $2 WHERE as_of < $1 OR heard_time < $2", as_of, asked
    )


async def measure_clock(connection: Connection, ahead: timedelta) -> None:
    """Keeps how far inventory's clock is ahead of ours."""
    await connection.execute(
        "INSERT INTO inventory_clock (ahead) VALUES ($1) ON CONFLICT (only_row) DO UPDATE SET ahead = excluded.ahead",
        ahead,
    )


async def differs(connection: Connection, levels: Sequence[Level]) -> bool:
    """Whether the copy has another number of free units of any of these."""
    differs: bool = await connection.fetchval(DIFFER, *_columns(levels))
    return differs


async def heal(
    tx: Transaction, levels: Sequence[Level], asked: datetime
) -> tuple[list[str], list[ListingChanged], dict[str, int]]:
    """Makes the copy of these places what inventory said when it was asked at that time of our clock.

    Returns the kinds of what was wrong, what became of products, and how many units of each SKU came in.
    """
    await share_feed(tx.connection)
    rows = await tx.connection.fetch(HEAL, *_columns(levels), asked)
    totals = {(level.sku, level.location): level.received_total for level in levels}
    arrived = await count_received(tx.connection, totals, asked)
    return *await _healed(tx, rows, arrived), arrived


async def drop(
    tx: Transaction, levels: Sequence[Level], skus: Sequence[str], asked: datetime
) -> tuple[list[str], list[ListingChanged]]:
    """Takes out places of some SKUs that were not among all there were when inventory was asked. Returns what was
    wrong, and what became of products."""
    await share_feed(tx.connection)
    skus_told, locations_told, *_ = _columns(levels)
    return await _healed(tx, await tx.connection.fetch(DROP, skus_told, locations_told, skus, asked))


async def _healed(
    tx: Transaction, rows: Sequence[asyncpg.Record], arrived: Iterable[str] = ()
) -> tuple[list[str], list[ListingChanged]]:
    # What came in is locked with the others, in one order.
    skus = sorted({row["sku"] for row in rows}.union(arrived))
    listings = await _moved(tx, skus)
    return [row["kind"] for row in rows if row["kind"]], listings


async def _moved(tx: Transaction, skus: Sequence[str]) -> list[ListingChanged]:
    """Some SKUs have other stock: adds it up, and brings the window up to it."""
    return refreshed(tx, await tx.connection.fetch("SELECT * FROM move_stock($1)", skus)) if skus else []


def _columns(levels: Iterable[Level]) -> tuple[list[str], list[str], list[int], list[int], list[int]]:
    levels = tuple(levels)
    return (
        [level.sku for level in levels],
        [level.location for level in levels],
        [level.version for level in levels],
        [level.free for level in levels],
        [level.received_total for level in levels],
    )
