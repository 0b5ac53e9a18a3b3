"""Stock: levels, how they may move, and what a movement announces.

A level is (on hand, held, committed). Free is what is left: on hand - held - committed, never below zero to the
outside. Levels are changed only here, through movements, and only while their rows are locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from services.chassis.errors import NotNow


class MovementKind(StrEnum):
    """Why a level changed."""

    RECEIVE = "receive"
    ADJUST = "adjust"
    COUNT = "count"
    RESERVE = "reserve"
    RELEASE = "release"
    EXPIRE = "expire"
    COMMIT = "commit"
    SHIP = "ship"


class OutOfStock(NotNow):
    """Fewer units are free than wanted. Nothing was held."""

    reason = "OUT_OF_STOCK"

    def __init__(self, sku: str, wanted: int, free: int) -> None:
        super().__init__(f"{wanted} of {sku} wanted, {free} free", sku=sku, wanted=wanted, free=free)


class NegativeStock(NotNow):
    """A correction would leave fewer than no units."""

    reason = "NEGATIVE_STOCK"

    def __init__(self, sku: str, location: str, on_hand: int, delta: int) -> None:
        super().__init__(
            f"{on_hand} of {sku} lie at {location}, {delta} cannot be added",
            sku=sku,
            location=location,
            on_hand=on_hand,
            delta=delta,
        )


@dataclass(frozen=True, slots=True)
class Allocation:
    """Units of one SKU from one location."""

    sku: str
    location: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something moves: for the ledger."""

    actor: str
    reason: str = ""
    reservation_id: str | None = None
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Movement:
    """One row of the ledger."""

    sku: str
    location: str
    kind: MovementKind
    on_hand: int
    held: int
    committed: int
    version: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class StockLevelChanged:
    """A level is now so."""

    sku: str
    location: str
    version: int
    free: int
    received_total: int


@dataclass(frozen=True, slots=True)
class StockShortfallDetected:
    """Fewer units are there than are promised."""

    sku: str
    location: str
    version: int
    missing: int


@dataclass(slots=True)
class Level:
    """What lies at one location of one SKU."""

    sku: str
    location: str
    on_hand: int = 0
    held: int = 0
    committed: int = 0
    received_total: int = 0
    version: int = 0

    @property
    def free(self) -> int:
        """Units that can be promised now."""
        return max(0, self.on_hand - self.held - self.committed)

    @property
    def missing(self) -> int:
        """Units that are promised to orders and not there."""
        return max(0, self.committed - self.on_hand)


@dataclass(slots=True)
class Shelves:
    """The levels of some SKUs, locked; collects the movements to be written."""

    levels: Mapping[tuple[str, str], Level]
    # When the locks were had: the time of what is decided on these levels.
    lock_time: datetime
    # Levels whose free units changed while they were locked, by holds that were due.
    announced_late: set[tuple[str, str]] = field(default_factory=set)
    movements: list[Movement] = field(default_factory=list)
    _before: dict[tuple[str, str], Level] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = {place: replace(level) for place, level in self.levels.items()}

    def free(self, sku: str) -> int:
        """Free units of a SKU over all locations."""
        return sum(level.free for (known, _), level in self.levels.items() if known == sku)

    def receive(self, sku: str, location: str, quantity: int, cause: Cause) -> None:
        """Units physically came in."""
        self._move(sku, location, MovementKind.RECEIVE, cause, on_hand=quantity)

    def adjust(self, sku: str, location: str, delta: int, cause: Cause) -> None:
        """Corrects what is on hand. Raises `NegativeStock`."""
        on_hand = self.levels[sku, location].on_hand
        if on_hand + delta < 0:
            raise NegativeStock(sku, location, on_hand, delta)
        self._move(sku, location, MovementKind.ADJUST, cause, on_hand=delta)

    def count(self, sku: str, location: str, counted: int, cause: Cause) -> bool:
        """Somebody counted. Reality wins, also below what is promised. Returns whether anything changed."""
        delta = counted - self.levels[sku, location].on_hand
        if delta:
            self._move(sku, location, MovementKind.COUNT, cause, on_hand=delta)
        return delta != 0

    def hold(self, wanted: Mapping[str, int], cause: Cause) -> list[Allocation]:
        """Holds units of several SKUs: all or, with `OutOfStock` for the first that is short, none."""
        for sku, quantity in wanted.items():
            if self.free(sku) < quantity:
                raise OutOfStock(sku, quantity, self.free(sku))
        allocations = allocate(wanted, self.levels.values())
        for part in allocations:
            self._move(part.sku, part.location, MovementKind.RESERVE, cause, held=part.quantity)
        return allocations

    def release(self, held: Iterable[Allocation], cause: Cause) -> None:
        """Gives held units back."""
        for part in held:
            self._move(part.sku, part.location, MovementKind.RELEASE, cause, held=-part.quantity)

    def commit(self, held: Iterable[Allocation], lapsed: Sequence[Allocation], cause: Cause) -> None:
        """Promises units to an order: those held, and those whose hold ran out if they are still free.

        Raises `OutOfStock` when they are not.
        """
        for part in lapsed:
            level = self.levels[part.sku, part.location]
            if level.free < part.quantity:
                raise OutOfStock(part.sku, part.quantity, level.free)
            self._move(part.sku, part.location, MovementKind.COMMIT, cause, committed=part.quantity)
        for part in held:
            self._move(
                part.sku, part.location, MovementKind.COMMIT, cause, held=-part.quantity, committed=part.quantity
            )

    def uncommit(self, committed: Iterable[Allocation], cause: Cause) -> None:
        """Gives units back that were promised to an order and have not left."""
        for part in committed:
            self._move(part.sku, part.location, MovementKind.RELEASE, cause, committed=-part.quantity)

    def ship(self, leaving: Iterable[Allocation], cause: Cause) -> None:
        """Committed units leave the house."""
        for part in leaving:
            self._move(
                part.sku, part.location, MovementKind.SHIP, cause, on_hand=-part.quantity, committed=-part.quantity
            )

    def facts(self) -> list[StockLevelChanged | StockShortfallDetected]:
        """What is to be announced: levels whose free or received units changed, and shortfalls that grew."""
        found: list[StockLevelChanged | StockShortfallDetected] = []
        for place, level in self.levels.items():
            before = self._before[place]
            if (
                place in self.announced_late
                or level.free != before.free
                or level.received_total != before.received_total
            ):
                found.append(
                    StockLevelChanged(level.sku, level.location, level.version, level.free, level.received_total)
                )
            if level.missing > before.missing:
                found.append(StockShortfallDetected(level.sku, level.location, level.version, level.missing))
        return found

    def _move(
        self,
        sku: str,
        location: str,
        kind: MovementKind,
        cause: Cause,
        *,
        on_hand: int = 0,
        held: int = 0,
        committed: int = 0,
    ) -> None:
        level = self.levels[sku, location]
        level.on_hand += on_hand
        level.held += held
        level.committed += committed
        level.received_total += max(0, on_hand)
        level.version += 1
        self.movements.append(Movement(sku, location, kind, on_hand, held, committed, level.version, cause))


def allocate(wanted: Mapping[str, int], levels: Iterable[Level]) -> list[Allocation]:
    """Which units come from where: from one location if one has everything, else each SKU from as few as possible.

    The same question gives the same answer. The caller has checked that enough is free.
    """
    shelves: dict[str, dict[str, int]] = {}
    for level in levels:
        if level.free and level.sku in wanted:
            shelves.setdefault(level.location, {})[level.sku] = level.free
    for location in sorted(shelves):
        if all(shelves[location].get(sku, 0) >= quantity for sku, quantity in wanted.items()):
            return [Allocation(sku, location, wanted[sku]) for sku in sorted(wanted)]
    allocations = []
    for sku in sorted(wanted):
        left = wanted[sku]
        # The fullest shelf first takes the fewest locations; equal ones by name.
        for location in sorted(shelves, key=lambda place: (-shelves[place].get(sku, 0), place)):
            taken = min(left, shelves[location].get(sku, 0))
            if taken:
                allocations.append(Allocation(sku, location, taken))
                left -= taken
    return sorted(allocations, key=lambda part: (part.sku, part.location))
