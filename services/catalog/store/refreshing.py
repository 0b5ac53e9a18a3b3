"""Whatever changes what the window shows of products ends here, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from services.catalog.publishes import ListingChanged
from services.catalog.store.searching import describe
from services.chassis.database import Connection, Transaction

# Any number, the same for every process. Taking in a feed excludes hearing of stock: otherwise a variant and the first
# stock of it, each in a transaction that does not see the other, would both be written and never be added up. All that
# changes products one by one shares it, too, so that a feed need not lock products before it knows which it changes.
FEED_LOCK = 5_309_101


async def plan_for_few(connection: Connection) -> None:
    """Has this transaction look for rows one by one: they are few against the tables, whatever is known of those.

    While a feed fills the tables nothing is known, and a plan made for empty ones would read them all, again and again.
    """
    await connection.execute(
        "SELECT set_config(name, 'off', true)"
        " FROM unnest('{enable_seqscan, enable_hashjoin, enable_mergejoin}'::text[]) AS name"
    )


async def lock_feed(connection: Connection) -> None:
    """Nobody else changes anything until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", FEED_LOCK)


async def share_feed(connection: Connection) -> None:
    """No feed is taken in until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", FEED_LOCK)


async def lock_products(connection: Connection, product_ids: Sequence[str]) -> None:
    """Locks these rows in their order."""
    await connection.execute(
        "SELECT FROM products WHERE product_id = ANY($1::text[]) ORDER BY product_id FOR NO KEY UPDATE", product_ids
    )


async def lock_products_of(connection: Connection, skus: Sequence[str]) -> None:
    """Locks the products of these SKUs in their order."""
    await connection.execute(
        "SELECT FROM products WHERE product_id IN (SELECT v.product_id FROM variants v WHERE v.sku = ANY($1::text[]))"
        " ORDER BY product_id FOR NO KEY UPDATE",
        skus,
    )


async def follow_state(connection: Connection, product_ids: Sequence[str]) -> None:
    """Marks the variants of these locked products with whether it is published."""
    await connection.execute(
        "UPDATE variants v SET published = p.state = 'PUBLISHED' FROM products p WHERE p.product_id = v.product_id"
        " AND p.product_id = ANY($1::text[]) AND v.published <> (p.state = 'PUBLISHED')",
        product_ids,
    )


async def refresh(tx: Transaction, product_ids: Sequence[str]) -> list[ListingChanged]:
    """Brings the window up to what is kept of these products; their rows are locked by the caller.

    Called once at the end of everything that changes records, texts or prices, or by a feed. (What only moves stock has
    the same done by `move_stock`, in the database.) Set-based: hundreds of products cost a few statements. Has the
    change told everywhere. Returns what came into the window and what left it.
    """
    if not product_ids:
        return []
    await describe(tx.connection, product_ids)
    return refreshed(tx, await tx.connection.fetch("SELECT * FROM refresh_products($1, $1)", product_ids))


def refreshed(tx: Transaction, rows: Sequence[asyncpg.Record]) -> list[ListingChanged]:
    """Has told which products changed, as `refresh_products` returned them. Returns what came and what left."""
    tx.tell([row["product_id"] for row in rows])
    found = [
        ListingChanged(row["product_id"], row["version"], row["listed"], row["change_time"])
        for row in rows
        if row["version"] is not None
    ]
    return sorted(found, key=lambda listing: listing.product_id)
