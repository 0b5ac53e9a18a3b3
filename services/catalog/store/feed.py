"""Rows of a feed written with their products, texts and prices; inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from services.catalog.domain.feed import FeedVariant
from services.catalog.publishes import ListingChanged
from services.catalog.store.refreshing import lock_feed, lock_products, refresh
from services.chassis.database import Connection, Transaction

FED = {
    "product_id": "text",
    "title": "text",
    "description": "text",
    "brand": "text",
    "category": "text",
    "price": "numeric",
    "currency": "text",
    "color": "text",
    "size": "text",
    "size_order": "text",
    "size_system": "text",
    "gender": "text",
    "age_group": "text",
    "gtin": "text",
    "image_link": "text",
}
_FEED = f"json_to_recordset($1::json) AS fed(sku text, {', '.join(f'{name} {kind}' for name, kind in FED.items())})"
_COLUMNS = ", ".join(FED)
_DIFFERS = f"({', '.join(f'known.{name}' for name in FED)}) IS DISTINCT FROM ({{0}})"

# What is new or other than it was fed before.
NEWS = f"""
SELECT fed.sku FROM {_FEED} LEFT JOIN variants AS known ON known.sku = fed.sku
WHERE known.sku IS NULL OR {_DIFFERS.format(", ".join(f"fed.{name}" for name in FED))}
"""
ADD_PRODUCTS = "INSERT INTO products (product_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
TAKE_IN = f"""
INSERT INTO variants AS known (sku, {_COLUMNS}) SELECT sku, {_COLUMNS} FROM {_FEED}
ON CONFLICT (sku) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in FED)}
WHERE {_DIFFERS.format(", ".join(f"excluded.{name}" for name in FED))}
RETURNING sku, product_id, old.product_id AS product_before
"""
DESCRIBE = """
UPDATE products p SET title = first.title, description = first.description, brand = first.brand,
    category = first.category
FROM (
    SELECT DISTINCT ON (product_id) product_id, title, description, brand, category
    FROM variants WHERE product_id = ANY($1::text[]) ORDER BY product_id, sku
) AS first
WHERE p.product_id = first.product_id AND (p.title, p.description, p.brand, p.category)
    IS DISTINCT FROM (first.title, first.description, first.brand, first.category)
"""
SAY = """
INSERT INTO variant_texts AS known (sku, locale, title, description)
SELECT sku, $2, title, description FROM variants WHERE sku = ANY($1::text[])
ON CONFLICT (sku, locale) DO UPDATE SET title = excluded.title, description = excluded.description
WHERE (known.title, known.description) IS DISTINCT FROM (excluded.title, excluded.description)
"""
SAY_OF_PRODUCTS = """
INSERT INTO product_texts AS known (product_id, locale, title, description)
SELECT product_id, $2, title, description FROM products WHERE product_id = ANY($1::text[])
ON CONFLICT (product_id, locale) DO UPDATE SET title = excluded.title, description = excluded.description
WHERE (known.title, known.description) IS DISTINCT FROM (excluded.title, excluded.description)
"""
FOLLOW_STATE = """
UPDATE variants v SET published = p.state = 'PUBLISHED' FROM products p
WHERE p.product_id = v.product_id AND p.product_id = ANY($1::text[]) AND v.published <> (p.state = 'PUBLISHED')
"""
COST = """
INSERT INTO prices AS known (sku, currency, amount, fed)
SELECT sku, currency, price, true FROM variants WHERE sku = ANY($1::text[])
ON CONFLICT (sku, currency, reduced, start_time) DO UPDATE SET amount = excluded.amount
WHERE known.amount <> excluded.amount
"""


async def has_news(connection: Connection, variants: Sequence[FeedVariant]) -> bool:
    """Whether any of these rows would change anything."""
    return bool(await connection.fetch(NEWS + "LIMIT 1", _json(variants)))


async def take_in(tx: Transaction, variants: Sequence[FeedVariant], locale: str) -> tuple[int, list[ListingChanged]]:
    """Writes rows of a feed with their products. Returns how many were new or other, and what became of products."""
    connection = tx.connection
    await lock_feed(connection)
    await connection.execute(ADD_PRODUCTS, sorted({variant.product_id for variant in variants}))
    changed = await connection.fetch(TAKE_IN, _json(variants))
    skus = [row["sku"] for row in changed]
    # A variant that moved to another product leaves one behind that may have nothing else to sell.
    products = sorted({row["product_id"] for row in changed} | {row["product_before"] for row in changed} - {None})
    await connection.execute(SAY, skus, locale)
    await connection.execute(COST, skus)
    await connection.execute("SELECT settle_prices($1)", skus)
    await lock_products(connection, products)
    await connection.execute(DESCRIBE, products)
    await connection.execute(SAY_OF_PRODUCTS, products, locale)
    await connection.execute(FOLLOW_STATE, products)
    await connection.fetchval("SELECT add_up_stock($1)", skus)
    return len(changed), await refresh(tx, products)


def _json(variants: Sequence[FeedVariant]) -> str:
    return json.dumps([asdict(variant) for variant in variants], default=str)
