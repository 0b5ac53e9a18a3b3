"""The mark that the copy of stock is being rebuilt, and what begins it."""

from __future__ import annotations

from services.chassis.database import Connection, Database

ROWS = 10_000
FORGET = """
UPDATE stock_copy c SET version = 0 FROM (
    SELECT sku, location FROM stock_copy WHERE version > 0 AND heard_time < (SELECT begin_time FROM rebuilding)
    ORDER BY sku, location LIMIT $1 FOR UPDATE
) AS old WHERE c.sku = old.sku AND c.location = old.location RETURNING 1
"""


async def begin(connection: Connection) -> None:
    """Marks the copy; again where a rebuild was stopped in the middle."""
    await connection.execute(
        "INSERT INTO rebuilding (begin_time) VALUES (clock_timestamp())"
        " ON CONFLICT (only_row) DO UPDATE SET begin_time = excluded.begin_time"
    )


async def forget_versions(database: Database) -> bool:
    """Makes places that were heard of before the mark as old as can be, some at a time. False when none is left."""
    return bool(await database.fetch(FORGET, ROWS))


async def end(connection: Connection) -> None:
    """The copy can be trusted again."""
    await connection.execute("DELETE FROM rebuilding")
