"""What inventory answers without changing anything. A hold past its time counts as free, whatever is written down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from services.chassis.database import Database

# `due`: units written down as held though their time ran out. They are looked for only where anything is held.
LEVELS = """
SELECT NULL::timestamptz, s.sku, s.location, s.on_hand, s.held, s.committed, s.safety, s.received_total,
    s.version, CASE WHEN s.held = 0 THEN 0 ELSE coalesce((
        SELECT sum(l.quantity)::bigint FROM reservation_lines l
        WHERE l.sku = s.sku AND l.location = s.location AND l.held_until <= now()
    ), 0) END AS due
FROM stock s
"""
# One row has the time of all: each level would pay for its own.
READ_TIME = "SELECT now() AS read_time, NULL AS sku, NULL AS location, NULL, NULL, NULL, NULL, NULL, NULL, NULL"


async def levels(database: Database, skus: Sequence[str]) -> tuple[datetime, list[asyncpg.Record]]:
    """The levels of some SKUs, in (sku, location) order, and the time they were so."""
    return await _read(database, LEVELS + "WHERE s.sku = ANY($1) ORDER BY s.sku, s.location", skus)


async def levels_after(
    database: Database, sku: str, location: str, limit: int
) -> tuple[datetime, list[asyncpg.Record]]:
    """The levels after a position, in (sku, location) order, and the time they were so."""
    return await _read(
        database,
        LEVELS + "WHERE (s.sku, s.location) > ($1, $2) ORDER BY s.sku, s.location LIMIT $3",
        sku,
        location,
        limit,
    )


async def _read(database: Database, query: str, *arguments: object) -> tuple[datetime, list[asyncpg.Record]]:
    # One statement, so that the time is that of the snapshot also when there is no level.
    first, *rows = await database.fetch(f"{READ_TIME} UNION ALL ({query})", *arguments)
    return first[0], rows


async def ledger(database: Database, sku: str, before: int | None, limit: int) -> list[asyncpg.Record]:
    """The movements of a SKU before an entry, newest first."""
    return await database.fetch(
        "SELECT * FROM ledger WHERE sku = $1 AND ($2::bigint IS NULL OR entry_id < $2) ORDER BY entry_id DESC LIMIT $3",
        sku,
        before,
        limit,
    )


async def reservation(database: Database, reservation_id: str) -> list[asyncpg.Record]:
    """A reservation with one row a line, its state as of now; no rows when there is none."""
    return await database.fetch(
        "SELECT r.*, l.sku, l.location, l.quantity, CASE WHEN r.state = 'held' AND r.expire_time <= clock_timestamp()"
        " THEN 'expired' ELSE r.state END AS state_now"
        " FROM reservations r JOIN reservation_lines l USING (reservation_id)"
        " WHERE r.reservation_id = $1 ORDER BY l.sku, l.location",
        reservation_id,
    )


async def location_ranks(database: Database, after: str | None, limit: int) -> list[asyncpg.Record]:
    """In which order locations serve each country, by country."""
    return await database.fetch(
        "SELECT * FROM location_ranks WHERE $1::text IS NULL OR country > $1 ORDER BY country LIMIT $2",
        after,
        limit,
    )
