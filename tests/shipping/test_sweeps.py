"""What shipping looks after by itself, again and again."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from unittest.mock import patch

import pytest

from services.chassis.errors import Unavailable
from services.shipping import store
from services.shipping.domain.order import Order
from services.shipping.usecases.checkout import forget_unordered
from services.shipping.usecases.ordering import Ordering, PlaceOrder
from tests.shipping.conftest import Desk, order_request


async def test_an_order_that_cannot_be_finished_does_not_hold_up_the_others(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    checkouts = [await desk.begin(("shoe", 1)) for _ in range(3)]
    desk.inventory.away = True
    for checkout in checkouts:
        with pytest.raises(Unavailable):
            await desk.api.PlaceOrder(order_request(checkout))
    desk.inventory.away = False
    finish = Ordering.finish
    seen: list[Order] = []

    async def broken_once(self: Ordering, order: Order) -> Order:
        seen.append(order)
        if len(seen) == 1:
            raise ZeroDivisionError
        return await finish(self, order)

    with patch.object(Ordering, "finish", broken_once):
        assert await desk.ordering.sweep() == 3
    assert sorted([await desk.state(checkout) for checkout in checkouts]) == ["confirmed", "confirmed", "pending"]
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "a pending order cannot be finished"
    ]


async def test_an_order_that_somebody_has_in_hand_does_not_hold_up_the_others(desk: Desk) -> None:
    first, second = [await desk.begin(("shoe", 1)) for _ in range(2)]
    desk.inventory.away = True
    for checkout in (first, second):
        with pytest.raises(Unavailable):
            await desk.api.PlaceOrder(order_request(checkout))
    desk.inventory.away = False
    async with desk.database.transaction() as tx:
        await tx.connection.execute("SELECT FROM orders WHERE checkout_id = $1 FOR UPDATE", first.checkout_id)
        assert await desk.ordering.sweep() == 1
    assert [await desk.state(checkout) for checkout in (first, second)] == ["pending", "confirmed"]


DAY = timedelta(days=1)


async def forget(desk: Desk, limit: int = 200) -> int:
    async with desk.database.transaction() as tx:
        return await forget_unordered(tx, DAY, limit)


async def days_pass(desk: Desk) -> None:
    await desk.database.pool.execute("UPDATE checkouts SET expire_time = expire_time - interval '2 days'")


async def test_the_address_of_who_never_ordered_goes_a_day_after_the_hold(desk: Desk) -> None:
    await desk.begin(("shoe", 1))
    order = await desk.order(("shoe", 1))
    assert await forget(desk) == 0
    await days_pass(desk)
    assert await forget(desk) == 2
    assert len(await desk.database.fetch("SELECT FROM checkouts WHERE address IS NOT NULL")) == 1
    assert (await desk.get(order.order_id)).lines == order.lines
    # What became an order is not looked at again.
    assert await forget(desk) == 0


async def test_many_are_forgotten_a_few_at_a_time_by_whoever_comes(desk: Desk) -> None:
    for _ in range(7):
        await desk.begin(("shoe", 1))
    await days_pass(desk)
    looked_at = await asyncio.gather(forget(desk, 3), forget(desk, 3))
    assert sum(looked_at) == 6
    assert await forget(desk, 3) == 1
    assert not await desk.database.fetch("SELECT FROM checkouts UNION ALL SELECT FROM checkout_lines")


async def test_a_hold_that_inventory_let_go_early_is_over_then(desk: Desk) -> None:
    await desk.begin(("shoe", 1))
    await desk.database.pool.execute("UPDATE checkouts SET lapse_time = clock_timestamp() - interval '2 days'")
    assert await forget(desk) == 1


async def test_a_checkout_that_is_ordered_just_now_stays(desk: Desk) -> None:
    """Its order is taken while it is looked at: the one waits for the other, or passes it by."""
    begun = await desk.begin(("shoe", 1))
    await days_pass(desk)
    patient = Ordering(desk.database, desk.inventory, grace=3 * DAY, retry=timedelta(0), give_up=timedelta(minutes=10))
    request = order_request(begun)
    command = PlaceOrder(
        "cus_1", begun.checkout_id, begun.highlights_version, request.payment_reference, "customer:cus_1", "request-1"
    )
    async with desk.database.transaction() as tx:
        await store.lock_checkout(tx.connection, begun.checkout_id)
        assert await forget(desk) == 0
    await patient.take(command)
    assert await forget(desk) == 1
    assert await desk.state(begun) == "pending"
