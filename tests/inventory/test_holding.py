"""Holding in part, for a destination, shrinking, and how much one may hold."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.access import acting_as
from services.chassis.database import Database
from services.chassis.errors import InvalidInput
from services.inventory.domain.limits import TooManyHolds, TooManyUnits
from services.inventory.domain.reservation import (
    NotShrinking,
    ReservationClosed,
    ReservationExpired,
    ReservationNotFound,
)
from services.inventory.domain.stock import OutOfStock
from services.inventory.grpc_api import InventoryApi
from services.inventory.settings import Settings
from shop.inventory.v1 import inventory_pb2 as pb
from tests.inventory.conftest import OPERATOR, audit, commit, expire, level, receive, request_id, reserve_request
from tests.locks import waiting


def shrink_request(reservation: pb.Reservation, **kept: int) -> pb.ShrinkReservationRequest:
    return pb.ShrinkReservationRequest(
        request_id=request_id(),
        reservation_id=reservation.reservation_id,
        lines=[pb.KeptLine(sku=sku, quantity=quantity) for sku, quantity in kept.items()],
    )


async def rank(api: InventoryApi, country: str, *locations: str) -> None:
    with acting_as(OPERATOR):
        await api.SetLocationRanks(
            pb.SetLocationRanksRequest(
                request_id=request_id(), ranks=pb.LocationRanks(country=country, locations=locations)
            )
        )


async def test_in_part_holds_what_is_there_and_names_what_is_not(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    await receive(api, "b", 1)
    request = reserve_request(("c", 2), ("b", 3), ("a", 2))
    request.partial = True
    answer = await api.ReserveStock(request)
    assert [(part.sku, part.quantity) for part in answer.reservation.allocations] == [("a", 2), ("b", 1)]
    assert [(each.sku, each.wanted, each.held) for each in answer.missing] == [("c", 2, 0), ("b", 3, 1)]
    assert await api.ReserveStock(request) == answer
    await audit(database)


async def test_in_part_of_nothing_is_refused(api: InventoryApi) -> None:
    request = reserve_request(("a", 2))
    request.partial = True
    with pytest.raises(OutOfStock) as refused:
        await api.ReserveStock(request)
    assert refused.value.details == {"sku": "a", "wanted": "2", "free": "0"}


async def test_the_destination_chooses_between_locations(api: InventoryApi) -> None:
    for location in ("brno-1", "paris-1", "vienna-1"):
        await receive(api, "a", 5, location)
    await rank(api, "", "vienna-1", "brno-1")
    await rank(api, "FR", "paris-1")

    async def where(country: str) -> str:
        request = reserve_request(("a", 1))
        request.country = country
        (part,) = (await api.ReserveStock(request)).reservation.allocations
        return part.location

    assert [await where(country) for country in ("FR", "AT", "", "FR")] == [
        "paris-1",
        "vienna-1",
        "vienna-1",
        "paris-1",
    ]
    await rank(api, "FR")
    assert await where("FR") == "vienna-1"


async def test_ranks_are_listed_page_by_page(api: InventoryApi) -> None:
    for country in ("", "AT", "FR"):
        await rank(api, country, "vienna-1", "brno-1")
    request = pb.ListLocationRanksRequest(page_size=2)
    found: list[str] = []
    while True:
        answer = await api.ListLocationRanks(request)
        found += [ranks.country for ranks in answer.ranks]
        assert all(list(ranks.locations) == ["vienna-1", "brno-1"] for ranks in answer.ranks)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert found == ["", "AT", "FR"]


async def test_shrinking_gives_back_from_the_smallest_parts(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2, "brno-1")
    await receive(api, "a", 3, "vienna-1")
    await receive(api, "b", 1)
    held = (await api.ReserveStock(reserve_request(("a", 5), ("b", 1)))).reservation
    request = shrink_request(held, a=2)
    smaller = (await api.ShrinkReservation(request)).reservation
    parts = [("a", "vienna-1", 2), ("b", "vienna-1", 1)]
    assert [(part.sku, part.location, part.quantity) for part in smaller.allocations] == parts
    assert smaller.expire_time == held.expire_time
    assert (await api.ShrinkReservation(request)).reservation == smaller
    await audit(database)
    committed = await commit(api, smaller)
    assert committed.allocations == smaller.allocations
    await audit(database)


async def test_shrinking_to_nothing_releases(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2)
    held = (await api.ReserveStock(reserve_request(("a", 2)))).reservation
    gone = (await api.ShrinkReservation(shrink_request(held, a=0))).reservation
    assert gone.state == pb.RESERVATION_STATE_RELEASED
    assert (await level(api, "a")).free == 2
    with pytest.raises(ReservationClosed):
        await api.ShrinkReservation(shrink_request(held, a=0))
    await audit(database)


async def test_a_hold_does_not_grow_and_not_after_its_time(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    held = (await api.ReserveStock(reserve_request(("a", 2)))).reservation
    for kept, details in (
        ({"a": 3}, {"sku": "a", "wanted": "3", "held": "2"}),
        ({"b": 1}, {"sku": "b", "wanted": "1", "held": "0"}),
    ):
        with pytest.raises(NotShrinking) as refused:
            await api.ShrinkReservation(shrink_request(held, **kept))
        assert refused.value.details == details
    twice = shrink_request(held, a=1)
    twice.lines.add(sku="a", quantity=1)
    with pytest.raises(InvalidInput):
        await api.ShrinkReservation(twice)
    await expire(database, held.reservation_id)
    with pytest.raises(ReservationExpired):
        await api.ShrinkReservation(shrink_request(held, a=1))
    with pytest.raises(ReservationNotFound):
        await api.ShrinkReservation(shrink_request(pb.Reservation(reservation_id="res_none"), a=1))
    await audit(database)


async def test_a_peer_s_holds_are_counted_together(api: InventoryApi) -> None:
    await receive(api, "a", 50)

    def from_peer(peer: str) -> pb.ReserveStockRequest:
        request = reserve_request(("a", 1))
        request.peer = peer
        return request

    requests = [from_peer("p1") for _ in range(12)]
    outcomes = await asyncio.gather(*map(api.ReserveStock, requests), return_exceptions=True)
    held = [one for one in outcomes if isinstance(one, pb.ReserveStockResponse)]
    refused = [one for one in outcomes if isinstance(one, TooManyHolds)]
    assert (len(held), len(refused)) == (4, 8)
    assert refused[0].details == {"cap": "peer", "open": "4", "limit": "4"}
    await api.ReserveStock(from_peer("p2"))
    await api.ReserveStock(from_peer(""))
    # What is given back makes room at once.
    await api.ReleaseReservation(
        pb.ReleaseReservationRequest(request_id=request_id(), reservation_id=held[0].reservation.reservation_id)
    )
    await api.ReserveStock(from_peer("p1"))


async def test_a_guest_may_hold_less(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 50)

    def guest() -> pb.ReserveStockRequest:
        request = reserve_request(("a", 1), customer="cus_guest")
        request.guest = True
        return request

    first = (await api.ReserveStock(guest())).reservation
    await api.ReserveStock(guest())
    with pytest.raises(TooManyHolds) as refused:
        await api.ReserveStock(guest())
    assert refused.value.details == {"cap": "guest", "open": "2", "limit": "2"}
    # A hold past its time is no open hold, whether or not somebody has tidied up.
    await expire(database, first.reservation_id)
    await api.ReserveStock(guest())


async def test_one_hold_does_not_empty_the_shelf(api: InventoryApi) -> None:
    await receive(api, "a", 500)
    with pytest.raises(TooManyUnits) as refused:
        await api.ReserveStock(reserve_request(("a", 101)))
    assert refused.value.details == {"sku": "a", "wanted": "101", "limit": "100"}
    await api.ReserveStock(reserve_request(("a", 100)))


async def test_two_replicas_do_not_both_give_the_last_hold_that_is_allowed(
    api: InventoryApi, database: Database, settings: Settings
) -> None:
    """Of a customer, and of a peer: each SKU on another row, so that no lock of stock keeps them apart."""
    for sku in "abcdef":
        await receive(api, sku, 5)
    for sku in "ab":
        await api.ReserveStock(reserve_request((sku, 1), customer="cus_1"))
    for kind in ("customer", "peer"):
        requests = [reserve_request((sku, 1), customer="cus_1" if kind == "customer" else "") for sku in "cd"]
        if kind == "peer":
            for sku in "abc":
                held = reserve_request((sku, 1))
                held.peer = "one"
                await api.ReserveStock(held)
            for request in requests:
                request.peer = "one"
        other = InventoryApi(database, settings)
        async with database.transaction() as tx:
            # Each has counted, or waits to, before either has written.
            await tx.connection.execute("LOCK TABLE reservations IN SHARE MODE")
            calls = [
                asyncio.ensure_future(one.ReserveStock(each)) for one, each in zip((api, other), requests, strict=True)
            ]
            await waiting(database, 2)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(type(each).__name__ for each in outcomes) == ["ReserveStockResponse", "TooManyHolds"], kind
