"""Points and standing on a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from services.chassis.errors import InvalidInput
from services.loyalty import usecases
from services.loyalty.domain.standing import TIER_RULE, NegativePoints
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.contact.v1.contact_options_pb2 import CHANNEL_PHONE, ContactOptions
from shop.loyalty.events.v1 import facts_pb2 as facts
from shop.loyalty.v1 import loyalty_pb2 as pb
from tests.loyalty.conftest import Shop, delivered, new_id


async def test_somebody_unknown_is_new_and_the_hotline_stands_there(shop: Shop) -> None:
    answer = await shop.api.GetStanding(pb.GetStandingRequest(customer_id="cus_nobody"))
    assert (answer.standing.tier, answer.standing.points, answer.standing.version) == (pb.TIER_NEW, 0, 0)
    assert answer.standing.rule_version == TIER_RULE.version
    assert answer.contact_options.phone_number == "+18005550199"


async def test_a_delivered_parcel_gives_its_points_and_says_so(shop: Shop) -> None:
    customer = new_id("cus")
    parcel = delivered(customer, "312.90")
    await shop.hear(parcel, "fact_1")
    standing = await shop.standing(customer)
    assert (standing.tier, standing.points, standing.qualifying_points) == (pb.TIER_REGULAR, 312, 312)
    (changed,) = await shop.announced(facts.StandingChanged)
    assert (changed.customer_id, changed.version, changed.points_delta) == (customer, 1, 312)
    assert (changed.order_id, changed.tier, changed.points) == (parcel.order_id, pb.TIER_REGULAR, 312)
    (entry,) = (await shop.api.ListPoints(pb.ListPointsRequest(customer_id=customer))).entries
    assert (entry.points, entry.fact_id, entry.order_id) == (312, "fact_1", parcel.order_id)
    assert entry.reason == pb.POINTS_REASON_DELIVERY


async def test_a_parcel_gives_its_points_once_whoever_tells_it_again(shop: Shop) -> None:
    customer = new_id("cus")
    parcel = delivered(customer, "100.00", shipment_id="shp_1")
    await asyncio.gather(*(shop.hear(parcel) for _ in range(4)))
    await shop.hear(parcel)
    assert (await shop.standing(customer)).points == 100
    assert len(await shop.announced(facts.StandingChanged)) == 1
    await shop.audit()


async def test_a_parcel_without_a_whole_euro_is_on_the_ledger_and_announces_nothing(shop: Shop) -> None:
    customer = new_id("cus")
    await shop.hear(delivered(customer, "0.99"))
    await shop.hear(delivered(customer, "900.00", currency="CZK"))
    entries = (await shop.api.ListPoints(pb.ListPointsRequest(customer_id=customer))).entries
    assert [entry.points for entry in entries] == [0, 0]
    assert entries[0].text == "a parcel with goods of 900.00 CZK arrived"
    assert await shop.announced(facts.StandingChanged) == []


async def test_parcels_of_one_customer_at_once_all_count(shop: Shop) -> None:
    customer = new_id("cus")
    await asyncio.gather(*(shop.hear(delivered(customer, "50.00")) for _ in range(20)))
    standing = await shop.standing(customer)
    assert (standing.points, standing.version) == (1000, 20)
    told = await shop.announced(facts.StandingChanged)
    assert [(one.version, one.points) for one in told] == [(n, 50 * n) for n in range(1, 21)]
    await shop.audit()


async def test_points_of_more_than_a_year_ago_make_no_regular(shop: Shop) -> None:
    customer = new_id("cus")
    await shop.hear(delivered(customer, "2000.00", delivery_time=datetime.now(UTC) - timedelta(days=365, seconds=1)))
    await shop.hear(delivered(customer, "299.00", delivery_time=datetime.now(UTC) - timedelta(days=364)))
    standing = await shop.standing(customer)
    assert (standing.points, standing.qualifying_points, standing.tier) == (2299, 299, pb.TIER_NEW)
    assert (await shop.announced(facts.StandingChanged))[-1].tier == pb.TIER_NEW


async def test_time_alone_lowers_a_tier_and_that_is_announced_once(shop: Shop) -> None:
    customer = new_id("cus")
    leaving = datetime.now(UTC) - timedelta(days=365) + timedelta(seconds=1)
    await shop.hear(delivered(customer, "250.00", delivery_time=leaving))
    await shop.hear(delivered(customer, "100.00"))
    async with shop.database.transaction() as tx:
        assert await usecases.review_due(tx) == 0
    while datetime.now(UTC) < leaving + timedelta(days=365):
        await asyncio.sleep(0.05)
    for expected in (1, 0):
        async with shop.database.transaction() as tx:
            assert await usecases.review_due(tx) == expected
    told = await shop.announced(facts.StandingChanged)
    assert [(one.version, one.tier, one.points, one.points_delta) for one in told] == [
        (1, pb.TIER_NEW, 250, 250),
        (2, pb.TIER_REGULAR, 350, 100),
        (3, pb.TIER_NEW, 350, 0),
    ]


async def test_a_new_version_of_the_rule_is_applied_to_who_stands_by_an_old_one(shop: Shop) -> None:
    customer = await shop.regular()
    await shop.database.pool.execute("UPDATE standings SET rule_version = 0, tier = 'FRIEND'")
    async with shop.database.transaction() as tx:
        assert await usecases.review_due(tx) == 1
    told = (await shop.announced(facts.StandingChanged))[-1]
    assert (told.customer_id, told.tier, told.version) == (customer, pb.TIER_REGULAR, 2)


async def test_a_standing_that_somebody_reviews_is_left_to_them(shop: Shop) -> None:
    """Replicas review at the same time: neither waits for the other, nor announces the same change again."""
    await shop.regular()
    await shop.database.pool.execute("UPDATE standings SET rule_version = 0, tier = 'FRIEND'")
    async with shop.database.transaction() as first:
        assert await usecases.review_due(first) == 1
        async with asyncio.timeout(3), shop.database.transaction() as second:
            assert await usecases.review_due(second) == 0


async def test_an_adjustment_has_its_reason_and_its_repeat_changes_nothing(shop: Shop) -> None:
    request = pb.AdjustPointsRequest(request_id=uuid4().hex, customer_id="cus_1", points=40, reason="brought along")
    first = await shop.api.AdjustPoints(request)
    assert await shop.api.AdjustPoints(request) == first
    assert (first.standing.points, first.standing.version) == (40, 1)
    (entry,) = (await shop.api.ListPoints(pb.ListPointsRequest(customer_id="cus_1"))).entries
    assert (entry.text, entry.reason, entry.fact_id) == ("brought along", pb.POINTS_REASON_ADJUST, "")
    (row,) = await shop.database.fetch("SELECT actor FROM points_ledger")
    assert row["actor"] == "operator:olga"


async def test_no_more_points_are_taken_than_there_are(shop: Shop) -> None:
    await shop.adjust("cus_1", 40)
    with pytest.raises(NegativePoints):
        await shop.adjust("cus_1", -41)
    assert (await shop.standing("cus_1")).points == 40
    await shop.audit()


async def test_the_ledger_is_read_page_by_page_newest_first(shop: Shop) -> None:
    for points in range(1, 8):
        await shop.adjust("cus_1", points)
        await shop.adjust("cus_2", 1000)
    seen: list[int] = []
    token = ""
    while True:
        request = pb.ListPointsRequest(customer_id="cus_1", page_size=3, page_token=token)
        page = await shop.api.ListPoints(request)
        assert page.contact_options.phone_number
        seen += [entry.points for entry in page.entries]
        token = page.next_page_token
        if not token:
            break
        with pytest.raises(InvalidInput):
            await shop.api.ListPoints(pb.ListPointsRequest(customer_id="cus_2", page_size=3, page_token=token))
    assert seen == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "change", ["UPDATE points_ledger SET points = 9999", "DELETE FROM points_ledger", "DELETE FROM upgrade_policies"]
)
async def test_ledger_and_policies_are_append_only(shop: Shop, change: str) -> None:
    await shop.adjust("cus_1", 40)
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await shop.database.pool.execute(change)


async def test_the_latest_word_of_the_hotline_stands_in_every_answer(shop: Shop) -> None:
    options = ContactOptions(phone_number="+4311234567", open_channels=[CHANNEL_PHONE])
    await shop.hear(HotlineStatusChanged(version=1, contact_options=options))
    answer = await shop.api.GetStanding(pb.GetStandingRequest(customer_id="cus_1"))
    assert answer.contact_options == options
