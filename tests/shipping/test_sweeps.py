"""What shipping looks after by itself, again and again."""

from __future__ import annotations

import logging
from unittest.mock import patch

import pytest

from services.chassis.errors import Unavailable
from services.shipping.domain.order import Order
from services.shipping.usecases.ordering import Ordering
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
