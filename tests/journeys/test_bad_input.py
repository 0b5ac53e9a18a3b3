"""What the shop answers to what is wrong: a status, a reason, the field; and nothing is half done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf.message import Message

from shop.catalog.v1 import catalog_pb2 as catalog
from shop.contact.v1 import contact_pb2 as contact
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.loyalty.v1 import loyalty_pb2 as loyalty
from shop.shipping.v1 import shipping_pb2 as shipping
from tests.journeys.rig import Refused, Shop, begin, new_id, place

BEGIN, PLACE = "ShippingService/BeginCheckout", "ShippingService/PlaceOrder"
MOST_BYTES = 1024 * 1024
NOTHING = [0, 0, 0]


@dataclass(frozen=True)
class Case:
    """A request, and the refusal it must get. `sku` is something with 3 units in stock."""

    name: str
    rpc: str
    request: Callable[[str], Message | bytes]
    status: str
    reason: str
    fields: list[str] = field(default_factory=list)
    role: str = "customer"


def _changed(request: Message, **changes: object) -> Message:
    for name, value in changes.items():
        if value is None:
            request.ClearField(name)
        else:
            setattr(request, name, value)
    return request


def _with_field(request: Message, number: int, text: bytes) -> bytes:
    """The request with a text field as it would be on the wire, whatever bytes it has."""
    return request.SerializeToString() + bytes([number << 3 | 2, len(text)]) + text


def _wrong(name: str, request: Callable[[str], Message | bytes], *fields: str, rpc: str = BEGIN) -> Case:
    return Case(name, rpc, request, "INVALID_ARGUMENT", "INVALID_INPUT", list(fields))


def _malformed(name: str, request: Callable[[str], Message | bytes], rpc: str = BEGIN) -> Case:
    return Case(name, rpc, request, "INVALID_ARGUMENT", "MALFORMED_REQUEST", [""])


CASES = [
    Case("unknown SKU", BEGIN, lambda sku: begin((sku, 1), ("no-such-shoe", 1)), "FAILED_PRECONDITION", "UNKNOWN_SKU"),
    Case("more than there is", BEGIN, lambda sku: begin((sku, 4)), "FAILED_PRECONDITION", "OUT_OF_STOCK"),
    _wrong("no SKU", lambda sku: begin(("", 1)), "lines[0].sku"),
    _wrong("a SKU of 65 letters", lambda sku: begin(("x" * 65, 1)), "lines[0].sku"),
    _wrong("a SKU with a space", lambda sku: begin((f"{sku} ", 1)), "lines[0].sku"),
    _wrong("quantity zero", lambda sku: begin((sku, 0)), "lines[0].quantity"),
    _wrong("quantity negative", lambda sku: begin((sku, -1)), "lines[0].quantity"),
    _wrong("quantity huge", lambda sku: begin((sku, 2**63 - 1)), "lines[0].quantity"),
    _wrong("no lines", lambda sku: begin(), "lines"),
    _wrong("10,000 lines", lambda sku: begin(*((f"sku-{number}", 1) for number in range(10_000))), "lines"),
    Case(
        "duplicate lines",
        BEGIN,
        lambda sku: begin((sku, 1), (sku, 1)),
        "INVALID_ARGUMENT",
        "DUPLICATE_LINE",
        ["lines[1].sku"],
    ),
    _wrong("no address", lambda sku: _changed(begin((sku, 1)), address=None), "address"),
    _wrong("no request id", lambda sku: _changed(begin((sku, 1)), request_id=""), "request_id"),
    _wrong("unknown service level", lambda sku: _changed(begin((sku, 1)), service_level=99), "service_level"),
    _malformed("wrong UTF-8", lambda sku: _with_field(begin((sku, 1)), 1, b"\xff\xfe not text")),
    _malformed("no message at all", lambda sku: b"\x07 this is no message"),
    _malformed("a message cut off", lambda sku: begin((sku, 1)).SerializeToString()[:-3]),
    Case(
        "a message of more than 1 MiB",
        BEGIN,
        lambda sku: begin((sku, 1)).SerializeToString() + b"\xfa\x3f\x80\x80\x40" + bytes(MOST_BYTES),
        "RESOURCE_EXHAUSTED",
        "REQUEST_TOO_LARGE",
    ),
    Case(
        "a message of more than gRPC takes",
        BEGIN,
        lambda sku: bytes(3 * MOST_BYTES),
        "RESOURCE_EXHAUSTED",
        "",  # cut off by gRPC itself, before anybody of us sees it
    ),
    Case(
        "a country we do not deliver to",
        "ShippingService/QuoteDelivery",
        lambda sku: shipping.QuoteDeliveryRequest(country="AQ"),
        "FAILED_PRECONDITION",
        "DESTINATION_NOT_SERVED",
    ),
    Case(
        "a checkout nobody began",
        PLACE,
        lambda sku: place(shipping.Checkout(checkout_id="chk_none", highlights_version="x")),
        "NOT_FOUND",
        "CHECKOUT_NOT_FOUND",
    ),
    Case(
        "an order nobody placed",
        "ShippingService/GetOrder",
        lambda sku: shipping.GetOrderRequest(order_id="ord_none"),
        "NOT_FOUND",
        "ORDER_NOT_FOUND",
    ),
    _wrong(
        "an order id that is none",
        lambda sku: shipping.GetOrderRequest(order_id="'; --"),
        "order_id",
        rpc="ShippingService/GetOrder",
    ),
    _wrong(
        "unknown channel",
        lambda sku: contact.PressHelpRequest(request_id=new_id("req"), channel=99),  # type: ignore[arg-type]
        "channel",
        rpc="HotlineService/PressHelp",
    ),
    _wrong(
        "no channel",
        lambda sku: contact.PressHelpRequest(request_id=new_id("req")),
        "channel",
        rpc="HotlineService/PressHelp",
    ),
    *(
        _wrong(f"page token {token!r} of {rpc}", lambda sku, ask=ask, token=token: ask(token), "page_token", rpc=rpc)  # type: ignore[misc]
        for token in ("x", "bm90IG91cnM", "💥" * 100)
        for rpc, ask in (
            ("ShippingService/ListOrders", lambda token: shipping.ListOrdersRequest(page_token=token)),
            ("CatalogService/ListProducts", lambda token: catalog.ListProductsRequest(page_token=token)),
            ("LoyaltyService/ListPoints", lambda token: loyalty.ListPointsRequest(page_token=token)),
        )
    ),
    _wrong(
        "negative page size",
        lambda sku: catalog.ListProductsRequest(page_size=-1),
        "page_size",
        rpc="CatalogService/ListProducts",
    ),
    Case(
        "a scan of no known kind",
        "WarehouseService/RecordScan",
        lambda sku: shipping.RecordScanRequest(scan_id="s", tracking_reference="t", kind=99),  # type: ignore[arg-type]
        "INVALID_ARGUMENT",
        "INVALID_INPUT",
        ["kind", "scan_time"],
        "operator",
    ),
    Case(
        "more units than any delivery brings",
        "InventoryService/ReceiveStock",
        lambda sku: inventory.ReceiveStockRequest(
            request_id=new_id("req"), sku=sku, location="vienna-1", quantity=10**12
        ),
        "INVALID_ARGUMENT",
        "INVALID_INPUT",
        ["quantity"],
        "operator",
    ),
    Case(
        "less than nothing on the shelf",
        "InventoryService/AdjustStock",
        lambda sku: inventory.AdjustStockRequest(
            request_id=new_id("req"), sku=sku, location="vienna-1", delta=-4, reason="lost"
        ),
        "FAILED_PRECONDITION",
        "NEGATIVE_STOCK",
        role="operator",
    ),
    Case(
        "fewer than no points",
        "LoyaltyService/AdjustPoints",
        lambda sku: loyalty.AdjustPointsRequest(
            request_id=new_id("req"), customer_id="cus_nobody", points=-1, reason="a mistake"
        ),
        "FAILED_PRECONDITION",
        "NEGATIVE_POINTS",
        role="operator",
    ),
    Case(
        "an operator's work by a customer",
        "InventoryService/ReceiveStock",
        lambda sku: inventory.ReceiveStockRequest(request_id=new_id("req"), sku=sku, location="vienna-1", quantity=1),
        "PERMISSION_DENIED",
        "NOT_ALLOWED",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_wrong_input_gets_its_reason(calls: Shop, case: Case) -> None:
    customer_id, token = calls.customer()
    sku = await calls.stock(3)
    answer = await calls.refusal(case.rpc, case.request(sku), calls.operator if case.role == "operator" else token)
    assert (answer.status, answer.reason, answer.fields) == (case.status, case.reason, case.fields)
    assert await calls.traces_of(customer_id) == NOTHING
    await calls.checkout(token, (sku, 3))  # all of it is still there


async def test_a_refusal_has_its_numbers(calls: Shop) -> None:
    _, token = calls.customer()
    sku = await calls.stock(3)
    answer = await calls.refusal(BEGIN, begin((sku, 4)), token)
    assert answer.details == {"sku": sku, "wanted": "4", "free": "3"}


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
    answer = await calls.refusal(PLACE, _changed(place(checkout), highlights_version="old"), token)
    assert (answer.status, answer.reason, answer.details["shown"]) == ("FAILED_PRECONDITION", "TERMS_NOT_SHOWN", "old")
    paid = place(checkout)
    await calls.call(PLACE, paid, token)
    again = _changed(place(other), payment_reference=paid.payment_reference)
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
