"""Reservations on a real database: nothing oversells, expiry counts at its instant, repeats change nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from services.chassis.database import Database
from services.chassis.errors import Conflict, InvalidInput, Refusal
from services.chassis.requests import RequestIdReused
from services.inventory.domain.allocation import Allocation
from services.inventory.domain.limits import TooManyHolds
from services.inventory.domain.reservation import (
    HoldLimitReached,
    OrderReleased,
    ReservationClosed,
    ReservationExpired,
    ReservationNotFound,
)
from services.inventory.domain.stock import OutOfStock
from services.inventory.grpc_api import InventoryApi
from services.inventory.store import stock
from services.inventory.usecases import orders, reserving
from shop.inventory.v1 import inventory_pb2 as pb
from tests.inventory.conftest import audit, commit_request, expire, level, receive, request_id, reserve_request
from tests.locks import waiting


async def test_all_lines_or_none(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 5)
    await receive(api, "b", 1)
    with pytest.raises(OutOfStock) as refused:
        await api.ReserveStock(reserve_request(("a", 2), ("b", 2)))
    assert refused.value.details == {"sku": "b", "wanted": "2", "free": "1"}
    assert (await level(api, "a")).free == 5
    held = await api.ReserveStock(reserve_request(("a", 2), ("b", 1)))
    assert [(part.sku, part.quantity) for part in held.reservation.allocations] == [("a", 2), ("b", 1)]
    assert (await level(api, "a")).free == 3
    await audit(database)


async def test_unknown_sku_is_out_of_stock(api: InventoryApi) -> None:
    with pytest.raises(OutOfStock) as refused:
        await api.ReserveStock(reserve_request(("nobody-knows-it", 1)))
    assert refused.value.details["free"] == "0"


async def test_a_sku_twice_is_refused(api: InventoryApi) -> None:
    await receive(api, "a", 5)
    with pytest.raises(InvalidInput) as refused:
        await api.ReserveStock(reserve_request(("a", 1), ("a", 1)))
    assert refused.value.reason == "DUPLICATE_LINE"
    assert refused.value.fields[0][0] == "lines[1].sku"


async def test_one_location_that_has_everything_goes_first(api: InventoryApi) -> None:
    await receive(api, "a", 9, "brno-1")
    await receive(api, "a", 2, "vienna-1")
    await receive(api, "b", 1, "vienna-1")
    held = await api.ReserveStock(reserve_request(("a", 2), ("b", 1)))
    assert {part.location for part in held.reservation.allocations} == {"vienna-1"}


async def test_units_come_from_several_locations_when_they_must(api: InventoryApi) -> None:
    await receive(api, "a", 2, "brno-1")
    await receive(api, "a", 3, "vienna-1")
    held = await api.ReserveStock(reserve_request(("a", 4)))
    assert [(part.location, part.quantity) for part in held.reservation.allocations] == [
        ("brno-1", 1),
        ("vienna-1", 3),
    ]


async def test_the_last_units_are_sold_once(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 10)

    async def one() -> str:
        try:
            held = await api.ReserveStock(reserve_request(("a", 1)))
            await api.CommitReservation(commit_request(held.reservation))
        except OutOfStock as refused:
            return refused.reason
        return "sold"

    outcomes = Counter(await asyncio.gather(*(one() for _ in range(64))))
    assert outcomes == {"sold": 10, "OUT_OF_STOCK": 54}
    assert (await level(api, "a")).committed == 10
    await audit(database)


async def test_crossing_baskets_do_not_deadlock(api: InventoryApi, database: Database) -> None:
    skus = [f"s{number}" for number in range(8)]
    for sku in skus:
        await receive(api, sku, 20)
    dice = random.Random(7)

    async def one(basket: list[str]) -> int:
        try:
            held = await api.ReserveStock(reserve_request(*((sku, 1) for sku in basket)))
        except OutOfStock:
            return 0
        if dice.random() < 0.5:
            await api.ReleaseReservation(
                pb.ReleaseReservationRequest(request_id=request_id(), reservation_id=held.reservation.reservation_id)
            )
            return 0
        return len(basket)

    sold = sum(await asyncio.gather(*(one(dice.sample(skus, 5)) for _ in range(64))))
    held = 0
    for sku in skus:
        held += (await level(api, sku)).held
    assert held == sold
    await audit(database)


async def test_a_hold_past_its_time_is_free_at_that_instant(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    first = await api.ReserveStock(reserve_request(("a", 1)))
    await expire(database, first.reservation.reservation_id)
    # Nobody has tidied up, yet it counts as free: for those who look, and for those who take.
    assert (await level(api, "a")).free == 1
    await api.ReserveStock(reserve_request(("a", 1)))
    with pytest.raises(OutOfStock):
        await api.CommitReservation(commit_request(first.reservation))
    await audit(database)


async def test_a_lapsed_hold_commits_while_its_units_are_free(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    held = await api.ReserveStock(reserve_request(("a", 1)))
    await expire(database, held.reservation.reservation_id)
    async with database.transaction() as tx:
        assert await reserving.expire_due(tx) == 1
    committed = await api.CommitReservation(commit_request(held.reservation))
    assert committed.reservation.state == pb.RESERVATION_STATE_COMMITTED
    assert (await level(api, "a")).committed == 1
    await audit(database)


async def test_the_sweep_announces_what_became_free(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    held = await api.ReserveStock(reserve_request(("a", 1)))
    await expire(database, held.reservation.reservation_id)
    await database.pool.execute("DELETE FROM outbox")
    async with database.transaction() as tx:
        assert await reserving.expire_due(tx) == 1
    kinds = [row["headers"] for row in await database.fetch("SELECT headers->>'ce_type' AS headers FROM outbox")]
    assert sorted(kinds) == [
        "shop.inventory.events.v1.ReservationExpired",
        "shop.inventory.events.v1.StockLevelChanged",
    ]
    async with database.transaction() as tx:
        assert await reserving.expire_due(tx) == 0


async def test_extending_moves_the_limit_up_to_the_longest(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    held = (await api.ReserveStock(reserve_request(("a", 1), seconds=60))).reservation
    extend = pb.ExtendReservationRequest(request_id=request_id(), reservation_id=held.reservation_id)
    extend.hold_time.FromSeconds(900)
    longer = (await api.ExtendReservation(extend)).reservation
    assert longer.expire_time.seconds - held.expire_time.seconds in range(839, 842)
    # Never back: a shorter time leaves the longer one as it is.
    extend.request_id = request_id()
    extend.hold_time.FromSeconds(60)
    assert (await api.ExtendReservation(extend)).reservation.expire_time == longer.expire_time
    extend.request_id = request_id()
    extend.hold_time.FromSeconds(3600)
    await database.pool.execute("UPDATE reservations SET create_time = create_time - interval '1 minute'")
    with pytest.raises(HoldLimitReached):
        await api.ExtendReservation(extend)
    await expire(database, held.reservation_id)
    extend.request_id = request_id()
    extend.hold_time.FromSeconds(60)
    with pytest.raises(ReservationExpired):
        await api.ExtendReservation(extend)


async def test_a_hold_that_runs_out_while_its_release_waits_is_given_back_once(
    api: InventoryApi, database: Database
) -> None:
    await receive(api, "a", 3)
    held = (await api.ReserveStock(reserve_request(("a", 2)))).reservation
    release = pb.ReleaseReservationRequest(request_id=request_id(), reservation_id=held.reservation_id)
    async with database.transaction() as tx:
        await tx.connection.execute("SELECT FROM stock FOR UPDATE")
        releasing = asyncio.ensure_future(api.ReleaseReservation(release))
        await waiting(database)
        # Whoever has the row expires what is due on it.
        await database.pool.execute("UPDATE reservation_lines SET held_until = clock_timestamp()")
        await stock.lock_shelves(tx.connection, ["a"])
    assert (await releasing).reservation.state == pb.RESERVATION_STATE_RELEASED
    assert (await level(api, "a")).free == 3
    await audit(database)


async def test_a_hold_that_somebody_has_in_hand_does_not_stop_the_sweep(api: InventoryApi, database: Database) -> None:
    for sku in ("a", "b"):
        await receive(api, sku, 1)
    first, second = [(await api.ReserveStock(reserve_request((sku, 1)))).reservation.reservation_id for sku in "ab"]
    for each in (first, second):
        await expire(database, each)
    async with database.transaction() as busy:
        await busy.connection.execute("SELECT FROM reservations WHERE reservation_id = $1 FOR UPDATE", first)
        async with asyncio.timeout(3), database.transaction() as tx:
            assert await reserving.expire_due(tx) == 1
    async with database.transaction() as tx:
        assert await reserving.expire_due(tx) == 1
    await audit(database)


async def test_releasing_twice_changes_nothing(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 3)
    held = (await api.ReserveStock(reserve_request(("a", 2)))).reservation
    for _ in range(2):
        released = await api.ReleaseReservation(
            pb.ReleaseReservationRequest(request_id=request_id(), reservation_id=held.reservation_id)
        )
        assert released.reservation.state == pb.RESERVATION_STATE_RELEASED
    assert (await level(api, "a")).free == 3
    with pytest.raises(ReservationClosed):
        await api.CommitReservation(commit_request(held))
    await audit(database)


async def test_commit_is_once_per_order(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 3)
    held = (await api.ReserveStock(reserve_request(("a", 2)))).reservation
    other = (await api.ReserveStock(reserve_request(("a", 1)))).reservation
    for _ in range(2):
        await api.CommitReservation(commit_request(held, "ord_1"))
    assert (await level(api, "a")).committed == 2
    with pytest.raises(ReservationClosed):
        await api.CommitReservation(commit_request(held, "ord_2"))
    with pytest.raises(ReservationClosed):
        await api.CommitReservation(commit_request(other, "ord_1"))
    await audit(database)


async def test_a_released_order_refuses_the_late_commit(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 1)
    held = (await api.ReserveStock(reserve_request(("a", 1)))).reservation
    released = await api.ReleaseOrder(pb.ReleaseOrderRequest(request_id=request_id(), order_id="ord_1"))
    assert not released.released
    with pytest.raises(OrderReleased):
        await api.CommitReservation(commit_request(held, "ord_1"))
    assert (await level(api, "a")).committed == 0


async def test_releasing_an_order_gives_back_what_has_not_left(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 3)
    held = (await api.ReserveStock(reserve_request(("a", 3)))).reservation
    await api.CommitReservation(commit_request(held, "ord_1"))
    async with database.transaction() as tx:
        await orders.ship_order(tx, "ord_1", [Allocation("a", "vienna-1", 1)], "test")
    for expected in ([2], []):
        answer = await api.ReleaseOrder(pb.ReleaseOrderRequest(request_id=request_id(), order_id="ord_1"))
        assert [part.quantity for part in answer.released] == expected
    now = await level(api, "a")
    assert (now.on_hand, now.committed, now.free) == (2, 0, 2)
    await audit(database)


async def test_commit_and_release_of_one_order_race_to_one_outcome(api: InventoryApi, database: Database) -> None:
    for number in range(20):
        sku = f"race{number}"
        await receive(api, sku, 1)
        held = (await api.ReserveStock(reserve_request((sku, 1)))).reservation
        order = f"ord_{number}"
        await asyncio.gather(
            api.CommitReservation(commit_request(held, order)),
            api.ReleaseOrder(pb.ReleaseOrderRequest(request_id=request_id(), order_id=order)),
            return_exceptions=True,
        )
        assert (await level(api, sku)).committed == 0
    await audit(database)


async def test_holds_per_customer_are_capped(api: InventoryApi) -> None:
    await receive(api, "a", 50)
    requests = [reserve_request(("a", 1), customer="cus_greedy") for _ in range(12)]
    outcomes = await asyncio.gather(*map(api.ReserveStock, requests), return_exceptions=True)
    held = [answer for answer in outcomes if isinstance(answer, pb.ReserveStockResponse)]
    refused = [answer for answer in outcomes if isinstance(answer, TooManyHolds)]
    assert (len(held), len(refused)) == (3, 9)
    assert refused[0].details == {"cap": "customer", "open": "3", "limit": "3"}
    await api.ReleaseReservation(
        pb.ReleaseReservationRequest(request_id=request_id(), reservation_id=held[0].reservation.reservation_id)
    )
    await api.ReserveStock(reserve_request(("a", 1), customer="cus_greedy"))


async def test_a_repeat_gets_the_same_answer(api: InventoryApi, database: Database) -> None:
    await receive(api, "a", 9)
    request = reserve_request(("a", 2))
    answers = await asyncio.gather(*(api.ReserveStock(request) for _ in range(8)))
    assert len({answer.SerializeToString() for answer in answers}) == 1
    assert (await level(api, "a")).held == 2
    other = pb.ReserveStockRequest()
    other.CopyFrom(request)
    other.lines[0].quantity = 3
    with pytest.raises(RequestIdReused):
        await api.ReserveStock(other)
    await audit(database)


async def test_a_repeat_of_a_refusal_is_judged_anew(api: InventoryApi) -> None:
    request = reserve_request(("a", 1))
    with pytest.raises(OutOfStock):
        await api.ReserveStock(request)
    await receive(api, "a", 1)
    assert (await api.ReserveStock(request)).reservation.allocations[0].quantity == 1


async def test_an_unknown_reservation_is_not_found(api: InventoryApi) -> None:
    with pytest.raises(ReservationNotFound):
        await api.GetReservation(pb.GetReservationRequest(reservation_id="res_none"))
    with pytest.raises(ReservationNotFound):
        await api.CommitReservation(commit_request(pb.Reservation(reservation_id="res_none")))


async def test_any_interleaving_conserves_stock(api: InventoryApi, database: Database) -> None:
    """A storm of every operation with lapsing holds: the books balance and nothing is promised twice."""
    skus = ["x", "y", "z"]
    for sku in skus:
        await receive(api, sku, 15)
        await receive(api, sku, 5, "brno-1")
    dice = random.Random(23)
    committed: Counter[str] = Counter()

    async def one(number: int) -> None:
        basket = [(sku, dice.randint(1, 2)) for sku in dice.sample(skus, dice.randint(1, 3))]
        fate = dice.choice(["commit", "release", "lapse", "lapse-commit", "commit-release"])
        try:
            held = (await api.ReserveStock(reserve_request(*basket))).reservation
            if fate.startswith("lapse"):
                await expire(database, held.reservation_id)
            if fate == "release":
                await api.ReleaseReservation(
                    pb.ReleaseReservationRequest(request_id=request_id(), reservation_id=held.reservation_id)
                )
            if "commit" in fate:
                await api.CommitReservation(commit_request(held, f"ord_{number}"))
                committed.update(dict(basket))
            if fate == "commit-release":
                await api.ReleaseOrder(pb.ReleaseOrderRequest(request_id=request_id(), order_id=f"ord_{number}"))
                committed.subtract(dict(basket))
        except (OutOfStock, Conflict):
            pass

    await asyncio.gather(*(one(number) for number in range(120)))
    async with database.transaction() as tx:
        await reserving.expire_due(tx)
    answer = await api.BatchGetAvailability(pb.BatchGetAvailabilityRequest(skus=skus))
    for sku in skus:
        levels = [found for found in answer.levels if found.sku == sku]
        assert sum(found.committed for found in levels) == committed[sku] <= 20
        assert sum(found.free + found.held + found.committed for found in levels) == 20
    await audit(database)


def test_refusals_carry_reasons() -> None:
    for refusal in (OutOfStock("a", 1, 0), TooManyHolds("customer", 1, 1), ReservationExpired("x"), OrderReleased("x")):
        assert isinstance(refusal, Refusal)
        assert refusal.reason.isupper()
