"""Stock of orders: commit, release, ship, and take back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.chassis.database import Transaction
from services.chassis.errors import Refusal
from services.inventory.domain.allocation import Allocation
from services.inventory.domain.levels import Cause, Level
from services.inventory.domain.reservation import (
    OrderReleased,
    Reservation,
    ReservationClosed,
    ReservationNotFound,
    ReservationState,
)
from services.inventory.domain.stock import Shelves
from services.inventory.store import reservations, stock
from services.inventory.usecases.saving import Journey, lock, save, save_reservations, skus_of


@dataclass(frozen=True, slots=True)
class CommitReservation:
    """Promise the units of a hold to an order."""

    reservation_id: str
    order_id: str
    actor: str
    request_id: str
    journey: Journey


@dataclass(frozen=True, slots=True)
class Returned:
    """Units of an order that were shipped from one location and lie now at another, or the same."""

    sku: str
    shipped_from: str
    location: str
    quantity: int


async def commit_reservations(tx: Transaction, commands: Sequence[CommitReservation]) -> list[Reservation | Refusal]:
    """Promises units to orders, to each once. No order and no reservation stands in two commands.

    A refusal (`OrderReleased`, `ReservationNotFound`, `ReservationClosed`, `OutOfStock`) leaves nothing behind and is
    returned in its place.
    """
    marks = await reservations.mark_orders(
        tx.connection, {each.order_id: each.reservation_id for each in commands}, "committed"
    )
    found = await reservations.lock_reservations(tx.connection, [each.reservation_id for each in commands])
    shelves = await stock.lock_shelves(tx.connection, skus_of(found.values()))
    await reservations.read_lines(tx.connection, list(found.values()))
    lapsed = {each.country for each in found.values() if each.lapsed}
    ranks = await stock.ranks_for(tx.connection, lapsed) if lapsed else {}
    outcomes: list[Reservation | Refusal] = []
    changed: list[Reservation] = []
    moved: list[Reservation] = []
    for command in commands:
        try:
            _check_mark(marks[command.order_id]["before"], marks[command.order_id]["reservation_id"], command)
            reservation = _committable(found, command)
            if reservation.state is not ReservationState.COMMITTED:
                before = reservation.lapsed
                now = shelves.commit(reservation.held, before, ranks.get(reservation.country, ()), _cause(command))
                if now != before:
                    reservation.place_anew(now)
                    moved.append(reservation)
                reservation.state, reservation.order_id = ReservationState.COMMITTED, command.order_id
                changed.append(reservation)
            outcomes.append(reservation)
        except Refusal as refusal:
            outcomes.append(refusal)
    refused = [each.order_id for each, one in zip(commands, outcomes, strict=True) if isinstance(one, Refusal)]
    await reservations.unmark_orders(tx.connection, [each for each in refused if marks[each]["before"] is None])
    for reservation in moved:
        await reservations.replace_lines(tx.connection, reservation)
    await save_reservations(tx, changed)
    await save(tx, shelves, {each.reservation_id: each.journey for each in commands})
    return outcomes


def _check_mark(before: str | None, reservation_id: str | None, command: CommitReservation) -> None:
    if before == "released":
        raise OrderReleased("the order gave its stock up", order_id=command.order_id)
    if before == "committed" and reservation_id != command.reservation_id:
        raise ReservationClosed("the order has another reservation", reservation_id=reservation_id)


def _committable(found: dict[str, Reservation], command: CommitReservation) -> Reservation:
    if command.reservation_id not in found:
        raise ReservationNotFound("there is no such reservation", reservation_id=command.reservation_id)
    reservation = found[command.reservation_id]
    reservation.check_committable(command.order_id)
    return reservation


def _cause(command: CommitReservation) -> Cause:
    return Cause(
        command.actor,
        reservation_id=command.reservation_id,
        order_id=command.order_id,
        request_id=command.request_id,
    )


async def release_order(tx: Transaction, order_id: str, actor: str, request_id: str | None = None) -> list[Allocation]:
    """Gives back what an order holds and has not shipped, and refuses any later commit for it."""
    mark = (await reservations.mark_orders(tx.connection, {order_id: None}, "released"))[order_id]
    if mark["before"] != "committed":
        return []
    reservation, shelves = await lock(tx, mark["reservation_id"])
    left = [line.unshipped for line in reservation.lines if line.unshipped.quantity]
    shelves.uncommit(left, Cause(actor, "", reservation.reservation_id, order_id, request_id))
    reservation.state = ReservationState.RELEASED
    await save_reservations(tx, [reservation])
    await save(tx, shelves)
    return left


async def ship_order(tx: Transaction, order_id: str, leaving: Sequence[Allocation], actor: str) -> None:
    """Units of an order left the house.

    Raises `ReservationNotFound` when nothing was ever committed for it, `NotCommitted` when it is not promised so many.
    """
    reservation, shelves = await _of_order(tx, order_id)
    parts: Counter[tuple[str, str]] = Counter()
    for part in leaving:
        parts[part.sku, part.location] += part.quantity
    reservation.check_leaving(parts)
    shelves.ship(leaving, Cause(actor, "", reservation.reservation_id, order_id))
    await reservations.add_left(tx.connection, reservation.reservation_id, parts)
    await save(tx, shelves)


async def return_stock(tx: Transaction, order_id: str, lines: Sequence[Returned], cause: Cause) -> list[Level]:
    """Shipped units of an order are here again. Raises `ReservationNotFound`, `NotShipped`."""
    await stock.add_places(tx.connection, [(line.sku, line.location) for line in lines])
    reservation, shelves = await _of_order(tx, order_id)
    parts: Counter[tuple[str, str]] = Counter()
    for line in lines:
        parts[line.sku, line.shipped_from] += line.quantity
    reservation.check_returning(parts)
    here = [Allocation(line.sku, line.location, line.quantity) for line in lines]
    of_order = Cause(cause.actor, cause.reason, reservation.reservation_id, order_id, cause.request_id)
    shelves.take_back(here, of_order)
    await reservations.add_left(tx.connection, reservation.reservation_id, parts, returned=True)
    await save(tx, shelves)
    return [shelves.levels[place] for place in sorted({(part.sku, part.location) for part in here})]


async def _of_order(tx: Transaction, order_id: str) -> tuple[Reservation, Shelves]:
    reservation_id = await reservations.lock_mark(tx.connection, order_id)
    if reservation_id is None:
        raise ReservationNotFound("no stock was committed for the order", order_id=order_id)
    return await lock(tx, reservation_id)
