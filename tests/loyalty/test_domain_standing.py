"""Points and tiers by their rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.loyalty.domain.money import Money
from services.loyalty.domain.standing import (
    ACCRUAL_RULE,
    TIER_RULE,
    DeliveredParcel,
    NegativePoints,
    Standing,
    Tier,
    adjusted,
    delivered,
)

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)


def nobody() -> Standing:
    return Standing("cus_1", 0, 0, Tier.NEW, TIER_RULE.version, 0)


def parcel(amount: str, delivery_time: datetime = NOW) -> DeliveredParcel:
    return DeliveredParcel("cus_1", "ord_1", "shp_1", Money(Decimal(amount), "EUR"), delivery_time, "fact_1")


@pytest.mark.parametrize(
    ("amount", "currency", "points"),
    [("79.99", "EUR", 79), ("80", "EUR", 80), ("0.99", "EUR", 0), ("-5.00", "EUR", 0), ("900", "CZK", 0)],
)
def test_a_point_for_each_whole_euro(amount: str, currency: str, points: int) -> None:
    assert ACCRUAL_RULE.points(Money(Decimal(amount), currency)) == points


@pytest.mark.parametrize(
    ("points", "tier"), [(0, Tier.NEW), (299, Tier.NEW), (300, Tier.REGULAR), (1499, Tier.REGULAR), (1500, Tier.FRIEND)]
)
def test_tiers_begin_at_their_points(points: int, tier: Tier) -> None:
    assert TIER_RULE.tier(points) is tier


def test_an_entry_names_its_fact() -> None:
    entry = delivered(parcel("312.40"), NOW)
    assert (entry.points, entry.fact_id, entry.actor) == (312, "fact_1", "fact:fact_1")
    assert entry.text == "a parcel with goods of 312.40 EUR arrived"


def test_a_delivery_moves_the_standing_and_says_by_how_much() -> None:
    standing = nobody()
    standing.add(delivered(parcel("312.40"), NOW), NOW)
    changed = standing.happened[0]
    assert (changed.tier, changed.points, changed.points_delta, changed.order_id) == (Tier.REGULAR, 312, 312, "ord_1")
    assert changed.version == standing.version == 1


def test_points_from_before_the_span_count_for_the_sum_only() -> None:
    standing = nobody()
    standing.add(delivered(parcel("500", NOW - timedelta(days=365)), NOW), NOW)
    assert (standing.points, standing.qualifying_points, standing.tier) == (500, 0, Tier.NEW)
    assert standing.review_time() is None


def test_a_regular_is_looked_at_again_when_the_oldest_points_leave_the_span() -> None:
    standing = nobody()
    standing.add(delivered(parcel("500", NOW - timedelta(days=100)), NOW), NOW)
    standing.add(adjusted(10, "sorry", "operator:olga", NOW), NOW)
    assert standing.review_time() == NOW + timedelta(days=265)


def test_no_more_points_can_be_taken_than_there_are() -> None:
    standing = nobody()
    standing.add(adjusted(10, "sorry", "operator:olga", NOW), NOW)
    with pytest.raises(NegativePoints) as refused:
        standing.add(adjusted(-11, "oops", "operator:olga", NOW), NOW)
    assert refused.value.details == {"points": "10", "delta": "-11"}
    assert standing.points == 10


@given(st.lists(st.integers(-500, 2000), max_size=30))
def test_the_balance_is_the_sum_and_versions_rise(deltas: list[int]) -> None:
    standing, booked = nobody(), 0
    for delta in deltas:
        try:
            standing.add(adjusted(delta, "why", "operator:olga", NOW), NOW)
        except NegativePoints:
            continue
        booked += delta
        assert standing.points == standing.qualifying_points == booked
        assert standing.tier is TIER_RULE.tier(booked)
    assert [one.version for one in standing.happened] == list(range(1, standing.version + 1))
    assert sum(one.points_delta for one in standing.happened) == booked


def test_nothing_is_earned_later_than_now() -> None:
    standing = nobody()
    standing.add(delivered(parcel("500", datetime.max.replace(tzinfo=UTC)), NOW), NOW)
    assert standing.review_time() == NOW + timedelta(days=365)
