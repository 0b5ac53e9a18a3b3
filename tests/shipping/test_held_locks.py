"""Two at once on the same checkout or parcel: the second waits for the first, and then sees what it did."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from services.shipping import store
from services.shipping.usecases import fulfilment
from shop.shipping.v1 import shipping_pb2 as pb
from tests.locks import waiting
from tests.shipping.conftest import GRACE, Desk
from tests.shipping.test_place_order import reservation_of


async def test_a_hold_that_ends_while_its_order_is_taken_marks_nothing(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    reservation_id = await reservation_of(desk, begun)

    async def expire() -> None:
        async with desk.database.transaction() as tx:
            await store.mark_lapsed(tx.connection, reservation_id, datetime.now(UTC))

    async with desk.database.transaction() as tx:
        checkout = await store.lock_checkout(tx.connection, begun.checkout_id)
        assert checkout is not None
        order = checkout.place(begun.highlights_version, "pay-1", None, await store.now(tx.connection), GRACE)
        assert await store.add_order(tx.connection, order, "customer:cus_1", "request-1", timedelta())
        expiring = asyncio.create_task(expire())
        await waiting(desk.database)
    await expiring
    assert not await desk.database.fetch("SELECT FROM checkouts WHERE lapse_time IS NOT NULL")


async def test_a_scan_that_comes_while_its_parcel_is_dispatched_delivers_it(desk: Desk) -> None:
    order = await desk.order()
    async with desk.database.transaction() as tx:
        await fulfilment.dispatch_shipment(tx, order.shipments[0].shipment_id, "T1")
        scanning = asyncio.create_task(desk.scan("T1", datetime.now(UTC)))
        await waiting(desk.database)
    assert (await scanning).shipment.state == pb.SHIPMENT_STATE_DELIVERED
    assert await desk.kinds() == ["OrderPlaced", "ShipmentDispatched", "ShipmentDelivered"]
