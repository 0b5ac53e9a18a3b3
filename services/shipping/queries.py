"""What shipping answers without changing anything, and how orders are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.chassis.database import Connection, Database
from services.shipping.domain.delivery import DeliveryPromise, ServiceLevel
from services.shipping.domain.order import (
    Item,
    Line,
    Order,
    OrderState,
    PromiseChange,
    Refused,
    Shipment,
    ShipmentState,
)


async def now(database: Database) -> datetime:
    """The database's clock."""
    instant: datetime = (await database.fetch("SELECT clock_timestamp() AS now"))[0]["now"]
    return instant


async def order(database: Database, order_id: str) -> Order | None:
    """One order with all that belongs to it, if there is one."""
    found = await _read(database, "SELECT * FROM orders WHERE order_id = $1", order_id)
    return found[0] if found else None


async def orders_of(
    database: Database, customer_id: str, before: tuple[datetime, str] | None, limit: int
) -> list[Order]:
    """The orders of a customer before a position (create time, order id), newest first."""
    create_time, order_id = before or (None, None)
    return await _read(
        database,
        "SELECT * FROM orders WHERE customer_id = $1"
        " AND ($2::timestamptz IS NULL OR (create_time, order_id) < ($2, $3::text))"
        " ORDER BY create_time DESC, order_id DESC LIMIT $4",
        customer_id,
        create_time,
        order_id,
        limit,
    )


async def _read(database: Database, query: str, *arguments: object) -> list[Order]:
    async with database.transaction() as tx:
        # One snapshot for all of it: an order never shows a state its shipments do not have.
        await tx.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return await read_orders(tx.connection, await tx.connection.fetch(query, *arguments))


async def read_orders(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[Order]:
    """Orders with all that belongs to them, of rows of the table; a constant number of queries."""
    lines = await read_lines(connection, [row["checkout_id"] for row in rows])
    shipments = await _shipments(connection, [row["order_id"] for row in rows])
    return [_order(row, lines, shipments) for row in rows]


async def read_lines(connection: Connection, checkout_ids: Sequence[str]) -> Mapping[str, list[Line]]:
    """The lines of checkouts and of their orders, by checkout id."""
    rows = await connection.fetch(
        "SELECT * FROM checkout_lines WHERE checkout_id = ANY($1) ORDER BY checkout_id, position", checkout_ids
    )
    return _grouped(
        (row["checkout_id"], Line(row["sku"], row["title"], row["quantity"], row["unit_price"])) for row in rows
    )


async def _shipments(connection: Connection, order_ids: Sequence[str]) -> Mapping[str, list[Shipment]]:
    rows = await connection.fetch(
        "SELECT * FROM shipments WHERE order_id = ANY($1) ORDER BY order_id, location", order_ids
    )
    if not rows:
        return {}
    ids = [row["shipment_id"] for row in rows]
    items = _grouped(
        (row["shipment_id"], Item(row["sku"], row["quantity"]))
        for row in await connection.fetch("SELECT * FROM shipment_items WHERE shipment_id = ANY($1) ORDER BY sku", ids)
    )
    changes = _grouped(
        (row["shipment_id"], PromiseChange(_promise(row["promise"]), row["reason"], row["change_time"]))
        for row in await connection.fetch(
            "SELECT * FROM promise_changes WHERE shipment_id = ANY($1) ORDER BY number", ids
        )
    )
    return _grouped(
        (
            row["order_id"],
            Shipment(
                row["shipment_id"],
                row["location"],
                row["carrier"],
                items.get(row["shipment_id"], []),
                _promise(row["original_promise"]),
                _promise(row["current_promise"]),
                ShipmentState(row["state"]),
                row["tracking_reference"],
                row["dispatch_time"],
                row["delivery_time"],
                changes.get(row["shipment_id"], []),
            ),
        )
        for row in rows
    )


def _order(row: asyncpg.Record, lines: Mapping[str, list[Line]], shipments: Mapping[str, list[Shipment]]) -> Order:
    return Order(
        order_id=row["order_id"],
        customer_id=row["customer_id"],
        checkout_id=row["checkout_id"],
        reservation_id=row["reservation_id"],
        payment_reference=row["payment_reference"],
        highlights_version=row["highlights_version"],
        country=row["country"],
        carrier=row["carrier"],
        delivery_price=row["delivery_price"],
        promise=_promise(row["promise"]),
        lines=lines.get(row["checkout_id"], []),
        create_time=row["create_time"],
        journey_id=row["journey_id"],
        state=OrderState(row["state"]),
        version=row["version"],
        reason=row["reason"],
        refused=Refused(**json.loads(row["refused"])) if row["refused"] else None,
        upgrade=row["upgrade"],
        shipments=list(shipments.get(row["order_id"], [])),
        answer=row["answer"],
    )


def _grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _promise(record: Mapping[str, Any]) -> DeliveryPromise:
    return DeliveryPromise(
        ServiceLevel(record["service_level"]),
        record["earliest"],
        record["latest"],
        record["deadline"],
        record["time_zone"],
    )
