"""A process stops between two steps of an order, or sleeps through its end: there is one outcome, whoever goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.chassis import telemetry
from services.chassis.database import Database, Transaction
from services.chassis.errors import NotNow, Unavailable
from services.shipping import store
from services.shipping.domain.order import Allocation, OrderState, Refused
from services.shipping.usecases import ordering as module
from services.shipping.usecases.ordering import Ordering
from shop.inventory.v1 import inventory_pb2
from shop.shipping.events.v1 import facts_pb2 as facts
from shop.shipping.v1 import shipping_pb2 as pb
from tests.fakes.inventory import FakeInventory
from tests.shipping.conftest import Desk, order_request, ordering


class Stopped(BaseException):
    """The process is gone."""


def stop_before(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def stopped(*_: Any, **__: Any) -> Any:
        raise Stopped

    return stopped


def stop_after(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def stopped(*arguments: Any, **named: Any) -> Any:
        await step(*arguments, **named)
        raise Stopped

    return stopped


# Every place between two steps, and inside each transaction just before its commit.
PLACES: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "before the order is taken": (Ordering, "take", stop_before),
    "while the order is taken": (store, "add_order", stop_after),
    "after the order is taken": (Ordering, "take", stop_after),
    "before the commit reaches inventory": (FakeInventory, "CommitReservation", stop_before),
    "before the commit is answered": (FakeInventory, "CommitReservation", stop_after),
    "after the commit": (Ordering, "commit", stop_after),
    "while the order is settled, before it is saved": (module, "announce", stop_before),
    "while the order is settled, with its fact": (Transaction, "append", stop_after),
    "after the order is settled": (Ordering, "settle", stop_after),
    "before the answer": (Ordering, "finish", stop_after),
}


@pytest.fixture(params=PLACES)
def stopping(request: pytest.FixtureRequest) -> Callable[[pytest.MonkeyPatch], None]:
    holder, name, how = PLACES[request.param]

    def stop(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(holder, name, how(getattr(holder, name)))

    return stop


async def stopped_order(
    desk: Desk, stopping: Callable[[pytest.MonkeyPatch], None], checkout: pb.Checkout, request: pb.PlaceOrderRequest
) -> str:
    """Places an order in a process that stops. Returns what is written down of it."""
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch)
        with pytest.raises(Stopped):
            await desk.api.PlaceOrder(request)
    return await desk.state(checkout)


async def test_the_repeat_ends_it(desk: Desk, stopping: Callable[[pytest.MonkeyPatch], None]) -> None:
    begun = await desk.begin(("boot", 5))
    request = order_request(begun)
    await stopped_order(desk, stopping, begun, request)
    answer = await desk.api.PlaceOrder(request)
    await desk.ordering.sweep()
    assert await desk.api.PlaceOrder(request) == answer
    assert answer.order.state == pb.ORDER_STATE_CONFIRMED
    assert await desk.kinds() == ["OrderPlaced"]
    assert await desk.get(answer.order.order_id) == answer.order


async def test_the_sweeper_ends_it(desk: Desk, stopping: Callable[[pytest.MonkeyPatch], None]) -> None:
    begun = await desk.begin(("boot", 5))
    request = order_request(begun)
    written = await stopped_order(desk, stopping, begun, request)
    await desk.ordering.sweep()
    if written == "none":
        assert await desk.kinds() == []
        return
    assert await desk.state(begun) == "confirmed"
    assert await desk.kinds() == ["OrderPlaced"]
    # Also for the one who asks again.
    assert (await desk.api.PlaceOrder(request)).order.state == pb.ORDER_STATE_CONFIRMED
    assert await desk.kinds() == ["OrderPlaced"]


async def test_the_sweeper_rejects_what_inventory_refuses(
    desk: Desk, stopping: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The hold ran out and somebody else has the goods, before or after the process stopped."""
    begun = await desk.begin(("boot", 5))
    rows = await desk.database.fetch("SELECT reservation_id FROM checkouts")
    desk.inventory.expire(rows[0]["reservation_id"])
    await desk.begin(("boot", 5))
    request = order_request(begun)
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch)
        with pytest.raises((Stopped, NotNow)):
            await desk.api.PlaceOrder(request)
    written = await desk.state(begun)
    await desk.ordering.sweep()
    assert await desk.state(begun) == ("none" if written == "none" else "rejected")
    with pytest.raises(NotNow) as refused:
        await desk.api.PlaceOrder(request)
    assert (refused.value.reason, refused.value.details["wanted"]) == ("OUT_OF_STOCK", "5")
    assert await desk.kinds() == ["OrderRejected"]


async def test_a_call_that_is_cancelled_is_finished_by_the_sweeper(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    desk.inventory.answering.clear()
    call = asyncio.create_task(desk.place(begun))
    while not any(isinstance(one, inventory_pb2.CommitReservationRequest) for one in desk.inventory.asked):
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    desk.inventory.answering.set()
    assert await desk.state(begun) == "pending"
    await desk.ordering.sweep()
    assert await desk.state(begun) == "confirmed"


async def given_up(desk: Desk, checkout: pb.Checkout) -> None:
    """The sweeper gives the order up, since its commits get no answer."""

    async def unanswered(*_: Any) -> Any:
        raise Unavailable("inventory does not answer", reason="INVENTORY_AWAY")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.inventory, "CommitReservation", unanswered)
        await ordering(desk.database, desk.inventory, give_up=-1).sweep()
    assert await desk.state(checkout) == "rejected"


class Sleeper:
    """A process that falls asleep at a step of an order, and wakes up when told."""

    def __init__(self, database: Database, inventory: FakeInventory, *, before: str = "", after: str = "") -> None:
        self.asleep, self._wake = asyncio.Event(), asyncio.Event()
        self.ordering = ordering(database, inventory)
        name = before or after
        step = getattr(self.ordering, name)

        async def slow(*arguments: Any) -> Any:
            if after:
                result = await step(*arguments)
            self.asleep.set()
            await self._wake.wait()
            return result if after else await step(*arguments)

        setattr(self.ordering, name, slow)

    async def place(self, request: pb.PlaceOrderRequest) -> Any:
        return await self.ordering.place(
            module.PlaceOrder(
                request.customer_id,
                request.checkout_id,
                request.highlights_version,
                request.payment_reference,
                "customer:cus_1",
                request.request_id,
            )
        )

    def wake(self) -> None:
        self._wake.set()


@pytest.mark.parametrize("sleeps", [{"before": "commit"}, {"after": "commit"}], ids=str)
async def test_a_frozen_process_confirms_nothing_after_the_order_was_given_up(
    desk: Desk, sleeps: dict[str, str]
) -> None:
    begun = await desk.begin(("boot", 5))
    request = order_request(begun, payment_reference="pay-1")
    sleeper = Sleeper(desk.database, desk.inventory, **sleeps)
    call = asyncio.create_task(sleeper.place(request))
    await sleeper.asleep.wait()
    await given_up(desk, begun)
    sleeper.wake()
    with pytest.raises(NotNow) as refused:
        await call
    assert refused.value.reason == "ORDER_GIVEN_UP"
    assert await desk.state(begun) == "rejected"
    (rejected,) = await desk.told()
    assert isinstance(rejected, facts.OrderRejected)
    assert (rejected.reason, rejected.payment_reference) == ("ORDER_GIVEN_UP", "pay-1")
    assert not desk.inventory.committed(rejected.order_id)
    # And what it would commit later still is refused.
    with pytest.raises(NotNow) as refused:
        await desk.inventory.CommitReservation(
            inventory_pb2.CommitReservationRequest(
                request_id="late-commit",
                reservation_id=(await desk.database.fetch("SELECT reservation_id FROM orders"))[0]["reservation_id"],
                order_id=rejected.order_id,
            )
        )
    assert refused.value.reason == "ORDER_RELEASED"


async def test_a_process_that_knows_of_the_commit_confirms_nothing_once_the_order_is_being_given_up(desk: Desk) -> None:
    """Between the decision to give up and the release: what was committed is about to be released."""
    begun = await desk.begin(("boot", 5))
    sleeper = Sleeper(desk.database, desk.inventory, after="commit")
    call = asyncio.create_task(sleeper.place(order_request(begun)))
    await sleeper.asleep.wait()
    (row,) = await desk.database.fetch("SELECT order_id FROM orders")
    await desk.ordering.give_up(row["order_id"])
    assert (await desk.get(row["order_id"])).state == pb.ORDER_STATE_PENDING
    sleeper.wake()
    with pytest.raises(NotNow) as refused:
        await call
    assert refused.value.reason == "ORDER_GIVEN_UP"
    assert await desk.kinds() == ["OrderRejected"]
    assert desk.inventory.free("boot") == 5


async def test_giving_up_goes_on_where_it_stopped(desk: Desk) -> None:
    """The stock was released and the process stopped: nobody commits it again with an old answer."""
    begun = await desk.begin(("boot", 5))
    request = order_request(begun)
    await stopped_order(
        desk, lambda patch: patch.setattr(Ordering, "commit", stop_after(Ordering.commit)), begun, request
    )
    (row,) = await desk.database.fetch("SELECT order_id FROM orders")
    order = await desk.ordering.give_up(row["order_id"])
    await desk.ordering.release(order)
    # Inventory would repeat the answer it kept of the first commit, if it were asked with the same request id.
    late = await desk.ordering.commit(order)
    assert isinstance(late, Refused)
    assert late.details == {"cause": "ORDER_RELEASED"}
    with pytest.raises(NotNow) as refused:
        await desk.api.PlaceOrder(request)
    assert refused.value.reason == "ORDER_GIVEN_UP"
    assert await desk.kinds() == ["OrderRejected"]
    assert desk.inventory.free("boot") == 5


async def test_a_late_refusal_and_a_late_commit_change_nothing(desk: Desk) -> None:
    order = await desk.order(("shoe", 1))
    refused = Refused("OUT_OF_STOCK", "too late", {})
    assert (await desk.ordering.settle(order.order_id, refused)).state is OrderState.CONFIRMED
    await desk.cancel(order)
    late = [Allocation("shoe", "vienna-1", 1)]
    assert (await desk.ordering.settle(order.order_id, late)).state is OrderState.CANCELLED
    assert await desk.kinds() == ["OrderPlaced", "OrderCancelled"]


async def test_while_inventory_is_away_for_good_nothing_is_decided(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    desk.inventory.away = True
    with pytest.raises(Unavailable):
        await desk.place(begun)
    impatient = ordering(desk.database, desk.inventory, give_up=-1)
    for _ in range(2):
        await impatient.sweep()
    assert await desk.state(begun) == "giving_up"
    desk.inventory.away = False
    await impatient.sweep()
    assert await desk.state(begun) == "rejected"


async def test_an_order_within_patience_is_not_given_up(desk: Desk) -> None:
    desk.inventory.away = True
    begun = await _pending(desk)
    assert await desk.ordering.sweep() == 1
    assert await desk.state(begun) == "pending"
    desk.inventory.away = False
    await desk.ordering.sweep()
    assert await desk.state(begun) == "confirmed"


async def test_an_order_past_patience_is_confirmed_if_inventory_answers(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    desk.inventory.away = True
    with pytest.raises(Unavailable):
        await desk.place(begun)
    desk.inventory.away = False
    await ordering(desk.database, desk.inventory, give_up=-1).sweep()
    assert await desk.state(begun) == "confirmed"


async def test_replicas_of_the_sweeper_share_the_work(desk: Desk) -> None:
    desk.inventory.away = True
    begun = [await _pending(desk) for _ in range(6)]
    desk.inventory.away = False
    before = len(desk.inventory.asked)
    replicas = [ordering(desk.database, desk.inventory, retry=60) for _ in range(3)]
    looked_at = await asyncio.gather(*(replica.sweep(limit=4) for replica in replicas))
    assert sum(looked_at) == 6
    assert len(desk.inventory.asked) - before == 6
    assert [await desk.state(checkout) for checkout in begun] == ["confirmed"] * 6
    assert await desk.kinds() == ["OrderPlaced"] * 6
    assert await replicas[0].sweep() == 0


async def test_replicas_of_the_sweeper_and_a_repeat_at_once_end_an_order_once(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    request = order_request(begun)
    desk.inventory.away = True
    with pytest.raises(Unavailable):
        await desk.api.PlaceOrder(request)
    desk.inventory.away = False
    sweeps = [ordering(desk.database, desk.inventory).sweep() for _ in range(3)]
    answer, *_ = await asyncio.gather(desk.api.PlaceOrder(request), *sweeps)
    assert answer == await desk.api.PlaceOrder(request)
    assert await desk.kinds() == ["OrderPlaced"]


async def test_a_pending_order_is_left_alone_for_a_while(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    patient = ordering(desk.database, desk.inventory, retry=60)
    desk.inventory.away = True
    with pytest.raises(Unavailable):
        await patient.place(
            module.PlaceOrder("cus_1", begun.checkout_id, begun.highlights_version, "pay-1", "customer:cus_1", "r1")
        )
    assert await patient.sweep() == 0


async def test_what_a_sweep_took_no_sweep_takes_again_for_a_while(desk: Desk) -> None:
    desk.inventory.away = True
    await _pending(desk)
    patient = ordering(desk.database, desk.inventory, retry=60)
    assert [await patient.sweep() for _ in range(2)] == [1, 0]


async def test_what_waits_longest_is_swept_first(desk: Desk) -> None:
    desk.inventory.away = True
    begun = [await _pending(desk) for _ in range(3)]
    for age, checkout in enumerate(begun, start=1):
        await desk.database.pool.execute(
            "UPDATE orders SET attempt_time = clock_timestamp() - $2 * interval '1 minute' WHERE checkout_id = $1",
            checkout.checkout_id,
            age,
        )
    desk.inventory.away = False
    patient = ordering(desk.database, desk.inventory, retry=60)
    for _ in range(2):
        assert await patient.sweep(limit=1) == 1
    assert [await desk.state(checkout) for checkout in begun] == ["pending", "confirmed", "confirmed"]


async def test_what_the_sweeper_does_belongs_to_the_journey_of_the_order(desk: Desk) -> None:
    begun = await desk.begin(("shoe", 1))
    desk.inventory.away = True
    with telemetry.with_journey("journey-1"), pytest.raises(Unavailable):
        await desk.place(begun)
    desk.inventory.away = False
    seen: list[str | None] = []
    commit = desk.inventory.CommitReservation

    async def look(request: inventory_pb2.CommitReservationRequest) -> inventory_pb2.CommitReservationResponse:
        seen.append(telemetry.current_journey())
        return await commit(request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.inventory, "CommitReservation", look)
        await desk.ordering.sweep()
    assert seen == ["journey-1"]
    (row,) = await desk.database.fetch("SELECT headers::text AS text FROM outbox")
    assert "journey.id=journey-1" in row["text"]


async def _pending(desk: Desk) -> pb.Checkout:
    desk.inventory.away = False
    begun = await desk.begin(("shoe", 1))
    desk.inventory.away = True
    with pytest.raises(Unavailable):
        await desk.place(begun)
    return begun
