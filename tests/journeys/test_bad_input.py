"""What the shop answers to what is wrong: a status, a reason, the field; and nothing is half done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from google.protobuf.message import Message

from shop.catalog.v1 import catalog_pb2 as catalog
from shop.contact.v1 import contact_pb2 as contact
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.loyalty.v1 import loyalty_pb2 as loyalty
from shop.shipping.v1 import shipping_pb2 as shipping
from tests.journeys.rig import BEGIN, NOTHING, PLACE, Shop, begin, changed, new_id, place

MOST_BYTES = 1024 * 1024


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


def _with_field(request: Message, number: int, text: bytes) -> bytes:
    """The request with a text field as it would be on the wire, whatever bytes it has."""
    return request.SerializeToString() + bytes([number << 3 | 2, len(text)]) + text


def _blank_street(request: shipping.BeginCheckoutRequest) -> shipping.BeginCheckoutRequest:
    request.address.street = " \n"
    return request


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
    _wrong("blank street", lambda sku: _blank_street(begin((sku, 1))), "address.street"),
    _wrong("no address", lambda sku: changed(begin((sku, 1)), address=None), "address"),
    _wrong("no request id", lambda sku: changed(begin((sku, 1)), request_id=""), "request_id"),
    _wrong("unknown service level", lambda sku: changed(begin((sku, 1)), service_level=99), "service_level"),
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
        lambda sku: bytes(9 * MOST_BYTES),
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
        Case(
            f"page token {token[:20]!r} of {rpc}",
            rpc,
            lambda sku, ask=ask, token=token: ask(token),  # type: ignore[misc]
            "INVALID_ARGUMENT",
            "INVALID_PAGE_TOKEN",
            ["page_token"],
        )
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
