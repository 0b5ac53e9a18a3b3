"""Holding stock: reserve, extend, shrink, release, and tidy up what ran out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from services.chassis.database import Transaction
from services.chassis.errors import Refusal
from services.chassis.facts import Fact
from services.inventory import publishes
from services.inventory.domain.levels import Cause
from services.inventory.domain.limits import HoldLimits
from services.inventory.domain.reservation import (
    Line,
    Purpose,
    Reservation,
    ReservationClosed,
    ReservationState,
)
from services.inventory.domain.stock import Shelves
from services.inventory.store import reservations, stock
from services.inventory.usecases.saving import Journey, lock, save, save_reservations, skus_of


@dataclass(frozen=True, slots=True)
class ReserveStock:
    """Hold units of several SKUs for a customer."""

    customer_id: str
    wanted: Mapping[str, int]
    hold_time: timedelta
    actor: str
    request_id: str
    journey: Journey
    purpose: Purpose = Purpose.CHECKOUT
    partial: bool = False
    country: str = ""
    peer: str = ""
    guest: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What was held, and of what less than wanted."""

    reservation: Reservation
    # (sku, wanted, held)
    missing: Sequence[tuple[str, int, int]] = ()
    # Holds of the waiting customer that it used up, and of which SKUs.
    used: Sequence[tuple[Reservation, Sequence[str]]] = ()


async def reserve_stock(tx: Transaction, commands: Sequence[ReserveStock], limits: HoldLimits) -> list[Held | Refusal]:
    """Holds, for each command in its turn, all of it or nothing, or with `partial` what is there.

    A refusal (`OutOfStock`, `TooManyHolds`, `TooManyUnits`) leaves nothing behind and is returned in its place.
    """
    holds = await reservations.open_holds(
        tx.connection, [each.customer_id for each in commands], [each.peer for each in commands]
    )
    took_turns = [
        each.customer_id
        for each in commands
        if each.purpose is Purpose.CHECKOUT and holds.by_customer[each.customer_id, Purpose.WAITING_CUSTOMER]
    ]
    waiting = await reservations.lock_waiting(tx.connection, took_turns) if took_turns else []
    shelves = await stock.lock_shelves(tx.connection, {sku for each in commands for sku in each.wanted})
    if waiting:
        await reservations.read_lines(tx.connection, waiting)
    several = len({location for _, location in shelves.levels}) > 1
    ranks = await stock.ranks_for(tx.connection, {each.country for each in commands}) if several else {}
    outcomes: list[Held | Refusal] = []
    for command in commands:
        try:
            limits.check_units(command.wanted)
            holds.check(limits, command.customer_id, command.purpose, peer=command.peer, guest=command.guest)
            outcomes.append(_hold(command, shelves, waiting, ranks.get(command.country, ())))
            holds.add(command.customer_id, command.purpose, command.peer)
        except Refusal as refusal:
            outcomes.append(refusal)
    await _save_held(tx, shelves, commands, outcomes)
    return outcomes


def _hold(command: ReserveStock, shelves: Shelves, waiting: Sequence[Reservation], ranks: Sequence[str]) -> Held:
    own = [
        each
        for each in waiting
        if command.purpose is Purpose.CHECKOUT
        and each.customer_id == command.customer_id
        and any(part.sku in command.wanted for part in each.held)
    ]
    given_back = [part for each in own for part in each.held if part.sku in command.wanted]
    wanted = dict(command.wanted)
    if command.partial:
        there = {sku: min(units, shelves.free_with(sku, given_back)) for sku, units in wanted.items()}
        wanted = {sku: units for sku, units in there.items() if units} or wanted
    shelves.check_free(wanted, given_back)

    reservation_id = f"res_{uuid4().hex}"
    used = []
    for each in own:
        taken = each.use_up(command.wanted, reservation_id)
        used.append((each, sorted({part.sku for part in taken})))
        shelves.release(taken, _cause(command, each.reservation_id, f"used by {reservation_id}"))
    allocations = shelves.hold(wanted, ranks, _cause(command, reservation_id))
    reservation = Reservation(
        reservation_id,
        command.customer_id,
        ReservationState.HELD,
        shelves.lock_time,
        shelves.lock_time + command.hold_time,
        lines=[Line(part, held=True) for part in allocations],
        purpose=command.purpose,
        country=command.country,
        peer=command.peer,
    )
    missing = [(sku, units, wanted.get(sku, 0)) for sku, units in command.wanted.items() if wanted.get(sku, 0) < units]
    return Held(reservation, missing, used)


async def _save_held(
    tx: Transaction, shelves: Shelves, commands: Sequence[ReserveStock], outcomes: Sequence[Held | Refusal]
) -> None:
    made = [(command, held) for command, held in zip(commands, outcomes, strict=True) if isinstance(held, Held)]
    if made:
        await reservations.add_reservations(tx.connection, [held.reservation for _, held in made])
    used = {each.reservation_id: each for _, held in made for each, _ in held.used}
    if used:
        await save_reservations(tx, list(used.values()))
        for each in used.values():
            await reservations.replace_lines(tx.connection, each)
        await tx.append_carried(_turns_used(made))
    await save(tx, shelves, {held.reservation.reservation_id: command.journey for command, held in made})


def _turns_used(made: Sequence[tuple[ReserveStock, Held]]) -> list[tuple[Fact, Journey]]:
    return [
        (publishes.waiting_hold_used(each, skus, held.reservation.reservation_id), command.journey)
        for command, held in made
        for each, skus in held.used
    ]


def _cause(command: ReserveStock, reservation_id: str, reason: str = "") -> Cause:
    return Cause(command.actor, reason, reservation_id=reservation_id, request_id=command.request_id)


async def extend_reservation(
    tx: Transaction,
    reservation_id: str,
    hold_time: timedelta,
    limits: Mapping[Purpose, timedelta],
    only: Purpose | None = None,
) -> Reservation:
    """Moves the time limit. Raises `ReservationNotFound`, and what `Reservation.extend` raises."""
    reservation, shelves = await lock(tx, reservation_id, only)
    reservation.extend(shelves.lock_time, hold_time, limits[reservation.purpose])
    await save_reservations(tx, [reservation])
    await save(tx, shelves)
    return reservation


async def shrink_reservation(
    tx: Transaction, reservation_id: str, kept: Mapping[str, int], actor: str, request_id: str
) -> Reservation:
    """Gives some units back. Raises `ReservationNotFound`, and what `Reservation.shrink` raises."""
    reservation, shelves = await lock(tx, reservation_id)
    back = reservation.shrink(shelves.lock_time, kept)
    shelves.release(back, Cause(actor, reservation_id=reservation_id, request_id=request_id))
    if reservation.state is ReservationState.HELD:
        await reservations.replace_lines(tx.connection, reservation)
    await save_reservations(tx, [reservation])
    await save(tx, shelves)
    return reservation


async def release_reservation(
    tx: Transaction, reservation_id: str, actor: str, request_id: str, only: Purpose | None = None
) -> Reservation:
    """Gives a hold back. Raises `ReservationNotFound`, `ReservationClosed` for a committed one."""
    reservation, shelves = await lock(tx, reservation_id, only)
    if reservation.state is ReservationState.COMMITTED:
        raise ReservationClosed("the reservation belongs to an order", order_id=reservation.order_id)
    if reservation.state is ReservationState.HELD:
        shelves.release(reservation.held, Cause(actor, reservation_id=reservation_id, request_id=request_id))
        reservation.state = ReservationState.RELEASED
        await save_reservations(tx, [reservation])
    await save(tx, shelves)
    return reservation


async def expire_due(tx: Transaction, limit: int = 200) -> int:
    """Tidies up holds whose time ran out: the rows nobody touched. Returns how many."""
    due = await reservations.lock_due(tx.connection, limit)
    if due:
        await reservations.mark_expired(tx.connection, [reservation.reservation_id for reservation in due])
        shelves = await stock.lock_shelves(tx.connection, skus_of(due))
        for reservation in due:
            reservation.version += 1
        await tx.append(publishes.reservation_expired(reservation) for reservation in due)
        await save(tx, shelves)
    return len(due)
