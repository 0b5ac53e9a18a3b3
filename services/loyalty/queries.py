"""What loyalty answers without changing anything."""

from __future__ import annotations

import asyncpg

from services.chassis.database import Database
from services.loyalty.domain.policy import UpgradePolicy
from services.loyalty.domain.standing import TIER_RULE, Standing
from services.loyalty.store import policy_of


async def standing(database: Database, customer_id: str) -> Standing:
    """Where a customer stands now, by the rule of now. Somebody unknown has no points."""
    rows = await database.fetch(
        "SELECT coalesce(s.points, 0) AS points, coalesce(s.version, 0) AS version, ("
        " SELECT coalesce(sum(points), 0)::bigint FROM points_ledger"
        " WHERE customer_id = $1 AND earn_time > now() - $2::interval) AS qualifying_points"
        " FROM (SELECT 1) one LEFT JOIN standings s ON s.customer_id = $1",
        customer_id,
        TIER_RULE.span,
    )
    row = rows[0]
    tier = TIER_RULE.tier(row["qualifying_points"])
    return Standing(customer_id, row["points"], row["qualifying_points"], tier, TIER_RULE.version, row["version"])


async def points(database: Database, customer_id: str, before: int | None, limit: int) -> list[asyncpg.Record]:
    """The ledger of a customer before an entry, newest first."""
    return await database.fetch(
        "SELECT * FROM points_ledger WHERE customer_id = $1 AND ($2::bigint IS NULL OR entry_id < $2)"
        " ORDER BY entry_id DESC LIMIT $3",
        customer_id,
        before,
        limit,
    )


async def policy_in_force(database: Database) -> UpgradePolicy | None:
    """The policy for an order placed now."""
    rows = await database.fetch(
        "SELECT * FROM upgrade_policies WHERE active_from <= now() ORDER BY active_from DESC LIMIT 1"
    )
    return policy_of(rows[0]) if rows else None


async def decision(database: Database, order_id: str) -> asyncpg.Record | None:
    """The decision on an order; None while there is none."""
    rows = await database.fetch("SELECT * FROM upgrades WHERE order_id = $1 AND state IS NOT NULL", order_id)
    return rows[0] if rows else None
