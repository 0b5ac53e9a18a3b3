"""What catalog answers without changing anything.

`SELLABLE` is the one place that says what may be shown: every answer of the storefront reads variants through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from services.catalog.domain.alternatives import Article
from services.chassis.database import Database

# In stock and for sale. A product is `listed` while one of its variants is.
SELLABLE = "v.sellable"

# The variants of some products, in the order of their sizes. The first row of a product has its texts.
_SHELF = """
SELECT v.sku, v.product_id, v.title, v.brand, v.category, v.price, v.currency, v.color, v.size, v.size_system,
    v.gender, v.age_group, v.gtin, v.image_link, v.free,
    row_number() OVER shelf AS nth, p.title AS product_title, p.brand AS product_brand,
    p.category AS product_category, CASE WHEN row_number() OVER shelf = 1 THEN p.description END AS product_description
"""
_IN_ORDER = "WINDOW shelf AS (PARTITION BY p.product_id ORDER BY v.size_order, v.color, v.sku)"


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; an empty text narrows nothing. One variant must have size, colour and gender."""

    brand: str = ""
    category: str = ""
    size: str = ""
    color: str = ""
    gender: str = ""


async def page(database: Database, filters: Filters, after: str, limit: int) -> list[asyncpg.Record]:
    """The sellable variants of the products of a page, by product id and size; `matches` says which fit the filters."""
    arguments: list[object] = [after, limit]

    def argument(value: object) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    products = ["p.listed", "p.product_id > $1"]
    if filters.brand:
        products.append(f"p.brand = {argument(filters.brand)}")
    if filters.category:
        products.append(
            f"p.category >= {argument(filters.category)} AND p.category < {argument(_end(filters.category))}"
        )
    wanted = [
        f"v.{name} = {argument(value)}"
        for name, value in (("size", filters.size), ("color", filters.color), ("gender", filters.gender))
        if value
    ]
    matches = " AND ".join(wanted) or "true"
    if wanted:
        products.append(
            f"EXISTS (SELECT FROM variants v WHERE v.product_id = p.product_id AND {SELLABLE} AND {matches})"
        )
    return await database.fetch(
        f"WITH p AS MATERIALIZED ("
        f"SELECT * FROM products p WHERE {' AND '.join(products)} ORDER BY p.product_id LIMIT $2"
        # Product by product: the planner, which cannot know how few they are, would read all variants of the shop.
        f") {_SHELF}, {matches} AS matches FROM p CROSS JOIN LATERAL ("
        f"SELECT v.* FROM variants v WHERE v.product_id = p.product_id AND {SELLABLE} OFFSET 0) v"
        f" {_IN_ORDER} ORDER BY p.product_id, nth",
        *arguments,
    )


async def products(database: Database, product_ids: Sequence[str]) -> list[asyncpg.Record]:
    """The sellable variants of some products, by product id and size."""
    return await database.fetch(
        f"{_SHELF}, true AS matches FROM products p JOIN variants v ON v.product_id = p.product_id AND {SELLABLE}"
        f" WHERE p.product_id = ANY($1::text[]) {_IN_ORDER} ORDER BY p.product_id, nth",
        product_ids,
    )


async def product(database: Database, product_id: str) -> list[asyncpg.Record]:
    """All variants of a product by size, each with whether it may be shown (`shown`); no rows when there is none."""
    return await database.fetch(
        f"{_SHELF}, true AS matches, {SELLABLE} AS shown FROM products p JOIN variants v USING (product_id)"
        f" WHERE p.product_id = $1 {_IN_ORDER} ORDER BY nth",
        product_id,
    )


async def variants(database: Database, skus: Sequence[str]) -> list[asyncpg.Record]:
    """Variants by SKU, in stock or not."""
    return await database.fetch("SELECT v.* FROM variants v WHERE v.sku = ANY($1::text[]) ORDER BY v.sku", skus)


async def near(database: Database, wanted: Article, limit: int) -> list[str]:
    """Products with a sellable variant of the same category, gender and size, and the nearest prices both ways."""
    alike = f"{SELLABLE} AND v.category = $2 AND v.gender = $3 AND v.size = $4 AND v.currency = $5"
    return await _both_ways(database, alike, wanted, limit, wanted.category, wanted.gender, wanted.size)


async def around(database: Database, wanted: Article, limit: int) -> list[str]:
    """Products with a sellable variant of the same category, and of the same size anywhere below the one above it."""
    above = "".join(step + " > " for step in wanted.category.split(" > ")[:-2])
    # Of a size that half a shop has, the first so many by category are looked at: the cost has a bound.
    beside = (
        f"(SELECT product_id FROM (SELECT v.* FROM variants v WHERE {SELLABLE} AND v.product_id <> $1 AND v.size = $7"
        " AND v.category >= $5 AND v.category < $6 AND v.currency = $3"
        f" ORDER BY v.category, v.gender, v.price, v.sku LIMIT {limit * 20}) v"
        f" ORDER BY v.gender <> $8, abs(v.price - $4), v.sku LIMIT {limit})"
    )
    alike = f"{SELLABLE} AND v.category = $2 AND v.currency = $3"
    return await _ids(
        database,
        f"{_way('>=', alike, '$4', limit)} UNION {_way('<', alike, '$4', limit)} UNION {beside}",
        wanted.product_id,
        wanted.category,
        wanted.currency,
        wanted.price,
        above,
        _end(above),
        wanted.size,
        wanted.gender,
    )


async def freshness(database: Database) -> tuple[datetime | None, timedelta | None]:
    """Up to when all of inventory's changes were heard, and how long ago that is, both by our own clock.

    A watermark is a time of inventory's clock, and two clocks never agree. So it is moved by how far that clock was
    ahead when it was last measured; and whatever that clock says, what was heard is no younger than the moment at
    which it was heard. Without the first, a clock behind ours would make the copy look stale for ever; without the
    second, one that jumps ahead would hide that nothing is heard any more. None when not even the partitions are known.
    """
    rows = await database.fetch(
        "SELECT min(told.oldest) AS oldest, clock_timestamp() - min(told.oldest) AS age FROM ("
        " SELECT least(heard_time, as_of - coalesce((SELECT ahead FROM inventory_clock), '0')) AS oldest"
        " FROM watermarks) told"
    )
    return rows[0]["oldest"], rows[0]["age"]


async def oldest_watermark(database: Database) -> datetime | None:
    """Up to when all of inventory's changes were heard, by inventory's clock."""
    as_of: datetime | None = (await database.fetch("SELECT min(as_of) AS as_of FROM watermarks"))[0]["as_of"]
    return as_of


async def now(database: Database) -> datetime:
    """The database's clock."""
    instant: datetime = (await database.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
    return instant


async def copied_places(database: Database) -> int:
    """How many places the copy of stock has."""
    count: int = (await database.fetch("SELECT count(*) AS places FROM stock_copy"))[0]["places"]
    return count


async def copied_skus(database: Database, after: str, limit: int) -> list[str]:
    """SKUs of the copy of stock after one, in their order."""
    rows = await database.fetch(
        "SELECT DISTINCT sku FROM stock_copy WHERE sku > $1 ORDER BY sku LIMIT $2", after, limit
    )
    return [row["sku"] for row in rows]


async def changed_since(database: Database, position: str | None) -> tuple[str, list[str]]:
    """Which products changed by what was committed since a position, and the position now. None: since now."""
    rows = await database.fetch(
        "SELECT pg_current_snapshot()::text AS position, array("
        " SELECT DISTINCT product_id FROM product_changes"
        " WHERE change_xid >= pg_snapshot_xmin($1::text::pg_snapshot)"
        " AND NOT pg_visible_in_snapshot(change_xid, $1::text::pg_snapshot)) AS product_ids",
        position,
    )
    return rows[0]["position"], rows[0]["product_ids"]


async def _both_ways(database: Database, alike: str, wanted: Article, limit: int, *values: str) -> list[str]:
    return await _ids(
        database,
        f"{_way('>=', alike, '$6', limit)} UNION {_way('<', alike, '$6', limit)}",
        wanted.product_id,
        *values,
        wanted.currency,
        wanted.price,
    )


def _way(comparison: str, alike: str, price: str, limit: int) -> str:
    direction = "DESC" if comparison == "<" else "ASC"
    return (
        f"(SELECT v.product_id FROM variants v WHERE {alike} AND v.product_id <> $1 AND v.price {comparison} {price}"
        f" ORDER BY v.price {direction}, v.sku {direction} LIMIT {limit})"
    )


async def _ids(database: Database, query: str, *arguments: object) -> list[str]:
    return [row["product_id"] for row in await database.fetch(query, *arguments)]


def _end(prefix: str) -> str:
    """The first text, byte by byte, after all that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"
