"""What operators do: count, write off, transfer, keep back; and what shipping brings back."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.access import acting_as
from services.chassis.database import Database
from services.chassis.errors import InvalidInput
from services.inventory.domain.allocation import Allocation
from services.inventory.domain.reservation import NotCommitted, NotShipped, ReservationNotFound
from services.inventory.domain.stock import NegativeStock, OutOfStock, StockPromised
from services.inventory.grpc_api import InventoryApi
from services.inventory.usecases import orders
from shop.inventory.events.v1 import facts_pb2 as facts
from shop.inventory.v1 import inventory_pb2 as pb
from tests.inventory.conftest import (
    OPERATOR,
    announced,
    audit,
    commit,
    expire,
    level,
    receive,
    request_id,
    reserve_request,
)


async def count(api: InventoryApi, sku: str, counted: int) -> pb.CountStockResponse:
    request = pb.CountStockRequest(
        request_id=request_id(), sku=sku, location="vienna-1", counted=counted, reason="yearly count"
    )
    with acting_as(OPERATOR):
        answer = await api.CountStock(request)
        assert await api.CountStock(request) == answer
    return answer


async def write_off(api: InventoryApi, sku: str, quantity: int) -> pb.StockLevel:
    request = pb.WriteOffStockRequest(
        request_id=request_id(), sku=sku, location="vienna-1", quantity=quantity, reason="water damage"
    )
    with acting_as(OPERATOR):
        answer = await api.WriteOffStock(request)
        assert await api.WriteOffStock(request) == answer
    return answer.level


async def transfer(api: InventoryApi, sku: str, quantity: int) -> pb.TransferStockResponse:
    request = pb.TransferStockRequest(
        request_id=request_id(), sku=sku, from_location="vienna-1", to_location="brno-1", quantity=quantity
    )
    with acting_as(OPERATOR):
        answer = await api.TransferStock(request)
        assert await api.TransferStock(request) == answer
    return answer


async def keep_back(api: InventoryApi, sku: str, units: int) -> pb.StockLevel:
    request = pb.SetSafetyStockRequest(request_id=request_id(), sku=sku, location="vienna-1", units=units)
    with acting_as(OPERATOR):
        answer = await api.SetSafetyStock(request)
        assert await api.SetSafetyStock(request) == answer
    return answer.level


async def ordered(api: InventoryApi, quantity: int, order: str, customer: str = "") -> pb.Reservation:
    held = await api.ReserveStock(reserve_request(("a", quantity), customer=customer))
    return await commit(api, held.reservation, order)


async def shipped(api: InventoryApi, database: Database, order: str, quantity: int) -> None:
    await receive(api, "a", quantity)
    await ordered(api, quantity, order)
    async with database.transaction() as tx:
        await orders.ship_order(tx, order, [Allocation("a", "vienna-1", quantity)], "fact:1")


def back(order: str, quantity: int, to_location: str = "") -> pb.ReturnStockRequest:
    line = pb.ReturnLine(sku="a", location="vienna-1", quantity=quantity, to_location=to_location)
    return pb.ReturnStockRequest(request_id=request_id(), order_id=order, lines=[line], reason="too small")


async def test_a_count_below_the_promises_names_whom_it_hurts(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 6)
    old = await ordered(api, 2, "o1", "cus_old")
    lapsed = (await api.ReserveStock(reserve_request(("a", 1)))).reservation
    middle = await commit(
        api, (await api.ReserveStock(reserve_request(("a", 2), customer="cus_mid"))).reservation, "o2"
    )
    new = (await api.ReserveStock(reserve_request(("a", 1), customer="cus_new"))).reservation
    await expire(database, lapsed.reservation_id)
    answer = await count(api, "a", 3)
    assert (answer.difference, answer.level.on_hand, answer.level.free, answer.level.missing) == (-3, 3, 0, 2)
    (told,) = await announced(database, facts.StockShortfallDetected)
    assert told.missing == 2
    # Newest first, until the missing units are accounted for: the oldest promise is kept.
    assert [(hurt.reservation_id, hurt.state, hurt.order_id, hurt.quantity, hurt.missing) for hurt in told.hurt] == [
        (new.reservation_id, pb.RESERVATION_STATE_HELD, "", 1, 1),
        (middle.reservation_id, pb.RESERVATION_STATE_COMMITTED, "o2", 2, 1),
    ]
    assert [hurt.customer_id for hurt in told.hurt] == ["cus_new", "cus_mid"]
    assert (list(told.reservation_ids), list(told.order_ids)) == ([middle.reservation_id], ["o2"])
    assert old.reservation_id not in {hurt.reservation_id for hurt in told.hurt}
    await audit(database)


async def test_a_shortfall_is_told_again_only_when_it_grows(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 3)
    await ordered(api, 3, "o1")
    for counted, missing in ((2, [1]), (2, [1]), (1, [1, 2]), (2, [1, 2]), (3, [1, 2])):
        await count(api, "a", counted)
        assert [told.missing for told in await announced(database, facts.StockShortfallDetected)] == missing
    await audit(database)


async def test_what_is_shipped_though_counted_away_was_there(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2)
    await ordered(api, 2, "o1")
    await count(api, "a", 0)
    async with database.transaction() as tx:
        await orders.ship_order(tx, "o1", [Allocation("a", "vienna-1", 2)], "fact:1")
    now = await level(api, "a")
    assert (now.on_hand, now.committed, now.free, now.missing) == (0, 0, 0, 0)
    await audit(database)


async def test_no_more_leaves_than_is_promised_to_the_order(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    await ordered(api, 1, "o1")
    for leaving in (Allocation("a", "vienna-1", 2), Allocation("a", "brno-1", 1)):
        with pytest.raises(NotCommitted):
            async with database.transaction() as tx:
                await orders.ship_order(tx, "o1", [leaving], "fact:1")
    async with database.transaction() as tx:
        await orders.release_order(tx, "o1", "test")
    with pytest.raises(NotCommitted):
        async with database.transaction() as tx:
            await orders.ship_order(tx, "o1", [Allocation("a", "vienna-1", 1)], "fact:1")
    await audit(database)


async def test_a_write_off_goes_below_the_promises_but_not_below_nothing(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 3)
    await api.ReserveStock(reserve_request(("a", 2)))
    assert (await write_off(api, "a", 2)).missing == 1
    (told,) = await announced(database, facts.StockShortfallDetected)
    assert told.missing == 1
    with pytest.raises(NegativeStock) as refused:
        await write_off(api, "a", 2)
    assert refused.value.details == {"sku": "a", "location": "vienna-1", "on_hand": "1", "delta": "-2"}
    (entry,) = (await api.ListLedgerEntries(pb.ListLedgerEntriesRequest(sku="a", page_size=1))).entries
    assert (entry.kind, entry.on_hand_delta, entry.reason) == (pb.MOVEMENT_KIND_WRITE_OFF, -2, "water damage")
    assert entry.actor == "operator:olga"
    assert entry.request_id
    await audit(database)


async def test_a_transfer_tells_both_sides_in_each_fact(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    await database.pool.execute("DELETE FROM outbox")
    moved = await transfer(api, "a", 2)
    assert (moved.from_level.free, moved.to_level.free) == (3, 2)
    told = {fact.location: fact for fact in await announced(database, facts.StockLevelChanged)}
    for here, there in (("vienna-1", "brno-1"), ("brno-1", "vienna-1")):
        other = told[here].moved_with
        assert (other.location, other.free, other.version) == (there, told[there].free, told[there].version)
        assert other.received_total == told[there].received_total
    # Units that only changed their place did not come in.
    assert (told["vienna-1"].received_total, told["brno-1"].received_total) == (5, 0)
    await audit(database)


async def test_both_sides_of_a_transfer_are_told_though_one_shows_no_difference(
    api: InventoryApi, database: Database
) -> None:
    await receive(api, "a", 5)
    await keep_back(api, "a", 5)
    await database.pool.execute("DELETE FROM outbox")
    await transfer(api, "a", 2)
    told = {fact.location: fact.free for fact in await announced(database, facts.StockLevelChanged)}
    assert told == {"vienna-1": 0, "brno-1": 2}


async def test_promised_units_do_not_move_and_safety_stock_may(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    await keep_back(api, "a", 1)
    await api.ReserveStock(reserve_request(("a", 2)))
    with pytest.raises(StockPromised) as refused:
        await transfer(api, "a", 4)
    assert refused.value.details == {"sku": "a", "location": "vienna-1", "wanted": "4", "movable": "3"}
    with acting_as(OPERATOR), pytest.raises(InvalidInput):
        await api.TransferStock(
            pb.TransferStockRequest(
                request_id=request_id(), sku="a", from_location="brno-1", to_location="brno-1", quantity=1
            )
        )
    await transfer(api, "a", 3)
    assert (await api.BatchGetAvailability(pb.BatchGetAvailabilityRequest(skus=["a"]))).levels[0].free == 3
    await audit(database)


async def test_transfers_never_show_units_twice_or_not_at_all(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 8)
    done = asyncio.Event()

    async def look() -> set[int]:
        seen = set()
        while not done.is_set():
            answer = await api.BatchGetAvailability(pb.BatchGetAvailabilityRequest(skus=["a"]))
            seen.add(sum(found.free for found in answer.levels))
        return seen

    looking = asyncio.create_task(look())
    for _ in range(8):
        await transfer(api, "a", 1)
    done.set()
    assert await looking == {8}


async def test_safety_stock_is_never_offered_and_its_change_is_told(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 3)
    await database.pool.execute("DELETE FROM outbox")
    assert (await keep_back(api, "a", 2)).free == 1
    with pytest.raises(OutOfStock) as refused:
        await api.ReserveStock(reserve_request(("a", 2)))
    assert refused.value.details["free"] == "1"
    await api.ReserveStock(reserve_request(("a", 1)))
    assert (await keep_back(api, "a", 9)).free == 0
    assert (await level(api, "a")).missing == 0
    assert (await keep_back(api, "a", 0)).free == 2
    told = [(fact.free, fact.received_total) for fact in await announced(database, facts.StockLevelChanged)]
    # 9 instead of 2 changed nothing that is free.
    assert told == [(1, 3), (0, 3), (2, 3)]
    await audit(database)


async def test_what_comes_back_is_free_again_up_to_what_left(api: InventoryApi, database: Database) -> None:
    await shipped(api, database, "o1", 3)
    request = back("o1", 2)
    answer = await api.ReturnStock(request)
    assert [(found.location, found.on_hand, found.free) for found in answer.levels] == [("vienna-1", 2, 2)]
    assert await api.ReturnStock(request) == answer
    with pytest.raises(NotShipped) as refused:
        await api.ReturnStock(back("o1", 2))
    assert refused.value.details == {"sku": "a", "location": "vienna-1", "wanted": "2", "returnable": "1"}
    elsewhere = await api.ReturnStock(back("o1", 1, "returns-1"))
    assert [(found.location, found.on_hand) for found in elsewhere.levels] == [("returns-1", 1)]
    with pytest.raises(NotShipped):
        await api.ReturnStock(back("o1", 1))
    (entry, *_) = (await api.ListLedgerEntries(pb.ListLedgerEntriesRequest(sku="a"))).entries
    assert (entry.kind, entry.order_id, entry.reason) == (pb.MOVEMENT_KIND_RETURN, "o1", "too small")
    await audit(database)


async def test_returns_at_once_are_never_more_than_left(api: InventoryApi, database: Database) -> None:
    await shipped(api, database, "o1", 3)
    outcomes = await asyncio.gather(*(api.ReturnStock(back("o1", 1)) for _ in range(9)), return_exceptions=True)
    assert sum(isinstance(one, pb.ReturnStockResponse) for one in outcomes) == 3
    assert sum(isinstance(one, NotShipped) for one in outcomes) == 6
    assert (await level(api, "a")).on_hand == 3
    await audit(database)


async def test_an_order_nobody_knows_returns_nothing(api: InventoryApi, database: Database) -> None:
    with pytest.raises(ReservationNotFound):
        await api.ReturnStock(back("o_none", 1))
    await receive(api, "a", 1)
    await ordered(api, 1, "o1")
    with pytest.raises(NotShipped) as refused:
        await api.ReturnStock(back("o1", 1))
    assert refused.value.details["returnable"] == "0"
    await audit(database)
