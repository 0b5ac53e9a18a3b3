"""Holds for customers who waited for a product to come back, and the checkout that uses them."""

from __future__ import annotations

import asyncio

import pytest

from services.chassis.access import acting_as
from services.chassis.database import Database
from services.chassis.errors import InvalidInput, NotAllowed
from services.inventory.domain.limits import TooManyHolds
from services.inventory.domain.reservation import ReservationNotFound
from services.inventory.domain.stock import OutOfStock
from services.inventory.grpc_api import InventoryApi
from services.inventory.usecases import reserving
from shop.inventory.events.v1 import facts_pb2 as facts
from shop.inventory.v1 import inventory_pb2 as pb
from tests.inventory.conftest import (
    CATALOG,
    announced,
    audit,
    expire,
    level,
    receive,
    request_id,
    reserve_request,
)

DAY = 86_400


async def wait_for(
    api: InventoryApi, *lines: tuple[str, int], customer: str = "cus_waiting", seconds: int = DAY
) -> pb.Reservation:
    """What catalog does when it is a waiting customer's turn."""
    request = reserve_request(*lines, customer=customer, seconds=seconds)
    request.purpose = pb.HOLD_PURPOSE_WAITING_CUSTOMER
    with acting_as(CATALOG):
        return (await api.ReserveStock(request)).reservation


async def read(api: InventoryApi, reservation: pb.Reservation) -> pb.Reservation:
    request = pb.GetReservationRequest(reservation_id=reservation.reservation_id)
    return (await api.GetReservation(request)).reservation


async def test_a_turn_is_held_for_a_day_and_nobody_else_has_it(api: InventoryApi) -> None:
    await receive(api, "a", 1)
    turn = await wait_for(api, ("a", 1))
    assert turn.purpose == pb.HOLD_PURPOSE_WAITING_CUSTOMER
    assert turn.expire_time.seconds - turn.create_time.seconds in (DAY, DAY + 1)
    assert (await level(api, "a")).held == 1
    with pytest.raises(OutOfStock):
        await api.ReserveStock(reserve_request(("a", 1), customer="cus_other"))


async def test_the_checkout_of_who_waited_takes_their_units(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    turn = await wait_for(api, ("a", 1))
    taken = await api.ReserveStock(reserve_request(("a", 1), customer="cus_waiting"))
    assert list(taken.used_reservation_ids) == [turn.reservation_id]
    assert (await level(api, "a")).held == 1
    now = await read(api, turn)
    assert now.state == pb.RESERVATION_STATE_RELEASED
    assert now.used_by_reservation_id == taken.reservation.reservation_id
    (used,) = await announced(database, facts.WaitingHoldUsed)
    assert (used.reservation_id, list(used.skus), used.closed) == (turn.reservation_id, ["a"], True)
    assert used.used_by_reservation_id == taken.reservation.reservation_id
    assert used.customer_id == "cus_waiting"
    await audit(database)


async def test_nobody_takes_the_turn_of_whom_they_share_a_transaction_with(api: InventoryApi) -> None:
    await receive(api, "a", 1)
    turn = await wait_for(api, ("a", 1))
    # At once, so that both are decided in one transaction.
    other, own = await asyncio.gather(
        api.ReserveStock(reserve_request(("a", 1), customer="cus_other")),
        api.ReserveStock(reserve_request(("a", 1), customer="cus_waiting")),
        return_exceptions=True,
    )
    assert isinstance(other, OutOfStock)
    assert isinstance(own, pb.ReserveStockResponse)
    assert list(own.used_reservation_ids) == [turn.reservation_id]


async def test_a_turn_of_several_skus_is_used_sku_by_sku(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    await receive(api, "b", 1)
    turn = await wait_for(api, ("a", 1), ("b", 1))
    await api.ReserveStock(reserve_request(("a", 1), customer="cus_waiting"))
    now = await read(api, turn)
    assert now.state == pb.RESERVATION_STATE_HELD
    assert [part.sku for part in now.allocations] == ["b"]
    assert (await level(api, "b")).held == 1
    await api.ReserveStock(reserve_request(("b", 1), customer="cus_waiting"))
    assert (await read(api, turn)).state == pb.RESERVATION_STATE_RELEASED
    assert [used.closed for used in await announced(database, facts.WaitingHoldUsed)] == [False, True]
    await audit(database)


async def test_what_the_checkout_does_not_want_of_a_turn_is_free(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 3)
    await wait_for(api, ("a", 3))
    await api.ReserveStock(reserve_request(("a", 1), customer="cus_waiting"))
    assert (await level(api, "a")).free == 2
    await audit(database)


async def test_a_checkout_that_is_refused_leaves_the_turn_as_it_was(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    turn = await wait_for(api, ("a", 1))
    with pytest.raises(OutOfStock) as refused:
        await api.ReserveStock(reserve_request(("a", 1), ("b", 1), customer="cus_waiting"))
    assert refused.value.details["sku"] == "b"
    with pytest.raises(OutOfStock) as refused:
        await api.ReserveStock(reserve_request(("a", 2), customer="cus_waiting"))
    # What is held for them counts as free for them.
    assert refused.value.details == {"sku": "a", "wanted": "2", "free": "1"}
    assert (await read(api, turn)).state == pb.RESERVATION_STATE_HELD
    assert not await announced(database, facts.WaitingHoldUsed)
    await audit(database)


async def test_many_checkouts_of_one_who_waited_use_the_turn_once(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    await wait_for(api, ("a", 1))
    requests = [reserve_request(("a", 1), customer="cus_waiting") for _ in range(8)]
    requests += [reserve_request(("a", 1)) for _ in range(8)]
    outcomes = await asyncio.gather(*map(api.ReserveStock, requests), return_exceptions=True)
    held = [one for one in outcomes if isinstance(one, pb.ReserveStockResponse)]
    assert [each.reservation.customer_id for each in held] == ["cus_waiting"]
    assert all(isinstance(one, pb.ReserveStockResponse | OutOfStock) for one in outcomes)
    assert len(await announced(database, facts.WaitingHoldUsed)) == 1
    await audit(database)


async def test_a_turn_that_lapses_is_told_with_its_purpose(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    turn = await wait_for(api, ("a", 1))
    await expire(database, turn.reservation_id)
    # At that instant it is anybody's.
    await api.ReserveStock(reserve_request(("a", 1), customer="cus_other"))
    async with database.transaction() as tx:
        assert await reserving.expire_due(tx) == 1
    (told,) = await announced(database, facts.ReservationExpired)
    assert (told.reservation_id, told.purpose) == (turn.reservation_id, pb.HOLD_PURPOSE_WAITING_CUSTOMER)
    await audit(database)


async def test_a_lapsed_turn_is_used_by_nobody(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    turn = await wait_for(api, ("a", 1))
    await expire(database, turn.reservation_id)
    taken = await api.ReserveStock(reserve_request(("a", 1), customer="cus_waiting"))
    assert not taken.used_reservation_ids
    await audit(database)


async def test_each_service_holds_for_its_own_purpose(api: InventoryApi) -> None:
    await receive(api, "a", 5)
    request = reserve_request(("a", 1))
    request.purpose = pb.HOLD_PURPOSE_WAITING_CUSTOMER
    with pytest.raises(NotAllowed):
        await api.ReserveStock(request)
    with acting_as(CATALOG), pytest.raises(NotAllowed):
        await api.ReserveStock(reserve_request(("a", 1)))


async def test_only_who_waited_is_held_for_so_long(api: InventoryApi) -> None:
    await receive(api, "a", 5)
    with pytest.raises(InvalidInput) as refused:
        await api.ReserveStock(reserve_request(("a", 1), seconds=3601))
    assert (refused.value.reason, refused.value.details) == ("HOLD_TOO_LONG", {"limit_seconds": "3600"})
    with pytest.raises(InvalidInput) as refused:
        await wait_for(api, ("a", 1), seconds=DAY + 1)
    assert refused.value.details == {"limit_seconds": str(DAY)}


async def test_catalog_extends_and_releases_turns_and_sees_nothing_else(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 2)
    turn = await wait_for(api, ("a", 1), seconds=60)
    cart = (await api.ReserveStock(reserve_request(("a", 1)))).reservation

    def extend(reservation: pb.Reservation) -> pb.ExtendReservationRequest:
        request = pb.ExtendReservationRequest(request_id=request_id(), reservation_id=reservation.reservation_id)
        request.hold_time.FromSeconds(DAY // 2)
        return request

    def release(reservation: pb.Reservation) -> pb.ReleaseReservationRequest:
        return pb.ReleaseReservationRequest(request_id=request_id(), reservation_id=reservation.reservation_id)

    with acting_as(CATALOG):
        longer = (await api.ExtendReservation(extend(turn))).reservation
        assert longer.expire_time.seconds - turn.create_time.seconds >= DAY // 2
        for call in (api.ExtendReservation(extend(cart)), api.ReleaseReservation(release(cart)), read(api, cart)):
            with pytest.raises(ReservationNotFound):
                await call
        await api.ReleaseReservation(release(turn))
        assert (await read(api, turn)).state == pb.RESERVATION_STATE_RELEASED
    assert (await read(api, cart)).state == pb.RESERVATION_STATE_HELD
    await audit(database)


async def test_turns_and_checkouts_are_capped_apart(api: InventoryApi) -> None:
    await receive(api, "a", 50)
    await receive(api, "b", 50)
    for _ in range(2):
        await wait_for(api, ("a", 1), customer="cus_keen")
    with pytest.raises(TooManyHolds) as refused:
        await wait_for(api, ("a", 1), customer="cus_keen")
    assert refused.value.details == {"cap": "waiting", "open": "2", "limit": "2"}
    for _ in range(3):
        await api.ReserveStock(reserve_request(("b", 1), customer="cus_keen"))
