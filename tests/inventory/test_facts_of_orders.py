"""What inventory hears of orders, many facts in one transaction, while callers commit: in one order of locks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from google.protobuf.message import Message

from services.chassis.database import Database
from services.chassis.facts import Heard
from services.inventory import consumers
from services.inventory.grpc_api import InventoryApi
from shop.inventory.v1 import inventory_pb2 as pb
from shop.shipping.events.v1 import facts_pb2 as shipping
from tests.inventory.conftest import audit, level, receive, request_id, reserve_request


def heard(message: Message, number: int) -> Heard[Message]:
    return Heard(f"fact{number}", message, "t", 0, number, "k", datetime.now(UTC), "/shop/shipping", None)


async def hear(database: Database, messages: list[Message]) -> None:
    """As the chassis does: the locks first, then each handler, all in one transaction."""
    (line,) = [line for line in consumers.HEARS if type(messages[0]) in line.handlers]
    assert line.lock_ahead is not None
    async with database.transaction() as tx:
        await line.lock_ahead(None, tx, messages)
        for number, message in enumerate(messages):
            await line.handlers[type(message)](None, tx, heard(message, number))


async def test_batches_of_facts_and_callers_do_not_deadlock(api: InventoryApi, database: Database) -> None:
    """Orders of crossing baskets are cancelled in batches while others commit. No caller hears of a deadlock."""
    skus = ["x", "y", "z"]
    for sku in skus:
        await receive(api, sku, 400)

    async def place(number: int) -> str:
        basket = [(skus[number % 3], 1), (skus[(number + 1) % 3], 1)]
        held = (await api.ReserveStock(reserve_request(*basket))).reservation
        order_id = f"ord_{number}"
        await api.CommitReservation(
            pb.CommitReservationRequest(request_id=request_id(), reservation_id=held.reservation_id, order_id=order_id)
        )
        return order_id

    placed = await asyncio.gather(*(place(number) for number in range(60)))
    # Each order once, dealt out so that two batches at once hold rows the other wants, in opposite orders.
    first: list[Message] = [shipping.OrderCancelled(order_id=order_id) for order_id in placed[:30]]
    second: list[Message] = [shipping.OrderCancelled(order_id=order_id) for order_id in reversed(placed[30:])]
    await asyncio.gather(hear(database, first), hear(database, second), *(place(number) for number in range(60, 120)))
    assert sum([(await level(api, sku)).committed for sku in skus]) == 120
    await audit(database)


async def test_locks_taken_ahead_change_nothing_for_the_handlers(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    held = (await api.ReserveStock(reserve_request(("a", 2)))).reservation
    await api.CommitReservation(
        pb.CommitReservationRequest(request_id=request_id(), reservation_id=held.reservation_id, order_id="ord_1")
    )
    await hear(database, [shipping.OrderCancelled(order_id="ord_1"), shipping.OrderRejected(order_id="ord_unknown")])
    assert (await level(api, "a")).free == 5
    marks = {row["order_id"]: row["state"] for row in await database.fetch("SELECT * FROM order_marks")}
    assert marks == {"ord_1": "released", "ord_unknown": "released"}
    await audit(database)


async def test_dispatch_takes_units_off_the_shelf(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    held = (await api.ReserveStock(reserve_request(("a", 2)))).reservation
    await api.CommitReservation(
        pb.CommitReservationRequest(request_id=request_id(), reservation_id=held.reservation_id, order_id="ord_1")
    )
    item = shipping.OrderedItem(sku="a", quantity=2, location="vienna-1")
    await hear(database, [shipping.ShipmentDispatched(order_id="ord_1", items=[item])])
    now = await level(api, "a")
    assert (now.on_hand, now.committed, now.free) == (3, 0, 3)
    await audit(database)
