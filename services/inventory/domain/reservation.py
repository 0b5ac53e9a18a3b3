"""Reservations: units set aside for one customer until a time, or promised to an order.

held ──commit──> committed ──release order──> released
  │ └─release──> released
  └─time runs out──> expired ──commit, if still free──> committed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.chassis.errors import NotFound, NotNow
from services.inventory.domain.allocation import Allocation
from services.inventory.domain.stock import quantities


class ReservationState(StrEnum):
    """Where a reservation stands."""

    HELD = "held"
    COMMITTED = "committed"
    RELEASED = "released"
    EXPIRED = "expired"


class Purpose(StrEnum):
    """What units are held for."""

    CHECKOUT = "checkout"
    # Somebody waited for a product to come back: catalog holds it for them.
    WAITING_CUSTOMER = "waiting_customer"


class ReservationExpired(NotNow):
    """The hold ran out."""

    reason = "RESERVATION_EXPIRED"


class ReservationClosed(NotNow):
    """The reservation was released, or belongs to another order."""

    reason = "RESERVATION_CLOSED"


class HoldLimitReached(NotNow):
    """A hold lives no longer than the shop's limit."""

    reason = "HOLD_LIMIT_REACHED"


class OrderReleased(NotNow):
    """The order gave its stock up: nothing is committed for it any more."""

    reason = "ORDER_RELEASED"


class NotShrinking(NotNow):
    """A hold cannot grow: hold the rest anew."""

    reason = "NOT_SHRINKING"


class NotShipped(NotNow):
    """Fewer units of the order left that place than are said to come back."""

    reason = "NOT_SHIPPED"


class NotCommitted(NotNow):
    """Fewer units of that place are promised to the order than are said to leave."""

    reason = "NOT_COMMITTED"


class ReservationNotFound(NotFound):
    """There is no such reservation."""

    reason = "RESERVATION_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Line:
    """Units from one location; `held` while they are counted as held there."""

    allocation: Allocation
    held: bool
    shipped: int = 0
    # Of the shipped ones.
    returned: int = 0

    @property
    def unshipped(self) -> Allocation:
        """What has not left the house."""
        part = self.allocation
        return Allocation(part.sku, part.location, part.quantity - self.shipped)


@dataclass(slots=True)
class Reservation:
    """Units set aside for one customer."""

    reservation_id: str
    customer_id: str
    state: ReservationState
    create_time: datetime
    expire_time: datetime
    order_id: str | None = None
    version: int = 1
    lines: list[Line] = field(default_factory=list)
    purpose: Purpose = Purpose.CHECKOUT
    # Where the units go, if that is known.
    country: str = ""
    # Where the call came from, as an opaque hash.
    peer: str = ""
    # The hold that used up this one of a waiting customer.
    used_by: str | None = None

    @property
    def held(self) -> list[Allocation]:
        """The units that are counted as held."""
        return [line.allocation for line in self.lines if line.held]

    @property
    def lapsed(self) -> list[Allocation]:
        """The units that are not."""
        return [line.allocation for line in self.lines if not line.held]

    def as_of(self, now: datetime) -> ReservationState:
        """The state at an instant: a hold past its time is expired, whatever has been written down."""
        if self.state is ReservationState.HELD and self.expire_time <= now:
            return ReservationState.EXPIRED
        return self.state

    def extend(self, now: datetime, hold_time: timedelta, limit: timedelta) -> None:
        """Moves the time limit, never back. Raises `ReservationExpired`, `ReservationClosed`, `HoldLimitReached`."""
        self._check_held(now)
        until = now + hold_time
        latest = self.create_time + limit
        if until > latest:
            raise HoldLimitReached(
                "the hold cannot live that long", latest=latest.isoformat(), wanted=until.isoformat()
            )
        self.expire_time = max(self.expire_time, until)

    def shrink(self, now: datetime, kept: Mapping[str, int]) -> list[Allocation]:
        """Keeps so many units of each SKU named. Returns what is given back, from the smallest parts first.

        Raises `ReservationExpired`, `ReservationClosed`, `NotShrinking`.
        """
        self._check_held(now)
        have = quantities(self.held)
        for sku, quantity in kept.items():
            if quantity > have.get(sku, 0):
                raise NotShrinking("a hold cannot grow", sku=sku, wanted=quantity, held=have.get(sku, 0))
        excess = {sku: have[sku] - quantity for sku, quantity in kept.items() if have.get(sku, 0) > quantity}
        back: list[Allocation] = []
        smaller: list[Line] = []
        for line in sorted(self.lines, key=lambda line: (line.allocation.quantity, line.allocation.location)):
            part = line.allocation
            given = min(excess.get(part.sku, 0), part.quantity)
            if given:
                excess[part.sku] -= given
                back.append(replace(part, quantity=given))
            if given < part.quantity:
                smaller.append(replace(line, allocation=replace(part, quantity=part.quantity - given)))
        if smaller:
            # A hold of which nothing is left keeps its lines, to show what it was.
            self.lines = sorted(smaller, key=lambda line: (line.allocation.sku, line.allocation.location))
        else:
            self.state = ReservationState.RELEASED
        return sorted(back, key=lambda part: (part.sku, part.location))

    def use_up(self, skus: Mapping[str, object], used_by: str) -> list[Allocation]:
        """A checkout of the waiting customer takes the units of these SKUs. Returns what was held of them."""
        used = [line.allocation for line in self.lines if line.held and line.allocation.sku in skus]
        rest = [line for line in self.lines if line.allocation not in used]
        if rest:
            self.lines = rest
        else:
            # Nothing is held any more; the lines stay, to show what it was.
            self.lines = [replace(line, held=False) for line in self.lines]
            self.state = ReservationState.RELEASED
        self.used_by = used_by
        return used

    def place_anew(self, lapsed: list[Allocation]) -> None:
        """The units whose hold had run out come from these places now."""
        lines = [line for line in self.lines if line.held] + [Line(part, held=False) for part in lapsed]
        self.lines = sorted(lines, key=lambda line: (line.allocation.sku, line.allocation.location))

    def check_leaving(self, leaving: Mapping[tuple[str, str], int]) -> None:
        """Raises `NotCommitted` when these are not all promised to the order and still here."""
        here = {
            (line.allocation.sku, line.allocation.location): line.unshipped.quantity
            for line in self.lines
            if self.state is ReservationState.COMMITTED
        }
        for (sku, location), quantity in leaving.items():
            committed = here.get((sku, location), 0)
            if quantity > committed:
                raise NotCommitted(
                    "fewer units are promised to the order there",
                    sku=sku,
                    location=location,
                    wanted=quantity,
                    committed=committed,
                )

    def check_returning(self, returning: Mapping[tuple[str, str], int]) -> None:
        """Raises `NotShipped` when these have not all left, or came back before."""
        out = {(line.allocation.sku, line.allocation.location): line.shipped - line.returned for line in self.lines}
        for (sku, location), quantity in returning.items():
            returnable = out.get((sku, location), 0)
            if quantity > returnable:
                raise NotShipped(
                    "fewer units of the order left that place",
                    sku=sku,
                    location=location,
                    wanted=quantity,
                    returnable=returnable,
                )

    def _check_held(self, now: datetime) -> None:
        state = self.as_of(now)
        if state in (ReservationState.COMMITTED, ReservationState.RELEASED):
            raise ReservationClosed(f"the reservation is {state}", state=state)
        if state is ReservationState.EXPIRED or not self.held:
            raise ReservationExpired("the hold ran out", expire_time=self.expire_time.isoformat())

    def check_committable(self, order_id: str) -> None:
        """Raises `ReservationClosed` when it was released or belongs to another order."""
        if self.state is ReservationState.RELEASED:
            raise ReservationClosed("the reservation is released", state=self.state)
        if self.state is ReservationState.COMMITTED and self.order_id != order_id:
            raise ReservationClosed("the reservation belongs to another order", state=self.state)
