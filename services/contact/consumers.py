"""What contact hears: each fact becomes one entry of a customer's timeline, in plain words.

A fact that is heard again is the same entry: entries are unique by the id of their fact.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.database import Transaction
from services.chassis.facts import Handler, Heard, Hears
from services.chassis.values import from_money, to_datetime
from services.contact import store
from services.contact.domain.timeline import Entry, Kind
from shop.catalog.events.v1 import facts_pb2 as catalog
from shop.loyalty.events.v1 import facts_pb2 as loyalty
from shop.loyalty.v1.loyalty_pb2 import Tier
from shop.shipping.events.v1 import facts_pb2 as shipping


def order_placed(fact: shipping.OrderPlaced) -> tuple[Kind, Timestamp, str]:
    """We promised a date."""
    total = f"{from_money(fact.total):.2f} {fact.total.currency_code}"
    words = f"Ordered {_items(fact.items)} for {total}; promised by {_day(fact.promise.latest)}"
    return Kind.ORDER_PLACED, fact.order_time, words


def order_rejected(fact: shipping.OrderRejected) -> tuple[Kind, Timestamp, str]:
    """We could not keep what the checkout said."""
    return Kind.ORDER_REJECTED, fact.reject_time, f"The order could not be taken: {_plain(fact.reason)}"


def order_cancelled(fact: shipping.OrderCancelled) -> tuple[Kind, Timestamp, str]:
    """It will not be sent."""
    return Kind.ORDER_CANCELLED, fact.cancel_time, "The order was cancelled"


def upgrade_granted(fact: loyalty.UpgradeGranted) -> tuple[Kind, Timestamp, str]:
    """A surprise."""
    return Kind.UPGRADE_GRANTED, fact.decide_time, f"Overnight shipping as a surprise: {fact.reason}"


def upgrade_declined(fact: loyalty.UpgradeDeclined) -> tuple[Kind, Timestamp, str]:
    """No surprise this time; an agent should know why."""
    return Kind.UPGRADE_DECLINED, fact.decide_time, f"No faster shipping this time: {fact.reason}"


def shipment_upgraded(fact: shipping.ShipmentUpgraded) -> tuple[Kind, Timestamp, str]:
    """It arrives earlier than was promised."""
    words = f"Arrives by {_day(fact.promise.latest)} instead of {_day(fact.original_promise.latest)}"
    return Kind.SHIPMENT_UPGRADED, fact.upgrade_time, words


def upgrade_not_applied(fact: shipping.UpgradeNotApplied) -> tuple[Kind, Timestamp, str]:
    """The surprise could not be had."""
    words = f"The faster shipping could not be had: {_plain(fact.reason)}"
    return Kind.UPGRADE_NOT_APPLIED, fact.decide_time, words


def shipment_dispatched(fact: shipping.ShipmentDispatched) -> tuple[Kind, Timestamp, str]:
    """A parcel left the house."""
    words = f"A parcel with {_items(fact.items)} left us with {fact.carrier or 'the carrier'}"
    return Kind.SHIPMENT_DISPATCHED, fact.dispatch_time, words


def shipment_delivered(fact: shipping.ShipmentDelivered) -> tuple[Kind, Timestamp, str]:
    """A parcel arrived."""
    kept = "as promised" if fact.promise_kept else f"later than promised ({_day(fact.promise.latest)})"
    return Kind.SHIPMENT_DELIVERED, fact.delivery_time, f"A parcel arrived, {kept}"


def standing_changed(fact: loyalty.StandingChanged) -> tuple[Kind, Timestamp, str] | None:
    """Points came or went; a change without points is not for the timeline."""
    if not fact.points_delta:
        return None
    known = fact.tier and fact.tier in Tier.values()
    tier = f", tier {_plain(Tier.Name(fact.tier).removeprefix('TIER_'))}" if known else ""
    return Kind.STANDING_CHANGED, fact.change_time, f"{fact.points_delta:+d} points: {fact.points} now{tier}"


def back_in_stock(fact: catalog.BackInStock) -> tuple[Kind, Timestamp, str]:
    """They waited, and now it is their turn."""
    until = to_datetime(fact.hold_expire_time)
    words = f"Back in stock for them: {fact.sku}, held until {until:%Y-%m-%d %H:%M} UTC"
    return Kind.BACK_IN_STOCK, fact.change_time, words


def _entry(told: Callable[[Any], tuple[Kind, Timestamp, str] | None]) -> Handler:
    """The handler that writes what the fact tells to the timeline of the fact's customer."""

    async def handle(app: object, tx: Transaction, heard: Heard[Any]) -> None:
        said = told(heard.message)
        if said is None:
            return
        kind, time, words = said
        entry = Entry(
            heard.id,
            heard.message.customer_id,
            kind,
            to_datetime(time) if time.ByteSize() else heard.time,
            words,
            order_id=getattr(heard.message, "order_id", None) or None,
            journey_id=heard.journey_id,
        )
        await store.add_entries(tx.connection, [entry])

    return handle


def _items(items: Any) -> str:
    count = sum(item.quantity for item in items)
    return f"{count} item{'' if count == 1 else 's'}"


def _day(day: Any) -> str:
    """A google.type.Date."""
    return date(day.year, day.month, day.day).isoformat() if day.year and day.month and day.day else "an open date"


def _plain(reason: str) -> str:
    """`OUT_OF_STOCK`, in words."""
    return reason.replace("_", " ").lower()


HEARS = (
    Hears(
        "shop.shipping.orders.v1",
        {
            shipping.OrderPlaced: _entry(order_placed),
            shipping.OrderRejected: _entry(order_rejected),
            shipping.OrderCancelled: _entry(order_cancelled),
        },
    ),
    Hears(
        "shop.shipping.shipments.v1",
        {
            shipping.ShipmentUpgraded: _entry(shipment_upgraded),
            shipping.UpgradeNotApplied: _entry(upgrade_not_applied),
            shipping.ShipmentDispatched: _entry(shipment_dispatched),
            shipping.ShipmentDelivered: _entry(shipment_delivered),
        },
    ),
    Hears(
        "shop.loyalty.upgrades.v1",
        {
            loyalty.UpgradeGranted: _entry(upgrade_granted),
            loyalty.UpgradeDeclined: _entry(upgrade_declined),
        },
    ),
    Hears("shop.loyalty.standing.v1", {loyalty.StandingChanged: _entry(standing_changed)}),
    Hears("shop.catalog.products.v1", {catalog.BackInStock: _entry(back_in_stock)}),
)
