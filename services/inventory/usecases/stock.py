"""What operators do with stock: receive, correct, count, write off, transfer, keep back, and say what serves where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.chassis.database import Transaction
from services.inventory.domain.levels import Cause, Level
from services.inventory.domain.stock import Shelves
from services.inventory.store import stock
from services.inventory.usecases.saving import save


@dataclass(frozen=True, slots=True)
class Counted:
    """So many units lie there, says line `line` of a document."""

    line: int
    sku: str
    location: str
    quantity: int


async def receive_stock(tx: Transaction, sku: str, location: str, quantity: int, cause: Cause) -> Level:
    """Books units that physically arrived."""
    shelves = await _lock_places(tx, sku, location)
    shelves.receive(sku, location, quantity, cause)
    await save(tx, shelves)
    return shelves.levels[sku, location]


async def adjust_stock(tx: Transaction, sku: str, location: str, delta: int, cause: Cause) -> Level:
    """Corrects what is on hand. Raises `NegativeStock`."""
    shelves = await _lock_places(tx, sku, location)
    shelves.adjust(sku, location, delta, cause)
    await save(tx, shelves)
    return shelves.levels[sku, location]


async def count_stock(tx: Transaction, sku: str, location: str, counted: int, cause: Cause) -> tuple[Level, int]:
    """Somebody counted. Reality wins. Returns the level, and the difference to the books."""
    shelves = await _lock_places(tx, sku, location)
    difference = shelves.count(sku, location, counted, cause)
    await save(tx, shelves)
    return shelves.levels[sku, location], difference


async def write_off_stock(tx: Transaction, sku: str, location: str, quantity: int, cause: Cause) -> Level:
    """Units are broken or gone. Raises `NegativeStock`."""
    shelves = await _lock_places(tx, sku, location)
    shelves.write_off(sku, location, quantity, cause)
    await save(tx, shelves)
    return shelves.levels[sku, location]


async def transfer_stock(
    tx: Transaction, sku: str, source: str, target: str, quantity: int, cause: Cause
) -> tuple[Level, Level]:
    """Moves units from one location to another. Raises `StockPromised`."""
    shelves = await _lock_places(tx, sku, source, target)
    shelves.transfer(sku, source, target, quantity, cause)
    await save(tx, shelves)
    return shelves.levels[sku, source], shelves.levels[sku, target]


async def set_safety_stock(tx: Transaction, sku: str, location: str, units: int, cause: Cause) -> Level:
    """So many units are never offered."""
    shelves = await _lock_places(tx, sku, location)
    shelves.set_safety(sku, location, units, cause)
    await save(tx, shelves)
    return shelves.levels[sku, location]


async def set_location_ranks(tx: Transaction, country: str, locations: Sequence[str]) -> None:
    """In which order locations serve a country; '' is for all that have no order of their own."""
    await stock.set_ranks(tx.connection, country, locations)


async def import_counts(tx: Transaction, document_id: str, counts: Sequence[Counted], actor: str) -> int:
    """Takes in rows of a stock file that were not taken in before. Returns how many levels changed."""
    counted = {(count.sku, count.location): count for count in counts}
    new = await stock.claim_counts(
        tx.connection, document_id, {place: count.quantity for place, count in counted.items()}
    )
    if not new:
        return 0
    shelves = await stock.lock_shelves(tx.connection, [sku for sku, _ in new])
    changed = 0
    for place in sorted(new):
        count = counted[place]
        cause = Cause(actor, f"{document_id}:{count.line}")
        changed += shelves.count(count.sku, count.location, count.quantity, cause) != 0
    await save(tx, shelves)
    return changed


async def _lock_places(tx: Transaction, sku: str, *locations: str) -> Shelves:
    await stock.add_places(tx.connection, [(sku, location) for location in locations])
    return await stock.lock_shelves(tx.connection, [sku])
