"""Records as they are kept, in every state, and the feed of what can be shipped now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from services.catalog.queries import SELLABLE, Audience

# Of a pool, or of a connection within a transaction.
Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]

VARIANTS = """
SELECT v.*, coalesce(t.title, '') AS title FROM variants v LEFT JOIN LATERAL (
    SELECT t.title FROM variant_texts t WHERE t.sku = v.sku ORDER BY t.locale <> $2, t.locale LIMIT 1
) t ON true WHERE v.product_id = ANY($1::text[]) ORDER BY v.product_id, v.size_order, v.color, v.sku
"""
PRICES = """
SELECT p.sku, p.currency, p.reduced, p.amount, nullif(p.start_time, '-infinity') AS start_time,
    nullif(p.end_time, 'infinity') AS end_time
FROM prices p JOIN variants v USING (sku) WHERE v.product_id = ANY($1::text[])
ORDER BY p.sku, p.currency, p.reduced, p.start_time
"""
# The price that a feed would change, and of reductions the one a feed brought, then the one that holds, then the next.
EXPORT = f"""
SELECT v.sku, v.product_id, v.brand, v.category, v.color, v.size, v.size_system, v.width, v.material, v.gender,
    v.age_group, v.gtin, v.image_link, v.additional_image_link, said.title, said.description,
    regular.amount, c.currency,
    sale.amount AS sale_amount, sale.start_time AS sale_start, sale.end_time AS sale_end
FROM variants v JOIN current_prices c ON c.sku = v.sku AND c.currency = $1
LEFT JOIN LATERAL (
    SELECT t.title, t.description FROM variant_texts t WHERE t.sku = v.sku
    ORDER BY array_position($2::text[], t.locale::text), t.locale LIMIT 1
) said ON true
JOIN LATERAL (
    SELECT p.amount FROM prices p WHERE p.sku = v.sku AND p.currency = c.currency AND NOT p.reduced
        AND p.start_time <= now() AND p.end_time > now() ORDER BY p.start_time DESC LIMIT 1
) regular ON true
LEFT JOIN LATERAL (
    SELECT p.amount, nullif(p.start_time, '-infinity') AS start_time, nullif(p.end_time, 'infinity') AS end_time
    FROM prices p WHERE p.sku = v.sku AND p.currency = c.currency AND p.reduced AND p.end_time > now()
    ORDER BY NOT p.fed, p.start_time > now(), CASE WHEN p.start_time > now() THEN p.start_time END, p.start_time DESC
    LIMIT 1
) sale ON sale.amount < regular.amount
WHERE {SELLABLE} AND v.sku > $3 ORDER BY v.sku LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class Record:
    """A product with all that belongs to it."""

    product: asyncpg.Record
    texts: Sequence[asyncpg.Record]
    variants: Sequence[asyncpg.Record]
    # By SKU.
    prices: dict[str, list[asyncpg.Record]]


async def read(fetch: Fetch, product_ids: Sequence[str], shop_locale: str) -> list[Record]:
    """Products by their ids; those that are not there are left out."""
    products = await fetch("SELECT * FROM products WHERE product_id = ANY($1::text[]) ORDER BY product_id", product_ids)
    texts = _grouped(
        await fetch(
            "SELECT * FROM product_texts WHERE product_id = ANY($1::text[]) ORDER BY product_id, locale", product_ids
        ),
        "product_id",
    )
    variants = _grouped(await fetch(VARIANTS, product_ids, shop_locale), "product_id")
    prices = _grouped(await fetch(PRICES, product_ids), "sku")
    return [Record(one, texts[one["product_id"]], variants[one["product_id"]], prices) for one in products]


async def ids(fetch: Fetch, state: str, after: str, limit: int) -> list[str]:
    """Ids of products after one, in a state or in any."""
    rows = await fetch(
        f"SELECT product_id FROM products WHERE product_id > $1 {'AND state = $3' if state else ''}"
        " ORDER BY product_id LIMIT $2",
        *([after, limit, state] if state else [after, limit]),
    )
    return [row["product_id"] for row in rows]


async def changes(fetch: Fetch, product_id: str, before: int, limit: int) -> list[asyncpg.Record]:
    """The history of a product before a change, newest first."""
    return await fetch(
        "SELECT * FROM product_history WHERE product_id = $1 AND change_id < $2 ORDER BY change_id DESC LIMIT $3",
        product_id,
        before,
        limit,
    )


async def feed_rows(fetch: Fetch, audience: Audience, after_sku: str, limit: int) -> list[asyncpg.Record]:
    """Variants that can be shipped now, as a feed has them."""
    return await fetch(EXPORT, audience.currency, audience.locales, after_sku, limit)


def _grouped(rows: Iterable[asyncpg.Record], name: str) -> dict[Any, list[asyncpg.Record]]:
    found: dict[Any, list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        found[row[name]].append(row)
    return found
