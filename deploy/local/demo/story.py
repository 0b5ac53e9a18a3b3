"""The story: a regular customer orders the last pair, and is surprised. Each step checks what it tells."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp

from shop.catalog.v1 import catalog_pb2 as catalog
from shop.contact.v1 import contact_options_pb2 as options
from shop.contact.v1 import contact_pb2 as contact
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.inventory.v1 import inventory_pb2_grpc as inventory_rpc
from shop.loyalty.v1 import loyalty_pb2 as loyalty
from shop.loyalty.v1 import loyalty_pb2_grpc as loyalty_rpc
from shop.shipping.v1 import shipping_pb2 as shipping
from shop.shipping.v1 import shipping_pb2_grpc as shipping_rpc

from ..stack import Stack
from . import coming_back, journey, window_shopping
from .checks import check, eventually
from .clients import SECONDS, Browser, Refused, Tools, new_id
from .desk import Desk

Say = Callable[[str], None]
CATALOG, SHIPPING = "shop.catalog.v1.CatalogService", "shop.shipping.v1.ShippingService"
HOTLINE = "shop.contact.v1.HotlineService"
ADDRESS = shipping.Address(
    name="Erika Beispiel", street="Beispielgasse 1", postal_code="1010", city="Wien", country="AT"
)
# What the trace backend must show of this story in the end: calls, facts told, and facts heard.
EDGES: frozenset[journey.Edge] = frozenset(
    {
        ("shipping", "inventory"),
        ("shipping", "catalog"),
        ("inventory", "shop.inventory.stock.v1"),
        ("shop.inventory.stock.v1", "catalog"),
        ("shipping", "shop.shipping.orders.v1"),
        ("shop.shipping.orders.v1", "loyalty"),
        ("shop.shipping.orders.v1", "contact"),
        ("loyalty", "shop.loyalty.upgrades.v1"),
        ("shop.loyalty.upgrades.v1", "shipping"),
        ("shop.loyalty.upgrades.v1", "contact"),
        ("shipping", "shop.shipping.shipments.v1"),
        ("shop.shipping.shipments.v1", "inventory"),
        ("shop.shipping.shipments.v1", "loyalty"),
        ("shop.shipping.shipments.v1", "contact"),
        ("loyalty", "shop.loyalty.standing.v1"),
        ("shop.loyalty.standing.v1", "contact"),
        ("contact", "shop.contact.interactions.v1"),
    }
)
# What the agent's timeline must hold in the end, in this order.
TIMELINE = (
    contact.TIMELINE_KIND_STANDING_CHANGED,  # the standing brought along
    contact.TIMELINE_KIND_ORDER_PLACED,
    contact.TIMELINE_KIND_UPGRADE_GRANTED,
    contact.TIMELINE_KIND_SHIPMENT_UPGRADED,
    contact.TIMELINE_KIND_CONTACT_PRESSED,
    contact.TIMELINE_KIND_CONTACT_ANSWERED,
    contact.TIMELINE_KIND_NOTE,
    contact.TIMELINE_KIND_CONTACT_ENDED,
    contact.TIMELINE_KIND_SHIPMENT_DISPATCHED,
    contact.TIMELINE_KIND_SHIPMENT_DELIVERED,
    contact.TIMELINE_KIND_STANDING_CHANGED,
)


class StepFailed(Exception):
    """A step of the story did not come true."""

    def __init__(self, step: str, why: str) -> None:
        super().__init__(f"step failed: {step}: {why}")


@dataclass(slots=True)
class Story:
    """What the steps share. `say` gets one line at a time."""

    stack: Stack
    say: Say
    http: aiohttp.ClientSession
    tools: Tools
    customer_id: str = field(default_factory=lambda: new_id("cus"))
    journey_id: str = field(default_factory=lambda: new_id("journey"))
    sku: str = ""
    product_id: str = ""
    # A list that shows the size while it can be shipped.
    listed: catalog.ListProductsRequest = field(default_factory=catalog.ListProductsRequest)
    order: shipping.Order = field(default_factory=shipping.Order)
    spans: list[journey.Span] = field(default_factory=list)

    def browser(self, customer_id: str | None = None, journey_id: str | None = None) -> Browser:
        """A customer's browser, or a visitor's."""
        token = self.stack.mint("customer", customer_id=customer_id) if customer_id else None
        return Browser(self.http, self.stack.envoy_url, token, journey_id or new_id("journey"))

    @property
    def regular(self) -> Browser:
        """The browser of the customer the story is about."""
        return self.browser(self.customer_id, self.journey_id)

    async def play(self) -> None:
        """All steps, in order. Raises `StepFailed`."""
        for step in (
            self.a_storefront_lists,
            self.a_search_forgives,
            self.the_last_pair_is_ordered,
            self.a_second_customer_is_told_the_truth,
            self.the_size_comes_back,
            self.the_regular_is_surprised,
            self.help_is_pressed,
            self.the_parcel_arrives,
            self.the_journey_can_be_followed,
        ):
            name = step.__name__.replace("_", " ")
            self.say(f"\n{name}")
            try:
                await step()
            except (AssertionError, TimeoutError, Refused, OSError, aiohttp.ClientError) as error:
                raise StepFailed(name, f"{type(error).__name__}: {error}") from error

    async def a_storefront_lists(self) -> None:
        """Only what is in stock, and of it only the sizes that are; and how to reach a human."""
        visitor = self.browser()
        products: list[catalog.Product] = []
        request = catalog.ListProductsRequest(page_size=100)
        while True:
            page = await visitor.call(f"{CATALOG}/ListProducts", request, catalog.ListProductsResponse)
            products += page.products
            check(bool(page.contact_options.phone_number), "every answer has the hotline")
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        variants = [variant for product in products for variant in product.variants]
        check(bool(variants), "something is listed")
        check(all(variant.free > 0 for variant in variants), "every listed size can be shipped now")
        self.say(f"  {len(products)} products in {len(variants)} sizes and colours can be shipped now")
        self.say(f"  the hotline stands in the answer: {page.contact_options.phone_number}")
        last = [
            (product, v) for product in products for v in product.variants if v.free == 1 and len(product.variants) > 1
        ]
        check(bool(last), "some size is down to its last pair (run `make clean` to start with full shelves)")
        product, variant = last[0]
        self.product_id, self.sku = product.product_id, variant.sku
        kind = product.product_type
        wanted = {"brand": product.brand, "category": kind, "size": variant.size, "color": variant.color}
        self.listed.filters.extend(catalog.Filter(attribute=name, values=[value]) for name, value in wanted.items())
        sizes = ", ".join(v.size for v in product.variants if v.color == variant.color)
        self.say(f"  {product.title}, {variant.color}: sizes {sizes}; of {variant.size} there is one pair left")

    async def a_search_forgives(self) -> None:
        """A typing error finds what was meant; a facet's number is what choosing it gives."""
        await window_shopping.search(self)

    async def the_last_pair_is_ordered(self) -> None:
        """The list stops showing it, at once."""
        await self._bring_standing_along()
        async with window_shopping.OpenList(self, self.product_id) as open_list:
            await self._order_the_last_pair(asyncio.create_task(open_list.until_gone(self.sku)))

    async def _order_the_last_pair(self, gone: asyncio.Task[datetime]) -> None:
        checkout = await self.regular.call(
            f"{SHIPPING}/BeginCheckout",
            shipping.BeginCheckoutRequest(
                request_id=new_id("req"), lines=[shipping.CheckoutLine(sku=self.sku, quantity=1)], address=ADDRESS
            ),
            shipping.BeginCheckoutResponse,
        )
        hidden = await self._await_hidden()
        told = await gone
        held = await self._ledger_time("MOVEMENT_KIND_RESERVE")
        for highlight in checkout.checkout.highlights:
            self.say(f"  shown before the order: {highlight.text}")
        placed = await self.regular.call(
            f"{SHIPPING}/PlaceOrder",
            shipping.PlaceOrderRequest(
                request_id=new_id("req"),
                checkout_id=checkout.checkout.checkout_id,
                highlights_version=checkout.checkout.highlights_version,
                payment_reference=new_id("pay"),
            ),
            shipping.PlaceOrderResponse,
        )
        self.order = placed.order
        check(self.order.state == shipping.ORDER_STATE_CONFIRMED, "the order is confirmed")
        total = self.order.total
        self.say(f"  ordered: {self.order.order_id}, {total.units}.{total.nanos // 10**7:02} {total.currency_code}")
        self.say(f"  commit to hidden: {(hidden - held) / timedelta(milliseconds=1):.0f} ms")
        self.say(f"  commit to told, on a list that stood open: {(told - held) / timedelta(milliseconds=1):.0f} ms")

    async def a_second_customer_is_told_the_truth(self) -> None:
        """OUT_OF_STOCK with the numbers, alternatives in stock, and nothing was ordered or charged."""
        second = self.browser(new_id("cus"))
        try:
            await second.call(
                f"{SHIPPING}/BeginCheckout",
                shipping.BeginCheckoutRequest(
                    request_id=new_id("req"), lines=[shipping.CheckoutLine(sku=self.sku, quantity=1)], address=ADDRESS
                ),
                shipping.BeginCheckoutResponse,
            )
        except Refused as refused:
            check(refused.reason == "OUT_OF_STOCK", f"the reason is OUT_OF_STOCK, not {refused.reason}")
            self.say(f"  {refused.reason}: wanted {refused.details['wanted']}, free {refused.details['free']}")
        else:
            raise AssertionError("the last pair was sold twice")
        found = await second.call(
            f"{CATALOG}/ListAlternatives",
            catalog.ListAlternativesRequest(sku=self.sku, page_size=3),
            catalog.ListAlternativesResponse,
        )
        check(bool(found.alternatives), "there are alternatives")
        for one in found.alternatives:
            check(all(variant.free > 0 for variant in one.product.variants), "alternatives are in stock")
            self.say(f"  instead: {one.product.title} ({'; '.join(one.reasons)})")
        orders = await second.call(f"{SHIPPING}/ListOrders", shipping.ListOrdersRequest(), shipping.ListOrdersResponse)
        check(not orders.orders, "nothing was ordered")
        self.say("  nothing was ordered or charged")

    async def the_size_comes_back(self) -> None:
        """Whoever waited is told with a unit in hand."""
        await coming_back.play(self, ADDRESS)

    async def the_regular_is_surprised(self) -> None:
        """Loyalty grants overnight by itself, shipping applies it."""

        async def upgraded() -> shipping.Shipment | None:
            answer = await self.regular.call(
                f"{SHIPPING}/GetOrder",
                shipping.GetOrderRequest(order_id=self.order.order_id),
                shipping.GetOrderResponse,
            )
            shipment = answer.order.shipments[0]
            return shipment if shipment.service_level == shipping.SERVICE_LEVEL_OVERNIGHT else None

        shipment = await eventually(upgraded, "the shipment goes overnight")
        change = shipment.promise_changes[-1]
        took = change.change_time.ToDatetime(UTC) - self.order.create_time.ToDatetime(UTC)
        stub: loyalty_rpc.LoyaltyServiceAsyncStub = loyalty_rpc.LoyaltyServiceStub(self.tools.channel("loyalty"))
        explained = await stub.ExplainUpgrade(
            loyalty.ExplainUpgradeRequest(order_id=self.order.order_id),
            metadata=self.tools.metadata("agent", self.journey_id, agent_id="agent_demo"),
            timeout=SECONDS,
        )
        check(explained.decision.granted, "loyalty granted it")
        self.say(f"  promised at first: {_day(shipment.original_promise)}")
        self.say(f"  promised now:      {_day(shipment.current_promise)}")
        why = explained.decision.text.replace("; ", ";\n       ")
        self.say(f"  why: {why} (policy version {explained.decision.policy_version})")
        self.say(f"  order to upgrade: {took / timedelta(milliseconds=1):.0f} ms")

    async def help_is_pressed(self) -> None:
        """An agent answers, sees the relationship, and writes down what was said."""
        async with Desk(self.tools, "agent_demo", "Mara", self.journey_id) as desk:
            taking = asyncio.create_task(desk.take_next(self.customer_id))
            pressed = await self.regular.call(
                f"{HOTLINE}/PressHelp",
                contact.PressHelpRequest(request_id=new_id("req"), channel=options.CHANNEL_VIDEO, page="/orders"),
                contact.PressHelpResponse,
            )
            talk = await asyncio.wait_for(taking, 15)
            waited = talk.answer_time.ToDatetime() - pressed.contact.press_time.ToDatetime()
            self.say(f"  {talk.agent_name} answered after {waited.total_seconds():.2f} s (promised: 15 s)")
            check(waited < timedelta(seconds=15), "a human answers within 15 s")
            seen = await self._await_timeline(desk, contact.TIMELINE_KIND_SHIPMENT_UPGRADED)
            for entry in seen:
                self.say(f"  the agent sees: {entry.summary}")
            await desk.note(talk, "Is happy about the overnight delivery; a gift for her sister's birthday.")
            await desk.complete(talk)

    async def the_parcel_arrives(self) -> None:
        """Dispatch, scans, delivery; points accrue; the timeline has it all, once, in order."""
        self.say("  (the demo plays warehouse and carrier)")
        operator = self.tools.metadata("operator", self.journey_id)
        warehouse: shipping_rpc.WarehouseServiceAsyncStub = shipping_rpc.WarehouseServiceStub(
            self.tools.channel("shipping")
        )
        tracking = new_id("track")
        await warehouse.DispatchShipment(
            shipping.DispatchShipmentRequest(
                request_id=new_id("req"),
                shipment_id=self.order.shipments[0].shipment_id,
                tracking_reference=tracking,
            ),
            metadata=operator,
            timeout=SECONDS,
        )
        for kind in (
            shipping.SCAN_KIND_ACCEPTED,
            shipping.SCAN_KIND_IN_TRANSIT,
            shipping.SCAN_KIND_OUT_FOR_DELIVERY,
            shipping.SCAN_KIND_DELIVERED,
        ):
            scan = shipping.RecordScanRequest(scan_id=new_id("scan"), tracking_reference=tracking, kind=kind)
            scan.scan_time.GetCurrentTime()
            await warehouse.RecordScan(scan, metadata=operator, timeout=SECONDS)
        desk = Desk(self.tools, "agent_demo", "Mara", self.journey_id)
        entries = await self._await_timeline(desk, *TIMELINE)
        for entry in entries:
            self.say(f"  {entry.occur_time.ToDatetime():%H:%M:%S.%f} {entry.summary}")
        kinds = tuple(entry.kind for entry in entries)
        names = [contact.TimelineKind.Name(kind) for kind in kinds]
        check(kinds == TIMELINE, f"the timeline has everything once and in order, not {names}")

    async def the_journey_can_be_followed(self) -> None:
        """Every hop, as a tree."""
        self.spans = await journey.await_edges(self.http, self.stack.zipkin_url, self.journey_id, EDGES)
        for line in journey.drawn(self.spans):
            self.say(f"  {line}")

    async def _bring_standing_along(self) -> None:
        stub: loyalty_rpc.LoyaltyServiceAsyncStub = loyalty_rpc.LoyaltyServiceStub(self.tools.channel("loyalty"))
        answer = await stub.AdjustPoints(
            loyalty.AdjustPointsRequest(
                request_id=new_id("req"), customer_id=self.customer_id, points=400, reason="standing brought along"
            ),
            metadata=self.tools.metadata("operator"),
            timeout=SECONDS,
        )
        tier = loyalty.Tier.Name(answer.standing.tier).removeprefix("TIER_").lower()
        self.say(f"  the customer is a {tier} with {answer.standing.points} points")

    async def _await_hidden(self) -> datetime:
        visitor = self.browser()

        async def gone() -> datetime | None:
            answer = await visitor.call(f"{CATALOG}/ListProducts", self.listed, catalog.ListProductsResponse)
            seen = datetime.now(UTC)
            shown = (variant.sku for product in answer.products for variant in product.variants)
            return None if self.sku in shown else seen

        return await eventually(gone, "the list does not show the size any more", pause=0.001)

    async def _ledger_time(self, kind: str) -> datetime:
        """When inventory wrote the newest movement of this kind down."""
        stub: inventory_rpc.InventoryServiceAsyncStub = inventory_rpc.InventoryServiceStub(
            self.tools.channel("inventory")
        )
        answer = await stub.ListLedgerEntries(
            inventory.ListLedgerEntriesRequest(sku=self.sku),
            metadata=self.tools.metadata("operator"),
            timeout=SECONDS,
        )
        wanted = inventory.MovementKind.Value(kind)
        return next(entry.create_time.ToDatetime(UTC) for entry in answer.entries if entry.kind == wanted)

    async def _await_timeline(self, desk: Desk, *kinds: contact.TimelineKind.ValueType) -> list[contact.TimelineEntry]:
        """The timeline once it has all of these."""
        wanted = Counter(kinds)

        async def there() -> list[contact.TimelineEntry] | None:
            entries = await desk.timeline(self.customer_id)
            return entries if wanted <= Counter(entry.kind for entry in entries) else None

        names = ", ".join(contact.TimelineKind.Name(kind) for kind in kinds)
        return await eventually(there, f"the timeline has {names}")


@asynccontextmanager
async def told(stack: Stack, say: Say) -> AsyncIterator[Story]:
    """A story about to be played, with its clients open."""
    tools = Tools(stack)
    async with aiohttp.ClientSession() as http:
        try:
            yield Story(stack, say, http, tools)
        finally:
            await tools.close()


def _day(promise: shipping.DeliveryPromise) -> str:
    level = shipping.ServiceLevel.Name(promise.service_level).removeprefix("SERVICE_LEVEL_").lower()
    return f"{promise.latest.year}-{promise.latest.month:02}-{promise.latest.day:02} ({level})"
