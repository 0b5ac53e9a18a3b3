"""From the domain to protobuf."""

from __future__ import annotations

from datetime import date

from google.protobuf.duration_pb2 import Duration
from google.type.date_pb2 import Date

from services.chassis.values import to_money, to_timestamp
from services.shipping.domain.checkout import Checkout
from services.shipping.domain.delivery import CURRENCY, DeliveryPromise, DeliveryQuote, ServiceLevel
from services.shipping.domain.order import Line, Order, OrderState, Shipment, ShipmentState
from services.shipping.domain.terms import HIGHLIGHTS
from shop.shipping.v1 import shipping_pb2 as pb

LEVELS = {level: pb.ServiceLevel.Value(f"SERVICE_LEVEL_{level.name}") for level in ServiceLevel}
# Whether somebody is giving an order up is nobody's business outside: it is pending.
ORDER_STATES = {
    state: pb.OrderState.Value(f"ORDER_STATE_{state.name if state is not OrderState.GIVING_UP else 'PENDING'}")
    for state in OrderState
}
SHIPMENT_STATES = {state: pb.ShipmentState.Value(f"SHIPMENT_STATE_{state.name}") for state in ShipmentState}


def promise(made: DeliveryPromise) -> pb.DeliveryPromise:
    """What was promised."""
    return pb.DeliveryPromise(
        service_level=LEVELS[made.service_level],
        earliest=_date(made.earliest),
        latest=_date(made.latest),
        deadline=to_timestamp(made.deadline),
        time_zone=made.time_zone,
    )


def quote(offered: DeliveryQuote) -> pb.DeliveryQuote:
    """One way to have it delivered."""
    time_left = Duration()
    time_left.FromTimedelta(offered.time_to_cut_off)
    return pb.DeliveryQuote(
        service_level=LEVELS[offered.service_level],
        carrier=offered.carrier,
        price=to_money(offered.price, CURRENCY),
        promise=promise(offered.promise),
        cut_off=to_timestamp(offered.cut_off),
        time_to_cut_off=time_left,
        reasons=offered.reasons,
    )


def checkout(begun: Checkout, delivery: DeliveryQuote) -> pb.Checkout:
    """What the customer is shown before the order. Without the address."""
    return pb.Checkout(
        checkout_id=begun.checkout_id,
        customer_id=begun.customer_id,
        lines=[_line(line) for line in begun.lines],
        delivery=quote(delivery),
        total=to_money(begun.total, CURRENCY),
        expire_time=to_timestamp(begun.expire_time),
        highlights=[pb.TermsHighlight(code=shown.code, text=shown.text) for shown in HIGHLIGHTS],
        highlights_version=begun.highlights_version,
    )


def order(placed: Order) -> pb.Order:
    """An order as it is now. Without the address."""
    return pb.Order(
        order_id=placed.order_id,
        customer_id=placed.customer_id,
        state=ORDER_STATES[placed.state],
        lines=[_line(line) for line in placed.lines],
        delivery_price=to_money(placed.delivery_price, CURRENCY),
        total=to_money(placed.total, CURRENCY),
        shipments=[shipment(one) for one in placed.shipments],
        create_time=to_timestamp(placed.create_time),
        payment_reference=placed.payment_reference,
        reason=placed.reason,
        journey_id=placed.journey_id or "",
        version=placed.version,
    )


def shipment(parcel: Shipment) -> pb.Shipment:
    """A parcel as it is now."""
    return pb.Shipment(
        shipment_id=parcel.shipment_id,
        location=parcel.location,
        state=SHIPMENT_STATES[parcel.state],
        carrier=parcel.carrier,
        tracking_reference=parcel.tracking_reference or "",
        service_level=LEVELS[parcel.current_promise.service_level],
        original_promise=promise(parcel.original_promise),
        current_promise=promise(parcel.current_promise),
        delivery_time=to_timestamp(parcel.delivery_time) if parcel.delivery_time else None,
        promise_changes=[
            pb.PromiseChange(
                promise=promise(change.promise), reason=change.reason, change_time=to_timestamp(change.time)
            )
            for change in parcel.promise_changes
        ],
        items=[pb.CheckoutLine(sku=item.sku, quantity=item.quantity) for item in parcel.items],
        dispatch_time=to_timestamp(parcel.dispatch_time) if parcel.dispatch_time else None,
    )


def _line(line: Line) -> pb.OrderLine:
    return pb.OrderLine(
        sku=line.sku,
        title=line.title,
        quantity=line.quantity,
        unit_price=to_money(line.unit_price, CURRENCY),
        line_total=to_money(line.total, CURRENCY),
    )


def _date(day: date) -> Date:
    return Date(year=day.year, month=day.month, day=day.day)
