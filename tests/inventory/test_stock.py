"""Stock on a real database: receiving, correcting, counting, importing, shipping, and the ledger that shows it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from services.chassis.access import acting_as
from services.chassis.database import Database
from services.chassis.errors import InvalidInput
from services.inventory.domain.allocation import Allocation
from services.inventory.domain.reservation import ReservationNotFound
from services.inventory.domain.stock import NegativeStock
from services.inventory.grpc_api import InventoryApi
from services.inventory.usecases import orders
from shop.inventory.events.v1 import facts_pb2 as facts
from shop.inventory.v1 import inventory_pb2 as pb
from tests.inventory.conftest import OPERATOR, announced, audit, level, receive, request_id, reserve_request


async def adjust(api: InventoryApi, sku: str, delta: int) -> pb.StockLevel:
    with acting_as(OPERATOR):
        answer = await api.AdjustStock(
            pb.AdjustStockRequest(
                request_id=request_id(), sku=sku, location="vienna-1", delta=delta, reason="counted again"
            )
        )
    return answer.level


async def import_rows(
    api: InventoryApi, *rows: tuple[str, str, str], document: str = "file:0001"
) -> pb.ImportStockResponse:
    with acting_as(OPERATOR):
        return await api.ImportStock(
            pb.ImportStockRequest(
                document_id=document,
                rows=[
                    pb.StockRow(line=number, sku=sku, location=location, quantity=quantity)
                    for number, (sku, location, quantity) in enumerate(rows, 2)
                ],
            )
        )


async def test_every_change_is_in_the_ledger(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    await adjust(api, "a", -2)
    held = (await api.ReserveStock(reserve_request(("a", 1)))).reservation
    await api.CommitReservation(
        pb.CommitReservationRequest(request_id=request_id(), reservation_id=held.reservation_id, order_id="ord_1")
    )
    async with database.transaction() as tx:
        await orders.ship_order(tx, "ord_1", [Allocation("a", "vienna-1", 1)], "fact:1")
    entries = (await api.ListLedgerEntries(pb.ListLedgerEntriesRequest(sku="a"))).entries
    assert [pb.MovementKind.Name(entry.kind).removeprefix("MOVEMENT_KIND_") for entry in entries] == [
        "SHIP",
        "COMMIT",
        "RESERVE",
        "ADJUST",
        "RECEIVE",
    ]
    assert [entry.version for entry in entries] == [5, 4, 3, 2, 1]
    assert entries[0].order_id == "ord_1"
    assert entries[3].actor == "operator:olga"
    now = await level(api, "a")
    assert (now.on_hand, now.held, now.committed, now.free) == (2, 0, 0, 2)
    await audit(database)


async def test_the_ledger_cannot_be_changed(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    for statement in ("UPDATE ledger SET reason = ''", "DELETE FROM ledger"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await database.pool.execute(statement)


async def test_the_ledger_pages_without_repeating(api: InventoryApi) -> None:
    for _ in range(5):
        await receive(api, "a", 1)
    request = pb.ListLedgerEntriesRequest(sku="a", page_size=2)
    versions = []
    while True:
        answer = await api.ListLedgerEntries(request)
        versions += [entry.version for entry in answer.entries]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert versions == [5, 4, 3, 2, 1]
    request.sku = "other"
    with pytest.raises(InvalidInput, match="page_token"):
        await api.ListLedgerEntries(request)


async def test_a_correction_below_nothing_is_refused(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2)
    with pytest.raises(NegativeStock) as refused:
        await adjust(api, "a", -3)
    assert refused.value.details == {"sku": "a", "location": "vienna-1", "on_hand": "2", "delta": "-3"}
    assert (await level(api, "a")).on_hand == 2


async def test_a_count_below_what_is_promised_is_a_fact(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2)
    for order in ("ord_1", "ord_2"):
        held = (await api.ReserveStock(reserve_request(("a", 1)))).reservation
        await api.CommitReservation(
            pb.CommitReservationRequest(request_id=request_id(), reservation_id=held.reservation_id, order_id=order)
        )
    await adjust(api, "a", -1)
    (shortfall,) = await announced(database, facts.StockShortfallDetected)
    assert (shortfall.missing, list(shortfall.order_ids)) == (1, ["ord_2"])
    async with database.transaction() as tx:
        await orders.release_order(tx, "ord_2", "fact:1")
        await orders.ship_order(tx, "ord_1", [Allocation("a", "vienna-1", 1)], "fact:2")
    assert (await level(api, "a")).free == 0
    assert (await level(api, "a")).free == 0


async def test_versions_grow_and_received_units_are_told(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2)
    await api.ReserveStock(reserve_request(("a", 1)))
    told = await announced(database, facts.StockLevelChanged)
    assert [(fact.version, fact.free, fact.received_total) for fact in told] == [(1, 2, 2), (2, 1, 2)]


async def test_an_import_keeps_the_good_rows_and_says_what_is_wrong(api: InventoryApi, database: Database) -> None:
    answer = await import_rows(
        api,
        ("a", "vienna-1", "3"),
        ("b b", "vienna-1", "1"),
        ("c", "Vienna 1", "1"),
        ("d", "vienna-1", "-1"),
        ("d", "vienna-1", "many"),
        ("d", "vienna-1", "99999999"),
        ("a", "vienna-1", "4"),
        ("e", "vienna-1", "0"),
    )
    assert (answer.changed, answer.unchanged) == (1, 1)
    assert [(problem.line, problem.field) for problem in answer.problems] == [
        (3, "sku"),
        (4, "location"),
        (5, "quantity"),
        (6, "quantity"),
        (7, "quantity"),
        (8, "sku"),
    ]
    assert (await level(api, "a")).on_hand == 3
    await audit(database)


async def test_the_same_file_again_changes_nothing(api: InventoryApi) -> None:
    await import_rows(api, ("a", "vienna-1", "3"))
    await adjust(api, "a", -1)
    again = await import_rows(api, ("a", "vienna-1", "3"))
    assert (again.changed, again.unchanged) == (0, 1)
    # Also after units left: the file said what lay there when it was written.
    assert (await level(api, "a")).on_hand == 2
    newer = await import_rows(api, ("a", "vienna-1", "3"), document="file:0002")
    assert newer.changed == 1
    assert (await level(api, "a")).on_hand == 3


async def test_a_count_that_is_true_already_waits_for_nobody(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 3)
    async with database.transaction() as tx:
        await tx.connection.execute("SELECT FROM stock WHERE sku = 'a' FOR UPDATE")
        async with asyncio.timeout(3):
            answer = await import_rows(api, ("a", "vienna-1", "3"), ("b", "vienna-1", "0"), ("c", "vienna-1", "1"))
    assert (answer.changed, answer.unchanged) == (1, 2)
    assert [found["version"] for found in await database.fetch("SELECT version FROM stock ORDER BY sku")] == [1, 0, 1]


async def test_shipping_what_was_never_committed_is_refused(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2)
    with pytest.raises(ReservationNotFound):
        async with database.transaction() as tx:
            await orders.ship_order(tx, "ord_none", [Allocation("a", "vienna-1", 1)], "fact:1")
    assert (await level(api, "a")).on_hand == 2


async def test_all_levels_page_through(api: InventoryApi) -> None:
    for sku in ("a", "b", "c"):
        await receive(api, sku, 1)
    await receive(api, "b", 1, "brno-1")
    request = pb.ListStockLevelsRequest(page_size=2)
    places = []
    while True:
        answer = await api.ListStockLevels(request)
        assert answer.read_time.seconds
        places += [(found.sku, found.location) for found in answer.levels]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert places == [("a", "vienna-1"), ("b", "brno-1"), ("b", "vienna-1"), ("c", "vienna-1")]
