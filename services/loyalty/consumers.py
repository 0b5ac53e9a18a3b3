"""What loyalty hears, and what runs for it."""

from __future__ import annotations

from shop.shipping.events.v1 import facts_pb2 as shipping
from shop.shipping.v1 import shipping_pb2

from services.chassis.database import Transaction
from services.chassis.facts import Heard, Hears
from services.chassis.values import from_money, to_datetime
from services.loyalty import usecases
from services.loyalty.domain.money import Money
from services.loyalty.domain.standing import DeliveredParcel
from services.loyalty.domain.upgrades import Outcome, PlacedOrder
from services.loyalty.hotline import HEARS_HOTLINE


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


HEARS = (
    Hears(
        "shop.shipping.orders.v1",
        {
            shipping.OrderPlaced: on_order_placed,
            shipping.OrderCancelled: on_order_cancelled,
        },
    ),
    Hears(
        "shop.shipping.shipments.v1",
        {
            shipping.ShipmentUpgraded: on_shipment_upgraded,
            shipping.UpgradeNotApplied: on_upgrade_not_applied,
            shipping.ShipmentDelivered: on_shipment_delivered,
        },
    ),
    HEARS_HOTLINE,
)
