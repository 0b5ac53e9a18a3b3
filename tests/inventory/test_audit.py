"""The audit finds each kind of drift, by name, and nothing where there is none."""

from __future__ import annotations

import pytest

from services.chassis.access import acting_as
from services.chassis.database import Database
from services.inventory.audit import COMPARED, drifts
from services.inventory.domain.allocation import Allocation
from services.inventory.grpc_api import InventoryApi
from services.inventory.usecases import orders
from shop.inventory.v1 import inventory_pb2 as pb
from tests.inventory.conftest import OPERATOR, commit, receive, request_id, reserve_request

MISSING_ROW = (
    "ALTER TABLE ledger DISABLE TRIGGER ledger_is_append_only;"
    " DELETE FROM ledger WHERE sku = 'b' AND kind = 'release';"
    " ALTER TABLE ledger ENABLE TRIGGER ledger_is_append_only"
)
RENUMBERED = (
    "ALTER TABLE ledger DISABLE TRIGGER ledger_is_append_only;"
    " UPDATE ledger SET version = 99 WHERE sku = 'b' AND location = 'vienna-1' AND version = 1;"
    " ALTER TABLE ledger ENABLE TRIGGER ledger_is_append_only"
)
LINE = "UPDATE reservation_lines SET held_until = NULL WHERE sku = 'b' AND held_until IS NOT NULL"


async def books(api: InventoryApi, database: Database) -> None:
    """Three SKUs with every kind of movement."""
    for sku in ("a", "b", "c"):
        await receive(api, sku, 9)
        await receive(api, sku, 1, "brno-1")
    with acting_as(OPERATOR):
        await api.SetLocationRanks(
            pb.SetLocationRanksRequest(request_id=request_id(), ranks=pb.LocationRanks(locations=["vienna-1"]))
        )
        await api.SetSafetyStock(
            pb.SetSafetyStockRequest(request_id=request_id(), sku="b", location="vienna-1", units=1)
        )
        await api.TransferStock(
            pb.TransferStockRequest(
                request_id=request_id(), sku="b", from_location="vienna-1", to_location="brno-1", quantity=1
            )
        )
    await commit(api, (await api.ReserveStock(reserve_request(("b", 2)))).reservation, "o1")
    async with database.transaction() as tx:
        await orders.ship_order(tx, "o1", [Allocation("b", "vienna-1", 1)], "fact:1")
    held = (await api.ReserveStock(reserve_request(("b", 1)))).reservation
    await api.ReleaseReservation(
        pb.ReleaseReservationRequest(request_id=request_id(), reservation_id=held.reservation_id)
    )
    await api.ReserveStock(reserve_request(("b", 3)))


async def found(api: InventoryApi) -> list[tuple[str, str, str, int, int]]:
    request = pb.AuditStockRequest(page_size=2)
    drift: list[pb.Drift] = []
    levels = 0
    while True:
        answer = await api.AuditStock(request)
        drift += answer.drifts
        levels += answer.levels
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert levels == 6
    return [
        (each.sku, each.location, pb.DriftKind.Name(each.kind)[11:], each.balance, each.recomputed) for each in drift
    ]


async def test_good_books_have_no_drift(api: InventoryApi, database: Database) -> None:
    await books(api, database)
    assert await found(api) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("UPDATE stock SET on_hand = on_hand + 1 WHERE sku = 'b' AND location = 'brno-1'", [("ON_HAND", 3, 2)]),
        ("UPDATE stock SET safety = 0 WHERE sku = 'b'", [("SAFETY", 0, 1)]),
        ("UPDATE stock SET received_total = 5 WHERE sku = 'b' AND location = 'vienna-1'", [("RECEIVED_TOTAL", 5, 9)]),
        ("UPDATE stock SET version = 12 WHERE sku = 'b' AND location = 'vienna-1'", [("VERSION", 12, 9)]),
        (
            "UPDATE stock SET held = held + 1 WHERE sku = 'b' AND location = 'vienna-1'",
            [("HELD", 4, 3), ("HELD_LINES", 4, 3)],
        ),
        (
            "UPDATE stock SET committed = 0 WHERE sku = 'b' AND location = 'vienna-1'",
            [("COMMITTED", 0, 1), ("COMMITTED_LINES", 0, 1)],
        ),
        (MISSING_ROW, [("HELD", 3, 4), ("VERSION", 9, 8)]),
        (RENUMBERED, [("VERSION", 9, 99)]),
        (LINE, [("HELD_LINES", 3, 0)]),
        ("UPDATE reservation_lines SET promised = false", [("COMMITTED_LINES", 1, 0)]),
    ],
)
async def test_each_drift_is_found_and_named(
    api: InventoryApi, database: Database, damage: str, expected: list[tuple[str, int, int]]
) -> None:
    await books(api, database)
    await database.pool.execute(damage)
    drift = await found(api)
    assert {sku for sku, *_ in drift} == {"b"}
    assert [tuple(each[2:]) for each in drift] == expected


def test_fewer_than_no_units_is_a_drift() -> None:
    """The database refuses such a row, so it is made up."""
    row: dict[str, object] = dict.fromkeys([name for _, *names in COMPARED for name in names], 0)
    row |= {"sku": "a", "location": "x", "on_hand": -1, "ledger_on_hand": -1, "moves": 0, "last_version": 0}
    assert list(drifts(row)) == [pb.Drift(sku="a", location="x", kind=pb.DRIFT_KIND_NEGATIVE, balance=-1, recomputed=0)]
