"""What inventory's callers rely on, asked of the fake and of the real service alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from services.chassis.access import Caller, acting_as
from services.chassis.database import Database
from services.chassis.errors import InvalidInput, NotFound, NotNow
from services.chassis.migrations import migrate
from services.inventory.grpc_api import InventoryApi
from services.inventory.settings import Settings
from shop.access.v1.access_pb2 import ROLE_OPERATOR, ROLE_SERVICE
from shop.inventory.v1 import inventory_pb2 as pb
from tests.fakes.inventory import FakeInventory

OPERATOR = Caller(ROLE_OPERATOR, "olga", "operator:olga")
SHIPPING = Caller(ROLE_SERVICE, "shipping", "service:shipping", service="shipping")
CATALOG = Caller(ROLE_SERVICE, "catalog", "service:catalog", service="catalog")


class Inventory(Protocol):
    """The calls other services make."""

    async def ReserveStock(self, request: pb.ReserveStockRequest) -> pb.ReserveStockResponse: ...
    async def GetReservation(self, request: pb.GetReservationRequest) -> pb.GetReservationResponse: ...
    async def ExtendReservation(self, request: pb.ExtendReservationRequest) -> pb.ExtendReservationResponse: ...
    async def CommitReservation(self, request: pb.CommitReservationRequest) -> pb.CommitReservationResponse: ...
    async def ReleaseReservation(self, request: pb.ReleaseReservationRequest) -> pb.ReleaseReservationResponse: ...
    async def ReleaseOrder(self, request: pb.ReleaseOrderRequest) -> pb.ReleaseOrderResponse: ...
    async def BatchGetAvailability(
        self, request: pb.BatchGetAvailabilityRequest
    ) -> pb.BatchGetAvailabilityResponse: ...
    async def ListStockLevels(self, request: pb.ListStockLevelsRequest) -> pb.ListStockLevelsResponse: ...


class Subject:
    """An inventory, and what a test does to it from outside."""

    def __init__(
        self,
        calls: Inventory,
        receive: Callable[[str, int, str], Awaitable[None]],
        expire: Callable[[str], Awaitable[None]],
    ) -> None:
        self.calls = calls
        self.receive = receive
        self.expire = expire

    async def free(self, sku: str) -> int:
        answer = await self.calls.BatchGetAvailability(pb.BatchGetAvailabilityRequest(skus=[sku]))
        return sum(level.free for level in answer.levels)

    async def hold(self, *lines: tuple[str, int], request_id: str = "") -> pb.Reservation:
        return (await self.calls.ReserveStock(hold_request(*lines, request_id=request_id))).reservation

    async def commit(self, reservation: pb.Reservation, order_id: str) -> pb.Reservation:
        request = pb.CommitReservationRequest(
            request_id=uuid4().hex, reservation_id=reservation.reservation_id, order_id=order_id
        )
        return (await self.calls.CommitReservation(request)).reservation

    async def release(self, reservation: pb.Reservation) -> pb.Reservation:
        request = pb.ReleaseReservationRequest(request_id=uuid4().hex, reservation_id=reservation.reservation_id)
        return (await self.calls.ReleaseReservation(request)).reservation

    async def release_order(self, order_id: str) -> pb.ReleaseOrderResponse:
        return await self.calls.ReleaseOrder(pb.ReleaseOrderRequest(request_id=uuid4().hex, order_id=order_id))

    async def state(self, reservation: pb.Reservation) -> int:
        request = pb.GetReservationRequest(reservation_id=reservation.reservation_id)
        return (await self.calls.GetReservation(request)).reservation.state


def hold_request(*lines: tuple[str, int], request_id: str = "") -> pb.ReserveStockRequest:
    return pb.ReserveStockRequest(
        request_id=request_id or uuid4().hex,
        customer_id="cus_1",
        lines=[pb.ReservationLine(sku=sku, quantity=quantity) for sku, quantity in lines],
    )


def new_order() -> str:
    return f"ord_{uuid4().hex}"


def new_sku() -> str:
    return f"sku-{uuid4().hex}"


@pytest.fixture(scope="module")
async def database(infrastructure: Stack) -> AsyncIterator[Database]:
    url = infrastructure.database_url("inventory")
    await migrate(url, Path("services/inventory/sql"))
    opened = Database(url, "inventory", pool_size=5)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(params=["fake", "real"])
def inventory(request: pytest.FixtureRequest, database: Database) -> Subject:
    return _fake() if request.param == "fake" else _real(database)


@pytest.fixture(autouse=True)
def as_shipping() -> Iterator[None]:
    with acting_as(SHIPPING):
        yield


def _fake() -> Subject:
    fake = FakeInventory()

    async def receive(sku: str, quantity: int, location: str) -> None:
        fake.receive(sku, quantity, location)

    async def expire(reservation_id: str) -> None:
        fake.expire(reservation_id)

    return Subject(fake, receive, expire)


def _real(database: Database) -> Subject:
    settings = Settings(
        database_url="postgresql://unused",
        kafka_bootstrap_servers="unused",
        grpc_port=1,
        metrics_port=1,
        token_issuer="unused",
        jwks_url="http://unused",
        service_token_file="unused",
        holds_per_customer=1_000_000,
    )
    api = InventoryApi(database, settings)

    async def receive(sku: str, quantity: int, location: str) -> None:
        with acting_as(OPERATOR):
            await api.ReceiveStock(
                pb.ReceiveStockRequest(request_id=uuid4().hex, sku=sku, location=location, quantity=quantity)
            )

    async def expire(reservation_id: str) -> None:
        await database.pool.execute(
            "WITH r AS (UPDATE reservations SET expire_time = clock_timestamp() - interval '1 ms'"
            " WHERE reservation_id = $1) UPDATE reservation_lines SET held_until = clock_timestamp() - interval '1 ms'"
            " WHERE reservation_id = $1 AND held_until IS NOT NULL",
            reservation_id,
        )

    return Subject(api, receive, expire)


async def test_holds_all_lines_or_none(inventory: Subject) -> None:
    a, b = new_sku(), new_sku()
    await inventory.receive(a, 5, "vienna-1")
    await inventory.receive(b, 1, "vienna-1")
    with pytest.raises(NotNow) as refused:
        await inventory.hold((a, 2), (b, 2))
    assert refused.value.reason == "OUT_OF_STOCK"
    assert refused.value.details == {"sku": b, "wanted": "2", "free": "1"}
    held = await inventory.hold((a, 2), (b, 1))
    assert held.state == pb.RESERVATION_STATE_HELD
    assert {(part.sku, part.location, part.quantity) for part in held.allocations} == {
        (a, "vienna-1", 2),
        (b, "vienna-1", 1),
    }
    assert (await inventory.free(a), await inventory.free(b)) == (3, 0)


async def test_takes_from_several_locations(inventory: Subject) -> None:
    sku = new_sku()
    await inventory.receive(sku, 3, "graz-1")
    await inventory.receive(sku, 2, "vienna-1")
    held = await inventory.hold((sku, 4))
    assert [(part.location, part.quantity) for part in held.allocations] == [("graz-1", 3), ("vienna-1", 1)]


async def test_an_unknown_sku_is_out_of_stock(inventory: Subject) -> None:
    with pytest.raises(NotNow) as refused:
        await inventory.hold((new_sku(), 1))
    assert (refused.value.reason, refused.value.details["free"]) == ("OUT_OF_STOCK", "0")


async def test_a_repeat_gets_the_same_hold(inventory: Subject) -> None:
    sku, request_id = new_sku(), uuid4().hex
    await inventory.receive(sku, 5, "vienna-1")
    first = await inventory.hold((sku, 2), request_id=request_id)
    assert await inventory.hold((sku, 2), request_id=request_id) == first
    assert await inventory.free(sku) == 3
    with pytest.raises(InvalidInput) as refused:
        await inventory.hold((sku, 3), request_id=request_id)
    assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_a_repeat_may_come_from_elsewhere(inventory: Subject) -> None:
    sku, request = new_sku(), hold_request()
    await inventory.receive(sku, 2, "vienna-1")
    request.lines.add(sku=sku, quantity=1)
    answers = []
    for peer in ("p1", "p2", ""):
        request.peer = peer
        answers.append(await inventory.calls.ReserveStock(request))
    assert answers[0] == answers[1] == answers[2]
    assert await inventory.free(sku) == 1


async def test_a_repeat_gets_the_stored_answer_also_of_a_hold_that_is_gone(inventory: Subject) -> None:
    sku, request_id = new_sku(), uuid4().hex
    await inventory.receive(sku, 1, "vienna-1")
    first = await inventory.hold((sku, 1), request_id=request_id)
    await inventory.release(first)
    assert await inventory.hold((sku, 1), request_id=request_id) == first
    assert await inventory.state(first) == pb.RESERVATION_STATE_RELEASED


async def test_commits_a_hold_once_for_an_order(inventory: Subject) -> None:
    sku, order = new_sku(), new_order()
    await inventory.receive(sku, 2, "vienna-1")
    held = await inventory.hold((sku, 1))
    committed = await inventory.commit(held, order)
    assert (committed.state, committed.order_id) == (pb.RESERVATION_STATE_COMMITTED, order)
    assert await inventory.commit(held, order) == committed
    assert await inventory.free(sku) == 1
    with pytest.raises(NotNow) as refused:
        await inventory.commit(held, new_order())
    assert refused.value.reason == "RESERVATION_CLOSED"


async def test_a_hold_past_its_time_is_free_and_commits_only_while_it_is(inventory: Subject) -> None:
    sku = new_sku()
    await inventory.receive(sku, 1, "vienna-1")
    lapsed = await inventory.hold((sku, 1))
    await inventory.expire(lapsed.reservation_id)
    assert await inventory.state(lapsed) == pb.RESERVATION_STATE_EXPIRED
    assert await inventory.free(sku) == 1
    other = await inventory.hold((sku, 1))
    with pytest.raises(NotNow) as refused:
        await inventory.commit(lapsed, new_order())
    assert (refused.value.reason, refused.value.details) == ("OUT_OF_STOCK", {"sku": sku, "wanted": "1", "free": "0"})
    await inventory.release(other)
    assert (await inventory.commit(lapsed, new_order())).state == pb.RESERVATION_STATE_COMMITTED


async def test_a_late_commit_takes_other_units_when_those_are_gone(inventory: Subject) -> None:
    sku = new_sku()
    await inventory.receive(sku, 2, "graz-1")
    lapsed = await inventory.hold((sku, 2))
    await inventory.expire(lapsed.reservation_id)
    await inventory.hold((sku, 1))
    await inventory.receive(sku, 2, "vienna-1")
    committed = await inventory.commit(lapsed, new_order())
    assert [(part.location, part.quantity) for part in committed.allocations] == [("vienna-1", 2)]
    assert await inventory.free(sku) == 1


async def test_holds_in_part_when_asked(inventory: Subject) -> None:
    a, b = sorted((new_sku(), new_sku()))
    await inventory.receive(a, 1, "vienna-1")
    request = hold_request((a, 2), (b, 1))
    request.partial = True
    answer = await inventory.calls.ReserveStock(request)
    assert [(part.sku, part.quantity) for part in answer.reservation.allocations] == [(a, 1)]
    assert [(each.sku, each.wanted, each.held) for each in answer.missing] == [(a, 2, 1), (b, 1, 0)]
    request = hold_request((b, 1))
    request.partial = True
    with pytest.raises(NotNow) as refused:
        await inventory.calls.ReserveStock(request)
    assert refused.value.reason == "OUT_OF_STOCK"


async def test_who_waited_takes_their_turn(inventory: Subject) -> None:
    a, b, customer = new_sku(), new_sku(), f"cus_{uuid4().hex}"
    await inventory.receive(a, 1, "vienna-1")
    await inventory.receive(b, 1, "vienna-1")
    waiting = hold_request((a, 1), (b, 1))
    waiting.customer_id, waiting.purpose = customer, pb.HOLD_PURPOSE_WAITING_CUSTOMER
    with acting_as(CATALOG):
        turn = (await inventory.calls.ReserveStock(waiting)).reservation
        extend = pb.ExtendReservationRequest(request_id=uuid4().hex, reservation_id=turn.reservation_id)
        extend.hold_time.FromSeconds(40_000)
        longer = (await inventory.calls.ExtendReservation(extend)).reservation
    assert turn.purpose == longer.purpose == pb.HOLD_PURPOSE_WAITING_CUSTOMER
    with pytest.raises(NotNow):
        await inventory.hold((a, 1))
    for sku, state in ((a, pb.RESERVATION_STATE_HELD), (b, pb.RESERVATION_STATE_RELEASED)):
        checkout = hold_request((sku, 1))
        checkout.customer_id = customer
        answer = await inventory.calls.ReserveStock(checkout)
        assert list(answer.used_reservation_ids) == [turn.reservation_id]
        assert answer.reservation.purpose == pb.HOLD_PURPOSE_CHECKOUT
        read = await inventory.calls.GetReservation(pb.GetReservationRequest(reservation_id=turn.reservation_id))
        assert read.reservation.state == state
        assert read.reservation.used_by_reservation_id == answer.reservation.reservation_id
    assert (await inventory.free(a), await inventory.free(b)) == (0, 0)


async def test_releases_a_hold_once(inventory: Subject) -> None:
    sku = new_sku()
    await inventory.receive(sku, 1, "vienna-1")
    held = await inventory.hold((sku, 1))
    for _ in range(2):
        assert (await inventory.release(held)).state == pb.RESERVATION_STATE_RELEASED
    assert await inventory.free(sku) == 1
    with pytest.raises(NotNow) as refused:
        await inventory.commit(held, new_order())
    assert refused.value.reason == "RESERVATION_CLOSED"


async def test_does_not_release_a_committed_hold(inventory: Subject) -> None:
    sku = new_sku()
    await inventory.receive(sku, 1, "vienna-1")
    held = await inventory.hold((sku, 1))
    await inventory.commit(held, new_order())
    with pytest.raises(NotNow) as refused:
        await inventory.release(held)
    assert refused.value.reason == "RESERVATION_CLOSED"


async def test_a_released_order_gives_back_and_is_never_committed_again(inventory: Subject) -> None:
    sku, order = new_sku(), new_order()
    await inventory.receive(sku, 2, "vienna-1")
    held = await inventory.hold((sku, 2))
    await inventory.commit(held, order)
    released = await inventory.release_order(order)
    assert [(part.sku, part.quantity) for part in released.released] == [(sku, 2)]
    assert not (await inventory.release_order(order)).released
    assert await inventory.free(sku) == 2
    with pytest.raises(NotNow) as refused:
        await inventory.commit(held, order)
    assert refused.value.reason == "ORDER_RELEASED"


async def test_an_order_released_before_its_commit_is_never_committed(inventory: Subject) -> None:
    sku, order = new_sku(), new_order()
    await inventory.receive(sku, 1, "vienna-1")
    held = await inventory.hold((sku, 1))
    assert not (await inventory.release_order(order)).released
    with pytest.raises(NotNow) as refused:
        await inventory.commit(held, order)
    assert refused.value.reason == "ORDER_RELEASED"
    # The hold itself stands until its time.
    assert await inventory.free(sku) == 0


async def test_what_is_not_there_is_not_found(inventory: Subject) -> None:
    with pytest.raises(NotFound) as refused:
        await inventory.state(pb.Reservation(reservation_id="res_nobody"))
    assert refused.value.reason == "RESERVATION_NOT_FOUND"
    with pytest.raises(NotFound):
        await inventory.commit(pb.Reservation(reservation_id="res_nobody"), new_order())


async def test_levels_come_in_order_and_unknown_skus_have_none(inventory: Subject) -> None:
    a, b = sorted((new_sku(), new_sku()))
    await inventory.receive(b, 1, "vienna-1")
    await inventory.receive(a, 1, "vienna-1")
    await inventory.receive(a, 2, "graz-1")
    await inventory.hold((b, 1))
    answer = await inventory.calls.BatchGetAvailability(pb.BatchGetAvailabilityRequest(skus=[b, a, new_sku()]))
    found = [(level.sku, level.location, level.free, level.held, level.received_total) for level in answer.levels]
    assert found == [(a, "graz-1", 2, 0, 2), (a, "vienna-1", 1, 0, 1), (b, "vienna-1", 0, 1, 1)]
    assert answer.HasField("read_time")


async def test_all_levels_come_in_pages_without_a_gap(inventory: Subject) -> None:
    wanted = sorted(new_sku() for _ in range(5))
    for sku in wanted:
        await inventory.receive(sku, 1, "vienna-1")
    found: list[str] = []
    request = pb.ListStockLevelsRequest(page_size=2)
    while True:
        answer = await inventory.calls.ListStockLevels(request)
        found += [level.sku for level in answer.levels]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert found == sorted(found)
    assert [sku for sku in found if sku in wanted] == wanted
