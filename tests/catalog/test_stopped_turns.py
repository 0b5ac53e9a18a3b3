"""A process stops between two steps of a turn, or sleeps through its end: one hold and one word, whoever goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.catalog import queueing
from services.catalog.back_in_stock import BackInStock
from services.catalog.clients import InventoryClient
from services.catalog.store import subscriptions
from services.chassis.database import Transaction
from services.chassis.errors import Unavailable
from shop.inventory.v1 import inventory_pb2 as inventory
from tests.catalog.conftest import Shelf
from tests.catalog.waiting import Queue, impatient


class Stopped(BaseException):
    """The process is gone."""


@pytest.fixture
async def queue(shelf: Shelf) -> Queue:
    """Ann and Ben wait for `one`, and one unit of it has come in."""
    await shelf.feed({"id": "one"})
    queue = Queue(shelf, impatient(shelf))
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.arrive()
    return queue


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
HOLDING: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "after it was taken in hand": (BackInStock, "_go_on", stop_before),
    "before inventory is asked": (BackInStock, "_ask_for", stop_before),
    "before inventory answers": (BackInStock, "_ask_for", stop_after),
    "before it is written down": (queueing, "hold", stop_before),
    "while it is written down": (subscriptions, "save", stop_after),
    "while it is written down, with its fact": (Transaction, "append", stop_after),
    "once it is written down, before the commit": (queueing, "hold", stop_after),
    "after the commit": (BackInStock, "_hold", stop_after),
}
GIVING_BACK: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "after it was taken in hand": (BackInStock, "_go_on", stop_before),
    "before inventory is asked": (InventoryClient, "give_back", stop_before),
    "before inventory answers": (InventoryClient, "give_back", stop_after),
    "while it is written down": (subscriptions, "delete", stop_after),
    "while the next is asked": (queueing, "gave_back", stop_after),
    "after the commit": (BackInStock, "_give_back", stop_after),
}


async def stop(turns: BackInStock, place: tuple[object, str, Callable[..., Any]]) -> None:
    """Sweeps in a process that stops at a place."""
    holder, name, how = place
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, name, how(getattr(holder, name)))
        with pytest.raises(Stopped):
            await turns.sweep()


@pytest.mark.parametrize("place", HOLDING)
async def test_a_turn_that_stops_is_gone_on_with(queue: Queue, place: str) -> None:
    await stop(queue.another(), HOLDING[place])
    await queue.sweep()
    assert await queue.told() == ["ann"]
    assert [each.customer_id for each in queue.held()] == ["ann"]
    assert (await queue.states("ann"), await queue.states("ben")) == (["held"], ["waiting"])


@pytest.mark.parametrize("place", GIVING_BACK)
async def test_a_giving_back_that_stops_is_gone_on_with(queue: Queue, place: str) -> None:
    await queue.sweep()
    await queue.unsubscribe("ann")
    await stop(queue.another(), GIVING_BACK[place])
    await queue.sweep()
    assert await queue.told() == ["ann", "ben"]
    assert [each.customer_id for each in queue.held()] == ["ben"]
    assert await queue.states("ann") == []


@pytest.mark.parametrize("place", [name for name in HOLDING if "commit" not in name])
async def test_who_unsubscribes_while_a_turn_is_stopped_leaves_nothing_held(queue: Queue, place: str) -> None:
    await stop(queue.another(), HOLDING[place])
    await queue.unsubscribe("ann")
    await queue.sweep()
    assert await queue.told() == ["ben"]
    assert [each.customer_id for each in queue.held()] == ["ben"]


async def test_a_hold_that_ran_out_before_anybody_was_told_is_made_anew(queue: Queue) -> None:
    await stop(queue.another(), HOLDING["before it is written down"])
    (lost,) = queue.held()
    queue.shelf.inventory.expire(lost.reservation_id)
    await queue.sweep()
    (held,) = queue.held()
    assert held.customer_id == "ann"
    assert held.reservation_id != lost.reservation_id
    assert await queue.told() == ["ann"]


async def test_a_hold_that_was_taken_before_anybody_was_told_ends_the_turn(queue: Queue) -> None:
    await stop(queue.another(), HOLDING["before it is written down"])
    await queue.cart(name="ann")
    await queue.sweep()
    assert (await queue.states("ann"), await queue.states("ben")) == (["taken"], ["waiting"])
    assert await queue.told() == []


async def test_many_replicas_at_once_hold_once_and_tell_once(queue: Queue) -> None:
    await queue.arrive()
    await asyncio.gather(*(queue.another().sweep() for _ in range(6)))
    await queue.sweep()
    assert sorted(await queue.told()) == ["ann", "ben"]
    assert sorted(each.customer_id for each in queue.held()) == ["ann", "ben"]


async def sleeping(queue: Queue) -> asyncio.Task[int]:
    """A process that has asked inventory for Ann's hold, and sleeps before it gets the answer."""
    queue.shelf.inventory.answering.clear()
    sleeper = asyncio.create_task(queue.another().sweep())
    while not any(isinstance(one, inventory.ReserveStockRequest) for one in queue.shelf.inventory.asked):
        await asyncio.sleep(0.01)
    return sleeper


async def test_a_process_that_slept_through_the_end_of_a_turn_gives_its_hold_back(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inventory had nothing when another asked for Ann; the question of the sleeper comes late and gets a unit."""
    asleep, awake = asyncio.Event(), asyncio.Event()
    sleeper = queue.another()
    ask = sleeper._ask_for

    async def late(subscription: Any) -> Any:
        asleep.set()
        await awake.wait()
        return await ask(subscription)

    monkeypatch.setattr(sleeper, "_ask_for", late)
    sleeping = asyncio.create_task(sleeper.sweep())
    await asleep.wait()
    cart = await queue.cart()
    await queue.sweep()
    assert await turn_of(queue) == "waiting"
    await queue.release(cart)
    awake.set()
    await sleeping
    assert queue.held() == []
    assert queue.shelf.inventory.free("one") == 1
    assert await queue.told() == []
    assert await queue.states("ann") == ["waiting"]


async def turn_of(queue: Queue) -> str:
    rows = await queue.shelf.database.fetch("SELECT state FROM subscriptions WHERE customer_id = 'ann'")
    state: str = rows[0]["state"]
    return state


async def test_who_leaves_while_inventory_answers_holds_nothing(queue: Queue) -> None:
    sleeper = await sleeping(queue)
    await queue.unsubscribe("ann")
    queue.shelf.inventory.answering.set()
    await sleeper
    await queue.sweep()
    assert await queue.told() == ["ben"]
    assert [each.customer_id for each in queue.held()] == ["ben"]


async def test_while_inventory_is_away_a_turn_waits(queue: Queue) -> None:
    queue.shelf.inventory.away = True
    with pytest.raises(Unavailable):
        await queue.turns.sweep()
    assert await queue.told() == []
    queue.shelf.inventory.away = False
    await queue.sweep()
    assert await queue.told() == ["ann"]


async def test_the_background_work_is_woken_and_goes_on_by_itself(queue: Queue) -> None:
    """Also after inventory was away."""
    turns = queue.shelf.app.back_in_stock
    turns._retry = impatient(queue.shelf)._retry
    queue.shelf.inventory.away = True
    working = asyncio.create_task(turns.run())
    while not any(isinstance(one, inventory.ReserveStockRequest) for one in queue.shelf.inventory.asked):
        await asyncio.sleep(0.01)
    queue.shelf.inventory.away = False
    async with asyncio.timeout(20):
        while await queue.told() != ["ann"]:
            await asyncio.sleep(0.01)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_what_was_held_for_an_earlier_turn_is_not_taken_for_the_next(queue: Queue) -> None:
    """A process slept through the end of a turn, and the same customer's next one has begun."""
    [row] = await queue.shelf.database.fetch("SELECT subscription_id, turn FROM subscriptions WHERE state = 'turn'")
    expire_time = await queue.shelf.now()
    async with queue.shelf.database.transaction() as tx:
        await queueing.ask_again(tx, row["subscription_id"], row["turn"])
        assert not await queueing.hold(tx, row["subscription_id"], row["turn"], "res_of_before", expire_time)
    assert await queue.told() == []
    await queue.sweep()
    assert await queue.told() == ["ann"]
    assert len(queue.held()) == 1
