"""Callers of the running shop: any request, also bytes that are none, by anybody, and the typed answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from deploy.local.stack import Stack
from services.chassis.database import Connection
from shop.catalog.v1 import records_pb2 as records
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.shipping.v1 import shipping_pb2 as shipping

SECONDS = 30.0
BEGIN, PLACE = "ShippingService/BeginCheckout", "ShippingService/PlaceOrder"
# Checkouts, orders and reservations of somebody who never came further.
NOTHING = [0, 0, 0]
ADDRESS = shipping.Address(name="Vera Probe", street="Gasse 1", postal_code="1010", city="Wien", country="AT")
# Where each RPC is answered.
HOME = {
    "ShippingService": "shipping",
    "WarehouseService": "shipping",
    "InventoryService": "inventory",
    "CatalogService": "catalog",
    "CatalogAdminService": "catalog",
    "BackInStockService": "catalog",
    "ReferralService": "catalog",
    "LoyaltyService": "loyalty",
    "HotlineService": "contact",
    "DeskService": "contact",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal as the client sees it."""

    status: str
    reason: str
    details: dict[str, str]
    # The fields that are wrong.
    fields: list[str]


class Refused(Exception):
    """The call was refused."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer))
        self.answer = answer


class Shop:
    """The shop as its callers know it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.operator = stack.mint("operator")
        self._channels: dict[str, grpc.aio.Channel] = {}

    def customer(self) -> tuple[str, str]:
        """A new customer: id and token."""
        customer_id = new_id("cus")
        return customer_id, self.stack.mint("customer", customer_id=customer_id)

    async def call(self, rpc: str, request: Message | bytes, token: str | None) -> Any:
        """Calls `ShippingService/PlaceOrder` and the like. Raises `Refused`."""
        service, method = rpc.split("/")
        home = HOME[service]
        described = descriptor_pool.Default().FindMethodByName(f"shop.{home}.v1.{service}.{method}")
        answer = GetMessageClass(described.output_type)
        if home not in self._channels:
            self._channels[home] = grpc.aio.insecure_channel(self.stack.address(home))
        call: Any = self._channels[home].unary_unary(
            f"/shop.{home}.v1.{service}/{method}", response_deserializer=answer.FromString
        )
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        try:
            return await call(raw, metadata=metadata, timeout=SECONDS)
        except grpc.aio.AioRpcError as error:
            raise Refused(_answer(error)) from None

    async def refusal(self, rpc: str, request: Message | bytes, token: str | None) -> Answer:
        """The refusal a call must get."""
        try:
            answered = await self.call(rpc, request, token)
        except Refused as refused:
            return refused.answer
        raise AssertionError(f"{rpc} was not refused but answered {answered}")

    async def stock(self, quantity: int) -> str:
        """New goods that can be ordered; returns their SKU."""
        sku = new_id("sku")
        row = records.FeedRow(line=1, fields={"id": sku, "title": "A probe", "price": "10.00 EUR"})
        await self.call("CatalogAdminService/ImportProducts", records.ImportProductsRequest(rows=[row]), self.operator)
        if quantity:
            received = inventory.ReceiveStockRequest(
                request_id=new_id("req"), sku=sku, location="vienna-1", quantity=quantity
            )
            await self.call("InventoryService/ReceiveStock", received, self.operator)
        return sku

    async def checkout(self, token: str, *lines: tuple[str, int]) -> shipping.Checkout:
        """A checkout that holds these."""
        begun = await self.call("ShippingService/BeginCheckout", begin(*lines), token)
        checkout: shipping.Checkout = begun.checkout
        return checkout

    async def order(self, token: str, *lines: tuple[str, int]) -> shipping.Order:
        """An order that is confirmed."""
        placed = await self.call("ShippingService/PlaceOrder", place(await self.checkout(token, *lines)), token)
        order: shipping.Order = placed.order
        return order

    @asynccontextmanager
    async def database(self, service: str) -> AsyncIterator[Connection]:
        """The service's database, with the rights of the server's owner."""
        url = urlunsplit(urlsplit(self.stack.database_server_url)._replace(path=f"/{service}"))
        connection = await asyncpg.connect(url)
        try:
            yield connection
        finally:
            await connection.close()

    async def traces_of(self, customer_id: str) -> list[int]:
        """How many checkouts, orders and reservations a customer has."""
        async with self.database("shipping") as orders, self.database("inventory") as stock:
            return [
                await orders.fetchval("SELECT count(*) FROM checkouts WHERE customer_id = $1", customer_id),
                await orders.fetchval("SELECT count(*) FROM orders WHERE customer_id = $1", customer_id),
                await stock.fetchval("SELECT count(*) FROM reservations WHERE customer_id = $1", customer_id),
            ]

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels.values():
            await channel.close()


def begin(*lines: tuple[str, int], customer_id: str = "", request_id: str = "") -> shipping.BeginCheckoutRequest:
    """A good request to begin a checkout."""
    return shipping.BeginCheckoutRequest(
        request_id=request_id or new_id("req"),
        customer_id=customer_id,
        lines=[shipping.CheckoutLine(sku=sku, quantity=quantity) for sku, quantity in lines],
        address=ADDRESS,
    )


def place(checkout: shipping.Checkout, request_id: str = "") -> shipping.PlaceOrderRequest:
    """A good request to order a checkout."""
    return shipping.PlaceOrderRequest(
        request_id=request_id or new_id("req"),
        checkout_id=checkout.checkout_id,
        highlights_version=checkout.highlights_version,
        payment_reference=new_id("pay"),
    )


def changed(request: Message, **changes: object) -> Message:
    """The request with other fields; None clears one."""
    for name, value in changes.items():
        if value is None:
            request.ClearField(name)
        else:
            setattr(request, name, value)
    return request


def new_id(kind: str) -> str:
    """A fresh id."""
    return f"{kind}_{uuid4().hex[:16]}"


async def until(true: Callable[[], Awaitable[bool]], what: str) -> None:
    """Asks again and again, where there is nothing to wait on. Raises TimeoutError."""
    deadline = time.monotonic() + SECONDS
    while not await true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(0.05)


def _answer(error: grpc.aio.AioRpcError) -> Answer:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for packed in _details(error.trailing_metadata() or ()):
        packed.Unpack(info)
        packed.Unpack(bad)
    fields = [violation.field for violation in bad.field_violations]
    return Answer(error.code().name, info.reason, dict(info.metadata), fields)


def _details(metadata: Any) -> Sequence[Any]:
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            found: Sequence[Any] = status_pb2.Status.FromString(value).details
            return found
    return ()
