"""Customers who order, cancel and wait for parcels, at once, whatever breaks meanwhile: as good clients do.

They compete for few goods, so that many are refused. What they are told is written down; a failure without a type is a
failure of the shop.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from deploy.local.stack import Stack
from shop.catalog.v1 import records_pb2, records_pb2_grpc
from shop.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from shop.loyalty.v1 import loyalty_pb2, loyalty_pb2_grpc
from shop.shipping.v1 import shipping_pb2, shipping_pb2_grpc

from .evidence import Told

Metadata = Sequence[tuple[str, str]]
ADDRESS = shipping_pb2.Address(name="Vera Probe", street="Gasse 1", postal_code="1010", city="Wien", country="AT")
SERVICES = ("shipping", "inventory", "catalog", "loyalty")
LOCATIONS = ("vienna-1", "linz-1")
SCANS = (shipping_pb2.SCAN_KIND_ACCEPTED, shipping_pb2.SCAN_KIND_DELIVERED)
# A call that passes by itself is repeated, with the same request id, at most this often and this long.
TRIES, CALL_SECONDS, REPEAT_SECONDS = 60, 4.0, 0.5
PASSES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
UNTYPED = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
OVERLOADED = "OVERLOADED"
RATE_LIMITED = "RATE_LIMITED"
# How soon a client finds a server that came back.
OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Refused(Exception):
    """A typed answer that is no."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class GaveUp(Exception):
    """The shop did not answer for as long as a good client asks."""


@dataclass(slots=True)
class Record:
    """What the customers tried and were told."""

    tried: int = 0
    accepted: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    refused_checkouts: set[str] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    dispatched: int = 0
    gave_up: int = 0
    # Answers without a type: mistakes of the shop.
    untyped: list[str] = field(default_factory=list)

    @property
    def told(self) -> Told:
        return Told(frozenset(self.accepted), frozenset(self.cancelled), frozenset(self.refused_checkouts))

    def lines(self) -> list[str]:
        """For people."""
        refusals = ", ".join(f"{count:,} {reason}" for reason, count in self.refusals.most_common()) or "none"
        repeats = ", ".join(f"{count:,} {code}" for code, count in self.repeats.most_common()) or "none"
        return [
            f"orders tried {self.tried:,}, accepted {len(self.accepted):,}, cancelled {len(self.cancelled):,},"
            f" parcels sent {self.dispatched:,}, given up {self.gave_up:,}",
            f"refusals: {refusals}",
            f"calls repeated: {repeats}",
        ]


class Load:
    """Customers, a warehouse and a supplier, until told to stop."""

    def __init__(
        self, stack: Stack, *, customers: int = 8, regulars: int = 40, skus: int = 10, units: int = 6, seed: int = 1
    ) -> None:
        """`customers`: how many at once; `regulars`: how many of all may count on a surprise, which costs budget."""
        self.record = Record()
        self.skus = [f"chaos-{uuid4().hex[:8]}-{number}" for number in range(skus)]
        self._stack = stack
        self._customers, self._regulars, self._units = customers, regulars, units
        self._random = random.Random(seed)
        self._addresses = {name: [stack.address(name)] for name in SERVICES}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._changed = asyncio.Condition()
        self._stopping = asyncio.Event()
        self._operator: Metadata = _bearer(stack.mint("operator"))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Stocks the shelves, then lets the customers in; they finish what they are at in the end."""
        await self._fill()
        tasks = [asyncio.create_task(self._shop()) for _ in range(self._customers)]
        try:
            yield self
            self._stopping.set()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for channel in self._channels.values():
                await channel.close()

    async def accepted_more(self, number: int, seconds: float = 90) -> None:
        """Returns once so many more orders are accepted. Raises TimeoutError."""
        wanted = len(self.record.accepted) + number
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.record.accepted) >= wanted)

    def use(self, service: str, *addresses: str) -> None:
        """From now on calls to the service go to all of these."""
        self._addresses[service] = list(addresses)

    # -- what people do

    async def _shop(self) -> None:
        """One customer after the other, until told to stop."""
        while not self._stopping.is_set():
            customer_id = f"cus_{uuid4().hex[:16]}"
            me = _bearer(self._stack.mint("customer", customer_id=customer_id))
            try:
                if self._regulars and self._random.random() < 0.5:
                    self._regulars -= 1
                    await self._make_regular(customer_id)
                for _ in range(3):
                    if self._stopping.is_set():
                        break
                    await self._order(customer_id, me)
                    await self._rest(0.2)
            except Refused as refused:
                self.record.refusals[refused.reason] += 1
            except GaveUp:
                self.record.gave_up += 1

    async def _order(self, customer_id: str, me: Metadata) -> None:
        self.record.tried += 1
        if self._random.random() < 0.4:  # new goods come, fewer than are wanted
            await self._receive(self._random.choice(self.skus), self._random.randint(1, 4))
        wanted = self._random.sample(self.skus, self._random.choice((1, 1, 2)))
        try:
            begun = await self._begin(customer_id, me, wanted)
        except Refused as refused:
            self.record.refusals[refused.reason] += 1
            return
        chance = self._random.random()
        if chance < 0.03:
            return  # changed their mind; the hold lapses
        order = await self._place(me, begun.checkout)
        if order is None:
            return
        self.record.accepted.add(order.order_id)
        async with self._changed:
            self._changed.notify_all()
        if chance < 0.15:
            await self._cancel(me, order.order_id)
        elif chance < 0.60:
            await self._send(order)

    async def _begin(self, customer_id: str, me: Metadata, skus: Sequence[str]) -> Any:
        lines = [shipping_pb2.CheckoutLine(sku=sku, quantity=self._random.choice((1, 1, 1, 2))) for sku in skus]
        request = shipping_pb2.BeginCheckoutRequest(
            request_id=_id("req"), customer_id=customer_id, lines=lines, address=ADDRESS
        )
        return await self._call("shipping", shipping_pb2_grpc.ShippingServiceStub, "BeginCheckout", request, me)

    async def _place(self, me: Metadata, checkout: shipping_pb2.Checkout) -> shipping_pb2.Order | None:
        request = shipping_pb2.PlaceOrderRequest(
            request_id=_id("req"),
            checkout_id=checkout.checkout_id,
            highlights_version=checkout.highlights_version,
            payment_reference=_id("pay"),
        )
        try:
            answer = await self._call("shipping", shipping_pb2_grpc.ShippingServiceStub, "PlaceOrder", request, me)
        except Refused as refused:
            self.record.refusals[refused.reason] += 1
            self.record.refused_checkouts.add(checkout.checkout_id)
            return None
        if answer.order.state == shipping_pb2.ORDER_STATE_PENDING:
            self.record.untyped.append(f"{answer.order.order_id} was answered PENDING")
        order: shipping_pb2.Order = answer.order
        return order

    async def _cancel(self, me: Metadata, order_id: str) -> None:
        request = shipping_pb2.CancelOrderRequest(request_id=_id("req"), order_id=order_id, reason="changed my mind")
        await self._call("shipping", shipping_pb2_grpc.ShippingServiceStub, "CancelOrder", request, me)
        self.record.cancelled.add(order_id)

    async def _send(self, order: shipping_pb2.Order) -> None:
        """The warehouse packs, the carrier scans."""
        for shipment in order.shipments:
            tracking = _id("track")
            request = shipping_pb2.DispatchShipmentRequest(
                request_id=_id("req"), shipment_id=shipment.shipment_id, tracking_reference=tracking
            )
            await self._call(
                "shipping", shipping_pb2_grpc.WarehouseServiceStub, "DispatchShipment", request, self._operator
            )
            self.record.dispatched += 1
            for kind in SCANS if self._random.random() < 0.7 else SCANS[:1]:
                scan = shipping_pb2.RecordScanRequest(scan_id=_id("scan"), tracking_reference=tracking, kind=kind)
                scan.scan_time.GetCurrentTime()
                await self._call("shipping", shipping_pb2_grpc.WarehouseServiceStub, "RecordScan", scan, self._operator)

    async def _make_regular(self, customer_id: str) -> None:
        request = loyalty_pb2.AdjustPointsRequest(
            request_id=_id("req"), customer_id=customer_id, points=400, reason="brought along"
        )
        await self._call("loyalty", loyalty_pb2_grpc.LoyaltyServiceStub, "AdjustPoints", request, self._operator)

    async def _fill(self) -> None:
        rows = [
            records_pb2.FeedRow(line=number, fields={"id": sku, "title": f"Chaos {number}", "price": "49.90 EUR"})
            for number, sku in enumerate(self.skus, 1)
        ]
        request = records_pb2.ImportProductsRequest(rows=rows)
        await self._call("catalog", records_pb2_grpc.CatalogAdminServiceStub, "ImportProducts", request, self._operator)
        for sku in self.skus:
            await self._receive(sku, self._units)

    async def _receive(self, sku: str, quantity: int) -> None:
        request = inventory_pb2.ReceiveStockRequest(
            request_id=_id("req"), sku=sku, location=self._random.choice(LOCATIONS), quantity=quantity
        )
        await self._call("inventory", inventory_pb2_grpc.InventoryServiceStub, "ReceiveStock", request, self._operator)

    async def _rest(self, seconds: float) -> None:
        """People are not machines; nobody waits for anything here."""
        try:
            async with asyncio.timeout(self._random.uniform(0, 2 * seconds)):
                await self._stopping.wait()
        except TimeoutError:
            pass

    # -- how a good client calls

    async def _call(
        self, service: str, stub: Callable[[Any], Any], method: str, request: Message, who: Metadata
    ) -> Any:
        """Repeats what passes by itself, always with the same request. Raises `Refused`, `GaveUp`."""
        for _ in range(TRIES):
            call = getattr(stub(self._channel(service)), method)
            try:
                return await call(request, metadata=who, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                reason = reason_of(error)
                if error.code() in PASSES or reason in (OVERLOADED, RATE_LIMITED):
                    self.record.repeats[error.code().name] += 1
                    await asyncio.sleep(self._random.uniform(0.5, 1) * REPEAT_SECONDS)
                elif reason is None or error.code() in UNTYPED:
                    self.record.untyped.append(f"{method}: {error.code().name} {reason or ''} {error.details()}")
                    raise GaveUp from error
                else:
                    raise Refused(reason) from error
        raise GaveUp

    def _channel(self, service: str) -> grpc.aio.Channel:
        address = self._random.choice(self._addresses[service])
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, OPTIONS)
        return self._channels[address]


def reason_of(error: grpc.aio.AioRpcError) -> str | None:
    """The reason in the ErrorInfo of a failed call; None when it has none."""
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                details = status_pb2.Status.FromString(value).details
            except DecodeError:
                return None
            if any(detail.Unpack(info) for detail in details):
                return str(info.reason)
    return None


def _id(kind: str) -> str:
    return f"{kind}_{uuid4().hex[:20]}"


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
