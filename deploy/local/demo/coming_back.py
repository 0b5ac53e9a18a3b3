"""The size that was sold out comes back: whoever waited for it is told with a unit in hand, and orders it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shop.catalog.v1 import back_in_stock_pb2 as waiting
from shop.catalog.v1 import catalog_pb2 as catalog
from shop.contact.v1 import contact_pb2 as contact
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.inventory.v1 import inventory_pb2_grpc as inventory_rpc
from shop.shipping.v1 import shipping_pb2 as shipping

from .checks import check, eventually
from .clients import SECONDS, Browser, new_id
from .desk import Desk

if TYPE_CHECKING:
    from .story import Story

CATALOG, WAITING = "shop.catalog.v1.CatalogService", "shop.catalog.v1.BackInStockService"
SHIPPING = "shop.shipping.v1.ShippingService"


async def play(story: Story, address: shipping.Address) -> None:
    """A customer waits for the SKU of the story, which is sold out by now, and one unit of it comes in."""
    customer_id = new_id("cus")
    browser = story.browser(customer_id)
    opened = await browser.call(
        f"{CATALOG}/GetProduct",
        catalog.GetProductRequest(product_id=story.product_id, sku=story.sku),
        catalog.GetProductResponse,
    )
    check(all(variant.sku != story.sku for variant in opened.product.variants), "the size is not offered")
    story.say(f"  a link to the sold-out size still opens, with {len(opened.alternatives)} alternatives in stock")
    await browser.call(
        f"{WAITING}/SubscribeBackInStock",
        waiting.SubscribeBackInStockRequest(request_id=new_id("req"), sku=story.sku),
        waiting.SubscribeBackInStockResponse,
    )
    story.say("  a customer asks to be told when it is back (the demo plays the warehouse)")
    came_in = await _receive(story)
    told, seen = await _await_turn(browser, story.sku)
    until = told.hold_expire_time.ToDatetime(UTC)
    story.say(f"  it is theirs until {until:%Y-%m-%d %H:%M} UTC, and nobody else's")
    story.say(f"  received to told: {(seen - came_in) / timedelta(milliseconds=1):.0f} ms")
    await _order(browser, story.sku, address)
    await eventually(lambda: _state(browser, story.sku, waiting.BACK_IN_STOCK_STATE_TAKEN), "the turn ends as taken")
    desk = Desk(story.tools, "agent_demo", "Mara", browser.journey_id)
    wanted = [contact.TIMELINE_KIND_BACK_IN_STOCK, contact.TIMELINE_KIND_ORDER_PLACED]

    async def on_the_timeline() -> list[contact.TimelineEntry] | None:
        entries = [entry for entry in await desk.timeline(customer_id) if entry.kind in wanted]
        return entries if len(entries) >= len(wanted) else None

    entries = await eventually(on_the_timeline, "the timeline has it")
    check([entry.kind for entry in entries] == wanted, "the timeline has it once and in order")
    for entry in entries:
        story.say(f"  on their timeline: {entry.summary}")


async def _receive(story: Story) -> datetime:
    """One unit comes in where the last one lay. Returns when inventory wrote it down."""
    stub: inventory_rpc.InventoryServiceAsyncStub = inventory_rpc.InventoryServiceStub(story.tools.channel("inventory"))
    operator = story.tools.metadata("operator")
    request = inventory.ListLedgerEntriesRequest(sku=story.sku)
    known = await stub.ListLedgerEntries(request, metadata=operator, timeout=SECONDS)
    await stub.ReceiveStock(
        inventory.ReceiveStockRequest(
            request_id=new_id("req"), sku=story.sku, location=known.entries[0].location, quantity=1, reason="delivery"
        ),
        metadata=operator,
        timeout=SECONDS,
    )
    ledger = await stub.ListLedgerEntries(request, metadata=operator, timeout=SECONDS)
    received = (entry for entry in ledger.entries if entry.kind == inventory.MOVEMENT_KIND_RECEIVE)
    return next(received).create_time.ToDatetime(UTC)


async def _await_turn(browser: Browser, sku: str) -> tuple[waiting.BackInStockSubscription, datetime]:
    async def held() -> tuple[waiting.BackInStockSubscription, datetime] | None:
        found = await _state(browser, sku, waiting.BACK_IN_STOCK_STATE_HELD)
        return (found, datetime.now(UTC)) if found else None

    return await eventually(held, "a unit is held for whoever waited", pause=0.001)


async def _state(
    browser: Browser, sku: str, state: waiting.BackInStockState.ValueType
) -> waiting.BackInStockSubscription | None:
    """What the customer waits for, if it stands so."""
    answer = await browser.call(
        f"{WAITING}/ListBackInStock", waiting.ListBackInStockRequest(), waiting.ListBackInStockResponse
    )
    return next((each for each in answer.subscriptions if (each.sku, each.state) == (sku, state)), None)


async def _order(browser: Browser, sku: str, address: shipping.Address) -> None:
    begun = await browser.call(
        f"{SHIPPING}/BeginCheckout",
        shipping.BeginCheckoutRequest(
            request_id=new_id("req"), lines=[shipping.CheckoutLine(sku=sku, quantity=1)], address=address
        ),
        shipping.BeginCheckoutResponse,
    )
    placed = await browser.call(
        f"{SHIPPING}/PlaceOrder",
        shipping.PlaceOrderRequest(
            request_id=new_id("req"),
            checkout_id=begun.checkout.checkout_id,
            highlights_version=begun.checkout.highlights_version,
            payment_reference=new_id("pay"),
        ),
        shipping.PlaceOrderResponse,
    )
    check(placed.order.state == shipping.ORDER_STATE_CONFIRMED, "whoever waited can order it")
