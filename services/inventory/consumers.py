"""What inventory hears, and what runs for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from services.chassis.database import Transaction
from services.chassis.facts import Heard, Hears
from services.inventory.domain.allocation import Allocation
from services.inventory.store import reservations
from services.inventory.usecases import orders
from shop.shipping.events.v1 import facts_pb2 as shipping

OF_AN_ORDER = (shipping.OrderRejected, shipping.OrderCancelled, shipping.ShipmentDispatched)


async def on_order_rejected(app: object, tx: Transaction, heard: Heard[shipping.OrderRejected]) -> None:
    """The order will never be: whatever it holds is free again."""
    await orders.release_order(tx, heard.message.order_id, _actor(heard))


async def on_order_cancelled(app: object, tx: Transaction, heard: Heard[shipping.OrderCancelled]) -> None:
    """What has not left the house is free again."""
    await orders.release_order(tx, heard.message.order_id, _actor(heard))


async def on_shipment_dispatched(app: object, tx: Transaction, heard: Heard[shipping.ShipmentDispatched]) -> None:
    """The units left the house."""
    leaving = [Allocation(item.sku, item.location, item.quantity) for item in heard.message.items]
    await orders.ship_order(tx, heard.message.order_id, leaving, _actor(heard))


async def lock_orders(app: object, tx: Transaction, facts: Sequence[Message]) -> None:
    """Takes the locks of all these facts at once: they share rows with those of other partitions, and with callers."""
    told = {fact.order_id: fact for fact in facts if isinstance(fact, OF_AN_ORDER)}
    releasing = [order_id for order_id, fact in told.items() if not isinstance(fact, shipping.ShipmentDispatched)]
    await reservations.lock_orders(tx.connection, list(told), releasing)


def _actor(heard: Heard[Any]) -> str:
    return f"fact:{heard.id}"


HEARS = (
    Hears(
        "shop.shipping.orders.v1",
        {
            shipping.OrderRejected: on_order_rejected,
            shipping.OrderCancelled: on_order_cancelled,
        },
        lock_ahead=lock_orders,
    ),
    Hears("shop.shipping.shipments.v1", {shipping.ShipmentDispatched: on_shipment_dispatched}, lock_ahead=lock_orders),
)
