"""Inventory's tables, inside a transaction. Locks are taken in one order: order mark, reservation, stock rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import asyncpg

from services.chassis.database import Connection
from services.inventory.domain.reservation import Line, Reservation, ReservationState
from services.inventory.domain.stock import Allocation, Level, Movement, Shelves


async def now(connection: Connection) -> datetime:
    """The database's clock."""
    instant: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return instant


async def lock_shelves(connection: Connection, skus: Iterable[str]) -> Shelves:
    """Locks the stock rows of some SKUs and expires what is due on them."""
    rows = await connection.fetch("SELECT * FROM lock_stock($1)", sorted(set(skus)))
    levels = {
        (row["sku"], row["location"]): Level(
            row["sku"],
            row["location"],
            row["on_hand"],
            row["held"],
            row["committed"],
            row["received_total"],
            row["version"],
        )
        for row in rows
    }
    locked = rows[0]["lock_time"] if rows else await now(connection)
    return Shelves(levels, locked, {(row["sku"], row["location"]) for row in rows if row["expired"]})


async def add_places(connection: Connection, places: Iterable[tuple[str, str]]) -> None:
    """Makes sure that there is a stock row for each (sku, location)."""
    wanted = sorted(set(places))
    await connection.execute(
        "INSERT INTO stock (sku, location) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING",
        [sku for sku, _ in wanted],
        [location for _, location in wanted],
    )


async def write_movements(connection: Connection, movements: Sequence[Movement]) -> None:
    """Changes the balances and writes the ledger. The rows are locked by the caller."""
    if not movements:
        return
    await connection.execute(
        "SELECT move_stock($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        [move.sku for move in movements],
        [move.location for move in movements],
        [move.kind for move in movements],
        [move.on_hand for move in movements],
        [move.held for move in movements],
        [move.committed for move in movements],
        [move.version for move in movements],
        [move.cause.reservation_id for move in movements],
        [move.cause.order_id for move in movements],
        [move.cause.actor for move in movements],
        [move.cause.reason for move in movements],
    )


async def open_holds(connection: Connection, customer_id: str) -> int:
    """The live holds of a customer, counted one caller after the other."""
    count: int = await connection.fetchval("SELECT open_holds($1)", customer_id)
    return count


async def add_reservation(connection: Connection, reservation: Reservation) -> None:
    """Writes a new reservation with its lines."""
    parts = [line.allocation for line in reservation.lines]
    await connection.execute(
        "WITH added AS ("
        " INSERT INTO reservations (reservation_id, customer_id, state, create_time, expire_time)"
        " VALUES ($1, $2, $3, $4, $5)"
        ") INSERT INTO reservation_lines (reservation_id, sku, location, quantity, held_until)"
        " SELECT $1, l.sku, l.location, l.quantity, $5"
        " FROM unnest($6::text[], $7::text[], $8::bigint[]) AS l(sku, location, quantity)",
        reservation.reservation_id,
        reservation.customer_id,
        reservation.state,
        reservation.create_time,
        reservation.expire_time,
        [part.sku for part in parts],
        [part.location for part in parts],
        [part.quantity for part in parts],
    )


async def lock_reservation(connection: Connection, reservation_id: str) -> Reservation | None:
    """Locks a reservation. Its lines are as they were last written; lock the shelves before deciding on them."""
    row = await connection.fetchrow("SELECT * FROM reservations WHERE reservation_id = $1 FOR UPDATE", reservation_id)
    return _reservation(row, await _lines(connection, [reservation_id])) if row else None


async def read_lines(connection: Connection, reservation: Reservation) -> None:
    """Reads the lines again, after the shelves were locked."""
    reservation.lines = (await _lines(connection, [reservation.reservation_id])).get(reservation.reservation_id, [])


async def lock_due(connection: Connection, limit: int) -> list[Reservation]:
    """Locks holds whose time ran out, oldest first; those that somebody else has locked are left to them."""
    rows = await connection.fetch(
        "SELECT * FROM reservations WHERE state = 'held' AND expire_time <= clock_timestamp()"
        " ORDER BY expire_time LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit,
    )
    lines = await _lines(connection, [row["reservation_id"] for row in rows])
    return [_reservation(row, lines) for row in rows]


async def save_reservation(connection: Connection, reservation: Reservation) -> None:
    """Writes the state of a locked reservation, and until when its lines are held."""
    held_until = reservation.expire_time if reservation.state is ReservationState.HELD else None
    await connection.execute(
        "WITH saved AS ("
        " UPDATE reservations SET state = $2, expire_time = $3, order_id = $4, version = $5 WHERE reservation_id = $1"
        ") UPDATE reservation_lines SET promised = $2 = 'committed',"
        " held_until = CASE WHEN held_until IS NOT NULL THEN $6::timestamptz END WHERE reservation_id = $1",
        reservation.reservation_id,
        reservation.state,
        reservation.expire_time,
        reservation.order_id,
        reservation.version,
        held_until,
    )


async def mark_expired(connection: Connection, reservation_ids: Sequence[str]) -> None:
    """Writes down that locked reservations expired. Their lines are expired under the locks of the stock rows."""
    await connection.execute(
        "UPDATE reservations SET state = 'expired', version = version + 1 WHERE reservation_id = ANY($1)",
        reservation_ids,
    )


async def mark_order(connection: Connection, order_id: str, state: str, reservation_id: str | None) -> asyncpg.Record:
    """Locks the mark of an order, writing it if there is none; released wins over committed. Returns it as it was.

    `before` is None when there was none.
    """
    row = await connection.fetchrow(
        "INSERT INTO order_marks (order_id, state, reservation_id) VALUES ($1, $2, $3)"
        " ON CONFLICT (order_id) DO NOTHING RETURNING NULL::text AS before, reservation_id",
        order_id,
        state,
        reservation_id,
    )
    if row is None:
        row = await connection.fetchrow(
            "SELECT state AS before, reservation_id FROM order_marks WHERE order_id = $1 FOR UPDATE", order_id
        )
        if state == "released":
            await connection.execute("UPDATE order_marks SET state = 'released' WHERE order_id = $1", order_id)
    assert row is not None  # noqa: S101 marks are never deleted
    return row


async def add_shipped(connection: Connection, reservation_id: str, parts: Sequence[Allocation]) -> None:
    """Writes down which units of an order left the house."""
    await connection.execute(
        "UPDATE reservation_lines l SET shipped = l.shipped + p.quantity"
        " FROM unnest($2::text[], $3::text[], $4::bigint[]) AS p(sku, location, quantity)"
        " WHERE l.reservation_id = $1 AND l.sku = p.sku AND l.location = p.location",
        reservation_id,
        [part.sku for part in parts],
        [part.location for part in parts],
        [part.quantity for part in parts],
    )


async def claim_rows(
    connection: Connection, document_id: str, places: Sequence[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Marks rows of a document as taken in, and returns those that were not before."""
    wanted = sorted(places)
    rows = await connection.fetch(
        "INSERT INTO imported_rows (document_id, sku, location)"
        " SELECT $1, * FROM unnest($2::text[], $3::text[]) ON CONFLICT DO NOTHING RETURNING sku, location",
        document_id,
        [sku for sku, _ in wanted],
        [location for _, location in wanted],
    )
    return {(row["sku"], row["location"]) for row in rows}


async def hurt_by_shortfall(
    connection: Connection, places: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], list[tuple[str, str]]]:
    """The orders that are promised units from some places, newest first, as (reservation id, order id)."""
    rows = await connection.fetch(
        "SELECT l.sku, l.location, r.reservation_id, r.order_id"
        " FROM unnest($1::text[], $2::text[]) AS p(sku, location)"
        " JOIN reservation_lines l ON l.sku = p.sku AND l.location = p.location AND l.promised"
        " AND l.shipped < l.quantity"
        " JOIN reservations r USING (reservation_id) ORDER BY r.create_time DESC, r.reservation_id DESC",
        [sku for sku, _ in places],
        [location for _, location in places],
    )
    hurt: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        hurt.setdefault((row["sku"], row["location"]), []).append((row["reservation_id"], row["order_id"]))
    return hurt


async def lock_orders(connection: Connection, orders: Sequence[str], releasing: Sequence[str]) -> None:
    """Takes all locks that handling these orders needs, in the global order. `releasing` are among the orders."""
    await connection.execute("SELECT lock_orders($1, $2)", sorted(set(orders)), sorted(set(releasing)))


async def _lines(connection: Connection, reservation_ids: Sequence[str]) -> Mapping[str, list[Line]]:
    rows = await connection.fetch(
        "SELECT * FROM reservation_lines WHERE reservation_id = ANY($1) ORDER BY sku, location", reservation_ids
    )
    lines: dict[str, list[Line]] = {}
    for row in rows:
        lines.setdefault(row["reservation_id"], []).append(
            Line(
                Allocation(row["sku"], row["location"], row["quantity"]), row["held_until"] is not None, row["shipped"]
            )
        )
    return lines


def _reservation(row: asyncpg.Record, lines: Mapping[str, list[Line]]) -> Reservation:
    return Reservation(
        row["reservation_id"],
        row["customer_id"],
        ReservationState(row["state"]),
        row["create_time"],
        row["expire_time"],
        row["order_id"],
        row["version"],
        list(lines.get(row["reservation_id"], [])),
    )
