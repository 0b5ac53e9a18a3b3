"""Stock: how levels may move, and what a movement announces.

A level is (on hand, held, committed, safety). Free is what is left: on hand - held - committed - safety, never below
zero to the outside. Levels are changed only here, through movements, and only while their rows are locked. Each method
checks everything first and moves then, so that a refusal leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.chassis.errors import NotNow
from services.inventory.domain.allocation import Allocation, allocate
from services.inventory.domain.levels import Cause, Level, Movement, MovementKind

Place = tuple[str, str]


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


class StockPromised(NotNow):
    """Fewer units than wanted are promised to nobody: the others stay where they are."""

    reason = "STOCK_PROMISED"

    def __init__(self, sku: str, location: str, wanted: int, movable: int) -> None:
        super().__init__(
            f"of {sku} at {location}, {movable} units are promised to nobody; {wanted} cannot be moved",
            sku=sku,
            location=location,
            wanted=wanted,
            movable=movable,
        )


@dataclass(frozen=True, slots=True)
class OtherLevel:
    """The other side of a transfer."""

    location: str
    version: int
    free: int
    received_total: int


@dataclass(frozen=True, slots=True)
class StockLevelChanged:
    """A level is now so."""

    sku: str
    location: str
    version: int
    free: int
    received_total: int
    moved_with: OtherLevel | None
    # The last movement's; None where only the clock moved something.
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class StockShortfallDetected:
    """Fewer units are there than are promised."""

    sku: str
    location: str
    version: int
    missing: int


@dataclass(slots=True)
class Shelves:
    """The levels of some SKUs, locked; collects the movements to be written."""

    levels: Mapping[Place, Level]
    # When the locks were had: the time of what is decided on these levels.
    lock_time: datetime
    # Levels whose free units changed while they were locked, by holds that were due.
    announced_late: set[Place] = field(default_factory=set)
    movements: list[Movement] = field(default_factory=list)
    # What was free, missing and received in all before a level was first moved.
    _before: dict[Place, tuple[int, int, int]] = field(default_factory=dict)
    _of_sku: dict[str, list[Level]] = field(default_factory=dict)
    _moved_with: dict[Place, Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for level in self.levels.values():
            self._of_sku.setdefault(level.sku, []).append(level)

    def of(self, skus: Iterable[str]) -> list[Level]:
        """The levels of some SKUs."""
        return [level for sku in skus for level in self._of_sku.get(sku, ())]

    def receive(self, sku: str, location: str, quantity: int, cause: Cause) -> None:
        """Units physically came in."""
        self._move(sku, location, MovementKind.RECEIVE, cause, on_hand=quantity)

    def adjust(self, sku: str, location: str, delta: int, cause: Cause) -> None:
        """Corrects what is on hand. Raises `NegativeStock`."""
        self._check_there(sku, location, delta)
        self._move(sku, location, MovementKind.ADJUST, cause, on_hand=delta)

    def count(self, sku: str, location: str, counted: int, cause: Cause) -> int:
        """Somebody counted. Reality wins, also below what is promised. Returns the difference to the books."""
        delta = counted - self.levels[sku, location].on_hand
        if delta:
            self._move(sku, location, MovementKind.COUNT, cause, on_hand=delta)
        return delta

    def write_off(self, sku: str, location: str, quantity: int, cause: Cause) -> None:
        """Units are broken or gone, also such as are promised. Raises `NegativeStock`."""
        self._check_there(sku, location, -quantity)
        self._move(sku, location, MovementKind.WRITE_OFF, cause, on_hand=-quantity)

    def transfer(self, sku: str, source: str, target: str, quantity: int, cause: Cause) -> None:
        """Moves units that nobody was promised. Raises `StockPromised`."""
        level = self.levels[sku, source]
        if level.movable < quantity:
            raise StockPromised(sku, source, quantity, level.movable)
        self._move(sku, source, MovementKind.TRANSFER, cause, on_hand=-quantity)
        self._move(sku, target, MovementKind.TRANSFER, cause, on_hand=quantity)
        self._moved_with |= {(sku, source): (sku, target), (sku, target): (sku, source)}

    def set_safety(self, sku: str, location: str, units: int, cause: Cause) -> None:
        """So many units are never offered."""
        delta = units - self.levels[sku, location].safety
        if delta:
            self._move(sku, location, MovementKind.SAFETY, cause, safety=delta)

    def check_free(self, wanted: Mapping[str, int], given_back: Sequence[Allocation] = ()) -> None:
        """Raises `OutOfStock` for the first SKU that is short, also once these held units were given back."""
        for sku, quantity in wanted.items():
            free = self.free_with(sku, given_back)
            if free < quantity:
                raise OutOfStock(sku, quantity, free)

    def free_with(self, sku: str, given_back: Sequence[Allocation]) -> int:
        """Free units of a SKU over all locations once these held units were given back."""
        free = 0
        for level in self._of_sku.get(sku, ()):
            units = sum(part.quantity for part in given_back if (part.sku, part.location) == (sku, level.location))
            free += max(0, level.on_hand - level.held + units - level.committed - level.safety)
        return free

    def hold(self, wanted: Mapping[str, int], ranks: Sequence[str], cause: Cause) -> list[Allocation]:
        """Holds all of it, or, raising `OutOfStock` for the first that is short, none."""
        self.check_free(wanted)
        allocations = allocate(wanted, self.of(wanted), ranks)
        for part in allocations:
            self._move(part.sku, part.location, MovementKind.RESERVE, cause, held=part.quantity)
        return allocations

    def release(self, held: Iterable[Allocation], cause: Cause) -> None:
        """Gives held units back."""
        for part in held:
            self._move(part.sku, part.location, MovementKind.RELEASE, cause, held=-part.quantity)

    def commit(
        self, held: Sequence[Allocation], lapsed: Sequence[Allocation], ranks: Sequence[str], cause: Cause
    ) -> list[Allocation]:
        """Promises units to an order: those held, and as many as those whose hold ran out, if they are still free.

        The lapsed ones come from where they came before; when some of those units are gone, all of them are chosen
        anew, for who ordered shall not be disappointed while others are there. Returns where they come from. Raises
        `OutOfStock`.
        """
        wanted = quantities(lapsed)
        self.check_free(wanted)
        if any(self.levels[part.sku, part.location].free < part.quantity for part in lapsed):
            lapsed = allocate(wanted, self.of(wanted), ranks)
        for part in lapsed:
            self._move(part.sku, part.location, MovementKind.COMMIT, cause, committed=part.quantity)
        for part in held:
            self._move(
                part.sku, part.location, MovementKind.COMMIT, cause, held=-part.quantity, committed=part.quantity
            )
        return list(lapsed)

    def uncommit(self, committed: Iterable[Allocation], cause: Cause) -> None:
        """Gives units back that were promised to an order and have not left."""
        for part in committed:
            self._move(part.sku, part.location, MovementKind.RELEASE, cause, committed=-part.quantity)

    def ship(self, leaving: Iterable[Allocation], cause: Cause) -> None:
        """Committed units leave the house. Units that the books had lost were there after all: they are found first."""
        for part in leaving:
            on_hand = self.levels[part.sku, part.location].on_hand
            if on_hand < part.quantity:
                found = replace(cause, reason="shipped, so they were there")
                self._move(part.sku, part.location, MovementKind.COUNT, found, on_hand=part.quantity - on_hand)
            self._move(
                part.sku, part.location, MovementKind.SHIP, cause, on_hand=-part.quantity, committed=-part.quantity
            )

    def take_back(self, returned: Iterable[Allocation], cause: Cause) -> None:
        """Units that were shipped are here again."""
        for part in returned:
            self._move(part.sku, part.location, MovementKind.RETURN, cause, on_hand=part.quantity)

    def facts(self) -> list[StockLevelChanged | StockShortfallDetected]:
        """What is to be announced: levels whose free or received units changed, and shortfalls that grew."""
        last = {(move.sku, move.location): move.cause for move in self.movements}
        changed = {place for place in self.levels if self._announces(place)}
        # Both sides of a transfer are told, also where one shows no difference.
        changed |= {self._moved_with[place] for place in changed if place in self._moved_with}
        found: list[StockLevelChanged | StockShortfallDetected] = []
        for place, level in self.levels.items():
            if place in changed:
                found.append(
                    StockLevelChanged(
                        level.sku,
                        level.location,
                        level.version,
                        level.free,
                        level.received_total,
                        self._other(place),
                        last.get(place),
                    )
                )
            if place in self._before and level.missing > self._before[place][1]:
                found.append(StockShortfallDetected(level.sku, level.location, level.version, level.missing))
        return found

    def _announces(self, place: Place) -> bool:
        if place in self.announced_late:
            return True
        if place not in self._before:
            return False
        level, (free, _, received_total) = self.levels[place], self._before[place]
        return level.free != free or level.received_total != received_total

    def _other(self, place: Place) -> OtherLevel | None:
        if place not in self._moved_with:
            return None
        other = self.levels[self._moved_with[place]]
        return OtherLevel(other.location, other.version, other.free, other.received_total)

    def _check_there(self, sku: str, location: str, delta: int) -> None:
        on_hand = self.levels[sku, location].on_hand
        if on_hand + delta < 0:
            raise NegativeStock(sku, location, on_hand, delta)

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
        safety: int = 0,
    ) -> None:
        place = (sku, location)
        level = self.levels[place]
        if place not in self._before:
            self._before[place] = level.free, level.missing, level.received_total
        level.on_hand += on_hand
        level.held += held
        level.committed += committed
        level.safety += safety
        if kind is not MovementKind.TRANSFER:
            # Units that only changed their place did not come in.
            level.received_total += max(0, on_hand)
        level.version += 1
        self.movements.append(Movement(sku, location, kind, on_hand, held, committed, safety, level.version, cause))


def quantities(parts: Iterable[Allocation]) -> dict[str, int]:
    """Units per SKU."""
    found: dict[str, int] = {}
    for part in parts:
        found[part.sku] = found.get(part.sku, 0) + part.quantity
    return found
