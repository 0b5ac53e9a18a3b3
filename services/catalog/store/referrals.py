"""Elsewhere: other shops that have what we do not have."""

from __future__ import annotations

from datetime import datetime

import asyncpg

from services.chassis.database import Connection, Database

ADD = """
INSERT INTO referrals AS known (referral_id, brand, product_id, shop_name, uri, note, agent_id)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (product_id, lower(brand), lower(shop_name)) DO UPDATE SET brand = excluded.brand,
    shop_name = excluded.shop_name, uri = excluded.uri, note = excluded.note, agent_id = excluded.agent_id,
    create_time = excluded.create_time
RETURNING known.*
"""
# Those of the product first, then those of the brand, the newest first.
PAGE = """
SELECT * FROM (
    SELECT 0 AS rank, r.* FROM referrals r WHERE $1 <> '' AND r.product_id = $1 AND r.brand = ''
    UNION ALL
    SELECT 1 AS rank, r.* FROM referrals r WHERE $2 <> '' AND r.product_id = '' AND lower(r.brand) = lower($2)
) r
WHERE $3::bigint IS NULL OR r.rank > $3
    OR (r.rank = $3 AND (r.create_time, r.referral_id) < ($4::timestamptz, $5::text))
ORDER BY r.rank, r.create_time DESC, r.referral_id DESC LIMIT $6
"""
# As they are shown: each shop once.
SHOWN = 10
ELSEWHERE = f"""
SELECT * FROM (
    SELECT DISTINCT ON (lower(r.shop_name)) r.product_id = '' AS of_brand, r.* FROM referrals r
    WHERE (r.product_id = $1 AND r.brand = '') OR (r.product_id = '' AND lower(r.brand) = lower($2) AND $2 <> '')
    ORDER BY lower(r.shop_name), of_brand, r.create_time DESC
) r
ORDER BY r.of_brand, r.create_time DESC, r.referral_id LIMIT {SHOWN}
"""


async def add(
    connection: Connection,
    referral_id: str,
    brand: str,
    product_id: str,
    shop_name: str,
    uri: str,
    note: str,
    agent_id: str,
) -> asyncpg.Record:
    """Another shop has a brand or a product. The same shop for the same thing is replaced and keeps its id."""
    row = await connection.fetchrow(ADD, referral_id, brand, product_id, shop_name, uri, note, agent_id)
    assert row is not None  # noqa: S101
    return row


async def remove(connection: Connection, referral_id: str) -> None:
    """Takes one back, if it is there."""
    await connection.execute("DELETE FROM referrals WHERE referral_id = $1", referral_id)


async def brand_of(database: Database, product_id: str) -> str | None:
    """The brand of a product, in whatever state; None when there is no such product."""
    rows = await database.fetch("SELECT brand FROM products WHERE product_id = $1", product_id)
    return rows[0]["brand"] if rows else None


async def page(
    database: Database, product_id: str, brand: str, after: tuple[int, datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """Those of a product, then those of a brand; either may be empty."""
    return await database.fetch(PAGE, product_id, brand, *(after or (None, None, None)), limit)


async def elsewhere(database: Database, product_id: str, brand: str) -> list[asyncpg.Record]:
    """Where else somebody may look for a product that we do not have: each shop once, for the product first."""
    return await database.fetch(ELSEWHERE, product_id, brand)
