"""What happens to those who wait, each in one transaction: begin, be asked, be told, take, lapse, leave, be forgotten.

Nobody calls inventory here: what is to be held or given back there becomes due, and `back_in_stock` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from uuid import uuid4

from services.catalog import publishes
from services.catalog.domain.waiting import (
    Discontinued,
    InStock,
    State,
    Subscription,
    TooManySubscriptions,
    UnknownVariant,
)
from services.catalog.store import subscriptions
from services.chassis import telemetry
from services.chassis.database import Transaction
from services.chassis.errors import NotFound

# Inventory says when a hold ran out; when nothing was heard of it for so long after that, it is asked.
EXPIRY_GRACE = timedelta(seconds=5)


async def begin(tx: Transaction, customer_id: str, sku: str, most: int) -> Subscription:
    """The customer waits for a variant, behind all who wait already. Who waits for it already just goes on.

    Raises `UnknownVariant`, `Discontinued`, `InStock`, `TooManySubscriptions`, and `NotFound` for who is forgotten.
    """
    if await subscriptions.lock_customer(tx.connection, customer_id):
        raise NotFound("there is no such customer")
    await subscriptions.lock_queues(tx.connection, [sku])
    variant = await subscriptions.variant(tx.connection, sku)
    if variant is None or variant["state"] == "DRAFT":
        raise UnknownVariant("there is no such SKU", sku=sku)
    known = await subscriptions.open_of(tx.connection, customer_id, sku)
    if known is not None:
        return known
    if variant["state"] == "DISCONTINUED":
        raise Discontinued("it is no longer sold, and will not come back", sku=sku)
    if variant["free"]:
        raise InStock("it is in stock: nobody need wait for it", sku=sku, free=variant["free"])
    open_now = await subscriptions.count_open(tx.connection, customer_id)
    if open_now >= most:
        raise TooManySubscriptions("nobody waits for more at once", open=open_now, limit=most)
    new_id = f"bis_{uuid4().hex}"
    return await subscriptions.add(
        tx.connection, new_id, customer_id, sku, variant["product_id"], telemetry.current_journey()
    )


async def give_turns(tx: Transaction, arrived: Mapping[str, int]) -> bool:
    """So many units of each SKU physically came in: that many who wait longest are asked. Whether anybody is.

    The products must be locked.
    """
    asked = False
    for sku in await subscriptions.waited_for(tx.connection, list(arrived)):
        for subscription in await subscriptions.next_waiting(tx.connection, sku, arrived[sku]):
            await _ask(tx, subscription)
            asked = True
    return asked


async def hold(tx: Transaction, subscription_id: str, turn: int, reservation_id: str, expire_time: datetime) -> bool:
    """A unit is held for whose turn it is, so they are told. False when it was another turn: then it is not theirs."""
    subscription = await subscriptions.lock(tx.connection, subscription_id)
    if subscription is None or subscription.turn != turn:
        return False
    if subscription.state is not State.TURN:
        return subscription.reservation_id == reservation_id
    now = await subscriptions.now(tx.connection)
    told = subscription.hold(reservation_id, expire_time, now)
    await subscriptions.save(tx.connection, subscription, expire_time + EXPIRY_GRACE)
    with telemetry.with_journey(subscription.journey_id, subscription.customer_id):
        await tx.append([publishes.back_in_stock(told)])
    return True


async def wait_on(tx: Transaction, subscription_id: str, turn: int, *, ask_next: bool) -> None:
    """There was no unit for whose turn it is: they wait on at their old place. Or there is one and they may not have
    it: then the next behind them is asked."""
    subscription = await subscriptions.lock(tx.connection, subscription_id)
    if subscription is None or subscription.turn != turn or subscription.state is not State.TURN:
        return
    subscription.wait_on()
    await subscriptions.save(tx.connection, subscription, None)
    if ask_next:
        await _ask_next(tx, subscription.sku, after=subscription.place)


async def ask_again(tx: Transaction, subscription_id: str, turn: int) -> None:
    """What was held for this turn is gone before they were told: it is their turn anew."""
    subscription = await subscriptions.lock(tx.connection, subscription_id)
    if subscription is None or subscription.turn != turn or subscription.state is not State.TURN:
        return
    subscription.wait_on()
    await _ask(tx, subscription)


async def take_turn(tx: Transaction, subscription_id: str, turn: int) -> None:
    """What was held for this turn went into a checkout of theirs before they were told."""
    subscription = await subscriptions.lock(tx.connection, subscription_id)
    if subscription is not None and subscription.turn == turn and subscription.state is State.TURN:
        subscription.take(await subscriptions.now(tx.connection))
        await subscriptions.save(tx.connection, subscription, None)


async def take(tx: Transaction, reservation_id: str) -> None:
    """What was held went into a checkout of theirs."""
    subscription = await _whose(tx, reservation_id)
    if subscription is not None and subscription.state is State.HELD:
        subscription.take(await subscriptions.now(tx.connection))
        await subscriptions.save(tx.connection, subscription, None)


async def lapse(tx: Transaction, reservation_id: str) -> bool:
    """What was held ran out, or is gone without them: the next is asked. Whether anybody is."""
    subscription = await _whose(tx, reservation_id)
    if subscription is None or subscription.state is not State.HELD:
        return False
    subscription.lapse(await subscriptions.now(tx.connection))
    await subscriptions.save(tx.connection, subscription, None)
    return await _ask_next(tx, subscription.sku)


async def hold_on(tx: Transaction, reservation_id: str, expire_time: datetime) -> None:
    """It is still held, and until when."""
    subscription = await _whose(tx, reservation_id)
    if subscription is not None and subscription.state is State.HELD:
        subscription.hold_expire_time = expire_time
        await subscriptions.save(tx.connection, subscription, expire_time + EXPIRY_GRACE)


async def leave(tx: Transaction, customer_id: str, sku: str) -> bool:
    """The customer waits for it no more. Whether something is to be given back."""
    await subscriptions.lock_customer(tx.connection, customer_id)
    await subscriptions.lock_queues(tx.connection, [sku])
    subscription = await subscriptions.open_of(tx.connection, customer_id, sku)
    return subscription is not None and await _leave(tx, subscription)


async def gave_back(tx: Transaction, subscription_id: str, *, ask_next: bool) -> None:
    """Nothing is held any more for somebody who left. If something was, the next is asked."""
    subscription = await subscriptions.lock(tx.connection, subscription_id)
    if subscription is None or subscription.state is not State.LEAVING:
        return
    await subscriptions.delete(tx.connection, subscription_id)
    if ask_next:
        await _ask_next(tx, subscription.sku)


async def forget(tx: Transaction, customer_id: str) -> None:
    """Deletes what a customer waited for, and leaves a mark. What is held for them is given back."""
    await subscriptions.lock_customer(tx.connection, customer_id)
    await subscriptions.forget(tx.connection, customer_id)
    await subscriptions.lock_queues(tx.connection, await subscriptions.skus_of(tx.connection, [customer_id]))
    for subscription in await subscriptions.all_of(tx.connection, customer_id):
        await _leave(tx, subscription)


async def lock_customers(tx: Transaction, customer_ids: Iterable[str]) -> None:
    """Takes the locks that forgetting these customers will need, in the order of all."""
    wanted = sorted(set(customer_ids))
    for customer_id in wanted:
        await subscriptions.lock_customer(tx.connection, customer_id)
    await subscriptions.lock_queues(tx.connection, await subscriptions.skus_of(tx.connection, wanted))


async def lock_reservations(tx: Transaction, reservation_ids: Iterable[str]) -> None:
    """Takes the locks that facts about these reservations will need, in the order of all."""
    skus = await subscriptions.skus_of_reservations(tx.connection, sorted(set(reservation_ids)))
    await subscriptions.lock_queues(tx.connection, skus)


async def _whose(tx: Transaction, reservation_id: str) -> Subscription | None:
    found = await subscriptions.of_reservation(tx.connection, reservation_id)
    return await subscriptions.lock(tx.connection, found) if found else None


async def _leave(tx: Transaction, subscription: Subscription) -> bool:
    if not subscription.leave():
        await subscriptions.delete(tx.connection, subscription.subscription_id)
        return False
    await subscriptions.save(tx.connection, subscription, await subscriptions.now(tx.connection))
    return True


async def _ask_next(tx: Transaction, sku: str, after: int = 0) -> bool:
    for subscription in await subscriptions.next_waiting(tx.connection, sku, 1, after):
        await _ask(tx, subscription)
        return True
    return False


async def _ask(tx: Transaction, subscription: Subscription) -> None:
    subscription.begin_turn()
    await subscriptions.save(tx.connection, subscription, await subscriptions.now(tx.connection))
