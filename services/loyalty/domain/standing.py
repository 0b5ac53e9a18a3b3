"""Standing: what points are given for, and who is a regular.

Both rules have versions, and a rule is never edited: change one by adding its successor. Each entry of the ledger and
each standing names the version that made it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

from services.chassis.errors import NotNow
from services.loyalty.domain.money import Money


class Tier(IntEnum):
    """How well we know each other. A higher one is a closer one."""

    NEW = 1
    REGULAR = 2
    FRIEND = 3


@dataclass(frozen=True, slots=True)
class AccrualRule:
    """So many points for each whole unit of a currency. Goods in another currency give none."""

    version: int
    currency: str
    points_per_unit: int

    def points(self, goods: Money) -> int:
        """What a delivered parcel with these goods gives."""
        return max(0, int(goods.amount)) * self.points_per_unit if goods.currency == self.currency else 0


@dataclass(frozen=True, slots=True)
class TierRule:
    """Which tier the points of a span of time make."""

    version: int
    days: int
    regular_from: int
    friend_from: int

    @property
    def span(self) -> timedelta:
        return timedelta(days=self.days)

    def tier(self, qualifying_points: int) -> Tier:
        """The tier that so many points make."""
        if qualifying_points >= self.friend_from:
            return Tier.FRIEND
        return Tier.REGULAR if qualifying_points >= self.regular_from else Tier.NEW


ACCRUAL_RULES = (AccrualRule(version=1, currency="EUR", points_per_unit=1),)
TIER_RULES = (TierRule(version=1, days=365, regular_from=300, friend_from=1500),)
ACCRUAL_RULE = ACCRUAL_RULES[-1]
TIER_RULE = TIER_RULES[-1]


class NegativePoints(NotNow):
    """A correction would leave fewer than no points."""

    reason = "NEGATIVE_POINTS"


class Reason(StrEnum):
    """Why points came or went."""

    DELIVERY = "delivery"
    ADJUST = "adjust"


@dataclass(frozen=True, slots=True)
class DeliveredParcel:
    """A parcel that arrived, and the fact that says so."""

    customer_id: str
    order_id: str
    shipment_id: str
    goods: Money
    delivery_time: datetime
    fact_id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the points ledger, to be written. `earn_time` is when it was earned, not when we heard of it."""

    points: int
    reason: Reason
    text: str
    actor: str
    rule_version: int
    earn_time: datetime
    order_id: str | None = None
    shipment_id: str | None = None
    fact_id: str | None = None


@dataclass(frozen=True, slots=True)
class StandingChanged:
    """A customer now stands so. `points_delta` is what was added or taken, 0 when only time passed."""

    customer_id: str
    version: int
    tier: Tier
    points: int
    points_delta: int
    order_id: str | None = None


@dataclass(slots=True)
class Standing:
    """Where a customer stands, locked; collects what is to be announced."""

    customer_id: str
    points: int
    # Those of the span of the tier rule.
    qualifying_points: int
    tier: Tier
    rule_version: int
    version: int
    # The oldest entry within the span: when it leaves, the tier may change.
    oldest: datetime | None = None
    happened: list[StandingChanged] = field(default_factory=list)

    def review_time(self) -> datetime | None:
        """When time alone may lower the tier next; None where it cannot."""
        return self.oldest + TIER_RULE.span if self.oldest is not None and self.tier > Tier.NEW else None

    def add(self, entry: Entry, now: datetime) -> None:
        """Books an entry. Raises `NegativePoints` for one that takes more than there is."""
        if self.points + entry.points < 0:
            raise NegativePoints(
                f"{-entry.points} points cannot be taken from {self.points}",
                points=self.points,
                delta=entry.points,
            )
        self.points += entry.points
        if entry.earn_time > now - TIER_RULE.span:
            self.qualifying_points += entry.points
            self.oldest = min(self.oldest or entry.earn_time, entry.earn_time)
        self._judge()
        if entry.points:
            self._changed(entry.points, entry.order_id)

    def review(self) -> None:
        """Looks again, since time passed or the rule has a successor."""
        if self._judge():
            self._changed(0)

    def _judge(self) -> bool:
        before = self.tier
        self.tier = TIER_RULE.tier(self.qualifying_points)
        self.rule_version = TIER_RULE.version
        return self.tier is not before

    def _changed(self, points_delta: int, order_id: str | None = None) -> None:
        self.version += 1
        self.happened.append(
            StandingChanged(self.customer_id, self.version, self.tier, self.points, points_delta, order_id)
        )


def delivered(parcel: DeliveredParcel, now: datetime) -> Entry:
    """The entry for a parcel that arrived. One without points stands in the ledger too: it was counted.

    Nothing is earned later than now, whatever a carrier's clock said: its points would count for longer than others.
    """
    return Entry(
        ACCRUAL_RULE.points(parcel.goods),
        Reason.DELIVERY,
        f"a parcel with goods of {parcel.goods} arrived",
        f"fact:{parcel.fact_id}",
        ACCRUAL_RULE.version,
        min(parcel.delivery_time, now),
        parcel.order_id,
        parcel.shipment_id,
        parcel.fact_id,
    )


def adjusted(points: int, text: str, actor: str, now: datetime) -> Entry:
    """The entry for points that somebody gives or takes."""
    return Entry(points, Reason.ADJUST, text, actor, ACCRUAL_RULE.version, now)
