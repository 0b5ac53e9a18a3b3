"""The state machine of an order: whatever happens in whatever order, its invariants hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import Refusal
from services.shipping.domain import facts
from services.shipping.domain.delivery import ServiceLevel, quote
from services.shipping.domain.order import (
    ORDER_MOVES,
    SHIPMENT_MOVES,
    Allocation,
    ForbiddenMove,
    Line,
    Order,
    OrderNotCancellable,
    OrderState,
    Refused,
    ShipmentNotDispatchable,
    ShipmentNotFound,
    ShipmentState,
)

# A Monday morning.
NOW = datetime(2026, 2, 2, 8, tzinfo=UTC)
OVERNIGHT = quote(NOW, "AT", ServiceLevel.OVERNIGHT)
STANDARD = quote(NOW, "AT", ServiceLevel.STANDARD)
GONE = Refused("OUT_OF_STOCK", "2 of a wanted, 0 free", {"sku": "a", "wanted": "2", "free": "0"})


def pending() -> Order:
    return Order(
        order_id="ord_1",
        customer_id="cus_1",
        checkout_id="chk_1",
        reservation_id="res_1",
        payment_reference="pay-1",
        highlights_version="1",
        country="AT",
        carrier="Landpost",
        delivery_price=Decimal("4.90"),
        promise=STANDARD.promise,
        lines=[Line("a", "A", 3, Decimal("10.00")), Line("b", "B", 1, Decimal("5.55"))],
        create_time=NOW,
    )


ALLOCATIONS = [Allocation("a", "graz-1", 1), Allocation("a", "vienna-1", 2), Allocation("b", "vienna-1", 1)]


def confirmed() -> Order:
    order = pending()
    order.confirm(ALLOCATIONS)
    return order


def test_one_parcel_for_each_location() -> None:
    order = confirmed()
    assert [(one.location, [(item.sku, item.quantity) for item in one.items]) for one in order.shipments] == [
        ("graz-1", [("a", 1)]),
        ("vienna-1", [("a", 2), ("b", 1)]),
    ]
    assert [order.goods_in(one) for one in order.shipments] == [Decimal("10.00"), Decimal("25.55")]
    assert (order.goods_total, order.total) == (Decimal("35.55"), Decimal("40.45"))


def test_is_dispatched_when_the_last_parcel_left_and_delivered_when_the_last_arrived() -> None:
    order = confirmed()
    first, second = (one.shipment_id for one in order.shipments)
    assert order.dispatch(first, "T1", NOW) == [facts.ShipmentDispatched(3, first, NOW)]
    assert [order.state] == [OrderState.CONFIRMED]
    assert order.deliver(first, NOW) == [facts.ShipmentDelivered(4, first, NOW, True, False)]
    order.dispatch(second, "T2", NOW)
    assert [order.state] == [OrderState.DISPATCHED]
    late = STANDARD.promise.deadline
    assert order.deliver(second, late) == [facts.ShipmentDelivered(6, second, late, False, True)]
    assert [order.state] == [OrderState.DELIVERED]


def test_cancels_until_the_first_parcel_left() -> None:
    order = confirmed()
    assert order.cancel("too big", NOW) == [facts.OrderCancelled(3, NOW)]
    assert order.cancel("again", NOW) == []
    assert (order.state, order.reason) == (OrderState.CANCELLED, "too big")
    with pytest.raises(ShipmentNotDispatchable):
        order.dispatch(order.shipments[0].shipment_id, "T1", NOW)
    order = confirmed()
    order.dispatch(order.shipments[0].shipment_id, "T1", NOW)
    with pytest.raises(OrderNotCancellable) as refused:
        order.cancel("", NOW)
    assert refused.value.details == {"state": "CONFIRMED", "parcels_left": "1"}
    with pytest.raises(OrderNotCancellable):
        pending().cancel("", NOW)


def test_dispatches_once() -> None:
    order = confirmed()
    parcel = order.shipments[0]
    order.dispatch(parcel.shipment_id, "T1", NOW)
    assert order.dispatch(parcel.shipment_id, "T1", NOW) == []
    with pytest.raises(ShipmentNotDispatchable) as refused:
        order.dispatch(parcel.shipment_id, "T2", NOW)
    assert refused.value.details == {"state": "DISPATCHED"}
    with pytest.raises(ShipmentNotFound):
        order.dispatch("shp_nobody", "T3", NOW)


def test_an_upgrade_moves_the_promise_and_keeps_the_original() -> None:
    order = confirmed()
    assert order.apply_upgrade(OVERNIGHT, 7, "a regular", NOW) == [
        facts.ShipmentUpgraded(3, STANDARD.promise, OVERNIGHT.promise, 7, "a regular", NOW)
    ]
    for one in order.shipments:
        assert (one.original_promise, one.current_promise) == (STANDARD.promise, OVERNIGHT.promise)
        assert one.carrier == OVERNIGHT.carrier
        assert [(change.promise, change.reason) for change in one.promise_changes] == [(OVERNIGHT.promise, "a regular")]
    assert order.apply_upgrade(OVERNIGHT, 8, "again", NOW) == []


def test_an_upgrade_is_applied_only_if_faster() -> None:
    order = confirmed()
    late = quote(NOW + timedelta(days=20), "AT", ServiceLevel.OVERNIGHT)
    assert order.apply_upgrade(late, 7, "", NOW) == [facts.UpgradeNotApplied(3, 7, "NOT_FASTER", NOW)]
    same = confirmed()
    for one in same.shipments:
        one.current_promise = OVERNIGHT.promise
    assert same.apply_upgrade(OVERNIGHT, 7, "", NOW) == [facts.UpgradeNotApplied(3, 7, "NOT_FASTER", NOW)]


def test_an_upgrade_is_never_applied_after_dispatch_or_cancel() -> None:
    gone = confirmed()
    for number, one in enumerate(gone.shipments):
        gone.dispatch(one.shipment_id, f"T{number}", NOW)
    assert gone.apply_upgrade(OVERNIGHT, 7, "", NOW) == [facts.UpgradeNotApplied(5, 7, "ALREADY_DISPATCHED", NOW)]
    cancelled = confirmed()
    cancelled.cancel("", NOW)
    assert cancelled.apply_upgrade(OVERNIGHT, 7, "", NOW) == [facts.UpgradeNotApplied(4, 7, "ORDER_CANCELLED", NOW)]


def test_an_upgrade_of_a_split_order_applies_to_what_is_still_here() -> None:
    order = confirmed()
    gone, here = order.shipments
    order.dispatch(gone.shipment_id, "T1", NOW)
    (upgraded,) = order.apply_upgrade(OVERNIGHT, 7, "", NOW)
    assert isinstance(upgraded, facts.ShipmentUpgraded)
    assert gone.current_promise == STANDARD.promise
    assert here.current_promise == OVERNIGHT.promise


def test_what_is_given_up_is_never_confirmed() -> None:
    order = pending()
    order.give_up()
    with pytest.raises(ForbiddenMove):
        order.confirm(ALLOCATIONS)
    assert order.reject(GONE, NOW) == [facts.OrderRejected(3, "OUT_OF_STOCK", NOW)]


EVENTS: dict[str, Callable[[Order, int], object]] = {
    "confirm": lambda order, _: order.confirm(ALLOCATIONS),
    "reject": lambda order, _: order.reject(GONE, NOW),
    "give up": lambda order, _: order.give_up(),
    "cancel": lambda order, _: order.cancel("", NOW),
    "upgrade": lambda order, _: order.apply_upgrade(OVERNIGHT, 1, "", NOW),
    "dispatch": lambda order, n: order.dispatch(order.shipments[n].shipment_id, f"T{n}", NOW),
    "dispatch with another number": lambda order, n: order.dispatch(order.shipments[n].shipment_id, f"X{n}", NOW),
    "deliver": lambda order, n: order.deliver(order.shipments[n].shipment_id, NOW),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 1)), max_size=20))
def test_no_sequence_of_events_breaks_an_invariant(events: list[tuple[str, int]]) -> None:
    order = pending()
    seen: list[object] = []
    for name, number in events:
        before = order.state, order.version
        parcels_before = {one.shipment_id: one.state for one in order.shipments}
        try:
            happened = EVENTS[name](order, number)
        except (Refusal, ForbiddenMove, IndexError):
            assert (order.state, order.version) == before
            assert parcels_before == {one.shipment_id: one.state for one in order.shipments}
            continue
        seen += happened if isinstance(happened, list) else []
        check(order, before, parcels_before, seen)


def check(
    order: Order, before: tuple[OrderState, int], parcels_before: dict[str, ShipmentState], seen: list[object]
) -> None:
    state_before, version_before = before
    assert order.state is state_before or order.state in ORDER_MOVES[state_before]
    for one in order.shipments:
        was = parcels_before.get(one.shipment_id, ShipmentState.PREPARING)
        assert one.state is was or one.state in SHIPMENT_MOVES[was]
    assert order.version >= version_before
    versions = [one.version for one in seen]  # type: ignore[attr-defined]
    assert versions == sorted(set(versions))
    assert all(version <= order.version for version in versions)
    kinds = [type(one) for one in seen]
    for once in (facts.OrderPlaced, facts.OrderRejected, facts.OrderCancelled):
        assert kinds.count(once) <= 1
    # An order was placed, or it was rejected: never both.
    assert not {facts.OrderPlaced, facts.OrderRejected} <= set(kinds)
    assert kinds.count(facts.ShipmentUpgraded) + kinds.count(facts.UpgradeNotApplied) <= 1
    # Cancelled means that nothing left, and nothing ever will.
    if order.state is OrderState.CANCELLED:
        assert {one.state for one in order.shipments} == {ShipmentState.CANCELLED}
        assert facts.ShipmentDispatched not in kinds
    states = [one.state for one in order.shipments]
    placed = order.state not in (OrderState.PENDING, OrderState.GIVING_UP, OrderState.REJECTED)
    assert bool(states) == placed
    assert (order.state is OrderState.DELIVERED) == (placed and set(states) == {ShipmentState.DELIVERED})
    if order.state is OrderState.DISPATCHED:
        assert ShipmentState.PREPARING not in states
    if order.state is OrderState.CONFIRMED:
        assert ShipmentState.PREPARING in states
    for one in order.shipments:
        assert one.current_promise.deadline <= one.original_promise.deadline
        assert bool(one.promise_changes) == (one.current_promise != one.original_promise)
    assert sum(item.quantity for one in order.shipments for item in one.items) in (0, 4)
