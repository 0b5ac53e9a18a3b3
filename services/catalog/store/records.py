"""Records changed by hand, and the history of it; inside a transaction, under the lock of the product."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

import asyncpg

from services.catalog.domain.editing import Picture, SetPrice, Texts
from services.catalog.store.prices import share_prices
from services.catalog.store.refreshing import share_feed
from services.chassis.database import Connection

CURRENT = """
SELECT product_id, state, brand, category, media, revision FROM products WHERE product_id = $1 FOR NO KEY UPDATE
"""
LOWEST = "(SELECT min(sku) FROM variants WHERE product_id = $1)"
SAY = """
INSERT INTO product_texts AS known (product_id, locale, title, description)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])
ON CONFLICT (product_id, locale) DO UPDATE SET title = excluded.title, description = excluded.description
WHERE (known.title, known.description) IS DISTINCT FROM (excluded.title, excluded.description)
"""
# A product reads as its variant with the lowest SKU, so that one is called the same; the others are where they have no
# texts of their own in a language.
SAY_OF_VARIANTS = f"""
INSERT INTO variant_texts AS known (sku, locale, title, description)
SELECT v.sku, told.* FROM variants v, unnest($2::text[], $3::text[], $4::text[]) AS told WHERE v.product_id = $1
ON CONFLICT (sku, locale) DO UPDATE SET title = excluded.title, description = excluded.description
WHERE known.sku = {LOWEST}
"""
SILENCE = """
WITH unsaid AS (DELETE FROM product_texts WHERE product_id = $1 AND locale <> ALL($2::text[]))
DELETE FROM variant_texts t USING variants v
WHERE v.product_id = $1 AND t.sku = v.sku AND t.locale <> ALL($2::text[])
"""
RENAME_VARIANT = """
INSERT INTO variant_texts (sku, locale, title, description) VALUES ($1, $2, $3, '')
ON CONFLICT (sku, locale) DO UPDATE SET title = excluded.title
"""
# Of the price itself when that is replaced: it is not there any more then.
REGULAR_AT = """
SELECT p.amount FROM prices p, greatest($3::timestamptz, now()) AS instant
WHERE p.sku = $1 AND p.currency = $2 AND NOT p.reduced AND p.start_time <= instant AND p.end_time > instant
ORDER BY p.start_time DESC LIMIT 1
"""
SET_PRICE = """
INSERT INTO prices AS known (sku, currency, reduced, start_time, end_time, amount)
VALUES ($1, $2, $3, coalesce($4::timestamptz, '-infinity'), coalesce($5::timestamptz, 'infinity'), $6)
ON CONFLICT (sku, currency, reduced, start_time) DO UPDATE
SET end_time = excluded.end_time, amount = excluded.amount, fed = false
RETURNING coalesce(price_note(old.amount, old.start_time, old.end_time), '') AS before,
    price_note(new.amount, new.start_time, new.end_time) AS after
"""
NOTE = """
INSERT INTO product_history (product_id, sku, field, before, after, actor)
SELECT $1, $2, change.*, $6 FROM unnest($3::text[], $4::text[], $5::text[]) AS change
"""


async def lock(connection: Connection, product_id: str) -> asyncpg.Record | None:
    """The product as it is, locked until the end; None when there is none."""
    await share_feed(connection)
    return await connection.fetchrow(CURRENT, product_id)


async def lock_of_sku(connection: Connection, sku: str) -> asyncpg.Record | None:
    """The product of a variant, locked until the end; None when there is no such SKU."""
    # No feed is taken in meanwhile, so the variant stays where it is.
    await share_feed(connection)
    return await connection.fetchrow(
        CURRENT.replace("product_id = $1", "product_id = (SELECT product_id FROM variants WHERE sku = $1)"), sku
    )


async def texts(connection: Connection, product_id: str) -> list[Texts]:
    """What a product is called, by language."""
    rows = await connection.fetch(
        "SELECT locale, title, description FROM product_texts WHERE product_id = $1 ORDER BY locale", product_id
    )
    return [Texts(row["locale"], row["title"], row["description"]) for row in rows]


async def say(connection: Connection, product_id: str, told: Sequence[Texts]) -> None:
    """These texts and no others."""
    columns = [
        [one.locale for one in told],
        [one.title for one in told],
        [one.description for one in told],
    ]
    await connection.execute(SAY, product_id, *columns)
    await connection.execute(SAY_OF_VARIANTS, product_id, *columns)
    await connection.execute(SILENCE, product_id, columns[0])


async def set_state(connection: Connection, product_id: str, state: str) -> None:
    """The state alone; the window follows by the refresh."""
    await connection.execute("UPDATE products SET state = $2 WHERE product_id = $1", product_id, state)


async def free_units(connection: Connection, product_id: str) -> dict[str, int]:
    """The free units of each variant that has some."""
    rows = await connection.fetch("SELECT sku, free FROM variants WHERE product_id = $1 AND free > 0", product_id)
    return {row["sku"]: row["free"] for row in rows}


async def set_brand(connection: Connection, product_id: str, brand: str) -> None:
    """Of the product and all its variants."""
    await connection.execute("UPDATE products SET brand = $2 WHERE product_id = $1", product_id, brand)
    await connection.execute("UPDATE variants SET brand = $2 WHERE product_id = $1", product_id, brand)


async def set_category(connection: Connection, product_id: str, category: str) -> None:
    """Of the product and all its variants."""
    await connection.execute("UPDATE products SET category = $2 WHERE product_id = $1", product_id, category)
    await connection.execute("UPDATE variants SET category = $2 WHERE product_id = $1", product_id, category)


async def set_pictures(connection: Connection, product_id: str, pictures: Sequence[Picture]) -> None:
    """These pictures and no others."""
    media = [{"uri": one.uri, "alternative_text": one.alternative_text} for one in pictures]
    await connection.execute("UPDATE products SET media = $2 WHERE product_id = $1", product_id, json.dumps(media))
    await connection.execute(
        f"UPDATE variants SET additional_image_link = $2 WHERE sku = {LOWEST}",
        product_id,
        ",".join(one.uri for one in pictures),
    )


async def variant(connection: Connection, sku: str, locale: str) -> dict[str, str]:
    """The fields of a variant that can be changed, with its title in a language."""
    [row] = await connection.fetch(
        "SELECT v.color, v.size, v.size_system, v.width, v.material, v.gender, v.age_group, v.gtin, v.image_link,"
        " coalesce(t.title, '') AS title"
        " FROM variants v LEFT JOIN variant_texts t ON t.sku = v.sku AND t.locale = $2 WHERE v.sku = $1",
        sku,
        locale,
    )
    return dict(row)


async def rename(connection: Connection, sku: str, locale: str, title: str) -> None:
    """The title of a variant in a language."""
    await connection.execute(RENAME_VARIANT, sku, locale, title)


async def change_variant(connection: Connection, sku: str, values: Mapping[str, str]) -> None:
    """Sets columns of a variant. Their names are ours, never a caller's."""
    sets = ", ".join(f"{name} = ${number}" for number, name in enumerate(values, start=2))
    await connection.execute(f"UPDATE variants SET {sets} WHERE sku = $1", sku, *values.values())


async def regular_at(connection: Connection, sku: str, price: SetPrice) -> Decimal | None:
    """What the variant costs without a reduction when a price begins, or now if that is later."""
    amount: Decimal | None = await connection.fetchval(REGULAR_AT, sku, price.currency, price.start_time)
    return amount


async def set_price(connection: Connection, sku: str, price: SetPrice) -> tuple[str, str]:
    """Writes a price and what holds now. Returns how it reads before (empty: there was none) and after."""
    await share_prices(connection)
    [row] = await connection.fetch(
        SET_PRICE, sku, price.currency, price.reduced, price.start_time, price.end_time, price.amount
    )
    await connection.execute("SELECT settle_prices($1)", [sku])
    return row["before"], row["after"]


async def note(
    connection: Connection, product_id: str, sku: str, fields: Sequence[tuple[str, str, str]], actor: str
) -> None:
    """Keeps who changed what, and counts the change."""
    columns = [[field[place] for field in fields] for place in range(3)]
    await connection.execute(NOTE, product_id, sku, *columns, actor)
    await connection.execute(
        "UPDATE products SET revision = revision + 1, update_time = now() WHERE product_id = $1", product_id
    )
