"""Prices moved on by the clock; inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.chassis.database import Connection

# Any number, the same for every process. Who writes a price shares it until the commit; who moves prices on by the
# clock has it alone, so that no price begins unseen between being written and being committed. A feed excludes both.
PRICE_LOCK = 5_309_102

# What moves after the position, in the order of instants, and of SKUs within one. Both parts are read from an index.
DUE = """
SELECT instant, sku FROM (
    (
        SELECT start_time AS instant, sku FROM prices
        WHERE (start_time, sku) > ($1, $2) AND start_time <= clock_timestamp() AND start_time > '-infinity'
        ORDER BY start_time, sku LIMIT $3
    )
    UNION
    (
        SELECT end_time, sku FROM prices
        WHERE (end_time, sku) > ($1, $2) AND end_time <= clock_timestamp() AND end_time < 'infinity'
        ORDER BY end_time, sku LIMIT $3
    )
) AS moves ORDER BY instant, sku LIMIT $3
"""


async def share_prices(connection: Connection) -> None:
    """No price is moved on by the clock until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", PRICE_LOCK)


async def lock_prices(connection: Connection) -> None:
    """Nobody else writes a price or moves any on until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", PRICE_LOCK)


async def due(connection: Connection, limit: int) -> list[tuple[datetime, str]]:
    """The next moves that are due by the database's clock, oldest first."""
    [clock] = await connection.fetch("SELECT moved_until, moved_sku FROM price_clock")
    rows = await connection.fetch(DUE, clock["moved_until"], clock["moved_sku"], limit)
    return [(row["instant"], row["sku"]) for row in rows]


async def settle(connection: Connection, skus: Sequence[str]) -> list[str]:
    """Brings what these cost now up to the clock. Returns the products of those that changed, locked and in order."""
    rows = await connection.fetch("SELECT settle_prices($1) AS sku", skus)
    products = await connection.fetch(
        "SELECT p.product_id FROM products p WHERE p.product_id IN (SELECT v.product_id FROM variants v"
        " WHERE v.sku = ANY($1::text[])) ORDER BY p.product_id FOR NO KEY UPDATE",
        [row["sku"] for row in rows],
    )
    return [row["product_id"] for row in products]


async def move_clock(connection: Connection, instant: datetime, sku: str) -> None:
    """All that moves up to this instant, and at it up to this SKU, was moved on."""
    await connection.execute("UPDATE price_clock SET moved_until = $1, moved_sku = $2", instant, sku)
