"""Policies are published, never edited, and orders are judged by the one of their time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from services.chassis.errors import InvalidInput, NotFound
from services.chassis.values import to_money, to_timestamp
from services.loyalty.domain.policy import PolicyNotAfterActive
from shop.loyalty.v1 import loyalty_pb2 as pb
from tests.loyalty.conftest import Shop, order_placed


def policy(**changed: object) -> pb.UpgradePolicy:
    sound = pb.UpgradePolicy(
        minimum_tier=pb.TIER_NEW,
        countries=["AT", "FR"],
        minimum_days_since_last=0,
        unit_cost=to_money(Decimal("12.30"), "EUR"),
        monthly_budget=to_money(Decimal("500.00"), "EUR"),
        daily_budget=to_money(Decimal("123.00"), "EUR"),
    )
    for field, value in changed.items():
        sound.ClearField(field)  # type: ignore[arg-type]
        sound.MergeFrom(pb.UpgradePolicy(**{field: value}))  # type: ignore[arg-type]
    return sound


async def publish(shop: Shop, published: pb.UpgradePolicy) -> pb.UpgradePolicy:
    request = pb.PublishUpgradePolicyRequest(request_id=uuid4().hex, policy=published)
    return (await shop.api.PublishUpgradePolicy(request)).policy


async def in_force(shop: Shop) -> pb.UpgradePolicy:
    return (await shop.api.GetUpgradePolicy(pb.GetUpgradePolicyRequest())).policy


async def test_the_shop_has_a_policy_from_its_first_day(shop: Shop) -> None:
    first = await in_force(shop)
    assert (first.version, first.minimum_tier, first.minimum_days_since_last) == (1, pb.TIER_REGULAR, 14)
    assert list(first.countries) == ["AT", "DE", "CZ", "SK"]
    assert first.unit_cost == to_money(Decimal("9.90"), "EUR")
    assert first.monthly_budget == to_money(Decimal(20000), "EUR")
    assert first.daily_budget == to_money(Decimal(2000), "EUR")


async def test_the_next_version_takes_over(shop: Shop) -> None:
    published = await publish(shop, policy(minimum_order_value=to_money(Decimal("50.00"), "EUR")))
    assert published.version == 2
    assert await in_force(shop) == published


async def test_a_version_for_later_waits_for_its_time(shop: Shop) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    published = await publish(shop, policy(active_from=to_timestamp(later)))
    assert (published.version, (await in_force(shop)).version) == (2, 1)
    with pytest.raises(PolicyNotAfterActive) as refused:
        await publish(shop, policy())
    assert refused.value.details["latest_version"] == "2"
    assert refused.value.details["latest_active_from"] == later.isoformat()


async def test_what_is_wrong_is_named_and_nothing_is_published(shop: Shop) -> None:
    with pytest.raises(InvalidInput) as refused:
        await publish(
            shop,
            policy(countries=["AT", "XX"], minimum_tier=42, active_from=to_timestamp(datetime(2026, 1, 1, tzinfo=UTC))),
        )
    assert [field for field, _ in refused.value.fields] == [
        "policy.minimum_tier",
        "policy.countries[1]",
        "policy.active_from",
    ]
    beyond = policy()
    beyond.active_from.seconds = 10**15
    with pytest.raises(InvalidInput):
        await publish(shop, beyond)
    assert (await in_force(shop)).version == 1


async def test_publishers_at_once_make_versions_one_after_the_other(shop: Shop) -> None:
    published = await asyncio.gather(*(publish(shop, policy()) for _ in range(8)))
    assert sorted(one.version for one in published) == list(range(2, 10))
    rows = await shop.database.fetch("SELECT active_from FROM upgrade_policies ORDER BY version")
    assert [row["active_from"] for row in rows] == sorted({row["active_from"] for row in rows})


async def test_an_order_is_judged_by_the_policy_of_its_own_time(shop: Shop) -> None:
    before = datetime.now(UTC)
    second = await publish(shop, policy())
    old = order_placed("cus_new", country="FR", order_time=before)
    new = order_placed("cus_new", country="FR", order_time=second.active_from.ToDatetime(UTC))
    for order in (new, old):
        await shop.hear(order)
    decision = await shop.decision(old.order_id)
    assert (decision.policy_version, decision.granted, decision.reason) == (1, False, "MINIMUM_TIER")
    decision = await shop.decision(new.order_id)
    assert (decision.policy_version, decision.granted, decision.cost) == (2, True, to_money(Decimal("12.30"), "EUR"))


async def test_an_order_from_before_any_policy_is_declined(shop: Shop) -> None:
    order = order_placed(await shop.regular(), order_time=datetime(2019, 5, 1, tzinfo=UTC))
    await shop.hear(order)
    decision = await shop.decision(order.order_id)
    assert (decision.granted, decision.reason, decision.policy_version) == (False, "NO_POLICY", 0)


async def test_no_decision_is_not_found(shop: Shop) -> None:
    with pytest.raises(NotFound):
        await shop.decision("ord_nobody")
