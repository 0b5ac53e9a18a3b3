"""Commits after the hold ran out: the same units if they are free, else others, else a refusal with numbers."""

from __future__ import annotations

import pytest

from services.chassis.database import Database
from services.inventory.domain.stock import OutOfStock
from services.inventory.grpc_api import InventoryApi
from shop.inventory.v1 import inventory_pb2 as pb
from tests.inventory.conftest import audit, commit, expire, receive, reserve_request


def places(reservation: pb.Reservation) -> list[tuple[str, str, int]]:
    return [(part.sku, part.location, part.quantity) for part in reservation.allocations]


async def lapsed(api: InventoryApi, database: Database, *lines: tuple[str, int]) -> pb.Reservation:
    held = (await api.ReserveStock(reserve_request(*lines))).reservation
    await expire(database, held.reservation_id)
    return held


async def test_the_same_places_while_they_are_free(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1, "brno-1")
    held = await lapsed(api, database, ("a", 1))
    await receive(api, "a", 9, "alpen-1")
    assert places(await commit(api, held)) == [("a", "brno-1", 1)]
    await audit(database)


async def test_other_places_when_those_units_are_gone(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2, "brno-1")
    await receive(api, "b", 1, "brno-1")
    held = await lapsed(api, database, ("a", 2), ("b", 1))
    # Somebody else takes what lay there; then as much comes in elsewhere.
    await commit(api, (await api.ReserveStock(reserve_request(("a", 1)))).reservation)
    await receive(api, "a", 2, "vienna-1")
    committed = await commit(api, held, "ord_1")
    assert places(committed) == [("a", "vienna-1", 2), ("b", "brno-1", 1)]
    read = await api.GetReservation(pb.GetReservationRequest(reservation_id=held.reservation_id))
    assert read.reservation == committed
    await audit(database)


async def test_too_few_anywhere_says_how_many(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2, "brno-1")
    await receive(api, "a", 1, "vienna-1")
    held = await lapsed(api, database, ("a", 3))
    await api.ReserveStock(reserve_request(("a", 1)))
    with pytest.raises(OutOfStock) as refused:
        await commit(api, held, "ord_1")
    assert refused.value.details == {"sku": "a", "wanted": "3", "free": "2"}
    # The refusal left no mark on the order: other goods may be promised to it.
    other = (await api.ReserveStock(reserve_request(("a", 1)))).reservation
    assert (await commit(api, other, "ord_1")).state == pb.RESERVATION_STATE_COMMITTED
    await receive(api, "a", 2, "brno-1")
    assert sum(part.quantity for part in (await commit(api, held, "ord_2")).allocations) == 3
    await audit(database)
