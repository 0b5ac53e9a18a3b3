"""An order and its shipments: every transition there is, and what each announces.

    PENDING ──confirm──> CONFIRMED ──last parcel left──> DISPATCHED ──last parcel arrived──> DELIVERED
       │ │                   └──cancel, while no parcel has left──> CANCELLED
       │ └──reject──> REJECTED
       └──give up──> GIVING_UP ──reject──> REJECTED

A shipment goes PREPARING -> DISPATCHED -> DELIVERED, or PREPARING -> CANCELLED with its order. An upgrade moves the
promise of what is still PREPARING. The order's version counts its changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import uuid4

from services.chassis.errors import NotFound, NotNow
from services.shipping.domain.delivery import DeliveryPromise, DeliveryQuote
from services.shipping.domain.facts import (
    Happened,
    OrderCancelled,
    OrderPlaced,
    OrderRejected,
    ShipmentDelivered,
    ShipmentDispatched,
    ShipmentUpgraded,
    UpgradeNotApplied,
)


class OrderState(StrEnum):
    """Where an order stands."""

    PENDING = "pending"
    # Pending still to the outside: its stock is being given back, and nothing confirms it any more.
    GIVING_UP = "giving_up"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    DISPATCHED = "dispatched"
    DELIVERED = "delivered"


class ShipmentState(StrEnum):
    """Where a parcel stands."""

    PREPARING = "preparing"
    DISPATCHED = "dispatched"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


ORDER_MOVES: Mapping[OrderState, frozenset[OrderState]] = {
    OrderState.PENDING: frozenset({OrderState.CONFIRMED, OrderState.REJECTED, OrderState.GIVING_UP}),
    OrderState.GIVING_UP: frozenset({OrderState.REJECTED}),
    OrderState.CONFIRMED: frozenset({OrderState.CANCELLED, OrderState.DISPATCHED}),
    OrderState.DISPATCHED: frozenset({OrderState.DELIVERED}),
    OrderState.REJECTED: frozenset(),
    OrderState.CANCELLED: frozenset(),
    OrderState.DELIVERED: frozenset(),
}
SHIPMENT_MOVES: Mapping[ShipmentState, frozenset[ShipmentState]] = {
    ShipmentState.PREPARING: frozenset({ShipmentState.DISPATCHED, ShipmentState.CANCELLED}),
    ShipmentState.DISPATCHED: frozenset({ShipmentState.DELIVERED}),
    ShipmentState.DELIVERED: frozenset(),
    ShipmentState.CANCELLED: frozenset(),
}


class ForbiddenMove(Exception):
    """A mistake of ours: the state machine has no such transition."""


class OrderNotFound(NotFound):
    """There is no such order, or it is not the caller's to see."""

    reason = "ORDER_NOT_FOUND"


class ShipmentNotFound(NotFound):
    """There is no such shipment."""

    reason = "SHIPMENT_NOT_FOUND"


class OrderNotCancellable(NotNow):
    """Something of it left the house, or it never was an order."""

    reason = "ORDER_NOT_CANCELLABLE"


class ShipmentNotDispatchable(NotNow):
    """It has left already, or was cancelled."""

    reason = "SHIPMENT_NOT_DISPATCHABLE"


@dataclass(frozen=True, slots=True)
class Line:
    """So many units of a variant, at the price the customer was shown."""

    sku: str
    title: str
    quantity: int
    unit_price: Decimal

    @property
    def total(self) -> Decimal:
        """What the line costs."""
        return self.unit_price * self.quantity


@dataclass(frozen=True, slots=True)
class Allocation:
    """Units of one SKU from one location."""

    sku: str
    location: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Item:
    """Units of one SKU in a parcel."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an order was rejected: what the customer is told, again and again."""

    reason: str
    message: str
    details: Mapping[str, str]

    def refusal(self) -> NotNow:
        """To be raised."""
        return NotNow(self.message, reason=self.reason, **self.details)


@dataclass(frozen=True, slots=True)
class PromiseChange:
    """A change of the promise, and why."""

    promise: DeliveryPromise
    reason: str
    time: datetime


@dataclass(slots=True)
class Shipment:
    """One parcel from one location."""

    shipment_id: str
    location: str
    carrier: str
    items: Sequence[Item]
    original_promise: DeliveryPromise
    current_promise: DeliveryPromise
    state: ShipmentState = ShipmentState.PREPARING
    tracking_reference: str | None = None
    dispatch_time: datetime | None = None
    delivery_time: datetime | None = None
    promise_changes: list[PromiseChange] = field(default_factory=list)

    def move_to(self, state: ShipmentState) -> None:
        """Raises `ForbiddenMove`."""
        if state not in SHIPMENT_MOVES[self.state]:
            raise ForbiddenMove(f"a shipment does not go from {self.state} to {state}")
        self.state = state


@dataclass(slots=True)
class Order:
    """What a customer ordered. Changed only here, and only while its row is locked."""

    order_id: str
    customer_id: str
    checkout_id: str
    reservation_id: str
    payment_reference: str
    highlights_version: str
    country: str
    carrier: str
    delivery_price: Decimal
    # Made when the order was placed.
    promise: DeliveryPromise
    lines: Sequence[Line]
    create_time: datetime
    journey_id: str | None = None
    state: OrderState = OrderState.PENDING
    version: int = 1
    # Why it was rejected or cancelled.
    reason: str = ""
    refused: Refused | None = None
    # What became of the upgrade that was granted: an order has at most one.
    upgrade: str | None = None
    shipments: list[Shipment] = field(default_factory=list)
    # What the call that placed it was answered, as it was sent; kept for repeats.
    answer: bytes | None = None

    @property
    def goods_total(self) -> Decimal:
        """Without delivery."""
        return sum((line.total for line in self.lines), Decimal(0))

    @property
    def total(self) -> Decimal:
        """Goods and delivery."""
        return self.goods_total + self.delivery_price

    def goods_in(self, shipment: Shipment) -> Decimal:
        """What the goods in a parcel cost."""
        prices = self.unit_prices
        return sum((prices[item.sku] * item.quantity for item in shipment.items), Decimal(0))

    @property
    def unit_prices(self) -> dict[str, Decimal]:
        """By SKU."""
        return {line.sku: line.unit_price for line in self.lines}

    def shipment(self, shipment_id: str) -> Shipment:
        """One of its parcels. Raises `ShipmentNotFound`."""
        for shipment in self.shipments:
            if shipment.shipment_id == shipment_id:
                return shipment
        raise ShipmentNotFound("there is no such shipment", shipment_id=shipment_id)

    def confirm(self, allocations: Sequence[Allocation]) -> list[Happened]:
        """The stock is committed: one parcel for each location it comes from."""
        self._move_to(OrderState.CONFIRMED)
        for location in sorted({part.location for part in allocations}):
            items = [Item(part.sku, part.quantity) for part in allocations if part.location == location]
            self.shipments.append(
                Shipment(f"shp_{uuid4().hex}", location, self.carrier, items, self.promise, self.promise)
            )
        return [OrderPlaced(self.version)]

    def give_up(self) -> None:
        """Nothing confirms it any more, also not somebody who had the stock committed before."""
        self._move_to(OrderState.GIVING_UP)

    def reject(self, refused: Refused, now: datetime) -> list[Happened]:
        """The stock was gone: there is no order, and the outside voids the payment."""
        self._move_to(OrderState.REJECTED)
        self.reason = refused.reason
        self.refused = refused
        return [OrderRejected(self.version, refused.reason, now)]

    def cancel(self, reason: str, now: datetime) -> list[Happened]:
        """Calls it off; what is called off stays so. Raises `OrderNotCancellable`."""
        if self.state is OrderState.CANCELLED:
            return []
        left = [one for one in self.shipments if one.state is not ShipmentState.PREPARING]
        if self.state is not OrderState.CONFIRMED or left:
            raise OrderNotCancellable(
                "parts of it have left our house" if left else f"the order is {self.state}",
                state=self.state.name,
                parcels_left=len(left),
            )
        self._move_to(OrderState.CANCELLED)
        self.reason = reason
        for shipment in self.shipments:
            shipment.move_to(ShipmentState.CANCELLED)
        return [OrderCancelled(self.version, now)]

    def apply_upgrade(self, quote: DeliveryQuote, policy_version: int, reason: str, now: datetime) -> list[Happened]:
        """Moves the promise of every parcel that has not left, if that is faster. Decided once for an order."""
        if self.upgrade is not None:
            return []
        if self.state in (OrderState.PENDING, OrderState.GIVING_UP):
            raise ForbiddenMove("an order that was never announced has no upgrade")
        self.version += 1
        preparing = [one for one in self.shipments if one.state is ShipmentState.PREPARING]
        faster = [one for one in preparing if quote.promise.deadline < one.current_promise.deadline]
        if not faster:
            cancelled = self.state in (OrderState.CANCELLED, OrderState.REJECTED)
            why = "ORDER_CANCELLED" if cancelled else "NOT_FASTER" if preparing else "ALREADY_DISPATCHED"
            self.upgrade = why
            return [UpgradeNotApplied(self.version, policy_version, why, now)]
        self.upgrade = "APPLIED"
        original = faster[0].original_promise
        for shipment in faster:
            shipment.current_promise = quote.promise
            shipment.carrier = quote.carrier
            shipment.promise_changes.append(PromiseChange(quote.promise, reason, now))
        return [ShipmentUpgraded(self.version, original, quote.promise, policy_version, reason, now)]

    def dispatch(self, shipment_id: str, tracking_reference: str, now: datetime) -> list[Happened]:
        """A parcel leaves. Again with the same number changes nothing. Raises `ShipmentNotDispatchable`."""
        shipment = self.shipment(shipment_id)
        if shipment.tracking_reference == tracking_reference:
            return []
        if shipment.state is not ShipmentState.PREPARING:
            raise ShipmentNotDispatchable(f"the shipment is {shipment.state}", state=shipment.state.name)
        shipment.move_to(ShipmentState.DISPATCHED)
        shipment.tracking_reference = tracking_reference
        shipment.dispatch_time = now
        if all(one.state is not ShipmentState.PREPARING for one in self.shipments):
            self._move_to(OrderState.DISPATCHED)
        else:
            self.version += 1
        return [ShipmentDispatched(self.version, shipment_id, now)]

    def deliver(self, shipment_id: str, delivery_time: datetime) -> list[Happened]:
        """A parcel arrived; the first word of it counts."""
        shipment = self.shipment(shipment_id)
        if shipment.state is ShipmentState.DELIVERED:
            return []
        shipment.move_to(ShipmentState.DELIVERED)
        shipment.delivery_time = delivery_time
        complete = all(one.state is ShipmentState.DELIVERED for one in self.shipments)
        if complete:
            self._move_to(OrderState.DELIVERED)
        else:
            self.version += 1
        return [
            ShipmentDelivered(
                self.version,
                shipment_id,
                delivery_time,
                promise_kept=shipment.current_promise.is_kept_by(delivery_time),
                order_complete=complete,
            )
        ]

    def _move_to(self, state: OrderState) -> None:
        if state not in ORDER_MOVES[self.state]:
            raise ForbiddenMove(f"an order does not go from {self.state} to {state}")
        self.state = state
        self.version += 1
