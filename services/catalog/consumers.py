"""What catalog hears, and what runs for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from services.catalog import queueing, usecases
from services.catalog.store.stock import Level
from services.chassis.database import Transaction
from services.chassis.facts import Heard, Hears
from services.chassis.values import to_datetime
from shop.contact.events.v1.facts_pb2 import CustomerForgotten, HotlineStatusChanged
from shop.inventory.events.v1.facts_pb2 import (
    ReservationExpired,
    StockLevelChanged,
    StockWatermark,
    WaitingHoldUsed,
)
from shop.shipping.events.v1.facts_pb2 import OrderPlaced

STOCK = "shop.inventory.stock.v1"


async def on_stock(app: Any, tx: Transaction, heard: Sequence[Heard[Any]]) -> None:
    """Levels changed, and all up to some time was told. In any order and any number of times: versions decide."""
    levels: list[Level] = []
    watermarks: dict[int, datetime] = {}
    for fact in heard:
        message = fact.message
        if isinstance(message, StockLevelChanged):
            levels += _levels(message)
        elif isinstance(message, StockWatermark):
            as_of = to_datetime(message.as_of)
            watermarks[fact.partition] = max(as_of, watermarks.get(fact.partition, as_of))
    if await usecases.hear_stock(tx, levels, watermarks):
        tx.after_commit(app.back_in_stock.wake)


def _levels(told: StockLevelChanged) -> Iterator[Level]:
    """The level that changed, and the other side of a transfer: both at once, or a unit would be twice or nowhere."""
    yield Level(told.sku, told.location, told.version, told.free, told.received_total)
    if told.HasField("moved_with"):
        other = told.moved_with
        yield Level(told.sku, other.location, other.version, other.free, other.received_total)


async def on_reservation_expired(app: Any, tx: Transaction, heard: Heard[ReservationExpired]) -> None:
    """Somebody let their turn lapse: the next is asked. Holds of others are none of our business."""
    if await queueing.lapse(tx, heard.message.reservation_id):
        tx.after_commit(app.back_in_stock.wake)


async def lock_reservations(app: object, tx: Transaction, told: Sequence[Any]) -> None:
    """Those who wait, of all these facts in one order."""
    await queueing.lock_reservations(tx, (fact.reservation_id for fact in told))


async def on_waiting_hold_used(app: object, tx: Transaction, heard: Heard[WaitingHoldUsed]) -> None:
    """Somebody took their turn."""
    await queueing.take(tx, heard.message.reservation_id)


async def on_customer_forgotten(app: Any, tx: Transaction, heard: Heard[CustomerForgotten]) -> None:
    """Nothing of them stays but the mark, also when this is heard again."""
    await queueing.forget(tx, heard.message.customer_id)
    tx.after_commit(app.back_in_stock.wake)


async def lock_customers(app: object, tx: Transaction, told: Sequence[Any]) -> None:
    """The customers of all these facts in one order."""
    await queueing.lock_customers(tx, (fact.customer_id for fact in told))


async def on_order_placed(app: object, tx: Transaction, heard: Heard[OrderPlaced]) -> None:
    """What is ordered much stands further up."""
    told = heard.message
    units: Counter[str] = Counter()
    for item in told.items:
        units[item.sku] += item.quantity
    await usecases.hear_order(tx, units, to_datetime(told.order_time))


async def lock_ordered(app: object, tx: Transaction, told: Sequence[Any]) -> None:
    """The products of all these orders."""
    await usecases.lock_ordered(tx, (item.sku for order in told for item in order.items))


async def on_hotline_status_changed(app: Any, tx: Transaction, heard: Heard[HotlineStatusChanged]) -> None:
    """Contact says who is there to answer."""
    told = heard.message
    await app.hotline.hear(tx, told.contact_options, to_datetime(told.contact_options.as_of), told.version)


HEARS = (
    Hears(STOCK, batch=on_stock, batch_facts=(StockLevelChanged, StockWatermark)),
    Hears(
        "shop.inventory.reservations.v1",
        {ReservationExpired: on_reservation_expired, WaitingHoldUsed: on_waiting_hold_used},
        lock_ahead=lock_reservations,
    ),
    Hears("shop.contact.privacy.v1", {CustomerForgotten: on_customer_forgotten}, lock_ahead=lock_customers),
    Hears("shop.shipping.orders.v1", {OrderPlaced: on_order_placed}, lock_ahead=lock_ordered),
    Hears("shop.contact.hotline.v1", {HotlineStatusChanged: on_hotline_status_changed}),
)
