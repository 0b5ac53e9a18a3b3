"""What is not the caller's, not valid, too late or used already is refused with its reason; nothing is half done."""

from __future__ import annotations

import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf.message import Message

from shop.catalog.v1 import catalog_pb2 as catalog
from shop.contact.v1 import contact_pb2 as contact
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.loyalty.v1 import loyalty_pb2 as loyalty
from shop.shipping.v1 import shipping_pb2 as shipping
from tests.journeys.rig import BEGIN, NOTHING, PLACE, Refused, Shop, begin, changed, new_id, place


def _forged(calls: Shop) -> dict[str, tuple[str | None, str]]:
    """Tokens by what is wrong with them, and the reason each must get."""
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = calls.stack.mint("customer", customer_id="cus_1")
    key_id = jwt.get_unverified_header(good)["kid"]
    claims = jwt.decode(good, options={"verify_signature": False})
    head, body, signature = good.split(".")
    mint = calls.stack.mint
    return {
        "none": (None, "TOKEN_REQUIRED"),
        "expired": (mint("customer", customer_id="cus_1", exp=int(time.time()) - 60), "TOKEN_EXPIRED"),
        "signed by somebody else": (jwt.encode(claims, stranger, "RS256", headers={"kid": key_id}), "INVALID_TOKEN"),
        "of a key nobody has": (jwt.encode(claims, stranger, "RS256", headers={"kid": "mine"}), "INVALID_TOKEN"),
        "not signed": (jwt.encode(claims, "", "none"), "INVALID_TOKEN"),
        "changed": (f"{head}.{body[:-2]}AA.{signature}", "INVALID_TOKEN"),
        "for somebody else's shop": (mint("customer", customer_id="cus_1", aud="elsewhere"), "INVALID_TOKEN"),
        "of another issuer": (mint("customer", customer_id="cus_1", iss="http://elsewhere"), "INVALID_TOKEN"),
        "of nobody": (mint("customer"), "INVALID_TOKEN"),
        "not a token": ("let-me-in", "INVALID_TOKEN"),
    }


async def test_a_token_that_is_not_valid_opens_nothing(calls: Shop) -> None:
    for name, (token, reason) in _forged(calls).items():
        answer = await calls.refusal(BEGIN, begin(("any", 1)), token)
        assert (name, answer.status, answer.reason) == (name, "UNAUTHENTICATED", reason)


async def test_a_token_that_is_not_valid_is_no_visitor_either(calls: Shop) -> None:
    await calls.call("CatalogService/ListProducts", catalog.ListProductsRequest(), None)
    expired = calls.stack.mint("customer", customer_id="cus_1", exp=int(time.time()) - 60)
    answer = await calls.refusal("CatalogService/ListProducts", catalog.ListProductsRequest(), expired)
    assert (answer.status, answer.reason) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


async def test_what_is_somebody_elses_is_not_there(calls: Shop) -> None:
    mine, token = calls.customer()
    thief, thiefs_token = calls.customer()
    sku = await calls.stock(3)
    checkout = await calls.checkout(token, (sku, 1))
    order = await calls.order(token, (sku, 1))
    asked: list[tuple[str, Message]] = [
        (BEGIN, begin((sku, 1), customer_id=mine)),
        (PLACE, place(checkout)),
        ("ShippingService/GetOrder", shipping.GetOrderRequest(order_id=order.order_id)),
        ("ShippingService/GetOrder", shipping.GetOrderRequest(order_id=order.order_id, customer_id=mine)),
        ("ShippingService/ListOrders", shipping.ListOrdersRequest(customer_id=mine)),
        ("ShippingService/CancelOrder", shipping.CancelOrderRequest(request_id=new_id("r"), order_id=order.order_id)),
        ("LoyaltyService/GetStanding", loyalty.GetStandingRequest(customer_id=mine)),
        ("LoyaltyService/ListPoints", loyalty.ListPointsRequest(customer_id=mine)),
        ("HotlineService/PressHelp", contact.PressHelpRequest(request_id=new_id("r"), customer_id=mine, channel=1)),  # type: ignore[arg-type]
    ]
    for rpc, request in asked:
        assert (rpc, (await calls.refusal(rpc, request, thiefs_token)).status) == (rpc, "NOT_FOUND")
    assert await calls.traces_of(thief) == NOTHING
    mine_still = await calls.call("ShippingService/GetOrder", shipping.GetOrderRequest(order_id=order.order_id), token)
    assert mine_still.order.state == shipping.ORDER_STATE_CONFIRMED


async def test_an_expired_checkout_is_ordered_while_the_goods_are_free(calls: Shop) -> None:
    _, token = calls.customer()
    checkout = await calls.checkout(token, (await calls.stock(1), 1))
    await _let_the_hold_run_out(calls, checkout)
    placed = await calls.call(PLACE, place(checkout), token)
    assert placed.order.state == shipping.ORDER_STATE_CONFIRMED


async def test_an_expired_checkout_whose_goods_are_gone_is_refused_with_the_numbers(calls: Shop) -> None:
    customer_id, token = calls.customer()
    sku = await calls.stock(1)
    checkout = await calls.checkout(token, (sku, 1))
    await _let_the_hold_run_out(calls, checkout)
    _, quicker = calls.customer()
    await calls.order(quicker, (sku, 1))
    answer = await calls.refusal(PLACE, place(checkout), token)
    assert (answer.status, answer.reason) == ("FAILED_PRECONDITION", "OUT_OF_STOCK")
    assert answer.details == {"sku": sku, "wanted": "1", "free": "0"}
    async with calls.database("shipping") as database:
        states = await database.fetch("SELECT state FROM orders WHERE customer_id = $1", customer_id)
    assert [row["state"] for row in states] == ["rejected"]


async def test_a_checkout_that_expired_long_ago_is_over(calls: Shop) -> None:
    _, token = calls.customer()
    sku = await calls.stock(1)
    checkout = await calls.checkout(token, (sku, 1))
    async with calls.database("shipping") as database:
        await database.execute(
            "UPDATE checkouts SET expire_time = now() - interval '1 day' WHERE checkout_id = $1", checkout.checkout_id
        )
    answer = await calls.refusal(PLACE, place(checkout), token)
    assert (answer.status, answer.reason) == ("FAILED_PRECONDITION", "CHECKOUT_EXPIRED")


async def test_terms_that_were_not_shown_and_payments_that_were_used(calls: Shop) -> None:
    _, token = calls.customer()
    sku = await calls.stock(3)
    checkout, other = await calls.checkout(token, (sku, 1)), await calls.checkout(token, (sku, 1))
    answer = await calls.refusal(PLACE, changed(place(checkout), highlights_version="old"), token)
    assert (answer.status, answer.reason, answer.details["shown"]) == ("FAILED_PRECONDITION", "TERMS_NOT_SHOWN", "old")
    paid = place(checkout)
    await calls.call(PLACE, paid, token)
    again = changed(place(other), payment_reference=paid.payment_reference)
    assert (await calls.refusal(PLACE, again, token)).reason == "PAYMENT_REFERENCE_USED"
    assert (await calls.refusal(PLACE, place(checkout), token)).reason == "CHECKOUT_ORDERED"


async def test_a_request_id_stands_for_one_request(calls: Shop) -> None:
    customer_id, token = calls.customer()
    sku = await calls.stock(9)
    checkout, other = await calls.checkout(token, (sku, 1)), await calls.checkout(token, (sku, 1))
    order, another = await calls.order(token, (sku, 1)), await calls.order(token, (sku, 1))
    used = new_id("req")
    pairs: list[tuple[str, Message, Message, str]] = [
        (BEGIN, begin((sku, 1), request_id=used), begin((sku, 2), request_id=used), token),
        (PLACE, place(checkout, used), place(other, used), token),
        (
            "ShippingService/CancelOrder",
            shipping.CancelOrderRequest(request_id=used, order_id=order.order_id),
            shipping.CancelOrderRequest(request_id=used, order_id=another.order_id),
            token,
        ),
        (
            "HotlineService/PressHelp",
            contact.PressHelpRequest(request_id=used, channel=1, page="/a"),  # type: ignore[arg-type]
            contact.PressHelpRequest(request_id=used, channel=2, page="/a"),  # type: ignore[arg-type]
            token,
        ),
        (
            "LoyaltyService/AdjustPoints",
            loyalty.AdjustPointsRequest(request_id=used, customer_id=customer_id, points=1, reason="a"),
            loyalty.AdjustPointsRequest(request_id=used, customer_id=customer_id, points=2, reason="a"),
            calls.operator,
        ),
        (
            "InventoryService/ReceiveStock",
            inventory.ReceiveStockRequest(request_id=used, sku=sku, location="vienna-1", quantity=1),
            inventory.ReceiveStockRequest(request_id=used, sku=sku, location="vienna-1", quantity=2),
            calls.operator,
        ),
    ]
    for rpc, first, second, who in pairs:
        answered = await calls.call(rpc, first, who)
        refused = await calls.refusal(rpc, second, who)
        assert (rpc, refused.status, refused.reason, refused.fields) == (
            rpc,
            "INVALID_ARGUMENT",
            "REQUEST_ID_REUSED",
            ["request_id"],
        )
        assert (rpc, await calls.call(rpc, first, who)) == (rpc, answered)
    await _leave(calls, token)


async def test_a_page_token_belongs_to_its_list(calls: Shop) -> None:
    _, token = calls.customer()
    sku = await calls.stock(3)
    await calls.order(token, (sku, 1))
    await calls.order(token, (sku, 1))
    rpc = "ShippingService/ListOrders"
    first = await calls.call(rpc, shipping.ListOrdersRequest(page_size=1), token)
    second = await calls.call(rpc, shipping.ListOrdersRequest(page_size=1, page_token=first.next_page_token), token)
    assert [len(first.orders), len(second.orders)] == [1, 1]
    assert first.orders[0].order_id != second.orders[0].order_id
    _, somebody = calls.customer()
    with pytest.raises(Refused) as refused:
        await calls.call(rpc, shipping.ListOrdersRequest(page_token=first.next_page_token), somebody)
    assert refused.value.answer.fields == ["page_token"]


async def _let_the_hold_run_out(calls: Shop, checkout: shipping.Checkout) -> None:
    """Moves the hold's time, in both databases, as if it had passed."""
    past = "now() - interval '1 second'"
    async with calls.database("shipping") as database:
        reservation_id = await database.fetchval(
            f"UPDATE checkouts SET expire_time = {past} WHERE checkout_id = $1 RETURNING reservation_id",
            checkout.checkout_id,
        )
    async with calls.database("inventory") as database:
        await database.execute(
            f"WITH r AS (UPDATE reservations SET expire_time = {past} WHERE reservation_id = $1)"
            f" UPDATE reservation_lines SET held_until = {past} WHERE reservation_id = $1",
            reservation_id,
        )


async def _leave(calls: Shop, token: str) -> None:
    """Nobody is left waiting on the hotline for the tests that come."""
    for channel in (1, 2):
        pressed = await calls.call(
            "HotlineService/PressHelp",
            contact.PressHelpRequest(request_id=new_id("req"), channel=channel),  # type: ignore[arg-type]
            token,
        )
        await calls.call(
            "HotlineService/LeaveContact",
            contact.LeaveContactRequest(request_id=new_id("req"), contact_id=pressed.contact.contact_id),
            token,
        )
