"""No hoarding: how many holds may be open at once, and how many units of one SKU a hold may take.

Counting holds alone would not do: one hold of ten thousand units empties the shelf as twenty holds do. So the units of
one SKU in a hold are capped as well; who wants more than that talks to a human.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.chassis.errors import TooMuch
from services.inventory.domain.reservation import Purpose


class TooManyHolds(TooMuch):
    """As many holds are open as one customer, guest or peer may have."""

    reason = "TOO_MANY_HOLDS"

    def __init__(self, cap: str, open_holds: int, limit: int) -> None:
        super().__init__(f"{open_holds} holds are open, {limit} are allowed", cap=cap, open=open_holds, limit=limit)


class TooManyUnits(TooMuch):
    """A hold may not take so many units of one SKU."""

    reason = "TOO_MANY_UNITS"


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """What the shop allows."""

    per_customer: int
    per_guest: int
    per_peer: int
    waiting_per_customer: int
    units_per_line: int

    def check_units(self, wanted: Mapping[str, int]) -> None:
        """Raises `TooManyUnits`."""
        for sku, quantity in wanted.items():
            if quantity > self.units_per_line:
                raise TooManyUnits(
                    "a hold cannot take so many units of one SKU", sku=sku, wanted=quantity, limit=self.units_per_line
                )


@dataclass(slots=True)
class OpenHolds:
    """The holds that are open now, counted under locks so that two at once cannot both be the last one allowed.

    Turns of waiting customers count for themselves: who waits can still check out.
    """

    by_customer: Counter[tuple[str, Purpose]] = field(default_factory=Counter)
    by_peer: Counter[str] = field(default_factory=Counter)

    def check(self, limits: HoldLimits, customer_id: str, purpose: Purpose, *, peer: str, guest: bool) -> None:
        """Raises `TooManyHolds`, naming the cap that is reached."""
        if purpose is Purpose.WAITING_CUSTOMER:
            cap, limit = "waiting", limits.waiting_per_customer
        elif guest:
            cap, limit = "guest", limits.per_guest
        else:
            cap, limit = "customer", limits.per_customer
        if self.by_customer[customer_id, purpose] >= limit:
            raise TooManyHolds(cap, self.by_customer[customer_id, purpose], limit)
        if peer and self.by_peer[peer] >= limits.per_peer:
            raise TooManyHolds("peer", self.by_peer[peer], limits.per_peer)

    def add(self, customer_id: str, purpose: Purpose, peer: str) -> None:
        """One more is open."""
        self.by_customer[customer_id, purpose] += 1
        if peer:
            self.by_peer[peer] += 1
