"""What catalog answers without changing anything.

`SELLABLE` is the one place that says what may be shown: every answer of the storefront reads variants through it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from services.catalog.domain.alternatives import Article
from services.chassis.database import Database

# In stock, and of a published product. A product is `listed` while one of its variants is.
SELLABLE = "v.sellable"
# For sale in the currency that was asked for ($1 of every query that reads a shelf).
_PRICED = "current_prices c ON c.sku = v.sku AND c.currency = $1"
# Texts in the first of the languages ($2) that has some.
_IN_WORDS = """
LEFT JOIN LATERAL (
    SELECT t.title FROM variant_texts t WHERE t.sku = v.sku
    ORDER BY array_position($2::text[], t.locale::text), t.locale LIMIT 1
) said ON true
"""
_PRODUCT_IN_WORDS = """
LEFT JOIN LATERAL (
    SELECT t.locale, t.title, t.description FROM product_texts t WHERE t.product_id = p.product_id
    ORDER BY array_position($2::text[], t.locale::text), t.locale LIMIT 1
) told ON true
"""
_VARIANT = """
v.sku, v.product_id, said.title, v.brand, v.category, c.amount AS price, c.regular_amount AS regular_price,
    $1::text AS currency, v.color, v.size, v.size_system, v.width, v.material, v.gender, v.age_group, v.gtin,
    v.image_link, v.free
"""
# The variants of some products, in the order of their sizes. The first row of a product has its texts and pictures.
_SHELF = f"""
SELECT {_VARIANT},
    row_number() OVER shelf AS nth, told.title AS product_title, told.locale AS product_locale,
    p.brand AS product_brand, p.category AS product_category, p.state AS product_state, p.create_time,
    CASE WHEN row_number() OVER shelf = 1 THEN told.description END AS product_description,
    CASE WHEN row_number() OVER shelf = 1 THEN p.media END AS media
"""
# Variants looked at for each way in which one may be like another.
LOOKED_AT = 500
_IN_ORDER = "WINDOW shelf AS (PARTITION BY p.product_id ORDER BY v.size_order, v.color, v.sku)"


@dataclass(frozen=True, slots=True)
class Audience:
    """For whom an answer is: in which languages, best first, and the currency of its prices."""

    locales: tuple[str, ...]
    currency: str


async def shelf(database: Database, audience: Audience, product_ids: Sequence[str]) -> list[asyncpg.Record]:
    """The sellable variants of some products, in the order in which the products are given, by size."""
    return await database.fetch(
        "WITH p AS MATERIALIZED (SELECT p.*, asked.place FROM unnest($3::text[]) WITH ORDINALITY"
        " AS asked(product_id, place) JOIN products p ON p.product_id = asked.product_id)"
        # Product by product: the planner, which cannot know how few they are, would read all variants of the shop.
        f" {_SHELF} FROM p CROSS JOIN LATERAL ("
        f"SELECT v.* FROM variants v WHERE v.product_id = p.product_id AND {SELLABLE} OFFSET 0) v"
        f" JOIN {_PRICED} {_IN_WORDS} {_PRODUCT_IN_WORDS} {_IN_ORDER} ORDER BY p.place, nth",
        audience.currency,
        audience.locales,
        product_ids,
    )


async def named(database: Database, article: str) -> list[str]:
    """Products in the window with this id, or a variant of this SKU or GTIN."""
    rows = await database.fetch(
        f"SELECT v.product_id FROM variants v WHERE {SELLABLE} AND v.sku = $1"
        f" UNION SELECT v.product_id FROM variants v WHERE {SELLABLE} AND v.product_id = $1"
        f" UNION SELECT v.product_id FROM variants v WHERE {SELLABLE} AND v.gtin = $1 AND v.gtin <> ''"
        " ORDER BY product_id LIMIT 100",
        article,
    )
    return [row["product_id"] for row in rows]


async def products(database: Database, audience: Audience, product_ids: Sequence[str]) -> list[asyncpg.Record]:
    """The sellable variants of some products, by product id and size."""
    return await database.fetch(
        f"{_SHELF} FROM products p JOIN variants v ON v.product_id = p.product_id AND {SELLABLE}"
        f" JOIN {_PRICED} {_IN_WORDS} {_PRODUCT_IN_WORDS}"
        f" WHERE p.product_id = ANY($3::text[]) {_IN_ORDER} ORDER BY p.product_id, nth",
        audience.currency,
        audience.locales,
        product_ids,
    )


async def whole(database: Database, audience: Audience, product_ids: Sequence[str]) -> list[asyncpg.Record]:
    """All variants of some products by product id and size, each with whether it is for sale at all (`offered`) and
    whether it may be shown (`shown`); no rows of a draft."""
    return await database.fetch(
        f"{_SHELF}, v.published AND c.sku IS NOT NULL AS offered,"
        f" {SELLABLE} AND c.sku IS NOT NULL AS shown"
        f" FROM products p JOIN variants v USING (product_id) LEFT JOIN {_PRICED} {_IN_WORDS} {_PRODUCT_IN_WORDS}"
        f" WHERE p.product_id = ANY($3::text[]) AND p.state <> 'DRAFT' {_IN_ORDER} ORDER BY p.product_id, nth",
        audience.currency,
        audience.locales,
        product_ids,
    )


async def variants(database: Database, audience: Audience, skus: Sequence[str]) -> list[asyncpg.Record]:
    """Variants of published products by SKU, in stock or not; without a price where not sold in the currency."""
    return await _variants(database, audience, skus, "v.published")


async def sought(database: Database, audience: Audience, sku: str) -> list[asyncpg.Record]:
    """The variant somebody was looking for, also of a discontinued product; no row when there is none."""
    state = "(SELECT p.state FROM products p WHERE p.product_id = v.product_id)"
    return await _variants(database, audience, [sku], f"{state} <> 'DRAFT'")


async def _variants(database: Database, audience: Audience, skus: Sequence[str], of: str) -> list[asyncpg.Record]:
    return await database.fetch(
        f"SELECT {_VARIANT} FROM variants v LEFT JOIN {_PRICED} {_IN_WORDS}"
        f" WHERE v.sku = ANY($3::text[]) AND {of} ORDER BY v.sku",
        audience.currency,
        audience.locales,
        skus,
    )


async def near(database: Database, wanted: Article, limit: int) -> list[str]:
    """Products with a sellable variant of the same category, gender and size: those of the brand, and others; each time
    the nearest prices."""
    alike = f"{SELLABLE} AND v.category = $4 AND v.gender = $5 AND v.size = $6"
    same = (wanted.category, wanted.gender, wanted.size)
    found = await _nearest(database, wanted, f"{alike} AND v.brand = $7", "v.sku", limit, *same, wanted.brand)
    return found + await _nearest(database, wanted, alike, "v.brand, v.sku", limit, *same)


async def around(database: Database, wanted: Article, limit: int) -> list[str]:
    """Products with a sellable variant of the same category, and of the same size anywhere below the one above it."""
    above = "".join(step + " > " for step in wanted.category.split(" > ")[:-2])
    beside = f"{SELLABLE} AND v.size = $4 AND v.category >= $5 AND v.category < $6"
    found = await _nearest(database, wanted, f"{SELLABLE} AND v.category = $4", "v.sku", limit, wanted.category)
    if not wanted.size:
        return found
    order = "v.category, v.gender, v.brand, v.sku"
    return found + await _nearest(database, wanted, beside, order, limit, wanted.size, above, _end(above))


async def only_size(database: Database, product_id: str) -> str:
    """The size of a product that comes in one only, else nothing."""
    rows = await database.fetch("SELECT DISTINCT size FROM variants WHERE product_id = $1 LIMIT 2", product_id)
    return rows[0]["size"] if len(rows) == 1 else ""


async def freshness(database: Database) -> tuple[datetime | None, timedelta | None]:
    """Up to when all of inventory's changes were heard, and how long ago that is, both by our own clock.

    A watermark is a time of inventory's clock, and two clocks never agree. So it is moved by how far that clock was
    ahead when it was last measured; and whatever that clock says, what was heard is no younger than the moment at
    which it was heard. Without the first, a clock behind ours would make the copy look stale for ever; without the
    second, one that jumps ahead would hide that nothing is heard any more. None when not even the partitions are known,
    and while the copy is being rebuilt.
    """
    rows = await database.fetch(
        "SELECT min(told.oldest) AS oldest, clock_timestamp() - min(told.oldest) AS age FROM ("
        " SELECT least(heard_time, as_of - coalesce((SELECT ahead FROM inventory_clock), '0')) AS oldest"
        " FROM watermarks WHERE NOT EXISTS (SELECT FROM rebuilding)) told"
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


async def changed_since(database: Database, snapshot: str | None) -> tuple[str, datetime, list[str]]:
    """The snapshot now with its time, and which products changed by what was committed since another; None: none."""
    rows = await database.fetch(
        "SELECT pg_current_snapshot()::text AS snapshot, now() AS time, array("
        " SELECT DISTINCT product_id FROM product_changes"
        " WHERE change_xid >= pg_snapshot_xmin($1::text::pg_snapshot)"
        " AND NOT pg_visible_in_snapshot(change_xid, $1::text::pg_snapshot)) AS product_ids",
        snapshot,
    )
    return rows[0]["snapshot"], rows[0]["time"], rows[0]["product_ids"]


async def changed_of(
    database: Database, product_ids: Collection[str], xid: int | None
) -> tuple[int, datetime, list[str]]:
    """The first transaction that is not decided, the time now, and which of the products a transaction from `xid` on
    has changed; None: none."""
    rows = await database.fetch(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xid, now() AS time, array("
        " SELECT DISTINCT product_id FROM product_changes"
        " WHERE change_xid >= $1::text::xid8 AND product_id = ANY($2::text[])) AS product_ids",
        None if xid is None else str(xid),
        list(product_ids),
    )
    return int(rows[0]["xid"]), rows[0]["time"], rows[0]["product_ids"]


async def _nearest(database: Database, wanted: Article, alike: str, order: str, limit: int, *values: str) -> list[str]:
    """Those with the nearest prices among the first many that are alike, in an order that an index has. Before prices
    are looked at: what half a shop is like, or hardly anything has a price of, costs no more than anything else."""
    rows = await database.fetch(
        f"SELECT product_id FROM (SELECT v.product_id, v.sku FROM variants v"
        f" WHERE {alike} AND v.product_id <> $2 ORDER BY {order} LIMIT {LOOKED_AT}) v"
        # One by one: the planner, which cannot know how few they are, would read all prices of the shop.
        f" CROSS JOIN LATERAL (SELECT amount FROM current_prices WHERE sku = v.sku AND currency = $1 OFFSET 0) c"
        f" ORDER BY abs(c.amount - $3), v.sku LIMIT {limit}",
        wanted.currency,
        wanted.product_id,
        wanted.price,
        *values,
    )
    return [row["product_id"] for row in rows]


def _end(prefix: str) -> str:
    """The first text, byte by byte, after all that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"
