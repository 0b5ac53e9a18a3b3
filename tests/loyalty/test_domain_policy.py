"""A contradictory policy is refused, field by field; a sound one takes over at its time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import InvalidInput
from services.loyalty.domain.countries import known_countries
from services.loyalty.domain.money import Money
from services.loyalty.domain.policy import Draft, PolicyNotAfterActive, next_version
from services.loyalty.domain.standing import Tier

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)


def euros(amount: str | Decimal) -> Money:
    return Money(Decimal(amount), "EUR")


SOUND = Draft(
    active_from=None,
    minimum_tier=Tier.REGULAR,
    minimum_order_value=euros("50.00"),
    countries=("AT", "DE"),
    minimum_days_since_last=14,
    unit_cost=euros("9.90"),
    monthly_budget=euros("20000.00"),
    daily_budget=euros("2000.00"),
)


def test_a_sound_draft_is_active_from_now() -> None:
    policy = next_version(SOUND, None, NOW)
    assert (policy.version, policy.active_from) == (1, NOW)


def test_versions_and_times_rise_together() -> None:
    first = next_version(SOUND, None, NOW)
    scheduled = next_version(replace(SOUND, active_from=NOW + timedelta(days=9)), first, NOW)
    assert scheduled.version == 2
    with pytest.raises(PolicyNotAfterActive) as refused:
        next_version(SOUND, scheduled, NOW + timedelta(days=1))
    assert refused.value.details["latest_version"] == "2"
    with pytest.raises(PolicyNotAfterActive):
        next_version(replace(SOUND, active_from=scheduled.active_from), scheduled, NOW)


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"minimum_tier": 0}, ["policy.minimum_tier"]),
        ({"minimum_tier": 99}, ["policy.minimum_tier"]),
        ({"countries": ("AT", "XX")}, ["policy.countries[1]"]),
        ({"countries": ("AT", "DE", "AT")}, ["policy.countries[2]"]),
        ({"countries": ("at",)}, ["policy.countries[0]"]),
        ({"minimum_days_since_last": -1}, ["policy.minimum_days_since_last"]),
        ({"minimum_days_since_last": 10**6}, ["policy.minimum_days_since_last"]),
        ({"unit_cost": None}, ["policy.unit_cost"]),
        ({"monthly_budget": None, "daily_budget": None}, ["policy.monthly_budget", "policy.daily_budget"]),
        ({"unit_cost": euros("-1.00")}, ["policy.unit_cost"]),
        ({"minimum_order_value": euros("-0.01")}, ["policy.minimum_order_value"]),
        ({"unit_cost": euros("0.001")}, ["policy.unit_cost"]),
        ({"monthly_budget": euros(Decimal(10) ** 12)}, ["policy.monthly_budget"]),
        ({"unit_cost": Money(Decimal(9), "euro")}, ["policy.unit_cost"]),
        ({"daily_budget": Money(Decimal(2000), "CZK")}, ["policy.daily_budget"]),
        ({"minimum_order_value": Money(Decimal(50), "USD")}, ["policy.minimum_order_value"]),
        ({"daily_budget": euros("9.89")}, ["policy.daily_budget"]),
        (
            {"monthly_budget": euros("9.89"), "daily_budget": euros("9.89")},
            ["policy.monthly_budget"] * 1 + ["policy.daily_budget"],
        ),
        ({"daily_budget": euros("20000.01")}, ["policy.daily_budget"]),
        ({"active_from": NOW - timedelta(microseconds=1)}, ["policy.active_from"]),
        ({"active_from": NOW + timedelta(days=367)}, ["policy.active_from"]),
        ({"active_from": datetime.max.replace(tzinfo=UTC)}, ["policy.active_from"]),
        ({"countries": ("XX",) * 1_000_000}, ["policy.countries"]),
        (
            {"minimum_tier": 0, "unit_cost": None, "countries": ("ZZ",)},
            ["policy.minimum_tier", "policy.countries[0]", "policy.unit_cost"],
        ),
    ],
)
def test_what_contradicts_is_named(changed: dict[str, object], fields: list[str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        next_version(replace(SOUND, **changed), None, NOW)  # type: ignore[arg-type]
    assert [field for field, _ in refused.value.fields] == fields


def test_countries_are_those_of_iso_3166() -> None:
    assert len(known_countries()) > 240
    assert {"AT", "DE", "CZ", "SK", "JP"} <= known_countries()
    assert not {"XX", "EU", "UK", ""} & known_countries()


amounts = st.decimals(min_value=-20, max_value=2000, places=2) | st.decimals(min_value=0, max_value=50, places=3)
monies = st.builds(Money, amounts, st.sampled_from(["EUR", "EUR", "EUR", "CZK", ""]))
drafts = st.builds(
    Draft,
    active_from=st.none() | st.sampled_from([NOW, NOW + timedelta(1), NOW - timedelta(1)]),
    minimum_tier=st.integers(-1, 5),
    minimum_order_value=st.none() | monies,
    countries=st.lists(st.sampled_from(["AT", "DE", "XX", "SK"]), max_size=4).map(tuple),
    minimum_days_since_last=st.integers(-2, 60),
    unit_cost=st.none() | monies,
    monthly_budget=st.none() | monies,
    daily_budget=st.none() | monies,
)


@given(drafts)
def test_whatever_is_published_contradicts_nothing(draft: Draft) -> None:
    try:
        policy = next_version(draft, None, NOW)
    except InvalidInput as refused:
        assert refused.fields
        return
    assert policy.active_from >= NOW
    assert policy.minimum_tier in list(Tier)
    assert Decimal(0) <= policy.unit_cost.amount <= policy.daily_budget.amount <= policy.monthly_budget.amount
    assert {policy.daily_budget.currency, policy.monthly_budget.currency} == {policy.currency}
    assert set(policy.countries) <= known_countries()
    assert len(set(policy.countries)) == len(policy.countries)
    assert policy.minimum_days_since_last >= 0
