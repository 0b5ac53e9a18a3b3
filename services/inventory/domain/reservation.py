"""Reservations: units set aside for one customer until a time, or promised to an order.

held ──commit──> committed ──release order──> released
  │ └─release──> released
  └─time runs out──> expired ──commit, if still free──> committed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from services.chassis.errors import NotFound, NotNow, TooMuch
from services.inventory.domain.stock import Allocation


class ReservationState(StrEnum):
    """Where a reservation stands."""

    HELD = "held"
    COMMITTED = "committed"
    RELEASED = "released"
    EXPIRED = "expired"


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


class TooManyHolds(TooMuch):
    """A customer has as many open holds as allowed."""

    reason = "TOO_MANY_HOLDS"


class ReservationNotFound(NotFound):
    """There is no such reservation."""

    reason = "RESERVATION_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Line:
    """Units from one location; `held` while they are counted as held there."""

    allocation: Allocation
    held: bool
    shipped: int = 0

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

    def as_of(self, now: datetime) -> ReservationState:
        """The state at an instant: a hold past its time is expired, whatever has been written down."""
        if self.state is ReservationState.HELD and self.expire_time <= now:
            return ReservationState.EXPIRED
        return self.state

    def extend(self, now: datetime, hold_time: timedelta, limit: timedelta) -> None:
        """Moves the time limit, never back. Raises `ReservationExpired`, `ReservationClosed`, `HoldLimitReached`."""
        match self.as_of(now):
            case ReservationState.EXPIRED:
                raise ReservationExpired("the hold ran out", expire_time=self.expire_time.isoformat())
            case ReservationState.COMMITTED | ReservationState.RELEASED:
                raise ReservationClosed(f"the reservation is {self.state}", state=self.state)
            case ReservationState.HELD:
                until = now + hold_time
                latest = self.create_time + limit
                if until > latest:
                    raise HoldLimitReached(
                        "the hold cannot live that long", latest=latest.isoformat(), wanted=until.isoformat()
                    )
                self.expire_time = max(self.expire_time, until)

    def check_committable(self, order_id: str) -> None:
        """Raises `ReservationClosed` when it was released or belongs to another order."""
        if self.state is ReservationState.RELEASED:
            raise ReservationClosed("the reservation is released", state=self.state)
        if self.state is ReservationState.COMMITTED and self.order_id != order_id:
            raise ReservationClosed("the reservation belongs to another order", state=self.state)
