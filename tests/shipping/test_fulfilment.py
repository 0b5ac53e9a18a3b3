"""After the order: cancel, dispatch, scans, upgrades; each once, in any order, and in real races."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.message import Message

from services.chassis.errors import Conflict, InvalidInput, NotFound, NotNow, Refusal
from services.chassis.facts import Heard
from services.chassis.values import to_datetime
from services.shipping import queries
from services.shipping.consumers import HEARS
from services.shipping.domain.order import OrderNotFound
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.contact.v1.contact_options_pb2 import CHANNEL_CHAT, ContactOptions
from shop.inventory.events.v1.facts_pb2 import ReservationExpired
from shop.loyalty.events.v1.facts_pb2 import UpgradeGranted
from shop.shipping.events.v1 import facts_pb2 as facts
from shop.shipping.v1 import shipping_pb2 as pb
from tests.shipping.conftest import OPERATOR as WAREHOUSE
from tests.shipping.conftest import PHONE, Desk, amount, as_caller, new_id


async def hear(desk: Desk, message: Message) -> None:
    """Handles a fact as the consumer does."""
    heard: Heard[Any] = Heard(uuid4().hex, message, "", 0, 0, "", datetime.now(UTC), "", None)
    (handler,) = [hears.handlers[type(message)] for hears in HEARS if type(message) in hears.handlers]
    async with desk.database.transaction() as tx:
        await handler(desk, tx, heard)


async def upgrade(desk: Desk, order: pb.Order, policy_version: int = 7) -> None:
    granted = UpgradeGranted(
        order_id=order.order_id,
        version=1,
        customer_id=order.customer_id,
        policy_version=policy_version,
        reason="You have been with us for long.",
    )
    await hear(desk, granted)


async def weeks_later(desk: Desk, order: pb.Order) -> datetime:
    """All of an order that left did so three weeks ago. Returns when its first parcel should have arrived."""
    await desk.database.pool.execute(
        "UPDATE shipments SET dispatch_time = dispatch_time - interval '21 days',"
        " current_promise.deadline = (current_promise).deadline - interval '21 days' WHERE order_id = $1",
        order.order_id,
    )
    return to_datetime((await desk.get(order.order_id)).shipments[0].current_promise.deadline)


# --- cancel


async def test_cancels_once_and_says_whose_payment_it_was(desk: Desk) -> None:
    order = await desk.order()
    assert (await desk.cancel(order)).state == pb.ORDER_STATE_CANCELLED
    cancelled = await desk.cancel(order)
    assert (cancelled.state, cancelled.version) == (pb.ORDER_STATE_CANCELLED, 3)
    assert {one.state for one in cancelled.shipments} == {pb.SHIPMENT_STATE_CANCELLED}
    _, told = await desk.told()
    assert isinstance(told, facts.OrderCancelled)
    assert (told.payment_reference, told.version) == (order.payment_reference, 3)


async def test_a_repeat_of_a_cancel_gets_the_same_answer(desk: Desk) -> None:
    order = await desk.order()
    request = pb.CancelOrderRequest(request_id=new_id(), customer_id="cus_1", order_id=order.order_id, reason="too big")
    first = await desk.api.CancelOrder(request)
    assert await desk.api.CancelOrder(request) == first
    assert first.order.reason == "too big"
    assert first.contact_options.phone_number == PHONE


async def test_an_order_is_read_at_one_moment_with_all_that_belongs_to_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await desk.order(("shoe", 1))
    read_lines = queries.read_lines

    async def cancelled_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(queries, "read_lines", read_lines)
        await desk.cancel(order)
        return await read_lines(*arguments)

    monkeypatch.setattr(queries, "read_lines", cancelled_meanwhile)
    assert await desk.get(order.order_id) == order
    assert [shipment.state for shipment in (await desk.get(order.order_id)).shipments] == [pb.SHIPMENT_STATE_CANCELLED]


async def test_what_left_the_house_is_not_cancelled(desk: Desk) -> None:
    order = await desk.order(("boot", 5))
    await desk.dispatch(order.shipments[0])
    with pytest.raises(NotNow) as refused:
        await desk.cancel(order)
    assert refused.value.reason == "ORDER_NOT_CANCELLABLE"
    assert refused.value.details == {"state": "CONFIRMED", "parcels_left": "1"}


# --- dispatch and scans


async def test_dispatch_tells_what_leaves_from_where(desk: Desk) -> None:
    order = await desk.order(("boot", 4), ("shoe", 1))
    sent = await desk.dispatch(order.shipments[1], "T1")
    assert (sent.state, sent.tracking_reference) == (pb.SHIPMENT_STATE_DISPATCHED, "T1")
    assert sent.HasField("dispatch_time")
    told = (await desk.told())[-1]
    assert isinstance(told, facts.ShipmentDispatched)
    assert (told.shipment_id, told.location, told.carrier) == (sent.shipment_id, "vienna-1", "Landpost")
    assert [(item.sku, item.quantity, item.location) for item in told.items] == [
        ("boot", 1, "vienna-1"),
        ("shoe", 1, "vienna-1"),
    ]
    assert (await desk.get(order.order_id)).state == pb.ORDER_STATE_CONFIRMED
    await desk.dispatch(order.shipments[0], "T2")
    assert (await desk.get(order.order_id)).state == pb.ORDER_STATE_DISPATCHED


async def test_a_parcel_is_dispatched_once_under_a_number_of_its_own(desk: Desk) -> None:
    order = await desk.order(("boot", 4))
    first, second = order.shipments
    await desk.dispatch(first, "T1")
    await desk.dispatch(first, "T1")
    with pytest.raises(NotNow) as refused:
        await desk.dispatch(first, "T2")
    assert (refused.value.reason, refused.value.details) == ("SHIPMENT_NOT_DISPATCHABLE", {"state": "DISPATCHED"})
    with pytest.raises(NotNow) as refused:
        await desk.dispatch(second, "T1")
    assert refused.value.reason == "TRACKING_REFERENCE_USED"
    with pytest.raises(NotFound):
        await desk.dispatch(pb.Shipment(shipment_id="shp_nobody"))
    assert await desk.kinds() == ["OrderPlaced", "ShipmentDispatched"]


async def test_a_delivery_is_told_once_with_whether_the_promise_was_kept(desk: Desk) -> None:
    order = await desk.order(("boot", 4))
    for number, shipment in enumerate(order.shipments):
        await desk.dispatch(shipment, f"T{number}")
    deadline = await weeks_later(desk, order)
    early = deadline - timedelta(seconds=1)
    answer = await desk.scan("T0", early, scan_id="scan-1")
    assert answer.shipment.state == pb.SHIPMENT_STATE_DELIVERED
    await desk.scan("T0", early, scan_id="scan-1")
    # A later word of the same, and what the scanners saw on the way, arrive after it.
    await desk.scan("T0", deadline + timedelta(days=1))
    await desk.scan("T0", early - timedelta(hours=3), pb.SCAN_KIND_OUT_FOR_DELIVERY)
    await desk.scan("T1", deadline)
    delivered = [one for one in await desk.told() if isinstance(one, facts.ShipmentDelivered)]
    assert [(one.promise_kept, one.order_complete, amount(one.goods_total)) for one in delivered] == [
        (True, False, "388.50 EUR"),
        (False, True, "129.50 EUR"),
    ]
    now = await desk.get(order.order_id)
    assert now.state == pb.ORDER_STATE_DELIVERED
    assert to_datetime(now.shipments[0].delivery_time) == early
    assert now.version == delivered[-1].version == 6


async def test_a_scan_of_an_unknown_parcel_is_kept_and_matched_at_dispatch(desk: Desk) -> None:
    seen = datetime.now(UTC)
    for kind in (pb.SCAN_KIND_DELIVERED, pb.SCAN_KIND_ACCEPTED):
        assert not (await desk.scan("T1", seen, kind)).HasField("shipment")
    order = await desk.order()
    sent = await desk.dispatch(order.shipments[0], "T1")
    assert (sent.state, to_datetime(sent.delivery_time)) == (pb.SHIPMENT_STATE_DELIVERED, seen)
    assert await desk.kinds() == ["OrderPlaced", "ShipmentDispatched", "ShipmentDelivered"]
    versions = [message.version for message in await desk.told()]  # type: ignore[attr-defined]
    assert versions == [2, 3, 4]


async def test_a_scan_at_the_moment_of_dispatch_is_not_lost(desk: Desk) -> None:
    for number in range(8):
        order = await desk.order()
        await asyncio.gather(
            desk.dispatch(order.shipments[0], f"T{number}"), desk.scan(f"T{number}", datetime.now(UTC))
        )
        assert (await desk.get(order.order_id)).state == pb.ORDER_STATE_DELIVERED


@pytest.mark.parametrize("off", [timedelta(minutes=6), timedelta(days=36500), timedelta(days=-2), timedelta(days=-61)])
async def test_nobody_saw_a_parcel_before_it_left_or_after_now(desk: Desk, off: timedelta) -> None:
    order = await desk.order()
    await desk.dispatch(order.shipments[0], "T1")
    with pytest.raises(InvalidInput) as refused:
        await desk.scan("T1", datetime.now(UTC) + off, scan_id="scan-1")
    assert [field for field, _ in refused.value.fields] == ["scan_time"]
    # Nothing was kept: the right time under the same id counts.
    assert (await desk.scan("T1", datetime.now(UTC), scan_id="scan-1")).shipment.state == pb.SHIPMENT_STATE_DELIVERED


@pytest.mark.parametrize("off", [timedelta(minutes=6), timedelta(days=-61)])
async def test_a_parcel_nobody_knows_has_no_impossible_scan_either(desk: Desk, off: timedelta) -> None:
    with pytest.raises(InvalidInput):
        await desk.scan("T1", datetime.now(UTC) + off)


@pytest.mark.parametrize(("seconds", "nanos"), [(10**18, 0), (0, -5)])
async def test_a_scan_at_no_instant_is_refused(desk: Desk, seconds: int, nanos: int) -> None:
    request = pb.RecordScanRequest(scan_id="s", tracking_reference="T1", kind=pb.SCAN_KIND_DELIVERED)
    request.scan_time.seconds, request.scan_time.nanos = seconds, nanos
    with as_caller(WAREHOUSE), pytest.raises(InvalidInput) as refused:
        await desk.warehouse.RecordScan(request)
    assert [field for field, _ in refused.value.fields] == ["scan_time"]


async def test_a_repeat_of_an_old_scan_is_still_answered(desk: Desk) -> None:
    order = await desk.order()
    await desk.dispatch(order.shipments[0], "T1")
    await desk.scan("T1", datetime.now(UTC), scan_id="scan-1")
    repeat = await desk.scan("T1", datetime.now(UTC) - timedelta(days=90), scan_id="scan-1")
    assert repeat.shipment.state == pb.SHIPMENT_STATE_DELIVERED


async def test_a_number_that_a_carrier_used_before_delivers_nothing(desk: Desk) -> None:
    await desk.scan("T1", datetime.now(UTC) - timedelta(days=30))
    order = await desk.order()
    assert (await desk.dispatch(order.shipments[0], "T1")).state == pb.SHIPMENT_STATE_DISPATCHED


async def test_the_same_scan_at_the_same_moment_counts_once(desk: Desk) -> None:
    order = await desk.order()
    await desk.dispatch(order.shipments[0], "T1")
    await asyncio.gather(*(desk.scan("T1", datetime.now(UTC), scan_id="scan-1") for _ in range(6)))
    assert (await desk.kinds()).count("ShipmentDelivered") == 1


# --- upgrades


async def test_an_upgrade_moves_the_promise_and_tells_why(desk: Desk) -> None:
    order = await desk.order(("boot", 4))
    await upgrade(desk, order)
    now = await desk.get(order.order_id)
    for one in now.shipments:
        assert one.original_promise == order.shipments[0].original_promise
        assert one.current_promise.service_level == one.service_level == pb.SERVICE_LEVEL_OVERNIGHT
        assert to_datetime(one.current_promise.deadline) < to_datetime(one.original_promise.deadline)
        assert one.carrier == "Nachtflug"
        (change,) = one.promise_changes
        assert (change.promise, change.reason) == (one.current_promise, "You have been with us for long.")
    told = (await desk.told())[-1]
    assert isinstance(told, facts.ShipmentUpgraded)
    assert told.original_promise == order.shipments[0].original_promise
    assert told.promise == now.shipments[0].current_promise
    assert (told.policy_version, told.reason, told.version) == (7, "You have been with us for long.", 3)


async def test_an_upgrade_is_applied_once_however_often_it_is_told(desk: Desk) -> None:
    order = await desk.order()
    await asyncio.gather(*(upgrade(desk, order) for _ in range(5)))
    await upgrade(desk, order, policy_version=8)
    assert await desk.kinds() == ["OrderPlaced", "ShipmentUpgraded"]
    assert len((await desk.get(order.order_id)).shipments[0].promise_changes) == 1


async def test_an_upgrade_that_cannot_be_applied_says_why(desk: Desk) -> None:
    gone, cancelled = await desk.order(), await desk.order()
    overnight = await desk.order(("shoe", 1), service_level=pb.SERVICE_LEVEL_OVERNIGHT)
    await desk.dispatch(gone.shipments[0])
    await desk.cancel(cancelled)
    for order in (gone, cancelled, overnight):
        await upgrade(desk, order)
        await upgrade(desk, order)
    told = [one for one in await desk.told() if isinstance(one, facts.UpgradeNotApplied)]
    assert [(one.order_id, one.reason, one.policy_version) for one in told] == [
        (gone.order_id, "ALREADY_DISPATCHED", 7),
        (cancelled.order_id, "ORDER_CANCELLED", 7),
        (overnight.order_id, "NOT_FASTER", 7),
    ]
    assert "ShipmentUpgraded" not in await desk.kinds()
    assert (await desk.get(gone.order_id)).shipments[0].current_promise == gone.shipments[0].original_promise


async def test_an_upgrade_of_no_order_of_ours_is_an_error(desk: Desk) -> None:
    with pytest.raises(OrderNotFound):
        await upgrade(desk, pb.Order(order_id="ord_nobody"))


async def test_cancel_upgrade_and_dispatch_race_to_one_story(desk: Desk) -> None:
    """All three at once, on connections of their own: whoever comes first, the facts tell one story in order."""
    for number in range(12):
        desk.inventory.receive("shoe", 1)
        await desk.database.pool.execute("DELETE FROM outbox")
        order = await desk.order()
        racing = [desk.cancel(order), upgrade(desk, order), desk.dispatch(order.shipments[0]), upgrade(desk, order)]
        random.Random(number).shuffle(racing)
        results = await asyncio.gather(*map(_refusal, racing))
        assert not any(isinstance(result, Conflict) for result in results)
        told = await desk.told()
        kinds = [message.DESCRIPTOR.name for message in told]
        # Either it left or it was called off; exactly one answer to the upgrade; versions in order without a gap.
        assert ("OrderCancelled" in kinds) != ("ShipmentDispatched" in kinds)
        assert len({"ShipmentUpgraded", "UpgradeNotApplied"} & set(kinds)) == 1
        assert len(kinds) == 3
        assert [message.version for message in told] == [2, 3, 4]  # type: ignore[attr-defined]
        now = await desk.get(order.order_id)
        if "UpgradeNotApplied" in kinds:
            (refused,) = [one for one in told if isinstance(one, facts.UpgradeNotApplied)]
            wanted = "ORDER_CANCELLED" if "OrderCancelled" in kinds else "ALREADY_DISPATCHED"
            assert refused.reason == wanted
            assert kinds.index("UpgradeNotApplied") == 2
            assert not now.shipments[0].promise_changes
        else:
            assert len(now.shipments[0].promise_changes) == 1


async def _refusal(work: Any) -> Refusal | None:
    try:
        await work
    except Refusal as refusal:
        return refusal
    return None


# --- what is heard otherwise


async def test_an_expired_reservation_after_a_late_commit_changes_nothing(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    (row,) = await desk.database.fetch("SELECT reservation_id FROM checkouts")
    desk.inventory.expire(row["reservation_id"])
    order = await desk.place(begun)
    assert order.state == pb.ORDER_STATE_CONFIRMED
    await hear(desk, ReservationExpired(reservation_id=row["reservation_id"], version=2, customer_id="cus_1"))
    assert await desk.get(order.order_id) == order
    assert not await desk.database.fetch("SELECT FROM checkouts WHERE lapse_time IS NOT NULL")


async def test_a_reservation_of_nobody_is_ignored(desk: Desk) -> None:
    await hear(desk, ReservationExpired(reservation_id="res_nobody", version=2, customer_id="cus_1"))


async def test_the_latest_word_of_the_hotline_stands_in_every_answer(desk: Desk) -> None:
    options = ContactOptions(phone_number="+4311234567", open_channels=[CHANNEL_CHAT])
    await hear(desk, HotlineStatusChanged(version=2, contact_options=options))
    answer = await desk.api.ListOrders(pb.ListOrdersRequest(customer_id="cus_1"))
    assert answer.contact_options == options


async def test_the_journey_of_an_order_is_that_of_all_its_facts(desk: Desk) -> None:
    order = await desk.order()
    await desk.database.pool.execute("UPDATE orders SET journey_id = 'journey-1'")
    with as_caller(WAREHOUSE):
        await desk.dispatch(order.shipments[0], "T1")
        await desk.scan("T1", datetime.now(UTC))
    rows = await desk.database.fetch("SELECT headers::text AS text FROM outbox ORDER BY id")
    assert ["journey.id=journey-1" in row["text"] for row in rows] == [False, True, True]
