"""Reservations, their lines, and the marks of orders. Locks are taken in one order everywhere: the counts of holds,
order marks, reservations, each by id, and then the stock rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import asyncpg

from services.chassis.database import Connection
from services.inventory.domain.allocation import Allocation
from services.inventory.domain.limits import OpenHolds
from services.inventory.domain.reservation import Line, Purpose, Reservation, ReservationState
from services.inventory.domain.shortfall import HurtPromise
from services.inventory.domain.stock import Place, StockShortfallDetected


async def open_holds(connection: Connection, customers: Iterable[str], peers: Iterable[str]) -> OpenHolds:
    """The live holds of some customers and peers, counted one caller after the other."""
    rows = await connection.fetch(
        "SELECT * FROM count_holds($1, $2)", sorted(set(customers)), sorted({peer for peer in peers if peer})
    )
    found = OpenHolds()
    for row in rows:
        if row["peer"] is None:
            found.by_customer[row["customer_id"], Purpose(row["purpose"])] = row["held"]
        else:
            found.by_peer[row["peer"]] = row["held"]
    return found


async def add_reservations(connection: Connection, reservations: Sequence[Reservation]) -> None:
    """Writes new reservations with their lines."""
    lines = [(each, part) for each in reservations for part in each.held]
    await connection.execute(
        "WITH added AS ("
        " INSERT INTO reservations (reservation_id, customer_id, state, create_time, expire_time, purpose, country,"
        " peer) SELECT r.id, r.customer, 'held', r.begun, r.until, r.purpose, r.country, r.peer FROM unnest($1::text[],"
        " $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::text[], $7::text[])"
        " AS r(id, customer, begun, until, purpose, country, peer)"
        ") INSERT INTO reservation_lines (reservation_id, sku, location, quantity, held_until)"
        " SELECT * FROM unnest($8::text[], $9::text[], $10::text[], $11::bigint[], $12::timestamptz[])",
        [each.reservation_id for each in reservations],
        [each.customer_id for each in reservations],
        [each.create_time for each in reservations],
        [each.expire_time for each in reservations],
        [each.purpose for each in reservations],
        [each.country for each in reservations],
        [each.peer for each in reservations],
        [each.reservation_id for each, _ in lines],
        [part.sku for _, part in lines],
        [part.location for _, part in lines],
        [part.quantity for _, part in lines],
        [each.expire_time for each, _ in lines],
    )


async def lock_reservations(connection: Connection, reservation_ids: Iterable[str]) -> dict[str, Reservation]:
    """Locks reservations. Their lines are as they were last written; lock the shelves before deciding on them."""
    rows = await connection.fetch(
        "SELECT * FROM reservations WHERE reservation_id = ANY($1) ORDER BY reservation_id FOR UPDATE",
        sorted(set(reservation_ids)),
    )
    return await _with_lines(connection, rows)


async def lock_waiting(connection: Connection, customers: Iterable[str]) -> list[Reservation]:
    """Locks what is held for these customers because they waited for it."""
    rows = await connection.fetch(
        "SELECT * FROM reservations WHERE customer_id = ANY($1) AND state = 'held' AND purpose = 'waiting_customer'"
        " AND expire_time > clock_timestamp() ORDER BY reservation_id FOR UPDATE",
        sorted(set(customers)),
    )
    return list((await _with_lines(connection, rows)).values())


async def read_lines(connection: Connection, reservations: Sequence[Reservation]) -> None:
    """Reads the lines again, after the shelves were locked."""
    lines = await _lines(connection, [each.reservation_id for each in reservations])
    for each in reservations:
        each.lines = list(lines.get(each.reservation_id, []))


async def lock_due(connection: Connection, limit: int) -> list[Reservation]:
    """Locks holds whose time ran out, oldest first; those that somebody else has locked are left to them."""
    rows = await connection.fetch(
        "SELECT * FROM reservations WHERE state = 'held' AND expire_time <= clock_timestamp()"
        " ORDER BY expire_time LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit,
    )
    return list((await _with_lines(connection, rows)).values())


async def save_reservations(connection: Connection, reservations: Sequence[Reservation]) -> None:
    """Writes the state of locked reservations, and until when their lines are held."""
    await connection.execute(
        "WITH given AS ("
        " SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[])"
        " AS g(id, state, until, order_id, used_by, version)"
        "), saved AS ("
        " UPDATE reservations r SET state = g.state, expire_time = g.until, order_id = g.order_id, used_by = g.used_by,"
        " version = g.version FROM given g WHERE r.reservation_id = g.id"
        ") UPDATE reservation_lines l SET promised = g.state = 'committed',"
        " held_until = CASE WHEN held_until IS NOT NULL AND g.state = 'held' THEN g.until END"
        " FROM given g WHERE l.reservation_id = g.id",
        [each.reservation_id for each in reservations],
        [each.state for each in reservations],
        [each.expire_time for each in reservations],
        [each.order_id for each in reservations],
        [each.used_by for each in reservations],
        [each.version for each in reservations],
    )


async def replace_lines(connection: Connection, reservation: Reservation) -> None:
    """Writes which units of a reservation come from where, after that changed. Those that stay, stay held or not."""
    parts = [line.allocation for line in reservation.lines]
    await connection.execute(
        "WITH kept AS ("
        " SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[]) AS k(sku, location, quantity)"
        "), gone AS ("
        " DELETE FROM reservation_lines l WHERE l.reservation_id = $1"
        " AND NOT EXISTS (SELECT FROM kept k WHERE k.sku = l.sku AND k.location = l.location)"
        ") INSERT INTO reservation_lines AS l (reservation_id, sku, location, quantity)"
        " SELECT $1, k.sku, k.location, k.quantity FROM kept k"
        " ON CONFLICT (reservation_id, sku, location) DO UPDATE SET quantity = excluded.quantity",
        reservation.reservation_id,
        [part.sku for part in parts],
        [part.location for part in parts],
        [part.quantity for part in parts],
    )


async def mark_expired(connection: Connection, reservation_ids: Sequence[str]) -> None:
    """Writes down that locked reservations expired. Their lines are expired under the locks of the stock rows."""
    await connection.execute(
        "UPDATE reservations SET state = 'expired', version = version + 1 WHERE reservation_id = ANY($1)",
        reservation_ids,
    )


async def mark_orders(
    connection: Connection, orders: Mapping[str, str | None], state: str
) -> dict[str, asyncpg.Record]:
    """Locks the marks of orders, writing those that are not there; released wins over committed.

    `orders`: order id -> reservation id, if it has one. Returns each mark as it was, `before` being None
    when there was none.
    """
    wanted = sorted(orders)
    rows = await connection.fetch(
        "INSERT INTO order_marks (order_id, state, reservation_id)"
        " SELECT o.order_id, $2, o.reservation_id FROM unnest($1::text[], $3::text[]) AS o(order_id, reservation_id)"
        " ON CONFLICT (order_id) DO NOTHING RETURNING order_id, NULL::text AS before, reservation_id",
        wanted,
        state,
        [orders[each] for each in wanted],
    )
    marks = {row["order_id"]: row for row in rows}
    known = [order_id for order_id in wanted if order_id not in marks]
    if known:
        for row in await connection.fetch(
            "SELECT order_id, state AS before, reservation_id FROM order_marks WHERE order_id = ANY($1)"
            " ORDER BY order_id FOR UPDATE",
            known,
        ):
            marks[row["order_id"]] = row
        if state == "released":
            await connection.execute("UPDATE order_marks SET state = 'released' WHERE order_id = ANY($1)", known)
    return marks


async def lock_mark(connection: Connection, order_id: str) -> str | None:
    """Locks the mark of an order. Returns the reservation that was committed for it, if any."""
    found: str | None = await connection.fetchval(
        "SELECT reservation_id FROM order_marks WHERE order_id = $1 FOR UPDATE", order_id
    )
    return found


async def unmark_orders(connection: Connection, orders: Sequence[str]) -> None:
    """Takes back marks that were written in this transaction."""
    await connection.execute("DELETE FROM order_marks WHERE order_id = ANY($1)", orders)


async def add_left(
    connection: Connection, reservation_id: str, parts: Mapping[Place, int], *, returned: bool = False
) -> None:
    """Writes down which units of an order left the house, or came back."""
    shipped, back = ("0", "p.quantity") if returned else ("p.quantity", "0")
    await connection.execute(
        f"UPDATE reservation_lines l SET shipped = l.shipped + {shipped}, returned = l.returned + {back}"
        " FROM unnest($2::text[], $3::text[], $4::bigint[]) AS p(sku, location, quantity)"
        " WHERE l.reservation_id = $1 AND l.sku = p.sku AND l.location = p.location",
        reservation_id,
        [sku for sku, _ in parts],
        [location for _, location in parts],
        list(parts.values()),
    )


async def hurt_by_shortfall(
    connection: Connection, shortfalls: Sequence[StockShortfallDetected], limit: int
) -> Mapping[Place, list[HurtPromise]]:
    """Whose promise each shortfall hurts: the newest, until the missing units are accounted for."""
    rows = await connection.fetch(
        "SELECT p.sku, p.location, h.*, least(h.quantity, p.missing - h.newer) AS missing"
        " FROM unnest($1::text[], $2::text[], $3::bigint[]) AS p(sku, location, missing) CROSS JOIN LATERAL ("
        " SELECT r.reservation_id, r.order_id, r.customer_id, r.purpose, r.create_time, l.promised,"
        " l.quantity - l.shipped AS quantity, coalesce(sum(l.quantity - l.shipped) OVER (ORDER BY r.create_time DESC,"
        " r.reservation_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::bigint AS newer"
        " FROM reservation_lines l JOIN reservations r USING (reservation_id)"
        " WHERE l.sku = p.sku AND l.location = p.location AND (l.promised AND l.shipped < l.quantity"
        " OR l.held_until IS NOT NULL)"
        ") h WHERE h.newer < p.missing"
        " ORDER BY p.sku, p.location, h.create_time DESC, h.reservation_id DESC",
        [one.sku for one in shortfalls],
        [one.location for one in shortfalls],
        [one.missing for one in shortfalls],
    )
    hurt: dict[Place, list[HurtPromise]] = {}
    for row in rows:
        named = hurt.setdefault((row["sku"], row["location"]), [])
        if len(named) < limit:
            named.append(
                HurtPromise(
                    row["reservation_id"],
                    row["order_id"] if row["promised"] else None,
                    row["customer_id"],
                    Purpose(row["purpose"]),
                    row["quantity"],
                    row["missing"],
                )
            )
    return hurt


async def lock_orders(connection: Connection, orders: Sequence[str], releasing: Sequence[str]) -> None:
    """Takes all locks that handling these orders needs, in the global order. `releasing` are among the orders."""
    await connection.execute("SELECT lock_orders($1, $2)", sorted(set(orders)), sorted(set(releasing)))


async def _with_lines(connection: Connection, rows: Sequence[asyncpg.Record]) -> dict[str, Reservation]:
    lines = await _lines(connection, [row["reservation_id"] for row in rows]) if rows else {}
    return {row["reservation_id"]: _reservation(row, lines) for row in rows}


async def _lines(connection: Connection, reservation_ids: Sequence[str]) -> Mapping[str, list[Line]]:
    rows = await connection.fetch(
        "SELECT * FROM reservation_lines WHERE reservation_id = ANY($1) ORDER BY sku, location", reservation_ids
    )
    lines: dict[str, list[Line]] = {}
    for row in rows:
        lines.setdefault(row["reservation_id"], []).append(
            Line(
                Allocation(row["sku"], row["location"], row["quantity"]),
                row["held_until"] is not None,
                row["shipped"],
                row["returned"],
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
        Purpose(row["purpose"]),
        row["country"],
        row["peer"],
        row["used_by"],
    )
