"""What inventory hears, and what runs for it."""

from __future__ import annotations

from typing import Any

from services.chassis.database import Transaction
from services.chassis.facts import Heard, Hears
from services.inventory import usecases
from services.inventory.domain.stock import Allocation
from shop.shipping.events.v1 import facts_pb2 as shipping


async def on_order_rejected(app: object, tx: Transaction, heard: Heard[shipping.OrderRejected]) -> None:
    """The order will never be: whatever it holds is free again."""
    await usecases.release_order(tx, heard.message.order_id, _actor(heard))


async def on_order_cancelled(app: object, tx: Transaction, heard: Heard[shipping.OrderCancelled]) -> None:
    """What has not left the house is free again."""
    await usecases.release_order(tx, heard.message.order_id, _actor(heard))


async def on_shipment_dispatched(app: object, tx: Transaction, heard: Heard[shipping.ShipmentDispatched]) -> None:
    """The units left the house."""
    leaving = [Allocation(item.sku, item.location, item.quantity) for item in heard.message.items]
    await usecases.ship_order(tx, heard.message.order_id, leaving, _actor(heard))


def _actor(heard: Heard[Any]) -> str:
    return f"fact:{heard.id}"


HEARS = (
    Hears(
        "shop.shipping.orders.v1",
        {
            shipping.OrderRejected: on_order_rejected,
            shipping.OrderCancelled: on_order_cancelled,
        },
    ),
    Hears("shop.shipping.shipments.v1", {shipping.ShipmentDispatched: on_shipment_dispatched}),
)
