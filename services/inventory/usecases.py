"""What inventory does: each locks, decides in the domain, saves, and appends the facts, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from services.chassis.database import Transaction
from services.inventory import publishes, store
from services.inventory.domain.reservation import (
    Line,
    OrderReleased,
    Reservation,
    ReservationClosed,
    ReservationExpired,
    ReservationNotFound,
    ReservationState,
    TooManyHolds,
)
from services.inventory.domain.stock import Allocation, Cause, Level, Shelves, StockShortfallDetected

# A shortfall names so many of the orders it hurts: a fact has a size.
MOST_NAMED = 1000


@dataclass(frozen=True, slots=True)
class ReserveStock:
    """Hold units of several SKUs for a customer."""

    customer_id: str
    wanted: Mapping[str, int]
    hold_time: timedelta
    holds_allowed: int
    actor: str


@dataclass(frozen=True, slots=True)
class Counted:
    """So many units lie there, says line `line` of a document."""

    line: int
    sku: str
    location: str
    quantity: int


async def receive_stock(tx: Transaction, sku: str, location: str, quantity: int, cause: Cause) -> Level:
    """Books units that physically arrived."""
    await store.add_places(tx.connection, [(sku, location)])
    shelves = await store.lock_shelves(tx.connection, [sku])
    shelves.receive(sku, location, quantity, cause)
    await _save(tx, shelves)
    return shelves.levels[sku, location]


async def adjust_stock(tx: Transaction, sku: str, location: str, delta: int, cause: Cause) -> Level:
    """Corrects what is on hand. Raises `NegativeStock`."""
    await store.add_places(tx.connection, [(sku, location)])
    shelves = await store.lock_shelves(tx.connection, [sku])
    shelves.adjust(sku, location, delta, cause)
    await _save(tx, shelves)
    return shelves.levels[sku, location]


async def import_counts(tx: Transaction, document_id: str, counts: Sequence[Counted], actor: str) -> int:
    """Takes in rows of a stock file that were not taken in before. Returns how many levels changed."""
    places = [(count.sku, count.location) for count in counts]
    await store.add_places(tx.connection, places)
    new = await store.claim_rows(tx.connection, document_id, places)
    shelves = await store.lock_shelves(tx.connection, [sku for sku, _ in new])
    changed = 0
    for count in counts:
        if (count.sku, count.location) in new:
            cause = Cause(actor, f"{document_id}:{count.line}")
            changed += shelves.count(count.sku, count.location, count.quantity, cause)
    await _save(tx, shelves)
    return changed


async def reserve_stock(tx: Transaction, command: ReserveStock) -> Reservation:
    """Holds all of it or nothing. Raises `OutOfStock`, `TooManyHolds`."""
    open_holds = await store.open_holds(tx.connection, command.customer_id)
    if open_holds >= command.holds_allowed:
        raise TooManyHolds("as many holds are open as allowed", open=open_holds, limit=command.holds_allowed)
    shelves = await store.lock_shelves(tx.connection, command.wanted)
    reservation_id = f"res_{uuid4().hex}"
    allocations = shelves.hold(command.wanted, Cause(command.actor, reservation_id=reservation_id))
    reservation = Reservation(
        reservation_id,
        command.customer_id,
        ReservationState.HELD,
        shelves.lock_time,
        shelves.lock_time + command.hold_time,
        lines=[Line(part, held=True) for part in allocations],
    )
    await store.add_reservation(tx.connection, reservation)
    await _save(tx, shelves)
    return reservation


async def extend_reservation(
    tx: Transaction, reservation_id: str, hold_time: timedelta, limit: timedelta
) -> Reservation:
    """Moves the time limit. Raises `ReservationNotFound`, and what `Reservation.extend` raises."""
    reservation, shelves = await _lock(tx, reservation_id)
    if reservation.state is ReservationState.HELD and not all(line.held for line in reservation.lines):
        raise ReservationExpired("the hold ran out", expire_time=reservation.expire_time.isoformat())
    reservation.extend(shelves.lock_time, hold_time, limit)
    await store.save_reservation(tx.connection, reservation)
    await _save(tx, shelves)
    return reservation


async def commit_reservation(tx: Transaction, reservation_id: str, order_id: str, actor: str) -> Reservation:
    """Promises the units to an order, once. Raises `OrderReleased`, `ReservationClosed`, `OutOfStock`."""
    mark = await store.mark_order(tx.connection, order_id, "committed", reservation_id)
    if mark["before"] == "released":
        raise OrderReleased("the order gave its stock up", order_id=order_id)
    if mark["before"] == "committed" and mark["reservation_id"] != reservation_id:
        raise ReservationClosed("the order has another reservation", reservation_id=mark["reservation_id"])
    reservation, shelves = await _lock(tx, reservation_id)
    reservation.check_committable(order_id)
    if reservation.state is not ReservationState.COMMITTED:
        cause = Cause(actor, reservation_id=reservation_id, order_id=order_id)
        held = [line.allocation for line in reservation.lines if line.held]
        lapsed = [line.allocation for line in reservation.lines if not line.held]
        shelves.commit(held, lapsed, cause)
        await _move_to(tx, reservation, ReservationState.COMMITTED, order_id)
    await _save(tx, shelves)
    return reservation


async def release_reservation(tx: Transaction, reservation_id: str, actor: str) -> Reservation:
    """Gives a hold back. Raises `ReservationNotFound`, `ReservationClosed` for a committed one."""
    reservation, shelves = await _lock(tx, reservation_id)
    if reservation.state is ReservationState.COMMITTED:
        raise ReservationClosed("the reservation belongs to an order", order_id=reservation.order_id)
    if reservation.state is ReservationState.HELD:
        held = [line.allocation for line in reservation.lines if line.held]
        shelves.release(held, Cause(actor, reservation_id=reservation_id))
        await _move_to(tx, reservation, ReservationState.RELEASED)
    await _save(tx, shelves)
    return reservation


async def release_order(tx: Transaction, order_id: str, actor: str) -> list[Allocation]:
    """Gives back what an order holds and has not shipped, and refuses any later commit for it."""
    mark = await store.mark_order(tx.connection, order_id, "released", None)
    if mark["before"] != "committed":
        return []
    reservation, shelves = await _lock(tx, mark["reservation_id"])
    left = [line.unshipped for line in reservation.lines if line.unshipped.quantity]
    shelves.uncommit(left, Cause(actor, reservation_id=reservation.reservation_id, order_id=order_id))
    await _move_to(tx, reservation, ReservationState.RELEASED)
    await _save(tx, shelves)
    return left


async def ship_order(tx: Transaction, order_id: str, leaving: Sequence[Allocation], actor: str) -> None:
    """Units of an order left the house. Raises `ReservationNotFound` when nothing was ever committed for it."""
    mark = await store.mark_order(tx.connection, order_id, "committed", None)
    if mark["reservation_id"] is None:
        raise ReservationNotFound("no stock was committed for the order", order_id=order_id)
    reservation, shelves = await _lock(tx, mark["reservation_id"])
    shelves.ship(leaving, Cause(actor, reservation_id=reservation.reservation_id, order_id=order_id))
    await store.add_shipped(tx.connection, reservation.reservation_id, leaving)
    await _save(tx, shelves)


async def expire_due(tx: Transaction, limit: int = 200) -> int:
    """Tidies up holds whose time ran out: the rows nobody touched. Returns how many."""
    due = await store.lock_due(tx.connection, limit)
    if due:
        await store.mark_expired(tx.connection, [reservation.reservation_id for reservation in due])
        shelves = await store.lock_shelves(tx.connection, _skus(due))
        for reservation in due:
            reservation.version += 1
        await tx.append(publishes.reservation_expired(reservation) for reservation in due)
        await _save(tx, shelves)
    return len(due)


async def _lock(tx: Transaction, reservation_id: str) -> tuple[Reservation, Shelves]:
    """Locks a reservation and its shelves; after that its lines say which units are still held."""
    reservation = await store.lock_reservation(tx.connection, reservation_id)
    if reservation is None:
        raise ReservationNotFound("there is no such reservation", reservation_id=reservation_id)
    shelves = await store.lock_shelves(tx.connection, _skus([reservation]))
    await store.read_lines(tx.connection, reservation)
    return reservation, shelves


async def _move_to(
    tx: Transaction, reservation: Reservation, state: ReservationState, order_id: str | None = None
) -> None:
    reservation.state = state
    reservation.order_id = order_id or reservation.order_id
    reservation.version += 1
    await store.save_reservation(tx.connection, reservation)


async def _save(tx: Transaction, shelves: Shelves) -> None:
    """Writes the movements and appends what they announce."""
    await store.write_movements(tx.connection, shelves.movements)
    happened = shelves.facts()
    if not happened:
        return
    short = [(one.sku, one.location) for one in happened if isinstance(one, StockShortfallDetected)]
    hurt = await store.hurt_by_shortfall(tx.connection, short) if short else {}
    await tx.append(
        publishes.stock_shortfall_detected(one, hurt.get((one.sku, one.location), [])[:MOST_NAMED])
        if isinstance(one, StockShortfallDetected)
        else publishes.stock_level_changed(one, shelves.lock_time)
        for one in happened
    )


def _skus(reservations: Iterable[Reservation]) -> set[str]:
    return {line.allocation.sku for reservation in reservations for line in reservation.lines}
