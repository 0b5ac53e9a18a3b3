"""What happens to an order once it is placed: each locks, decides in the domain, saves and announces."""

from __future__ import annotations

from datetime import datetime

from services.chassis.database import Transaction
from services.chassis.errors import NotNow
from services.shipping import store
from services.shipping.domain.delivery import ServiceLevel, quote
from services.shipping.domain.order import Order, OrderNotFound, Shipment, ShipmentNotFound
from services.shipping.domain.scans import BEFORE_DISPATCH, check_scan_time
from services.shipping.usecases.announcing import announce

DELIVERED = "delivered"


class TrackingReferenceUsed(NotNow):
    """Another parcel travels under this number."""

    reason = "TRACKING_REFERENCE_USED"


async def cancel_order(tx: Transaction, order_id: str, customer_id: str, reason: str) -> Order:
    """Calls an order off before anything of it left. `customer_id`: whose it must be, or empty for anybody's.

    Raises `OrderNotFound`, `OrderNotCancellable`.
    """
    order = await store.lock_order(tx.connection, order_id)
    if order is None or customer_id not in ("", order.customer_id):
        raise OrderNotFound("there is no such order, or it is not yours")
    await announce(tx, order, order.cancel(reason, await store.now(tx.connection)))
    return order


async def dispatch_shipment(tx: Transaction, shipment_id: str, tracking_reference: str) -> Shipment:
    """A parcel leaves the house; what scanners saw of it before we knew its number counts now.

    Raises `ShipmentNotFound`, `ShipmentNotDispatchable`, `TrackingReferenceUsed`.
    """
    await store.lock_parcel(tx.connection, tracking_reference)
    order = await store.lock_order_of_shipment(tx.connection, shipment_id)
    if order is None:
        raise ShipmentNotFound("there is no such shipment", shipment_id=shipment_id)
    if await store.shipment_of_parcel(tx.connection, tracking_reference) not in (None, shipment_id):
        raise TrackingReferenceUsed("another parcel travels under this number", tracking_reference=tracking_reference)
    now = await store.now(tx.connection)
    happened = order.dispatch(shipment_id, tracking_reference, now)
    # Carriers use a number again: what was seen long before is another parcel's.
    seen = await store.delivery_scan(tx.connection, tracking_reference, now - BEFORE_DISPATCH)
    if happened and seen is not None:
        happened += order.deliver(shipment_id, seen)
    await announce(tx, order, happened)
    return order.shipment(shipment_id)


async def record_scan(
    tx: Transaction, scan_id: str, tracking_reference: str, kind: str, scan_time: datetime
) -> Shipment | None:
    """Keeps what a scanner saw, once. Returns the parcel, or None while nobody knows it.

    Raises `InvalidInput` for a time at which it cannot have been seen; a repeat is not judged again.
    """
    await store.lock_parcel(tx.connection, tracking_reference)
    new = await store.add_scan(tx.connection, scan_id, tracking_reference, kind, scan_time)
    shipment_id = await store.shipment_of_parcel(tx.connection, tracking_reference)
    order = await store.lock_order_of_shipment(tx.connection, shipment_id) if shipment_id else None
    shipment = order.shipment(shipment_id) if order and shipment_id else None
    if new:
        left = shipment.dispatch_time if shipment else None
        check_scan_time(scan_time, await store.now(tx.connection), left)
    if order is None or shipment is None:
        return None
    if new and kind == DELIVERED:
        await announce(tx, order, order.deliver(shipment.shipment_id, scan_time))
    return shipment


async def apply_upgrade(tx: Transaction, order_id: str, policy_version: int, reason: str) -> None:
    """An upgrade was granted: overnight from now on, if that is faster and anything is still here.

    Raises `OrderNotFound`.
    """
    order = await store.lock_order(tx.connection, order_id)
    if order is None:
        raise OrderNotFound("there is no such order", order_id=order_id)
    now = await store.now(tx.connection)
    overnight = quote(now, order.country, ServiceLevel.OVERNIGHT)
    await announce(tx, order, order.apply_upgrade(overnight, policy_version, reason, now))
