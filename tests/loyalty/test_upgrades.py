"""The one decision on each order, and its budget, on a real database with real concurrency."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf.message import Message

from services.chassis.errors import NotFound
from services.chassis.values import from_money, to_money
from shop.loyalty.events.v1 import facts_pb2 as facts
from shop.loyalty.v1 import loyalty_pb2 as pb
from shop.shipping.events.v1 import facts_pb2 as shipping
from shop.shipping.v1 import shipping_pb2
from tests.loyalty.conftest import NOON, Shop, cancelled, delivered, new_id, not_applied, order_placed, upgraded

COST = Decimal("9.90")
NONE = Decimal(0)


async def policy(shop: Shop, **changed: object) -> None:
    """Replaces the only policy: times of tests lie in the past, where none can be published."""
    await shop.database.pool.execute("ALTER TABLE upgrade_policies DISABLE TRIGGER upgrade_policies_are_append_only")
    columns = ", ".join(f"{column} = ${number}" for number, column in enumerate(changed, 1))
    await shop.database.pool.execute(f"UPDATE upgrade_policies SET {columns}", *changed.values())
    await shop.database.pool.execute("ALTER TABLE upgrade_policies ENABLE TRIGGER upgrade_policies_are_append_only")


async def test_a_regular_is_surprised(shop: Shop) -> None:
    order = order_placed(await shop.regular(412))
    await shop.hear(order)
    (granted,) = await shop.announced(facts.UpgradeGranted)
    assert (granted.order_id, granted.customer_id, granted.version) == (order.order_id, order.customer_id, 1)
    assert (granted.policy_version, granted.cost) == (1, to_money(COST, "EUR"))
    assert granted.reason == "a surprise for a regular customer: 412 points in the last 365 days"
    decision = await shop.decision(order.order_id)
    assert (decision.granted, decision.reason, decision.state) == (True, "GRANTED", pb.UPGRADE_STATE_RESERVED)
    assert decision.monthly_budget_left == to_money(Decimal("19990.10"), "EUR")
    assert decision.daily_budget_left == to_money(Decimal("1990.10"), "EUR")
    assert len(decision.outcomes) == 7
    assert all(outcome.holds and outcome.text for outcome in decision.outcomes)
    assert decision.text.startswith(f"Order {order.order_id} goes overnight at our cost of 9.90 EUR: ")
    assert decision.text.endswith(" The cost is reserved.")
    assert await shop.budget("month") == await shop.budget("day") == (COST, NONE)


async def test_the_facts_of_an_upgrade_are_keyed_by_order(shop: Shop) -> None:
    order = order_placed(await shop.regular())
    await shop.hear(order)
    rows = await shop.database.fetch("SELECT key FROM outbox WHERE topic = 'shop.loyalty.upgrades.v1'")
    assert [row["key"] for row in rows] == [order.order_id.encode()]


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"level": shipping_pb2.SERVICE_LEVEL_OVERNIGHT}, "ALREADY_FAST"),
        ({"country": "FR"}, "COUNTRY"),
        ({"country": "US", "currency": "USD"}, "MINIMUM_ORDER_VALUE"),
        ({"currency": "CZK", "country": "CZ"}, "MINIMUM_ORDER_VALUE"),
    ],
)
async def test_a_declined_order_says_why_and_costs_nothing(shop: Shop, changed: dict[str, str], rule: str) -> None:
    order = order_placed(await shop.regular(), **changed)  # type: ignore[arg-type]
    await shop.hear(order)
    (declined,) = await shop.announced(facts.UpgradeDeclined)
    assert (declined.order_id, declined.rule, declined.policy_version) == (order.order_id, rule, 1)
    decision = await shop.decision(order.order_id)
    assert (decision.reason, decision.state, decision.granted) == (rule, pb.UPGRADE_STATE_DECLINED, False)
    assert declined.reason in decision.text
    assert await shop.budget() == (NONE, NONE)


async def test_goods_in_two_currencies_are_declined_with_that_reason(shop: Shop) -> None:
    order = order_placed(await shop.regular())
    order.items.add(sku="HAT", quantity=1, location="vienna-1", unit_price=to_money(Decimal(100), "CZK"))
    await shop.hear(order)
    (declined,) = await shop.announced(facts.UpgradeDeclined)
    assert declined.reason == "the goods are in no one currency, the policy counts in EUR"


async def test_somebody_new_is_not_surprised_yet(shop: Shop) -> None:
    order = order_placed(new_id("cus"))
    await shop.hear(order)
    (declined,) = await shop.announced(facts.UpgradeDeclined)
    assert declined.rule == "MINIMUM_TIER"
    assert declined.reason == "0 points in 365 days make the customer NEW, REGULAR is needed"


@pytest.mark.parametrize(("days", "granted"), [(365, False), (364, True)])
async def test_points_count_for_a_year_before_the_orders_time(shop: Shop, days: int, granted: bool) -> None:
    customer = new_id("cus")
    await shop.hear(delivered(customer, "400.00", delivery_time=NOON - timedelta(days=days)))
    order = order_placed(customer)
    await shop.hear(order)
    assert (await shop.decision(order.order_id)).granted == granted


async def test_an_order_is_decided_once_however_often_it_is_told(shop: Shop) -> None:
    order = order_placed(await shop.regular())
    await asyncio.gather(*(shop.hear(order) for _ in range(6)))
    await shop.hear(order)
    assert len(await shop.announced(facts.UpgradeGranted)) == 1
    assert await shop.announced(facts.UpgradeDeclined) == []
    assert await shop.budget() == (COST, NONE)


async def test_a_budget_for_ten_grants_ten_to_sixty_four_at_once(shop: Shop) -> None:
    await policy(shop, monthly_budget=COST * 10, daily_budget=COST * 10)
    orders = [order_placed(await shop.regular()) for _ in range(64)]
    await asyncio.gather(*(shop.hear(order) for order in orders))
    assert len(await shop.announced(facts.UpgradeGranted)) == 10
    declined = await shop.announced(facts.UpgradeDeclined)
    assert len(declined) == 54
    assert {one.rule for one in declined} == {"MONTHLY_BUDGET"}
    assert await shop.budget("month") == await shop.budget("day") == (COST * 10, NONE)
    await shop.audit()


async def test_two_orders_of_one_customer_at_once_are_one_surprise(shop: Shop) -> None:
    for _ in range(5):
        customer = await shop.regular()
        await asyncio.gather(*(shop.hear(order_placed(customer)) for _ in range(2)))
    assert len(await shop.announced(facts.UpgradeGranted)) == 5
    declined = await shop.announced(facts.UpgradeDeclined)
    assert [one.reason for one in declined] == ["0 days since the last surprise, 14 are needed"] * 5
    await shop.audit()


async def test_days_without_a_surprise_are_counted_by_order_time(shop: Shop) -> None:
    customer = await shop.regular()
    days = {day: order_placed(customer, order_time=NOON + timedelta(days=day)) for day in (0, 13, 14, 1)}
    for order in days.values():
        await shop.hear(order)
    granted = [day for day, order in days.items() if (await shop.decision(order.order_id)).granted]
    assert granted == [0, 14]


async def test_a_surprise_that_was_given_back_was_none(shop: Shop) -> None:
    customer = await shop.regular()
    first, second = order_placed(customer), order_placed(customer, order_time=NOON + timedelta(days=1))
    await shop.hear(first)
    await shop.hear(not_applied(first))
    await shop.hear(second)
    assert (await shop.decision(second.order_id)).granted


async def test_an_upgrade_that_was_applied_spends_what_was_reserved(shop: Shop) -> None:
    order = order_placed(await shop.regular())
    await shop.hear(order)
    await shop.hear(upgraded(order))
    await shop.hear(upgraded(order))
    assert await shop.budget("month") == await shop.budget("day") == (NONE, COST)
    decision = await shop.decision(order.order_id)
    assert decision.state == pb.UPGRADE_STATE_SPENT
    assert decision.text.endswith(" The order was upgraded, the cost is spent.")
    assert decision.monthly_budget_left == to_money(Decimal("19990.10"), "EUR")
    await shop.audit()


@pytest.mark.parametrize("first", [not_applied, cancelled])
@pytest.mark.parametrize("second", [not_applied, cancelled])
async def test_what_was_not_applied_or_cancelled_is_given_back_once(shop: Shop, first: object, second: object) -> None:
    order, other = order_placed(await shop.regular()), order_placed(await shop.regular())
    await shop.hear(order)
    await shop.hear(other)
    await asyncio.gather(shop.hear(first(order)), shop.hear(second(order)))  # type: ignore[operator]
    assert await shop.budget("month") == await shop.budget("day") == (COST, NONE)
    assert (await shop.decision(order.order_id)).state == pb.UPGRADE_STATE_RETURNED
    await shop.audit()


async def test_a_cancel_gives_back_what_was_spent(shop: Shop) -> None:
    order = order_placed(await shop.regular())
    await shop.hear(order)
    await shop.hear(upgraded(order))
    await shop.hear(cancelled(order))
    await shop.hear(upgraded(order))
    assert await shop.budget() == (NONE, NONE)


async def test_an_order_cancelled_before_it_is_decided_is_declined(shop: Shop) -> None:
    order = order_placed(await shop.regular())
    await shop.hear(cancelled(order))
    with pytest.raises(NotFound):
        await shop.decision(order.order_id)
    await shop.hear(order)
    decision = await shop.decision(order.order_id)
    assert (decision.granted, decision.reason) == (False, "ORDER_CANCELLED")
    assert await shop.budget() == (NONE, NONE)


async def test_facts_of_shipping_that_come_before_the_decision_count_with_it(shop: Shop) -> None:
    spent, returned = order_placed(await shop.regular()), order_placed(await shop.regular())
    await shop.hear(upgraded(spent))
    await shop.hear(not_applied(returned))
    for order in (spent, returned):
        await shop.hear(order)
    assert await shop.budget() == (NONE, COST)
    await shop.audit()


async def test_a_cancel_at_the_moment_of_the_decision_leaves_nothing_reserved(shop: Shop) -> None:
    for _ in range(10):
        order = order_placed(await shop.regular())
        await asyncio.gather(shop.hear(order), shop.hear(cancelled(order)))
    assert await shop.budget() == (NONE, NONE)
    await shop.audit()


async def test_what_is_given_back_can_be_given_again(shop: Shop) -> None:
    await policy(shop, monthly_budget=COST, daily_budget=COST)
    first, second, third = [order_placed(await shop.regular()) for _ in range(3)]
    await shop.hear(first)
    await shop.hear(second)
    await shop.hear(cancelled(first))
    await shop.hear(third)
    granted = [(await shop.decision(order.order_id)).granted for order in (first, second, third)]
    assert granted == [True, False, True]


async def test_each_day_and_each_month_has_its_own_budget(shop: Shop) -> None:
    await policy(shop, monthly_budget=COST * 3, daily_budget=COST)
    # In UTC: the last instants of a month, the first of the next, whatever zone the order's time was told in.
    times = [
        "2026-03-30T12:00:00+00:00",
        "2026-03-30T23:59:59.999999+00:00",
        "2026-03-31T00:00:00+00:00",
        "2026-04-01T00:30:00+02:00",
        "2026-04-01T00:00:00+00:00",
        "2026-03-01T08:00:00+00:00",
        "2026-03-02T08:00:00+00:00",
        "2026-04-02T08:00:00+00:00",
    ]
    orders = [order_placed(await shop.regular(), order_time=datetime.fromisoformat(time)) for time in times]
    for order in orders:
        await shop.hear(order)
    assert [(await shop.decision(order.order_id)).reason for order in orders] == [
        "GRANTED",
        "DAILY_BUDGET",
        "GRANTED",
        "DAILY_BUDGET",
        "GRANTED",
        "GRANTED",
        "MONTHLY_BUDGET",
        "GRANTED",
    ]
    await shop.audit()


async def test_a_late_order_counts_in_the_budget_of_its_own_day(shop: Shop) -> None:
    order = order_placed(await shop.regular(), order_time=datetime(2025, 12, 31, 23, 59, tzinfo=UTC))
    await shop.hear(order)
    await shop.hear(upgraded(order))
    rows = await shop.database.fetch("SELECT period, first_day::text, spent FROM budgets ORDER BY period")
    assert [tuple(row) for row in rows] == [("day", "2025-12-31", COST), ("month", "2025-12-01", COST)]


@pytest.mark.parametrize("seed", range(3))
async def test_in_any_order_and_at_once_the_budget_is_what_the_decisions_made_of_it(shop: Shop, seed: int) -> None:
    await policy(shop, monthly_budget=COST * 5, daily_budget=COST * 5)
    chosen = random.Random(seed)
    told: list[Message] = []
    for _ in range(12):
        order = order_placed(await shop.regular())
        outcomes = chosen.sample([upgraded(order), not_applied(order), cancelled(order)], chosen.randint(0, 3))
        told += [order, order, *outcomes, *outcomes]
    chosen.shuffle(told)
    for some in range(0, len(told), 8):
        await asyncio.gather(*(shop.hear(message) for message in told[some : some + 8]))
        await shop.audit()
        reserved, spent = await shop.budget()
        assert reserved + spent <= COST * 5
    decided = len(await shop.announced(facts.UpgradeGranted)) + len(await shop.announced(facts.UpgradeDeclined))
    assert decided == sum(isinstance(message, shipping.OrderPlaced) for message in told) / 2
    assert all(from_money(one.cost) == COST for one in await shop.announced(facts.UpgradeGranted))
