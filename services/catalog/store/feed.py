"""Rows of a feed written with their products, texts and prices; inside a transaction.

Rows travel as one text a column. What would change is found first, without a lock; only that is written, and every
field that changes leaves a row in the history. A SKU or a product that is new leaves one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from services.catalog.domain.feed import FeedVariant
from services.catalog.publishes import ListingChanged
from services.catalog.store.columns import column, split
from services.catalog.store.prices import share_prices
from services.catalog.store.refreshing import follow_state, lock_feed, lock_products, refresh, share_feed
from services.chassis.database import Connection, Transaction

# Columns of variants as a feed brings them, and what the history calls those that it names.
COLUMNS = (
    "product_id",
    "brand",
    "category",
    "color",
    "size",
    "size_order",
    "size_system",
    "width",
    "material",
    "gender",
    "age_group",
    "gtin",
    "image_link",
    "additional_image_link",
)
NAMED = {name: "product_type" if name == "category" else name for name in COLUMNS if name != "size_order"}


def _list(pattern: str, names: Sequence[str] = COLUMNS) -> str:
    return ", ".join(pattern.format(name) for name in names)


_VARIANTS = f"unnest({', '.join(map(split, range(1, len(COLUMNS) + 2)))}) AS told(sku, {_list('{0}')})"
_TEXTS = f"unnest({split(1)}, {split(2)}, {split(3)}) AS told(sku, title, description)"
_PRICES = f"""
unnest({split(1)}, {split(2)}, {split(3, "numeric")}, {split(4, "numeric")}, {split(5, "timestamptz")},
    {split(6, "timestamptz")}) AS told(sku, currency, amount, sale_amount, sale_start, sale_end)
"""
_KEY = "p.sku = told.sku AND p.currency = told.currency"
# The price without a reduction that holds now: that is what a feed's price is about.
_HOLDING = f"""
SELECT p.start_time, p.amount FROM prices p
WHERE {_KEY} AND NOT p.reduced AND p.start_time <= now() AND p.end_time > now() ORDER BY p.start_time DESC LIMIT 1
"""
_SALE_START, _SALE_END = "coalesce(told.sale_start, '-infinity')", "coalesce(told.sale_end, 'infinity')"
# A reduction that a feed brought and that this feed does not bring any more. What is over stays.
_TAKEN_BACK = f"""
{_KEY} AND p.reduced AND p.fed AND p.end_time > now()
    AND (told.sale_amount IS NULL OR p.start_time <> {_SALE_START})
"""

VARIANT_NEWS = f"""
SELECT told.sku FROM {_VARIANTS} LEFT JOIN variants AS known ON known.sku = told.sku
WHERE known.sku IS NULL OR ({_list("known.{0}")}) IS DISTINCT FROM ({_list("told.{0}")})
"""
# Row by row: while a feed fills the tables, the planner takes them for so small that it would read all of a language.
TEXT_NEWS = f"""
SELECT told.sku FROM {_TEXTS} LEFT JOIN LATERAL (
    SELECT t.title, t.description FROM variant_texts t WHERE t.sku = told.sku AND t.locale = $4 OFFSET 0
) AS known ON true
WHERE (known.title, known.description) IS DISTINCT FROM (told.title, told.description)
"""
PRICE_NEWS = f"""
SELECT told.sku FROM {_PRICES}
WHERE (SELECT amount FROM ({_HOLDING}) AS holding) IS DISTINCT FROM told.amount
    OR EXISTS (SELECT FROM prices p WHERE {_TAKEN_BACK})
    OR told.sale_amount IS NOT NULL AND NOT EXISTS (
        SELECT FROM prices p WHERE {_KEY} AND p.reduced AND p.start_time = {_SALE_START}
            AND p.end_time = {_SALE_END} AND p.amount = told.sale_amount
    )
"""
UNKNOWN = (
    "SELECT sku FROM unnest($1::text[]) AS told(sku) WHERE NOT EXISTS (SELECT FROM variants v WHERE v.sku = told.sku)"
)

ADD_PRODUCTS = """
WITH added AS (
    INSERT INTO products (product_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING product_id
)
INSERT INTO product_history (product_id, field, before, after, actor)
SELECT product_id, 'product_id', '', product_id, $2 FROM added
RETURNING product_id
"""
WRITE_VARIANTS = f"""
WITH written AS (
    INSERT INTO variants AS known (sku, {_list("{0}")}, free)
    SELECT told.*, (SELECT coalesce(sum(s.free), 0) FROM stock_copy s WHERE s.sku = told.sku) FROM {_VARIANTS}
    ON CONFLICT (sku) DO UPDATE SET {_list("{0} = excluded.{0}")}
    WHERE ({_list("known.{0}")}) IS DISTINCT FROM ({_list("excluded.{0}")})
    RETURNING new.sku, old.sku IS NULL AS is_new, {_list("old.{0} AS old_{0}, new.{0}")}
), noted AS (
    INSERT INTO product_history (product_id, sku, field, before, after, actor)
    SELECT product_id, sku, 'sku', '', sku, ${len(COLUMNS) + 2}::text FROM written WHERE is_new
    UNION ALL
    SELECT product_id, sku, field, before, after, ${len(COLUMNS) + 2}::text FROM written CROSS JOIN LATERAL (
        VALUES {", ".join(f"('{field}', old_{name}, {name})" for name, field in NAMED.items())}
    ) AS change (field, before, after) WHERE NOT is_new AND before <> after
)
SELECT sku, is_new, product_id, old_product_id FROM written
"""
WRITE_TEXTS = f"""
WITH written AS (
    INSERT INTO variant_texts AS known (sku, locale, title, description)
    SELECT sku, $4, title, description FROM {_TEXTS}
    ON CONFLICT (sku, locale) DO UPDATE SET title = excluded.title, description = excluded.description
    WHERE (known.title, known.description) IS DISTINCT FROM (excluded.title, excluded.description)
    RETURNING new.sku, old.title AS old_title, new.title, old.description AS old_description, new.description
)
INSERT INTO product_history (product_id, sku, field, before, after, actor)
SELECT v.product_id, v.sku, 'texts.' || $4 || '.' || field, before, after, $5
FROM written JOIN variants v ON v.sku = written.sku AND v.sku <> ALL($6::text[]) CROSS JOIN LATERAL (
    VALUES ('title', coalesce(old_title, ''), title), ('description', old_description, description)
) AS change (field, before, after) WHERE before <> after
"""
WRITE_PRICES = f"""
WITH told AS (SELECT * FROM {_PRICES}), regular AS (
    INSERT INTO prices AS known (sku, currency, start_time, amount, fed)
    SELECT told.sku, told.currency, coalesce(holding.start_time, '-infinity'), told.amount, true
    FROM told LEFT JOIN LATERAL ({_HOLDING}) AS holding ON true WHERE holding.amount IS DISTINCT FROM told.amount
    ON CONFLICT (sku, currency, reduced, start_time) DO UPDATE SET amount = excluded.amount, fed = true,
        end_time = CASE WHEN known.end_time <= now() THEN 'infinity' ELSE known.end_time END
    RETURNING new.sku, new.currency, price_note(old.amount, old.start_time, old.end_time) AS before,
        price_note(new.amount, new.start_time, new.end_time) AS after
), taken_back AS (
    DELETE FROM prices p USING told WHERE {_TAKEN_BACK}
    RETURNING p.sku, p.currency, price_note(p.amount, p.start_time, p.end_time) AS before, '' AS after
), reduction AS (
    INSERT INTO prices AS known (sku, currency, reduced, start_time, end_time, amount, fed)
    SELECT sku, currency, true, {_SALE_START}, {_SALE_END}, sale_amount, true FROM told WHERE sale_amount IS NOT NULL
    ON CONFLICT (sku, currency, reduced, start_time) DO UPDATE
    SET amount = excluded.amount, end_time = excluded.end_time, fed = true
    WHERE (known.amount, known.end_time) IS DISTINCT FROM (excluded.amount, excluded.end_time)
    RETURNING new.sku, new.currency, price_note(old.amount, old.start_time, old.end_time) AS before,
        price_note(new.amount, new.start_time, new.end_time) AS after
)
INSERT INTO product_history (product_id, sku, field, before, after, actor)
SELECT v.product_id, v.sku, change.field, coalesce(before, ''), after, $7 FROM (
    SELECT sku, 'prices.' || currency AS field, before, after FROM regular
    UNION ALL SELECT sku, 'prices.' || currency || '.reduced', before, after FROM taken_back
    UNION ALL SELECT sku, 'prices.' || currency || '.reduced', before, after FROM reduction
) AS change JOIN variants v ON v.sku = change.sku AND v.sku <> ALL($8::text[])
"""
# A product reads as its variant with the lowest SKU, so that it does not depend on the order in which rows come.
DESCRIBE = """
WITH described AS (
    UPDATE products p SET brand = first.brand, category = first.category, media = first.media,
        revision = p.revision + 1, update_time = now()
    FROM (
        SELECT p.product_id, coalesce(v.brand, p.brand) AS brand, coalesce(v.category, p.category) AS category,
            CASE WHEN v.sku IS NULL OR v.additional_image_link = '' AND p.media = '[]' THEN p.media
            ELSE pictures(v.additional_image_link, p.media) END AS media
        FROM products p LEFT JOIN LATERAL (
            SELECT * FROM variants v WHERE v.product_id = p.product_id ORDER BY v.sku LIMIT 1
        ) v ON true WHERE p.product_id = ANY($1::text[])
    ) AS first WHERE p.product_id = first.product_id
    RETURNING p.product_id, old.brand AS old_brand, new.brand, old.category AS old_category, new.category,
        old.media AS old_media, new.media
)
INSERT INTO product_history (product_id, field, before, after, actor)
SELECT product_id, field, before, after, $2 FROM described CROSS JOIN LATERAL (
    VALUES ('brand', old_brand, brand), ('product_type', old_category, category),
        ('media', old_media::text, media::text)
) AS change (field, before, after) WHERE before <> after AND product_id <> ALL($3::text[])
"""
# Without a language, in all that there are.
DESCRIBE_IN_WORDS = """
WITH written AS (
    INSERT INTO product_texts AS known (product_id, locale, title, description)
    SELECT DISTINCT ON (v.product_id, t.locale) v.product_id, t.locale, t.title, t.description
    FROM (SELECT sku, product_id FROM variants WHERE product_id = ANY($1::text[]) OFFSET 0) AS v CROSS JOIN LATERAL (
        SELECT * FROM variant_texts WHERE sku = v.sku AND locale = coalesce($2, locale) OFFSET 0
    ) AS t ORDER BY v.product_id, t.locale, v.sku
    ON CONFLICT (product_id, locale) DO UPDATE SET title = excluded.title, description = excluded.description
    WHERE (known.title, known.description) IS DISTINCT FROM (excluded.title, excluded.description)
    RETURNING new.product_id, new.locale,
        old.title AS old_title, new.title, old.description AS old_description, new.description
)
INSERT INTO product_history (product_id, field, before, after, actor)
SELECT product_id, 'texts.' || locale || '.' || field, before, after, $3 FROM written CROSS JOIN LATERAL (
    VALUES ('title', coalesce(old_title, ''), title), ('description', old_description, description)
) AS change (field, before, after) WHERE before <> after AND product_id <> ALL($4::text[])
"""


@dataclass(frozen=True, slots=True)
class News:
    """The rows that bring something, by what is new or other."""

    variants: Sequence[FeedVariant]
    texts: Sequence[FeedVariant]
    prices: Sequence[FeedVariant]

    @property
    def skus(self) -> set[str]:
        return {row.sku for rows in (self.variants, self.texts, self.prices) for row in rows}


async def news(connection: Connection, rows: Sequence[FeedVariant], locale: str, *, translation: bool) -> News:
    """What would change. Of a translation, only texts and prices."""
    priced = [row for row in rows if row.price]
    variants = [] if translation else await _skus(connection, VARIANT_NEWS, *_variant_columns(rows))
    texts = await _skus(connection, TEXT_NEWS, *_text_columns(rows), locale)
    prices = await _skus(connection, PRICE_NEWS, *_price_columns(priced))
    return News(
        [row for row in rows if row.sku in variants],
        [row for row in rows if row.sku in texts],
        [row for row in priced if row.sku in prices],
    )


async def unknown(connection: Connection, skus: Sequence[str]) -> set[str]:
    """Those SKUs that no feed has brought."""
    return await _skus(connection, UNKNOWN, skus)


async def take_in(tx: Transaction, found: News, locale: str, actor: str) -> list[ListingChanged]:
    """Writes what is new or other, with its products. Returns what became of those."""
    connection = tx.connection
    if found.variants:
        await lock_feed(connection)
    else:  # nobody comes or moves, so stock may be heard meanwhile
        await share_feed(connection)
        await share_prices(connection)
        await lock_products(connection, sorted(await _products_of(connection, found.skus)))
    new_products: list[str] = []
    new_skus: list[str] = []
    moved_skus: list[str] = []
    left: set[str] = set()
    if found.variants:
        wanted = sorted({row.product_id for row in found.variants})
        new_products = [row["product_id"] for row in await connection.fetch(ADD_PRODUCTS, wanted, actor)]
        written = await connection.fetch(WRITE_VARIANTS, *_variant_columns(found.variants), actor)
        new_skus = [row["sku"] for row in written if row["is_new"]]
        # A variant that moved to another product leaves one behind that may have nothing else to sell.
        left = {row["old_product_id"] for row in written if not row["is_new"]}
        moved_skus = [row["sku"] for row in written if row["is_new"] or row["product_id"] != row["old_product_id"]]
    if found.texts:
        await connection.execute(WRITE_TEXTS, *_text_columns(found.texts), locale, actor, new_skus)
    if found.prices:
        await connection.execute(WRITE_PRICES, *_price_columns(found.prices), actor, new_skus)
        await connection.execute("SELECT settle_prices($1)", [row.sku for row in found.prices])
    products = sorted(left | await _products_of(connection, found.skus))
    await lock_products(connection, products)
    await connection.execute(DESCRIBE, products, actor, new_products)
    if found.texts or moved_skus:
        everywhere = len(moved_skus) > len(new_skus)
        await connection.execute(DESCRIBE_IN_WORDS, products, None if everywhere else locale, actor, new_products)
    await follow_state(connection, products)
    return await refresh(tx, products)


async def _products_of(connection: Connection, skus: set[str]) -> set[str]:
    rows = await connection.fetch("SELECT DISTINCT product_id FROM variants WHERE sku = ANY($1::text[])", list(skus))
    return {row["product_id"] for row in rows}


async def _skus(connection: Connection, query: str, *arguments: object) -> set[str]:
    return {row["sku"] for row in await connection.fetch(query, *arguments)}


def _variant_columns(rows: Sequence[FeedVariant]) -> list[str]:
    return [column(map(attrgetter(name), rows)) for name in ("sku", *COLUMNS)]


def _text_columns(rows: Sequence[FeedVariant]) -> list[str]:
    return [column(map(attrgetter(name), rows)) for name in ("sku", "title", "description")]


def _price_columns(rows: Sequence[FeedVariant]) -> list[str]:
    prices = [(row.sku, row.price) for row in rows if row.price]
    return [
        column(sku for sku, _ in prices),
        column(price.currency for _, price in prices),
        column(str(price.amount) for _, price in prices),
        column(str(price.sale_amount or "") for _, price in prices),
        column(price.sale_start.isoformat() if price.sale_start else "" for _, price in prices),
        column(price.sale_end.isoformat() if price.sale_end else "" for _, price in prices),
    ]
