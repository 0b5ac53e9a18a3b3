"""What shipping announces, and where."""

from __future__ import annotations

from collections.abc import Iterable

from services.chassis.facts import Fact, Topic
from services.chassis.values import to_money, to_timestamp
from services.shipping import messages
from services.shipping.domain import facts as happened
from services.shipping.domain.delivery import CURRENCY
from services.shipping.domain.order import Order, Shipment
from shop.shipping.events.v1 import facts_pb2 as facts

ORDERS = Topic(
    "shop.shipping.orders.v1",
    (facts.OrderPlaced, facts.OrderRejected, facts.OrderCancelled),
    retention_days=30,
)
SHIPMENTS = Topic(
    "shop.shipping.shipments.v1",
    (facts.ShipmentUpgraded, facts.UpgradeNotApplied, facts.ShipmentDispatched, facts.ShipmentDelivered),
    retention_days=30,
)
PUBLISHES = (ORDERS, SHIPMENTS)


def fact(order: Order, one: happened.Happened) -> Fact:
    """What happened to an order, ready to be announced. Keyed by the order, whose row is locked."""
    match one:
        case happened.OrderPlaced():
            return Fact(ORDERS, order.order_id, _order_placed(order, one))
        case happened.OrderRejected():
            return Fact(
                ORDERS,
                order.order_id,
                facts.OrderRejected(
                    order_id=order.order_id,
                    version=one.version,
                    customer_id=order.customer_id,
                    reason=one.reason,
                    payment_reference=order.payment_reference,
                    reject_time=to_timestamp(one.time),
                ),
            )
        case happened.OrderCancelled():
            return Fact(
                ORDERS,
                order.order_id,
                facts.OrderCancelled(
                    order_id=order.order_id,
                    version=one.version,
                    customer_id=order.customer_id,
                    payment_reference=order.payment_reference,
                    cancel_time=to_timestamp(one.time),
                ),
            )
        case happened.ShipmentUpgraded():
            return Fact(
                SHIPMENTS,
                order.order_id,
                facts.ShipmentUpgraded(
                    order_id=order.order_id,
                    version=one.version,
                    customer_id=order.customer_id,
                    original_promise=messages.promise(one.original),
                    promise=messages.promise(one.promise),
                    policy_version=one.policy_version,
                    reason=one.reason,
                    upgrade_time=to_timestamp(one.time),
                ),
            )
        case happened.UpgradeNotApplied():
            return Fact(
                SHIPMENTS,
                order.order_id,
                facts.UpgradeNotApplied(
                    order_id=order.order_id,
                    version=one.version,
                    customer_id=order.customer_id,
                    policy_version=one.policy_version,
                    reason=one.reason,
                    decide_time=to_timestamp(one.time),
                ),
            )
        case happened.ShipmentDispatched():
            return Fact(SHIPMENTS, order.order_id, _shipment_dispatched(order, one))
        case happened.ShipmentDelivered():
            return Fact(SHIPMENTS, order.order_id, _shipment_delivered(order, one))


def _order_placed(order: Order, one: happened.OrderPlaced) -> facts.OrderPlaced:
    return facts.OrderPlaced(
        order_id=order.order_id,
        version=one.version,
        customer_id=order.customer_id,
        items=_items(order, order.shipments),
        total=to_money(order.total, CURRENCY),
        goods_total=to_money(order.goods_total, CURRENCY),
        country=order.country,
        promise=messages.promise(order.promise),
        order_time=to_timestamp(order.create_time),
        reservation_id=order.reservation_id,
    )


def _shipment_dispatched(order: Order, one: happened.ShipmentDispatched) -> facts.ShipmentDispatched:
    shipment = order.shipment(one.shipment_id)
    return facts.ShipmentDispatched(
        order_id=order.order_id,
        version=one.version,
        customer_id=order.customer_id,
        shipment_id=shipment.shipment_id,
        location=shipment.location,
        items=_items(order, [shipment]),
        carrier=shipment.carrier,
        dispatch_time=to_timestamp(one.time),
    )


def _shipment_delivered(order: Order, one: happened.ShipmentDelivered) -> facts.ShipmentDelivered:
    shipment = order.shipment(one.shipment_id)
    return facts.ShipmentDelivered(
        order_id=order.order_id,
        version=one.version,
        customer_id=order.customer_id,
        shipment_id=shipment.shipment_id,
        delivery_time=to_timestamp(one.time),
        goods_total=to_money(order.goods_in(shipment), CURRENCY),
        promise=messages.promise(shipment.current_promise),
        promise_kept=one.promise_kept,
        order_complete=one.order_complete,
    )


def _items(order: Order, shipments: Iterable[Shipment]) -> list[facts.OrderedItem]:
    prices = order.unit_prices
    return [
        facts.OrderedItem(
            sku=item.sku,
            quantity=item.quantity,
            location=shipment.location,
            unit_price=to_money(prices[item.sku], CURRENCY),
        )
        for shipment in shipments
        for item in shipment.items
    ]
