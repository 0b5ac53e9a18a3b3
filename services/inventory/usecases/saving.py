"""What the use cases share: locking a reservation with its shelves, and saving what moved with what it announces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from services.chassis import telemetry
from services.chassis.database import Transaction
from services.chassis.facts import Fact
from services.chassis.values import to_timestamp
from services.inventory import publishes
from services.inventory.domain.reservation import Purpose, Reservation, ReservationNotFound
from services.inventory.domain.stock import Shelves, StockShortfallDetected
from services.inventory.store import reservations, stock

# A shortfall names so many of the promises it hurts: a fact has a size.
MOST_NAMED = 1000

# The trace context and baggage a fact carries.
Journey = Mapping[str, str]


async def lock(tx: Transaction, reservation_id: str, only: Purpose | None = None) -> tuple[Reservation, Shelves]:
    """Locks a reservation and its shelves; after that its lines say which units are still held.

    `only`: the caller may see holds of this purpose, no others. Raises `ReservationNotFound`.
    """
    found = await reservations.lock_reservations(tx.connection, [reservation_id])
    if reservation_id not in found or (only and found[reservation_id].purpose is not only):
        raise ReservationNotFound("there is no such reservation", reservation_id=reservation_id)
    reservation = found[reservation_id]
    shelves = await stock.lock_shelves(tx.connection, skus_of([reservation]))
    await reservations.read_lines(tx.connection, [reservation])
    return reservation, shelves


async def save(tx: Transaction, shelves: Shelves, journeys: Mapping[str, Journey] | None = None) -> None:
    """Writes the movements and appends what they announce.

    `journeys`: by reservation id, where the transaction works for several callers.
    """
    await stock.write_movements(tx.connection, shelves.movements)
    happened = shelves.facts()
    if not happened:
        return
    short = [one for one in happened if isinstance(one, StockShortfallDetected)]
    hurt = await reservations.hurt_by_shortfall(tx.connection, short, MOST_NAMED) if short else {}
    here, now = telemetry.carrier(), to_timestamp(shelves.lock_time)
    carried: list[tuple[Fact, Journey]] = []
    for one in happened:
        if isinstance(one, StockShortfallDetected):
            carried.append((publishes.stock_shortfall_detected(one, hurt.get((one.sku, one.location), [])), here))
        else:
            mover = one.cause.reservation_id if one.cause else None
            journey = (journeys or {}).get(mover or "", here)
            carried.append((publishes.stock_level_changed(one, now), journey))
    await tx.append_carried(carried)


def skus_of(several: Iterable[Reservation]) -> set[str]:
    """The SKUs of some reservations."""
    return {line.allocation.sku for reservation in several for line in reservation.lines}


async def save_reservations(tx: Transaction, changed: Sequence[Reservation]) -> None:
    """Writes the state of locked reservations, one version on."""
    for each in changed:
        each.version += 1
    await reservations.save_reservations(tx.connection, changed)
