"""Place an order: once, whoever asks how often; refusals with their numbers; everybody sees only their own."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from services.chassis import telemetry
from services.chassis.errors import InvalidInput, NotFound, NotNow, Unavailable
from services.chassis.requests import RequestIdReused
from shop.inventory.v1 import inventory_pb2
from shop.shipping.events.v1 import facts_pb2 as facts
from shop.shipping.v1 import shipping_pb2 as pb
from tests.shipping.conftest import AGENT, GRACE, OTHER, PHONE, Desk, amount, as_caller, order_request


async def reservation_of(desk: Desk, checkout: pb.Checkout) -> str:
    rows = await desk.database.fetch(
        "SELECT reservation_id FROM checkouts WHERE checkout_id = $1", checkout.checkout_id
    )
    found: str = rows[0]["reservation_id"]
    return found


async def lapse(desk: Desk, checkout: pb.Checkout, ago: timedelta = timedelta()) -> None:
    """The hold ran out so long ago."""
    desk.inventory.expire(await reservation_of(desk, checkout))
    await desk.database.pool.execute(
        "UPDATE checkouts SET expire_time = clock_timestamp() - $2::interval WHERE checkout_id = $1",
        checkout.checkout_id,
        ago,
    )


async def test_an_order_is_confirmed_with_a_parcel_for_each_location_and_announced_once(desk: Desk) -> None:
    begun = await desk.begin(("boot", 4), ("shoe", 1))
    with telemetry.with_journey("journey-1"):
        answer = await desk.api.PlaceOrder(order_request(begun, payment_reference="pay-1"))
    order = answer.order
    assert (order.state, order.version, order.payment_reference) == (pb.ORDER_STATE_CONFIRMED, 2, "pay-1")
    assert order.journey_id == "journey-1"
    assert answer.contact_options.phone_number == PHONE
    assert amount(order.total) == amount(begun.total)
    assert [(one.location, [(i.sku, i.quantity) for i in one.items]) for one in order.shipments] == [
        ("graz-1", [("boot", 3)]),
        ("vienna-1", [("boot", 1), ("shoe", 1)]),
    ]
    for one in order.shipments:
        assert one.original_promise == one.current_promise == begun.delivery.promise
    assert await desk.get(order.order_id) == order
    (placed,) = await desk.told()
    assert isinstance(placed, facts.OrderPlaced)
    assert (placed.order_id, placed.customer_id, placed.version) == (order.order_id, "cus_1", 2)
    assert (placed.country, placed.promise) == ("AT", begun.delivery.promise)
    assert (amount(placed.total), amount(placed.goods_total)) == ("578.90 EUR", "578.90 EUR")
    assert [(item.sku, item.quantity, item.location, amount(item.unit_price)) for item in placed.items] == [
        ("boot", 3, "graz-1", "129.50 EUR"),
        ("boot", 1, "vienna-1", "129.50 EUR"),
        ("shoe", 1, "vienna-1", "60.90 EUR"),
    ]
    assert desk.inventory.committed(order.order_id)
    headers = await desk.database.fetch("SELECT headers::text AS text FROM outbox")
    assert "journey.id=journey-1" in headers[0]["text"]


async def test_a_repeat_gets_the_same_answer_also_when_the_order_went_on(desk: Desk) -> None:
    request = order_request(await desk.begin(("shoe", 1)))
    first = await desk.api.PlaceOrder(request)
    assert await desk.api.PlaceOrder(request) == first
    await desk.dispatch(first.order.shipments[0])
    assert await desk.api.PlaceOrder(request) == first
    assert (await desk.get(first.order.order_id)).state == pb.ORDER_STATE_DISPATCHED
    assert await desk.kinds() == ["OrderPlaced", "ShipmentDispatched"]


async def test_repeats_at_the_same_moment_place_one_order(desk: Desk) -> None:
    request = order_request(await desk.begin(("shoe", 1)))
    answers = await asyncio.gather(*(desk.api.PlaceOrder(request) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert await desk.kinds() == ["OrderPlaced"]
    assert desk.inventory.free("shoe") == 9


async def test_the_same_request_id_with_another_body_is_refused(desk: Desk) -> None:
    first, second = await desk.begin(("shoe", 1)), await desk.begin(("boot", 1))
    request = order_request(first)
    await desk.api.PlaceOrder(request)
    for changed in (
        order_request(second, request_id=request.request_id),
        order_request(first, request_id=request.request_id),
    ):
        with pytest.raises(RequestIdReused):
            await desk.api.PlaceOrder(changed)
    assert await desk.state(second) == "none"


async def test_a_checkout_is_one_order_at_most(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    first = await desk.place(begun, payment_reference="pay-1")
    # With the same payment it is the same order, whatever the request is called.
    assert await desk.place(begun, payment_reference="pay-1") == first
    with pytest.raises(NotNow) as refused:
        await desk.place(begun, payment_reference="pay-2")
    assert (refused.value.reason, refused.value.details) == ("CHECKOUT_ORDERED", {"order_id": first.order_id})
    assert await desk.kinds() == ["OrderPlaced"]


async def test_a_checkout_ordered_at_the_same_moment_is_one_order(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    answers = await asyncio.gather(*(desk.place(begun) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, pb.Order) for answer in answers) == 1
    assert {answer.reason for answer in answers if isinstance(answer, NotNow)} == {"CHECKOUT_ORDERED"}
    assert await desk.kinds() == ["OrderPlaced"]


async def test_a_payment_pays_one_order(desk: Desk) -> None:
    first, second = await desk.begin(("shoe", 1)), await desk.begin(("shoe", 1))
    await desk.place(first, payment_reference="pay-1")
    with pytest.raises(NotNow) as refused:
        await desk.place(second, payment_reference="pay-1")
    assert refused.value.reason == "PAYMENT_REFERENCE_USED"
    assert await desk.state(second) == "none"


async def test_terms_that_were_not_shown_are_refused(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    with pytest.raises(NotNow) as refused:
        await desk.place(begun, highlights_version="older")
    assert refused.value.reason == "TERMS_NOT_SHOWN"
    assert refused.value.details == {"wanted": begun.highlights_version, "shown": "older"}
    assert await desk.state(begun) == "none"


async def test_a_lapsed_checkout_is_still_ordered_while_the_goods_are_free(desk: Desk) -> None:
    begun = await desk.begin(("boot", 5))
    await lapse(desk, begun, timedelta(seconds=1))
    assert (await desk.place(begun)).state == pb.ORDER_STATE_CONFIRMED
    assert desk.inventory.free("boot") == 0


async def test_a_lapsed_checkout_whose_goods_are_gone_is_rejected_with_the_numbers(desk: Desk) -> None:
    begun = await desk.begin(("boot", 5))
    await lapse(desk, begun)
    await desk.begin(("boot", 3))
    request = order_request(begun, payment_reference="pay-1")
    for _ in range(2):
        with pytest.raises(NotNow) as refused:
            await desk.api.PlaceOrder(request)
        assert refused.value.reason == "OUT_OF_STOCK"
        assert refused.value.details == {"sku": "boot", "wanted": "5", "free": "2"}
    (rejected,) = await desk.told()
    assert isinstance(rejected, facts.OrderRejected)
    assert (rejected.reason, rejected.payment_reference, rejected.version) == ("OUT_OF_STOCK", "pay-1", 2)
    order = await desk.get(rejected.order_id)
    assert (order.state, order.reason, len(order.shipments)) == (pb.ORDER_STATE_REJECTED, "OUT_OF_STOCK", 0)


async def test_a_checkout_long_past_its_hold_is_expired(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    await lapse(desk, begun, GRACE + timedelta(seconds=1))
    with pytest.raises(NotNow) as refused:
        await desk.place(begun, payment_reference="pay-1")
    assert refused.value.reason == "CHECKOUT_EXPIRED"
    assert "expire_time" in refused.value.details
    # Nothing was used up.
    assert (await desk.place(await desk.begin(("shoe", 1)), payment_reference="pay-1")).order_id


async def test_a_hold_that_was_given_back_is_expired(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    reservation_id = await reservation_of(desk, begun)
    await desk.inventory.ReleaseReservation(
        inventory_pb2.ReleaseReservationRequest(request_id="released-elsewhere", reservation_id=reservation_id)
    )
    with pytest.raises(NotNow) as refused:
        await desk.place(begun)
    assert (refused.value.reason, refused.value.details) == ("CHECKOUT_EXPIRED", {"cause": "RESERVATION_CLOSED"})
    assert await desk.kinds() == ["OrderRejected"]


async def test_with_inventory_away_the_order_is_kept_and_finished_by_the_repeat(desk: Desk) -> None:
    request = order_request(await desk.begin(("shoe", 1)))
    desk.inventory.away = True
    with pytest.raises(Unavailable) as refused:
        await desk.api.PlaceOrder(request)
    assert refused.value.reason == "ORDER_PENDING"
    kept = await desk.get(refused.value.details["order_id"])
    assert (kept.state, kept.version) == (pb.ORDER_STATE_PENDING, 1)
    desk.inventory.away = False
    answer = await desk.api.PlaceOrder(request)
    assert (answer.order.order_id, answer.order.state) == (kept.order_id, pb.ORDER_STATE_CONFIRMED)
    assert await desk.kinds() == ["OrderPlaced"]


async def test_the_last_units_are_sold_once(desk: Desk) -> None:
    """Everybody's hold lapsed, and all of them order at once."""
    begun = [await desk.begin(("boot", 2)) for _ in range(2)]
    for checkout in begun:
        await lapse(desk, checkout)
    begun += [await desk.begin(("boot", 2)) for _ in range(2)]
    answers = await asyncio.gather(*(desk.place(checkout) for checkout in begun), return_exceptions=True)
    placed = [answer for answer in answers if isinstance(answer, pb.Order)]
    assert len(placed) == 2
    assert all(isinstance(a, NotNow) and a.reason == "OUT_OF_STOCK" for a in answers if not isinstance(a, pb.Order))
    assert sorted(await desk.kinds()) == ["OrderPlaced"] * 2 + ["OrderRejected"] * 2
    assert desk.inventory.free("boot") == 1


async def test_everybody_sees_only_their_own(desk: Desk) -> None:
    order = await desk.order()
    words = set()
    for order_id in (order.order_id, "ord_nobody"):
        with as_caller(OTHER), pytest.raises(NotFound) as refused:
            await desk.api.GetOrder(pb.GetOrderRequest(customer_id="cus_2", order_id=order_id))
        words.add((str(refused.value), refused.value.reason, str(refused.value.details)))
        with as_caller(OTHER), pytest.raises(NotFound) as refused:
            await desk.api.CancelOrder(
                pb.CancelOrderRequest(request_id="cancel-it", customer_id="cus_2", order_id=order_id)
            )
        words.add((str(refused.value), refused.value.reason, str(refused.value.details)))
    assert len(words) == 1
    with as_caller(AGENT):
        assert await desk.get(order.order_id) == order
    listed = await desk.api.ListOrders(pb.ListOrdersRequest(customer_id="cus_2"))
    assert not listed.orders


async def test_lists_in_pages_newest_first_with_as_many_queries_for_many_as_for_few(desk: Desk) -> None:
    placed = [(await desk.order(("shoe", 1))).order_id for _ in range(5)]
    request = pb.ListOrdersRequest(customer_id="cus_1", page_size=2)
    found: list[pb.Order] = []
    while True:
        page = await desk.api.ListOrders(request)
        found += page.orders
        assert page.contact_options.phone_number == PHONE
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [order.order_id for order in found] == placed[::-1]
    assert found[0] == await desk.get(placed[-1])

    async def queries(size: int) -> int:
        """How many it takes to list so many orders."""
        logged: list[str] = []
        connections = [await desk.database.pool.acquire() for _ in range(desk.database.pool.get_size())]
        for one in connections:
            one.add_query_logger(lambda query: logged.append(query.query))
        for one in connections:
            await desk.database.pool.release(one)
        await desk.api.ListOrders(pb.ListOrdersRequest(customer_id="cus_1", page_size=size))
        return len(logged)

    assert 0 < await queries(1) == await queries(5)


async def test_a_page_token_of_another_list_is_refused(desk: Desk) -> None:
    for _ in range(2):
        await desk.order()
    page = await desk.api.ListOrders(pb.ListOrdersRequest(customer_id="cus_1", page_size=1))
    with pytest.raises(InvalidInput):
        await desk.api.ListOrders(pb.ListOrdersRequest(customer_id="cus_2", page_token=page.next_page_token))
