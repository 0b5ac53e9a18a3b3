"""Loyalty's tables, inside a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import asyncpg

from services.chassis.database import Connection
from services.loyalty.domain.money import Money
from services.loyalty.domain.policy import UpgradePolicy
from services.loyalty.domain.standing import TIER_RULE, Entry, Standing, Tier
from services.loyalty.domain.upgrades import (
    Basis,
    Budget,
    Budgets,
    Decision,
    Movement,
    Outcome,
    PlacedOrder,
    State,
    Upgrade,
    day_of,
    month_of,
)

LATEST_POLICY = "SELECT * FROM upgrade_policies ORDER BY version DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Place:
    """Which budgets a decided order counts in."""

    order_time: datetime | None
    currency: str | None


async def lock_ahead(connection: Connection, orders: Mapping[str, str], customers: Iterable[str]) -> None:
    """Locks orders, then customers, each in the order of their ids. `orders` says whose each is."""
    await connection.execute(
        "SELECT lock_ahead($1, $2, $3, $4)",
        list(orders),
        list(orders.values()),
        list(customers),
        TIER_RULE.version,
    )


async def lock_standing(connection: Connection, customer_id: str) -> tuple[Standing, datetime]:
    """Locks where a customer stands, and tells the time at which that was so."""
    row = await connection.fetchrow(
        "SELECT * FROM lock_standing($1, NULL, $2, $3)", customer_id, TIER_RULE.span, TIER_RULE.version
    )
    assert row is not None  # noqa: S101 the function writes the row it reads
    return _standing(row), row["lock_time"]


async def lock_due(connection: Connection, limit: int) -> tuple[list[Standing], datetime]:
    """Locks standings to be reviewed, and tells the time; those that somebody else has locked are left to them."""
    due = await connection.fetch(
        "SELECT customer_id FROM standings WHERE review_time <= clock_timestamp() OR rule_version < $1"
        " ORDER BY customer_id LIMIT $2 FOR UPDATE SKIP LOCKED",
        TIER_RULE.version,
        limit,
    )
    # A statement of its own: it sees the points that were written before the locks were had.
    rows = await connection.fetch(
        "SELECT s.*, coalesce(l.points, 0)::bigint AS qualifying_points, l.oldest FROM standings s, LATERAL ("
        " SELECT sum(points) AS points, min(earn_time) AS oldest FROM points_ledger p"
        " WHERE p.customer_id = s.customer_id AND earn_time > clock_timestamp() - $2::interval"
        ") l WHERE s.customer_id = ANY($1) ORDER BY s.customer_id",
        [row["customer_id"] for row in due],
        TIER_RULE.span,
    )
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return [_standing(row) for row in rows], now


async def save_standings(connection: Connection, standings: Sequence[Standing]) -> None:
    """Writes locked standings, in one statement."""
    await connection.execute(
        "UPDATE standings s SET points = n.points, tier = n.tier, rule_version = n.rule_version, version = n.version,"
        " review_time = n.review_time"
        " FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::timestamptz[])"
        " AS n(customer_id, points, tier, rule_version, version, review_time) WHERE s.customer_id = n.customer_id",
        [standing.customer_id for standing in standings],
        [standing.points for standing in standings],
        [standing.tier.name for standing in standings],
        [standing.rule_version for standing in standings],
        [standing.version for standing in standings],
        [standing.review_time() for standing in standings],
    )


async def add_entry(connection: Connection, customer_id: str, entry: Entry) -> bool:
    """Writes an entry of the ledger. False for a parcel that gave its points before."""
    added = await connection.fetchval(
        "INSERT INTO points_ledger (customer_id, points, reason, text, order_id, shipment_id, fact_id, actor,"
        " rule_version, earn_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT DO NOTHING RETURNING true",
        customer_id,
        entry.points,
        entry.reason,
        entry.text,
        entry.order_id,
        entry.shipment_id,
        entry.fact_id,
        entry.actor,
        entry.rule_version,
        entry.earn_time,
    )
    return added is not None


async def lock_policies(connection: Connection) -> tuple[UpgradePolicy | None, datetime]:
    """Makes whoever publishes wait; the latest version, and the time. Decisions go on."""
    await connection.execute("LOCK TABLE upgrade_policies IN SHARE ROW EXCLUSIVE MODE")
    row = await connection.fetchrow(LATEST_POLICY)
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return (policy_of(row) if row else None), now


async def add_policy(connection: Connection, policy: UpgradePolicy, actor: str) -> None:
    """Writes a version. It is never changed afterwards."""
    await connection.execute(
        "INSERT INTO upgrade_policies (version, active_from, minimum_tier, minimum_order_value, countries,"
        " minimum_days_since_last, currency, unit_cost, monthly_budget, daily_budget, actor)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        policy.version,
        policy.active_from,
        policy.minimum_tier.name,
        policy.minimum_order_value.amount if policy.minimum_order_value else None,
        policy.countries,
        policy.minimum_days_since_last,
        policy.currency,
        policy.unit_cost.amount,
        policy.monthly_budget.amount,
        policy.daily_budget.amount,
        actor,
    )


async def lock_for_decision(
    connection: Connection, order: PlacedOrder
) -> tuple[Basis, Upgrade, Budgets | None, datetime]:
    """Locks an order and its customer. What a decision stands on, what is on record, the budgets unlocked, the time."""
    row = await connection.fetchrow(
        "SELECT * FROM lock_for_decision($1, $2, $3, $4, $5)",
        order.order_id,
        order.customer_id,
        order.order_time,
        TIER_RULE.span,
        TIER_RULE.version,
    )
    assert row is not None  # noqa: S101 the function writes the rows it reads
    policy = policy_of(row["policy"]) if row["policy"] is not None and row["policy"]["version"] is not None else None
    upgrade = _upgrade(row["state"], row["heard"], Decimal(0))
    basis = Basis(row["qualifying_points"], row["last_surprise"], policy, Outcome.CANCELLED in upgrade.heard)
    return basis, upgrade, _budgets(policy, row) if policy else None, row["lock_time"]


async def lock_budgets(connection: Connection, order: PlacedOrder, policy: UpgradePolicy) -> Budgets:
    """Locks the budgets of an order's month and day."""
    row = await connection.fetchrow("SELECT * FROM lock_budgets($1, $2, $3)", order.month, order.day, policy.currency)
    assert row is not None  # noqa: S101 the function writes the rows it reads
    return _budgets(policy, row)


async def save_decision(
    connection: Connection, decision: Decision, upgrade: Upgrade, movement: Movement, now: datetime
) -> None:
    """Writes the decision on a locked order, and moves the locked budgets."""
    policy, order = decision.policy, decision.order
    await connection.execute(
        "WITH saved AS ("
        " UPDATE upgrades SET state = $2, reason = $3, policy_version = $4, outcomes = $5, text = $6, order_time = $7,"
        " currency = $8, cost = $9, month_left = $10, day_left = $11, decide_time = $12, customer_id = $17"
        " WHERE order_id = $1"
        ") SELECT move_budgets($13, $14, $8, $15, $16)",
        order.order_id,
        upgrade.state,
        decision.reason,
        policy.version if policy else None,
        json.dumps([{"rule": one.rule, "holds": one.holds, "text": one.text} for one in decision.outcomes]),
        decision.text,
        order.order_time,
        policy.currency if policy else None,
        upgrade.cost,
        decision.month_left,
        decision.day_left,
        now,
        order.month,
        order.day,
        movement.reserved,
        movement.spent,
        order.customer_id,
    )


async def lock_upgrade(connection: Connection, order_id: str, customer_id: str) -> tuple[Upgrade, Place]:
    """Locks what is on record for an order, writing a mark when nothing is."""
    row = await connection.fetchrow(
        "INSERT INTO upgrades (order_id, customer_id) VALUES ($1, $2)"
        " ON CONFLICT (order_id) DO UPDATE SET order_id = excluded.order_id RETURNING *",
        order_id,
        customer_id,
    )
    assert row is not None  # noqa: S101 either inserted or updated
    return _upgrade(row["state"], row["heard"], row["cost"]), Place(row["order_time"], row["currency"])


async def save_upgrade(
    connection: Connection, order_id: str, upgrade: Upgrade, movement: Movement, place: Place
) -> None:
    """Writes what was heard of a locked order, and moves its budgets."""
    await connection.execute(
        "UPDATE upgrades SET state = $2, heard = $3 WHERE order_id = $1",
        order_id,
        upgrade.state,
        sorted(upgrade.heard),
    )
    if movement.moves and place.order_time is not None:
        await connection.execute(
            "SELECT move_budgets($1, $2, $3, $4, $5)",
            month_of(place.order_time),
            day_of(place.order_time),
            place.currency,
            movement.reserved,
            movement.spent,
        )


def policy_of(row: asyncpg.Record) -> UpgradePolicy:
    """A version as it is stored."""
    currency: str = row["currency"]
    least: Decimal | None = row["minimum_order_value"]
    return UpgradePolicy(
        row["version"],
        row["active_from"],
        Tier[row["minimum_tier"]],
        Money(least, currency) if least is not None else None,
        tuple(row["countries"]),
        row["minimum_days_since_last"],
        Money(row["unit_cost"], currency),
        Money(row["monthly_budget"], currency),
        Money(row["daily_budget"], currency),
    )


def _standing(row: asyncpg.Record) -> Standing:
    return Standing(
        row["customer_id"],
        row["points"],
        row["qualifying_points"],
        Tier[row["tier"]],
        row["rule_version"],
        row["version"],
        row["oldest"],
    )


def _upgrade(state: str | None, heard: Sequence[str], cost: Decimal) -> Upgrade:
    return Upgrade(State(state) if state else None, cost, {Outcome(one) for one in heard})


def _budgets(policy: UpgradePolicy, row: asyncpg.Record) -> Budgets:
    return Budgets(
        Budget(policy.monthly_budget.amount, row["month_reserved"], row["month_spent"]),
        Budget(policy.daily_budget.amount, row["day_reserved"], row["day_spent"]),
    )
