"""Begin a checkout: priced, held, written down; nothing half done, nothing personal where it does not belong."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet

from services.chassis.access import Caller, acting_as
from services.chassis.errors import InvalidInput, NotFound, NotNow, Unavailable
from services.chassis.peers import calling_from
from services.chassis.requests import RequestIdReused
from services.chassis.values import to_datetime
from services.shipping import store
from services.shipping.domain.delivery import DestinationNotServed
from services.shipping.sealing import AddressSeal
from shop.inventory.v1 import inventory_pb2 as stock
from shop.shipping.v1 import shipping_pb2 as pb
from tests.shipping.conftest import (
    ADDRESS,
    AGENT,
    CUSTOMER,
    OTHER,
    PHONE,
    Desk,
    amount,
    as_caller,
    checkout_request,
    order_request,
)


async def test_shows_prices_promise_terms_and_the_total(desk: Desk) -> None:
    answer = await desk.api.BeginCheckout(
        checkout_request(("shoe", 2), ("boot", 1), service_level=pb.SERVICE_LEVEL_EXPRESS)
    )
    begun = answer.checkout
    assert [(line.sku, line.title, line.quantity, amount(line.line_total)) for line in begun.lines] == [
        ("shoe", "A plain shoe", 2, "121.80 EUR"),
        ("boot", "A sturdy boot", 1, "129.50 EUR"),
    ]
    assert amount(begun.delivery.price) == "6.90 EUR"
    assert amount(begun.total) == "258.20 EUR"
    assert begun.delivery.promise.service_level == pb.SERVICE_LEVEL_EXPRESS
    assert begun.delivery.promise.time_zone == "Europe/Vienna"
    assert begun.highlights
    assert begun.highlights_version
    assert to_datetime(begun.expire_time) > datetime.now(UTC)
    assert answer.contact_options.phone_number == PHONE
    assert (desk.inventory.free("shoe"), desk.inventory.free("boot")) == (8, 4)


async def test_quotes_every_level(desk: Desk) -> None:
    answer = await desk.api.QuoteDelivery(pb.QuoteDeliveryRequest(country="DE"))
    assert [quote.service_level for quote in answer.quotes] == [1, 2, 3]
    assert answer.contact_options.phone_number == PHONE


async def test_refuses_with_numbers_and_holds_nothing(desk: Desk) -> None:
    with pytest.raises(NotNow) as refused:
        await desk.begin(("shoe", 1), ("boot", 6))
    assert refused.value.reason == "OUT_OF_STOCK"
    assert refused.value.details == {"sku": "boot", "wanted": "6", "free": "5"}
    with pytest.raises(NotNow) as refused:
        await desk.begin(("shoe", 1), ("nobody-sells-it", 1))
    assert (refused.value.reason, refused.value.details) == ("UNKNOWN_SKU", {"sku": "nobody-sells-it"})
    with pytest.raises(DestinationNotServed):
        await desk.begin(("shoe", 1), address=pb.Address(name="a", street="b", postal_code="1", city="c", country="US"))
    with pytest.raises(InvalidInput) as wrong:
        await desk.begin(("shoe", 1), ("shoe", 2))
    assert wrong.value.reason == "DUPLICATE_LINE"
    desk.catalog.sell("dollar", "Priced in dollars", "1.00", "USD")
    with pytest.raises(NotNow) as refused:
        await desk.begin(("dollar", 1))
    assert refused.value.reason == "CURRENCY_NOT_SOLD"
    assert refused.value.details == {"sku": "dollar", "currency": "EUR"}
    assert desk.inventory.free("shoe") == 10
    assert not await desk.database.fetch("SELECT FROM checkouts")


async def test_says_so_when_a_part_is_away(desk: Desk) -> None:
    desk.catalog.away = True
    with pytest.raises(Unavailable) as refused:
        await desk.begin(("shoe", 1))
    assert refused.value.reason == "CATALOG_AWAY"
    desk.catalog.away, desk.inventory.away = False, True
    with pytest.raises(Unavailable) as refused:
        await desk.begin(("shoe", 1))
    assert refused.value.reason == "INVENTORY_AWAY"


async def test_a_repeat_gets_the_same_answer_and_holds_nothing_more(desk: Desk) -> None:
    request = checkout_request(("shoe", 1))
    first = await desk.api.BeginCheckout(request)
    # Nobody is asked again: prices may have changed since, and the hold may have run out.
    desk.catalog.away = desk.inventory.away = True
    assert await desk.api.BeginCheckout(request) == first
    desk.catalog.away = desk.inventory.away = False
    assert desk.inventory.free("shoe") == 9
    changed = checkout_request(("shoe", 2), request_id=request.request_id)
    with pytest.raises(RequestIdReused):
        await desk.api.BeginCheckout(changed)
    with as_caller(OTHER):
        other = await desk.api.BeginCheckout(
            checkout_request(("shoe", 1), customer="cus_2", request_id=request.request_id)
        )
    assert other.checkout.checkout_id != first.checkout.checkout_id
    assert desk.inventory.free("shoe") == 8


async def test_repeats_at_the_same_moment_get_one_checkout(desk: Desk) -> None:
    request = checkout_request(("shoe", 1))
    answers = await asyncio.gather(*(desk.api.BeginCheckout(request) for _ in range(5)))
    assert len({answer.checkout.checkout_id for answer in answers}) == 1
    assert desk.inventory.free("shoe") == 9


async def test_a_repeat_takes_up_the_hold_of_an_attempt_that_stopped(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last unit: the customer's own hold must not stand in their way."""
    request = checkout_request(("boot", 5))

    async def stop(*_: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(store, "add_checkout", stop)
        with pytest.raises(asyncio.CancelledError):
            await desk.api.BeginCheckout(request)
    assert desk.inventory.free("boot") == 0
    assert (await desk.api.BeginCheckout(request)).checkout.checkout_id


async def test_a_hold_does_not_leak_when_the_checkout_cannot_be_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkout_request(("boot", 5))

    async def fail(*_: Any) -> None:
        raise ValueError("cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(store, "add_checkout", fail)
        with pytest.raises(ValueError, match="cannot be written"):
            await desk.api.BeginCheckout(request)
    assert desk.inventory.free("boot") == 5
    # The repeat holds anew instead of building on what was given back.
    begun = (await desk.api.BeginCheckout(request)).checkout
    assert desk.inventory.free("boot") == 0
    assert (await desk.place(begun)).state == pb.ORDER_STATE_CONFIRMED


async def test_a_hold_stays_when_it_is_not_known_whether_the_checkout_was_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(*_: Any) -> None:
        raise Unavailable("the database does not answer", reason="DATABASE_AWAY")

    monkeypatch.setattr(store, "add_checkout", lose)
    with pytest.raises(Unavailable):
        await desk.begin(("boot", 5))
    assert desk.inventory.free("boot") == 0


async def test_the_address_is_nowhere_in_the_clear(desk: Desk) -> None:
    order = await desk.order(("shoe", 1))
    dump = ""
    for table in ("checkouts", "checkout_lines", "orders", "shipments", "outbox", "requests"):
        for row in await desk.database.fetch(f"SELECT * FROM {table}"):
            dump += repr(dict(row))
    told = [message.SerializeToString() for message in await desk.told()]
    asked = [request.SerializeToString() for request in desk.inventory.asked]
    for private in (ADDRESS.name, ADDRESS.street, ADDRESS.city):
        assert private not in dump
        assert private.encode() not in b"".join(told + asked) + order.SerializeToString()


async def test_the_newest_key_seals() -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    sealed = AddressSeal(f"{new.decode()},{old.decode()}").seal(ADDRESS)
    assert pb.Address.FromString(Fernet(new).decrypt(sealed)) == ADDRESS


async def test_a_hold_says_where_the_customer_calls_from_and_the_goods_go(desk: Desk) -> None:
    async def asked(caller: Caller) -> stock.ReserveStockRequest:
        with acting_as(caller), calling_from("p1"):
            await desk.begin(("shoe", 1))
        return [one for one in desk.inventory.asked if isinstance(one, stock.ReserveStockRequest)][-1]

    mine = await asked(CUSTOMER)
    assert (mine.peer, mine.country) == ("p1", "AT")
    # All desks of the hotline are one place, and order for many.
    assert (await asked(AGENT)).peer == ""


async def test_an_expired_hold_marks_the_checkout_and_never_an_order(desk: Desk) -> None:
    lapsed, ordered = await desk.begin(("shoe", 1)), await desk.begin(("shoe", 1))
    await desk.place(ordered)
    rows = await desk.database.fetch("SELECT checkout_id, reservation_id FROM checkouts")
    before = json.dumps([dict(row) for row in await desk.database.fetch("SELECT order_id, state, version FROM orders")])
    for _ in range(2):
        for row in rows:
            async with desk.database.transaction() as tx:
                await store.mark_lapsed(tx.connection, row["reservation_id"], datetime.now(UTC))
    marked = await desk.database.fetch("SELECT checkout_id FROM checkouts WHERE lapse_time IS NOT NULL")
    assert [row["checkout_id"] for row in marked] == [lapsed.checkout_id]
    after = json.dumps([dict(row) for row in await desk.database.fetch("SELECT order_id, state, version FROM orders")])
    assert after == before


async def test_nobody_orders_the_checkout_of_another(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    refusals = []
    for checkout_id in (begun.checkout_id, "chk_nobody"):
        with as_caller(OTHER), pytest.raises(NotFound) as refused:
            await desk.place(begun, customer_id="cus_2", checkout_id=checkout_id)
        refusals.append((str(refused.value), refused.value.reason, refused.value.details))
    assert refusals[0] == refusals[1]
    assert desk.inventory.free("shoe") == 9
    held = [one for one in desk.inventory.asked if isinstance(one, stock.CommitReservationRequest)]
    assert not held
    assert (await desk.api.PlaceOrder(order_request(begun))).order.state == pb.ORDER_STATE_CONFIRMED
