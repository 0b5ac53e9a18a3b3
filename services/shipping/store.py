"""Shipping's tables, inside a transaction. Locks are taken in one order: parcel number, checkout, order."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timedelta

import asyncpg

from services.chassis.database import Connection
from services.shipping.domain.checkout import Checkout
from services.shipping.domain.delivery import DeliveryPromise, ServiceLevel
from services.shipping.domain.order import Order
from services.shipping.queries import read_lines, read_orders


async def now(connection: Connection) -> datetime:
    """The database's clock."""
    instant: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return instant


# --- checkouts


async def add_checkout(connection: Connection, checkout: Checkout, address: bytes, journey_id: str | None) -> None:
    """Writes a new checkout. The address comes encrypted."""
    await connection.execute(
        "WITH added AS ("
        " INSERT INTO checkouts (checkout_id, customer_id, reservation_id, service_level, delivery_price, country,"
        " highlights_version, address, journey_id, expire_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        ") INSERT INTO checkout_lines (checkout_id, position, sku, title, quantity, unit_price)"
        " SELECT $1, l.* FROM unnest($11::bigint[], $12::text[], $13::text[], $14::bigint[], $15::numeric[]) AS l",
        checkout.checkout_id,
        checkout.customer_id,
        checkout.reservation_id,
        checkout.service_level,
        checkout.delivery_price,
        checkout.country,
        checkout.highlights_version,
        address,
        journey_id,
        checkout.expire_time,
        list(range(len(checkout.lines))),
        [line.sku for line in checkout.lines],
        [line.title for line in checkout.lines],
        [line.quantity for line in checkout.lines],
        [line.unit_price for line in checkout.lines],
    )


async def lock_checkout(connection: Connection, checkout_id: str) -> Checkout | None:
    """Locks a checkout: of two orders of it, the second sees the first."""
    row = await connection.fetchrow("SELECT * FROM checkouts WHERE checkout_id = $1 FOR UPDATE", checkout_id)
    if row is None:
        return None
    return Checkout(
        row["checkout_id"],
        row["customer_id"],
        row["reservation_id"],
        (await read_lines(connection, [checkout_id])).get(checkout_id, []),
        ServiceLevel(row["service_level"]),
        row["delivery_price"],
        row["country"],
        row["highlights_version"],
        row["expire_time"],
    )


async def mark_lapsed(connection: Connection, reservation_id: str, lapse_time: datetime) -> None:
    """Writes down that the goods of a checkout are no longer held, unless an order was taken of it."""
    await connection.execute("SELECT FROM checkouts WHERE reservation_id = $1 FOR UPDATE", reservation_id)
    # A statement of its own, so that it sees an order that was taken while it waited for the lock.
    await connection.execute(
        "UPDATE checkouts c SET lapse_time = $2 WHERE reservation_id = $1 AND lapse_time IS NULL"
        " AND NOT EXISTS (SELECT FROM orders o WHERE o.checkout_id = c.checkout_id)",
        reservation_id,
        lapse_time,
    )


async def delete_unordered(connection: Connection, kept_for: timedelta, limit: int) -> int:
    """Deletes checkouts that nobody ordered, with their addresses, this long after their hold. Returns how many it
    looked at: one that became an order is looked at once."""
    due = await connection.fetch(
        "SELECT checkout_id FROM checkouts"
        " WHERE NOT kept AND coalesce(lapse_time, expire_time) < clock_timestamp() - $1::interval"
        " ORDER BY coalesce(lapse_time, expire_time) LIMIT $2 FOR UPDATE SKIP LOCKED",
        kept_for,
        limit,
    )
    # Statements of their own, so that they see an order that was taken before the lock was had.
    ids = [row["checkout_id"] for row in due]
    await connection.execute(
        "UPDATE checkouts SET kept = true"
        " WHERE checkout_id IN (SELECT checkout_id FROM orders WHERE checkout_id = ANY($1))",
        ids,
    )
    await connection.execute("DELETE FROM checkouts WHERE checkout_id = ANY($1) AND NOT kept", ids)
    return len(ids)


# --- orders


async def add_order(
    connection: Connection, order: Order, caller: str, request_id: str, look_again_after: timedelta
) -> bool:
    """Writes a new order. False when its payment reference, or the caller's request id, belongs to another order."""
    added = await connection.fetchval(
        "INSERT INTO orders (order_id, customer_id, checkout_id, reservation_id, caller, request_id,"
        " payment_reference, highlights_version, country, carrier, delivery_price, promise, state, version,"
        " journey_id, create_time, attempt_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
        " ON CONFLICT DO NOTHING RETURNING true",
        order.order_id,
        order.customer_id,
        order.checkout_id,
        order.reservation_id,
        caller,
        request_id,
        order.payment_reference,
        order.highlights_version,
        order.country,
        order.carrier,
        order.delivery_price,
        _written(order.promise),
        order.state,
        order.version,
        order.journey_id,
        order.create_time,
        order.create_time + look_again_after,
    )
    return added is True


async def order_of_request(connection: Connection, caller: str, request_id: str) -> Order | None:
    """The order that was placed so, if one was."""
    return await _one(connection, "caller = $1 AND request_id = $2", caller, request_id)


async def order_of_checkout(connection: Connection, checkout_id: str) -> Order | None:
    """The order of a checkout, if there is one."""
    return await _one(connection, "checkout_id = $1", checkout_id)


async def lock_order(connection: Connection, order_id: str) -> Order | None:
    """Locks an order, and reads it with its shipments."""
    # The order first, in a statement of its own: its shipments are then read as they are under the lock.
    row = await connection.fetchrow("SELECT * FROM orders WHERE order_id = $1 FOR UPDATE", order_id)
    return (await read_orders(connection, [row]))[0] if row else None


async def lock_order_of_shipment(connection: Connection, shipment_id: str) -> Order | None:
    """Locks the order a shipment belongs to."""
    order_id = await connection.fetchval("SELECT order_id FROM shipments WHERE shipment_id = $1", shipment_id)
    return await lock_order(connection, order_id) if order_id else None


async def lock_pending(connection: Connection, again_after: timedelta, limit: int) -> list[asyncpg.Record]:
    """Takes pending orders that are due, oldest first, so that nobody else takes them for a while."""
    return await connection.fetch(
        "UPDATE orders SET attempt_time = clock_timestamp() + $1 WHERE order_id IN ("
        " SELECT order_id FROM orders WHERE state IN ('pending', 'giving_up') AND attempt_time <= clock_timestamp()"
        " ORDER BY attempt_time LIMIT $2 FOR UPDATE SKIP LOCKED)"
        " RETURNING order_id, customer_id, journey_id, clock_timestamp() - create_time AS age",
        again_after,
        limit,
    )


async def save_order(connection: Connection, order: Order) -> None:
    """Writes the state of a locked order and of its shipments."""
    await connection.execute(
        "UPDATE orders SET state = $2, version = $3, reason = $4, refused = $5, upgrade = $6, answer = $7"
        " WHERE order_id = $1",
        order.order_id,
        order.state,
        order.version,
        order.reason,
        json.dumps(asdict(order.refused)) if order.refused else None,
        order.upgrade,
        order.answer,
    )
    if order.shipments:
        await _save_shipments(connection, order)


async def _save_shipments(connection: Connection, order: Order) -> None:
    await connection.executemany(
        "INSERT INTO shipments (shipment_id, order_id, journey_id, location, carrier, state, tracking_reference,"
        " original_promise, current_promise, dispatch_time, delivery_time)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (shipment_id) DO UPDATE SET"
        " carrier = excluded.carrier, state = excluded.state, tracking_reference = excluded.tracking_reference,"
        " current_promise = excluded.current_promise, dispatch_time = excluded.dispatch_time,"
        " delivery_time = excluded.delivery_time",
        [
            (
                one.shipment_id,
                order.order_id,
                order.journey_id,
                one.location,
                one.carrier,
                one.state,
                one.tracking_reference,
                _written(one.original_promise),
                _written(one.current_promise),
                one.dispatch_time,
                one.delivery_time,
            )
            for one in order.shipments
        ],
    )
    await connection.executemany(
        "INSERT INTO shipment_items (shipment_id, sku, quantity) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        [(one.shipment_id, item.sku, item.quantity) for one in order.shipments for item in one.items],
    )
    changes = [
        (one.shipment_id, number, _written(change.promise), change.reason, change.time)
        for one in order.shipments
        for number, change in enumerate(one.promise_changes)
    ]
    if changes:
        await connection.executemany(
            "INSERT INTO promise_changes (shipment_id, number, promise, reason, change_time)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            changes,
        )


# --- parcels and scans


async def lock_parcel(connection: Connection, tracking_reference: str) -> None:
    """Scans and the dispatch of one parcel come one after the other, also while it is not known yet."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('parcel:' || $1, 0))", tracking_reference)


async def add_scan(
    connection: Connection, scan_id: str, tracking_reference: str, kind: str, scan_time: datetime
) -> bool:
    """Keeps a scan. False when it was kept before."""
    added = await connection.fetchval(
        "INSERT INTO scans (scan_id, tracking_reference, kind, scan_time) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT DO NOTHING RETURNING true",
        scan_id,
        tracking_reference,
        kind,
        scan_time,
    )
    return added is True


async def delivery_scan(connection: Connection, tracking_reference: str, since: datetime) -> datetime | None:
    """When a scanner first saw the parcel delivered, as far as is known."""
    instant: datetime | None = await connection.fetchval(
        "SELECT min(scan_time) FROM scans WHERE tracking_reference = $1 AND kind = 'delivered' AND scan_time >= $2",
        tracking_reference,
        since,
    )
    return instant


async def shipment_of_parcel(connection: Connection, tracking_reference: str) -> str | None:
    """The shipment that travels under a number."""
    shipment_id: str | None = await connection.fetchval(
        "SELECT shipment_id FROM shipments WHERE tracking_reference = $1", tracking_reference
    )
    return shipment_id


async def _one(connection: Connection, where: str, *arguments: str) -> Order | None:
    row = await connection.fetchrow(f"SELECT * FROM orders WHERE {where}", *arguments)
    return (await read_orders(connection, [row]))[0] if row else None


def _written(promise: DeliveryPromise) -> tuple[object, ...]:
    return (promise.service_level, promise.earliest, promise.latest, promise.deadline, promise.time_zone)
