"""The decision on an order, and what becomes of its cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.loyalty.domain.money import Money
from services.loyalty.domain.policy import UpgradePolicy
from services.loyalty.domain.standing import Tier
from services.loyalty.domain.upgrades import (
    Basis,
    Budget,
    Budgets,
    Outcome,
    PlacedOrder,
    State,
    Upgrade,
    decide,
    may_be_granted,
    settled,
)

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
COST = Decimal("9.90")
POLICY = UpgradePolicy(
    7,
    NOON - timedelta(days=9),
    Tier.REGULAR,
    Money(Decimal("50.00"), "EUR"),
    ("AT", "DE"),
    14,
    Money(COST, "EUR"),
    Money(Decimal("20000.00"), "EUR"),
    Money(Decimal("2000.00"), "EUR"),
)
ORDER = PlacedOrder("ord_1", "cus_1", Money(Decimal("80.00"), "EUR"), "AT", False, NOON)
BASIS = Basis(412, None, POLICY)
FULL = Budgets(Budget(Decimal("20000.00"), Decimal(0), Decimal(0)), Budget(Decimal("2000.00"), Decimal(0), Decimal(0)))


def budgets(month_left: str = "100.00", day_left: str = "100.00") -> Budgets:
    return Budgets(
        Budget(Decimal(month_left) + 5, Decimal(3), Decimal(2)), Budget(Decimal(day_left) + 5, Decimal(3), Decimal(2))
    )


def test_a_regular_is_surprised_and_the_decision_reads_like_a_sentence() -> None:
    decision = decide(ORDER, BASIS, FULL)
    assert decision.granted
    assert decision.reason == "GRANTED"
    assert decision.month_left == Decimal("19990.10")
    assert decision.day_left == Decimal("1990.10")
    assert decision.text == (
        "Order ord_1 goes overnight at our cost of 9.90 EUR: the order does not go overnight yet; 412 points in 365"
        " days make the customer REGULAR; the goods are worth 80.00 EUR, 50.00 EUR are needed; the order goes to AT,"
        " overnight is given to AT, DE; the customer was never surprised before; 20000.00 EUR are left of the"
        " 20000.00 EUR for 2026-03; 2000.00 EUR are left of the 2000.00 EUR for 2026-03-14."
        " Decided by policy version 7; 19990.10 EUR are left for 2026-03."
    )
    assert decision.thanks == "a surprise for a regular customer: 412 points in the last 365 days"


NEEDS = "9.90 EUR are needed, 9.89 EUR are left of the 14.89 EUR"
DECLINED = [
    (replace(ORDER, overnight=True), BASIS, FULL, "ALREADY_FAST", "the order goes overnight already"),
    (
        ORDER,
        replace(BASIS, qualifying_points=299),
        FULL,
        "MINIMUM_TIER",
        "299 points in 365 days make the customer NEW, REGULAR is needed",
    ),
    (
        replace(ORDER, goods=Money(Decimal("49.99"), "EUR")),
        BASIS,
        FULL,
        "MINIMUM_ORDER_VALUE",
        "the goods are worth 49.99 EUR, 50.00 EUR are needed",
    ),
    (
        replace(ORDER, goods=Money(Decimal("2000"), "CZK")),
        BASIS,
        FULL,
        "MINIMUM_ORDER_VALUE",
        "the goods are in CZK, the policy counts in EUR",
    ),
    (
        replace(ORDER, goods=Money(Decimal("2000"), "")),
        BASIS,
        FULL,
        "MINIMUM_ORDER_VALUE",
        "the goods are in no one currency, the policy counts in EUR",
    ),
    (
        replace(ORDER, country="FR"),
        BASIS,
        FULL,
        "COUNTRY",
        "the order goes to FR, overnight is given to AT, DE",
    ),
    (
        ORDER,
        replace(BASIS, last_surprise=NOON - timedelta(days=13, hours=23)),
        FULL,
        "DAYS_SINCE_LAST",
        "13 days since the last surprise, 14 are needed",
    ),
    (
        ORDER,
        replace(BASIS, last_surprise=NOON + timedelta(days=20)),
        FULL,
        "DAYS_SINCE_LAST",
        "0 days since the last surprise, 14 are needed",
    ),
    (ORDER, BASIS, budgets("9.89"), "MONTHLY_BUDGET", f"{NEEDS} for 2026-03"),
    (
        ORDER,
        BASIS,
        budgets("-50.00"),
        "MONTHLY_BUDGET",
        "9.90 EUR are needed, 0.00 EUR are left of the -45.00 EUR for 2026-03",
    ),
    (ORDER, BASIS, budgets("50.00", "9.89"), "DAILY_BUDGET", f"{NEEDS} for 2026-03-14"),
    (
        ORDER,
        replace(BASIS, policy=None),
        None,
        "NO_POLICY",
        "no policy was in force at 2026-03-14T12:00:00+00:00",
    ),
    (ORDER, replace(BASIS, cancelled=True), FULL, "ORDER_CANCELLED", "the order is cancelled"),
]


@pytest.mark.parametrize(("order", "basis", "left", "rule", "text"), DECLINED)
def test_the_first_rule_that_does_not_hold_is_the_reason(
    order: PlacedOrder, basis: Basis, left: Budgets | None, rule: str, text: str
) -> None:
    decision = decide(order, basis, left)
    assert not decision.granted
    assert decision.reason == rule
    assert decision.decisive is not None
    assert decision.decisive.text == text
    assert decision.text.startswith(f"Order ord_1 goes as ordered, because {text}.")
    assert may_be_granted(order, basis) == rule.endswith("_BUDGET")


def test_what_just_suffices_suffices() -> None:
    basis = replace(BASIS, qualifying_points=300, last_surprise=NOON - timedelta(days=14))
    order = replace(ORDER, goods=Money(Decimal("50.00"), "EUR"))
    decision = decide(order, basis, budgets("9.90", "9.90"))
    assert decision.granted
    assert (decision.month_left, decision.day_left) == (Decimal("0.00"), Decimal("0.00"))


def test_a_policy_without_a_minimum_takes_any_value_in_its_currency() -> None:
    basis = replace(BASIS, policy=replace(POLICY, minimum_order_value=None))
    assert decide(replace(ORDER, goods=Money(Decimal("0.01"), "EUR")), basis, FULL).granted
    assert not decide(replace(ORDER, goods=Money(Decimal("99"), "CZK")), basis, FULL).granted


def test_every_rule_is_told_also_when_one_fails() -> None:
    decision = decide(replace(ORDER, country="FR"), replace(BASIS, qualifying_points=0), FULL)
    assert [(outcome.rule, outcome.holds) for outcome in decision.outcomes] == [
        ("ALREADY_FAST", True),
        ("MINIMUM_TIER", False),
        ("MINIMUM_ORDER_VALUE", True),
        ("COUNTRY", False),
        ("DAYS_SINCE_LAST", True),
        ("MONTHLY_BUDGET", True),
        ("DAILY_BUDGET", True),
    ]


def test_the_budget_is_that_of_the_orders_month_and_day_in_utc() -> None:
    vienna_new_year = datetime.fromisoformat("2027-01-01T00:30:00+01:00")
    order = replace(ORDER, order_time=vienna_new_year)
    assert (order.month, order.day) == (date(2026, 12, 1), date(2026, 12, 31))


@given(
    st.integers(0, 3000),
    st.decimals(0, 200, places=2),
    st.sampled_from(["AT", "DE", "FR", ""]),
    st.none() | st.integers(-30, 30),
    st.decimals(0, 30, places=2),
    st.decimals(0, 30, places=2),
    st.booleans(),
)
def test_granted_means_every_condition_holds(
    points: int, goods: Decimal, country: str, days: int | None, month: Decimal, day: Decimal, overnight: bool
) -> None:
    order = replace(ORDER, goods=Money(goods, "EUR"), country=country, overnight=overnight)
    last = None if days is None else NOON - timedelta(days=days)
    basis = replace(BASIS, qualifying_points=points, last_surprise=last)
    decision = decide(order, basis, budgets(str(month), str(day)))
    assert decision.granted == (
        points >= 300
        and goods >= 50
        and country in ("AT", "DE")
        and (days is None or days >= 14)
        and month >= COST
        and day >= COST
        and not overnight
    )
    assert decision.month_left == (month - COST if decision.granted else month)


OUTCOMES = (Outcome.UPGRADED, Outcome.NOT_APPLIED, Outcome.CANCELLED)


@pytest.mark.parametrize(
    ("heard", "state"),
    [
        ((), State.RESERVED),
        ((Outcome.UPGRADED,), State.SPENT),
        ((Outcome.NOT_APPLIED,), State.RETURNED),
        ((Outcome.CANCELLED,), State.RETURNED),
        ((Outcome.CANCELLED, Outcome.NOT_APPLIED), State.RETURNED),
        ((Outcome.UPGRADED, Outcome.CANCELLED), State.RETURNED),
        ((Outcome.UPGRADED, Outcome.NOT_APPLIED), State.RETURNED),
        (OUTCOMES, State.RETURNED),
    ],
)
def test_the_state_is_made_of_what_was_heard_not_of_when(heard: tuple[Outcome, ...], state: State) -> None:
    for order in permutations((None, *heard)):  # None: the decision, at any place among the facts
        upgrade = Upgrade()
        for step in order:
            if step is None:
                upgrade.grant(COST)
            else:
                upgrade.hear(step)
        assert upgrade.state is state is settled(set(heard))


def test_a_declined_order_never_moves_a_budget() -> None:
    upgrade = Upgrade()
    upgrade.decline()
    assert not any(upgrade.hear(outcome).moves for outcome in OUTCOMES)
    assert upgrade.state is State.DECLINED


Step = tuple[int, Outcome | None]


@given(st.lists(st.tuples(st.integers(0, 6), st.none() | st.sampled_from(OUTCOMES)), max_size=60))
def test_reserved_spent_and_left_are_always_the_budget(steps: list[Step]) -> None:
    """Any facts about several orders, in any order and as often as they like, against a budget for three."""
    limit = COST * 3 + Decimal("1.00")
    budget = Budget(limit, Decimal(0), Decimal(0))
    upgrades = [Upgrade() for _ in range(7)]
    for number, outcome in steps:
        upgrade = upgrades[number]
        if outcome is not None:
            movement = upgrade.hear(outcome)
        elif upgrade.state is not None:
            continue
        else:
            decision = decide(ORDER, BASIS, Budgets(budget, budget))
            movement = upgrade.grant(COST) if decision.granted else upgrade.decline()
        budget = Budget(limit, budget.reserved + movement.reserved, budget.spent + movement.spent)
        assert budget.reserved + budget.spent + budget.left == limit
        assert budget.reserved == COST * sum(one.state is State.RESERVED for one in upgrades)
        assert budget.spent == COST * sum(one.state is State.SPENT for one in upgrades)
        assert budget.left >= 0
