"""What inventory answers without changing anything. A hold past its time counts as free, whatever is written down."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from services.chassis.database import Database

# Units on a row that are written down as held though their time ran out.
LEVELS = """
SELECT s.sku, s.location, s.on_hand, s.held - coalesce(due.quantity, 0) AS held, s.committed, s.received_total,
    s.version, greatest(0, s.on_hand - s.held - s.committed + coalesce(due.quantity, 0)) AS free,
    clock_timestamp() AS read_time
FROM stock s LEFT JOIN LATERAL (
    SELECT sum(l.quantity)::bigint AS quantity FROM reservation_lines l
    WHERE l.sku = s.sku AND l.location = s.location AND l.held_until <= clock_timestamp()
) due ON true
"""


async def levels(database: Database, skus: Sequence[str]) -> list[asyncpg.Record]:
    """The levels of some SKUs, in (sku, location) order."""
    return await database.fetch(LEVELS + "WHERE s.sku = ANY($1) ORDER BY s.sku, s.location", skus)


async def levels_after(database: Database, sku: str, location: str, limit: int) -> list[asyncpg.Record]:
    """The levels after a position, in (sku, location) order."""
    return await database.fetch(
        LEVELS + "WHERE (s.sku, s.location) > ($1, $2) ORDER BY s.sku, s.location LIMIT $3", sku, location, limit
    )


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
