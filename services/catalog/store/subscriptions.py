"""Who waits for what: the tables behind "tell me when it is back".

Whoever changes a queue locks the product first, as the hearing of stock does: so a unit that comes in finds everybody
who waits, and everybody who begins to wait finds the unit. Locks: customer, products (in product_id order),
subscriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from services.catalog.domain.waiting import OPEN, State, Subscription
from services.catalog.store.refreshing import share_feed
from services.chassis.database import Connection, Database

_COLUMNS = (
    # A feed may have moved the variant to another product since.
    "s.subscription_id, s.customer_id, s.sku,"
    " coalesce((SELECT v.product_id FROM variants v WHERE v.sku = s.sku), s.product_id) AS product_id, s.state,"
    " s.place, s.turn, s.version, s.create_time, s.reservation_id, s.hold_expire_time, s.end_time, s.journey_id"
)
_OPEN = ", ".join(f"'{state}'" for state in OPEN)

LOCK_QUEUES = """
SELECT FROM products WHERE product_id IN (SELECT product_id FROM variants WHERE sku = ANY($1::text[]))
ORDER BY product_id FOR NO KEY UPDATE
"""
ADD = f"""
INSERT INTO subscriptions AS s (subscription_id, customer_id, sku, product_id, state, journey_id)
VALUES ($1, $2, $3, $4, 'waiting', $5) RETURNING {_COLUMNS}
"""
SAVE = """
UPDATE subscriptions SET state = $2, turn = $3, version = $4, reservation_id = $5, hold_expire_time = $6,
    end_time = $7, due_time = $8
WHERE subscription_id = $1
"""
CLAIM = """
UPDATE subscriptions s SET due_time = clock_timestamp() + $1::interval
WHERE subscription_id IN (
    SELECT subscription_id FROM subscriptions WHERE due_time <= clock_timestamp()
    ORDER BY due_time, place LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING s.subscription_id, s.sku, s.customer_id, s.journey_id, s.place
"""
PRUNE = """
DELETE FROM subscriptions WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM subscriptions WHERE end_time < clock_timestamp() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED))
"""
# Any number, the same for every process: the first key of the locks on customers.
_CUSTOMERS = 5_309_102


async def lock_customer(connection: Connection, customer_id: str) -> bool:
    """Keeps others from changing what the customer waits for. Returns whether the customer is known as forgotten."""
    await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _CUSTOMERS, customer_id)
    return bool(await connection.fetch("SELECT FROM forgotten WHERE customer_id = $1", customer_id))


async def forget(connection: Connection, customer_id: str) -> None:
    """Leaves the mark of a customer who is forgotten, and deletes the stored answers of their requests."""
    await connection.execute("INSERT INTO forgotten (customer_id) VALUES ($1) ON CONFLICT DO NOTHING", customer_id)
    await connection.execute("DELETE FROM requests WHERE customer_id = $1", customer_id)


async def lock_queues(connection: Connection, skus: Sequence[str]) -> None:
    """Locks the products of some SKUs: their queues stand still, and no SKU moves to another product."""
    await share_feed(connection)
    await connection.execute(LOCK_QUEUES, skus)


async def variant(connection: Connection, sku: str) -> asyncpg.Record | None:
    """The variant of a SKU whose queue is locked, and the state of its product; None when there is none."""
    return await connection.fetchrow(
        "SELECT v.product_id, v.free, p.state FROM variants v JOIN products p USING (product_id) WHERE v.sku = $1", sku
    )


async def next_waiting(connection: Connection, sku: str, limit: int, after: int = 0) -> list[Subscription]:
    """Who waits longest for a SKU, of those behind a place."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM subscriptions s WHERE s.sku = $1 AND s.state = 'waiting' AND s.place > $3"
        " ORDER BY s.place LIMIT $2 FOR UPDATE",
        sku,
        limit,
        after,
    )
    return [_subscription(row) for row in rows]


async def open_of(connection: Connection, customer_id: str, sku: str) -> Subscription | None:
    """What a customer waits for already, locked."""
    return _first(
        await connection.fetch(
            f"SELECT {_COLUMNS} FROM subscriptions s"
            f" WHERE s.customer_id = $1 AND s.sku = $2 AND s.state IN ({_OPEN}) FOR UPDATE",
            customer_id,
            sku,
        )
    )


async def skus_of(connection: Connection, customer_ids: Sequence[str]) -> list[str]:
    """All SKUs of these customers' subscriptions, ended ones too."""
    rows = await connection.fetch(
        "SELECT DISTINCT sku FROM subscriptions WHERE customer_id = ANY($1::text[])", customer_ids
    )
    return [row["sku"] for row in rows]


async def skus_of_reservations(connection: Connection, reservation_ids: Sequence[str]) -> list[str]:
    """The SKUs of those for whom these are held."""
    rows = await connection.fetch(
        "SELECT DISTINCT sku FROM subscriptions WHERE reservation_id = ANY($1::text[])", reservation_ids
    )
    return [row["sku"] for row in rows]


async def waited_for(connection: Connection, skus: Sequence[str]) -> list[str]:
    """Of these SKUs those that somebody waits for and that are for sale, in order."""
    if not skus:
        return []
    rows = await connection.fetch(
        "SELECT DISTINCT sku FROM subscriptions s JOIN variants v USING (sku)"
        " WHERE sku = ANY($1::text[]) AND s.state = 'waiting' AND v.published ORDER BY sku",
        skus,
    )
    return [row["sku"] for row in rows]


async def all_of(connection: Connection, customer_id: str) -> list[Subscription]:
    """All subscriptions of a customer, ended ones too, locked."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM subscriptions s WHERE s.customer_id = $1 ORDER BY s.place FOR UPDATE", customer_id
    )
    return [_subscription(row) for row in rows]


async def count_open(connection: Connection, customer_id: str) -> int:
    """For how many variants a customer waits."""
    count: int = await connection.fetchval(
        f"SELECT count(*) FROM subscriptions WHERE customer_id = $1 AND state IN ({_OPEN})", customer_id
    )
    return count


async def add(
    connection: Connection, subscription_id: str, customer_id: str, sku: str, product_id: str, journey_id: str | None
) -> Subscription:
    """Somebody begins to wait, behind all others."""
    row = await connection.fetchrow(ADD, subscription_id, customer_id, sku, product_id, journey_id)
    assert row is not None  # noqa: S101
    return _subscription(row)


async def lock(connection: Connection, subscription_id: str) -> Subscription | None:
    """One subscription, locked after its product; None when it is gone."""
    sku = await connection.fetchval("SELECT sku FROM subscriptions WHERE subscription_id = $1", subscription_id)
    if sku is None:
        return None
    await lock_queues(connection, [sku])
    return _first(
        await connection.fetch(
            f"SELECT {_COLUMNS} FROM subscriptions s WHERE s.subscription_id = $1 FOR UPDATE", subscription_id
        )
    )


async def of_reservation(connection: Connection, reservation_id: str) -> str | None:
    """Whose hold this is."""
    found: str | None = await connection.fetchval(
        "SELECT subscription_id FROM subscriptions WHERE reservation_id = $1", reservation_id
    )
    return found


async def save(connection: Connection, subscription: Subscription, due_time: datetime | None) -> None:
    """Writes a locked subscription; the sweeper looks at it at `due_time`."""
    await connection.execute(
        SAVE,
        subscription.subscription_id,
        subscription.state,
        subscription.turn,
        subscription.version,
        subscription.reservation_id,
        subscription.hold_expire_time,
        subscription.end_time,
        due_time,
    )


async def delete(connection: Connection, subscription_id: str) -> None:
    """Takes a locked subscription out."""
    await connection.execute("DELETE FROM subscriptions WHERE subscription_id = $1", subscription_id)


async def claim_due(connection: Connection, retry: timedelta, limit: int) -> list[asyncpg.Record]:
    """What the sweeper must look at now, first come first; others leave it alone for the time of a retry."""
    rows = await connection.fetch(CLAIM, retry, limit)
    return sorted(rows, key=lambda row: row["place"])


async def prune(connection: Connection, kept_for: timedelta, limit: int) -> None:
    """Deletes what ended so long ago."""
    await connection.execute(PRUNE, kept_for, limit)


async def now(connection: Connection) -> datetime:
    """The database's clock."""
    instant: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return instant


async def read(database: Database, subscription_id: str) -> Subscription | None:
    """One subscription as it is, without a lock."""
    return _first(
        await database.fetch(f"SELECT {_COLUMNS} FROM subscriptions s WHERE s.subscription_id = $1", subscription_id)
    )


async def page(database: Database, customer_id: str, before: int | None, limit: int) -> list[Subscription]:
    """What a customer waits for and waited for, newest first, before a place."""
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM subscriptions s WHERE s.customer_id = $1 AND s.state <> 'leaving'"
        " AND ($2::bigint IS NULL OR s.place < $2) ORDER BY s.place DESC LIMIT $3",
        customer_id,
        before,
        limit,
    )
    return [_subscription(row) for row in rows]


def _first(rows: Sequence[asyncpg.Record]) -> Subscription | None:
    return _subscription(rows[0]) if rows else None


def _subscription(row: asyncpg.Record) -> Subscription:
    fields = dict(row)
    return Subscription(**{**fields, "state": State(fields["state"])})
