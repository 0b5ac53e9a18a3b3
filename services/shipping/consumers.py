"""What shipping hears, and what runs for it."""

from __future__ import annotations

from typing import Any

from services.chassis.database import Transaction
from services.chassis.facts import Heard, Hears
from services.chassis.values import to_datetime
from services.shipping import store
from services.shipping.usecases import fulfilment
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.inventory.events.v1 import facts_pb2 as inventory
from shop.loyalty.events.v1 import facts_pb2 as loyalty


async def on_upgrade_granted(app: object, tx: Transaction, heard: Heard[loyalty.UpgradeGranted]) -> None:
    """The order goes overnight, if it can. UpgradeDeclined is none of our business."""
    granted = heard.message
    await fulfilment.apply_upgrade(tx, granted.order_id, granted.policy_version, granted.reason)


async def on_reservation_expired(app: object, tx: Transaction, heard: Heard[inventory.ReservationExpired]) -> None:
    """The goods of a checkout are no longer held. An order that was taken of it goes its own way."""
    await store.mark_lapsed(tx.connection, heard.message.reservation_id, to_datetime(heard.message.expire_time))


async def on_hotline_status_changed(app: Any, tx: Transaction, heard: Heard[HotlineStatusChanged]) -> None:
    """Contact says who is there to answer."""
    told = heard.message
    await app.hotline.hear(tx, told.contact_options, to_datetime(told.contact_options.as_of), told.version)


HEARS = (
    Hears("shop.loyalty.upgrades.v1", {loyalty.UpgradeGranted: on_upgrade_granted}),
    Hears("shop.inventory.reservations.v1", {inventory.ReservationExpired: on_reservation_expired}),
    Hears("shop.contact.hotline.v1", {HotlineStatusChanged: on_hotline_status_changed}),
)
