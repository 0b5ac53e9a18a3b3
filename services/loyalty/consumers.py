"""What loyalty hears, and what runs for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from services.chassis.database import Transaction
from services.chassis.facts import Heard, Hears
from services.chassis.values import from_money, to_datetime
from services.loyalty import store, usecases
from services.loyalty.domain.money import Money
from services.loyalty.domain.standing import DeliveredParcel
from services.loyalty.domain.upgrades import Outcome, PlacedOrder
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.shipping.events.v1 import facts_pb2 as shipping
from shop.shipping.v1 import shipping_pb2


async def on_order_placed(app: object, tx: Transaction, heard: Heard[shipping.OrderPlaced]) -> None:
    """The one decision on this order."""
    await usecases.decide_upgrade(tx, _placed(heard.message))


async def on_order_cancelled(app: object, tx: Transaction, heard: Heard[shipping.OrderCancelled]) -> None:
    """Nothing will leave the house: what was given for it is back in the budget."""
    await usecases.settle_upgrade(tx, heard.message.order_id, heard.message.customer_id, Outcome.CANCELLED)


async def on_shipment_upgraded(app: object, tx: Transaction, heard: Heard[shipping.ShipmentUpgraded]) -> None:
    """The order goes overnight: what was reserved is spent."""
    await usecases.settle_upgrade(tx, heard.message.order_id, heard.message.customer_id, Outcome.UPGRADED)


async def on_upgrade_not_applied(app: object, tx: Transaction, heard: Heard[shipping.UpgradeNotApplied]) -> None:
    """The order goes as it would have gone: what was reserved is back in the budget."""
    await usecases.settle_upgrade(tx, heard.message.order_id, heard.message.customer_id, Outcome.NOT_APPLIED)


async def on_shipment_delivered(app: object, tx: Transaction, heard: Heard[shipping.ShipmentDelivered]) -> None:
    """The parcel's points."""
    told = heard.message
    await usecases.accrue(
        tx,
        DeliveredParcel(
            told.customer_id,
            told.order_id,
            told.shipment_id,
            Money(from_money(told.goods_total), told.goods_total.currency_code),
            to_datetime(told.delivery_time),
            heard.id,
        ),
    )


async def lock_ahead(app: object, tx: Transaction, messages: Sequence[Message]) -> None:
    """Locks the orders, then the customers, of facts that share a transaction."""
    orders: dict[str, str] = {}
    customers: set[str] = set()
    for told in messages:
        if not isinstance(told, shipping.ShipmentDelivered):
            orders[told.order_id] = told.customer_id  # type: ignore[attr-defined]
        if isinstance(told, shipping.OrderPlaced | shipping.ShipmentDelivered):
            customers.add(told.customer_id)
    await store.lock_ahead(tx.connection, orders, customers)


def _placed(told: shipping.OrderPlaced) -> PlacedOrder:
    currencies = {told.goods_total.currency_code, *(item.unit_price.currency_code for item in told.items)}
    return PlacedOrder(
        told.order_id,
        told.customer_id,
        # Goods in several currencies have no value that a policy could be held against.
        Money(from_money(told.goods_total), currencies.pop() if len(currencies) == 1 else ""),
        told.country,
        told.promise.service_level == shipping_pb2.SERVICE_LEVEL_OVERNIGHT,
        to_datetime(told.order_time),
    )


async def on_hotline_status_changed(app: Any, tx: Transaction, heard: Heard[HotlineStatusChanged]) -> None:
    """Contact says who is there to answer."""
    told = heard.message
    await app.hotline.hear(tx, told.contact_options, to_datetime(told.contact_options.as_of), told.version)


HEARS = (
    Hears(
        "shop.shipping.orders.v1",
        {
            shipping.OrderPlaced: on_order_placed,
            shipping.OrderCancelled: on_order_cancelled,
        },
        lock_ahead,
    ),
    Hears(
        "shop.shipping.shipments.v1",
        {
            shipping.ShipmentUpgraded: on_shipment_upgraded,
            shipping.UpgradeNotApplied: on_upgrade_not_applied,
            shipping.ShipmentDelivered: on_shipment_delivered,
        },
        lock_ahead,
    ),
    Hears("shop.contact.hotline.v1", {HotlineStatusChanged: on_hotline_status_changed}),
)
