"""Tell me when it is back: what is to be done at inventory for those who wait, and done again until it is.

    turn     a unit is held at inventory (idempotent by the turn), then they are told, in the transaction that says so
    held     when nothing was heard of the hold's end for a while, inventory is asked
    leaving  the hold is given back (idempotent), then the next is asked, in the transaction that says so

A process may stop between any two of these; whoever sweeps next goes on from the subscription's state, and only the
state decides. A hold that was got for a turn which is over is given back.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

from services.catalog import queueing
from services.catalog.clients import Hold, InventoryClient
from services.catalog.domain.waiting import State, Subscription
from services.catalog.store import subscriptions
from services.chassis import telemetry
from services.chassis.database import Database
from services.chassis.errors import NotFound, NotNow, Refusal, TooMuch, Unavailable
from services.chassis.waiting import every

logger = logging.getLogger(__name__)

# How long nobody may have told this process that something is to be done.
POLL_SECONDS = 1.0
# What ended so long ago is deleted, so many at once.
KEPT = timedelta(days=90)
PRUNED_AT_ONCE = 1000
# What inventory says when it holds nothing, and whether there is a unit all the same.
THERE = {"OUT_OF_STOCK": False, "TOO_MANY_HOLDS": True}


class NoHold(Exception):
    """Nothing is held for this turn."""

    def __init__(self, there: bool) -> None:
        super().__init__("nothing is held")
        # There is a unit, though not for this customer.
        self.there = there


class BackInStock:
    """Goes on with every turn until it ends."""

    def __init__(self, database: Database, inventory: InventoryClient, retry: timedelta) -> None:
        """`retry`: how long a step that was begun is left to whoever began it."""
        self._database = database
        self._inventory = inventory
        self._retry = retry
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something is to be done."""
        self._woken.set()

    async def run(self) -> None:
        """Sweeps until cancelled: when woken, and every second for what other processes left."""
        await every(0, self._step)

    async def prune(self) -> None:
        """Deletes what is history."""
        async with self._database.transaction() as tx:
            await subscriptions.prune(tx.connection, KEPT, PRUNED_AT_ONCE)

    async def sweep(self, limit: int = 20) -> int:
        """Goes on with what is due, first come first, each under its own journey. Returns how many there were.

        Any number of replicas may do so: each subscription is taken by one at a time, and it does no harm if not.
        Raises `Unavailable` when inventory does not answer.
        """
        async with self._database.transaction() as tx:
            due = await subscriptions.claim_due(tx.connection, self._retry, limit)
        for row in due:
            with telemetry.with_journey(row["journey_id"], row["customer_id"]):
                try:
                    with telemetry.span("go on with a turn", {"subscription.id": row["subscription_id"]}):
                        await self._go_on(row["subscription_id"])
                except Unavailable:
                    raise
                except Refusal as refusal:
                    logger.warning("a turn must wait", extra={"reason": refusal.reason})
                except Exception:
                    # A mistake of ours in one is no reason to leave those taken with it for another round.
                    logger.exception("a turn cannot go on", extra={"subscription_id": row["subscription_id"]})
        return len(due)

    async def _step(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._woken.wait()
        self._woken.clear()
        while await self.sweep():
            pass

    async def _go_on(self, subscription_id: str) -> None:
        subscription = await subscriptions.read(self._database, subscription_id)
        if subscription is None:
            return
        if subscription.state is State.TURN:
            await self._hold(subscription)
        elif subscription.state is State.HELD:
            await self._look_after(subscription)
        elif subscription.state is State.LEAVING:
            await self._give_back(subscription)

    async def _hold(self, subscription: Subscription) -> None:
        turn = subscription.subscription_id, subscription.turn
        try:
            hold = await self._ask_for(subscription)
        except NoHold as no:
            async with self._database.transaction() as tx:
                await queueing.wait_on(tx, *turn, ask_next=no.there)
            return
        # That may be the hold of an earlier attempt, which came to its end since.
        if hold.used:
            async with self._database.transaction() as tx:
                await queueing.take_turn(tx, *turn)
        elif not hold.held:
            async with self._database.transaction() as tx:
                await queueing.ask_again(tx, *turn)
        else:
            async with self._database.transaction() as tx:
                theirs = await queueing.hold(tx, *turn, hold.reservation_id, hold.expire_time)
            if not theirs:
                await self._inventory.give_back(hold.reservation_id)

    async def _look_after(self, subscription: Subscription) -> None:
        assert subscription.reservation_id is not None  # noqa: S101
        try:
            hold = await self._inventory.hold_now(subscription.reservation_id)
        except NotFound:
            # Inventory was restored to a time before it.
            hold = None
        async with self._database.transaction() as tx:
            if hold is None or not (hold.used or hold.held):
                await queueing.lapse(tx, subscription.reservation_id)
            elif hold.used:
                await queueing.take(tx, subscription.reservation_id)
            else:
                await queueing.hold_on(tx, subscription.reservation_id, hold.expire_time)

    async def _give_back(self, subscription: Subscription) -> None:
        try:
            # Whether anything is held for a turn that was under way, only its own question tells.
            reservation_id = subscription.reservation_id or (await self._ask_for(subscription)).reservation_id
            there = not (await self._inventory.give_back(reservation_id)).used
        except NoHold as no:
            there = no.there
        except (NotFound, NotNow):
            # Never there, or part of an order.
            there = False
        async with self._database.transaction() as tx:
            await queueing.gave_back(tx, subscription.subscription_id, ask_next=there)

    async def _ask_for(self, subscription: Subscription) -> Hold:
        """The hold of this turn, as it is now. Raises `NoHold`, and what passes by itself."""
        try:
            return await self._inventory.hold(subscription.hold_request_id, subscription.customer_id, subscription.sku)
        except (NotNow, TooMuch) as refusal:
            if refusal.reason not in THERE:
                raise
            raise NoHold(THERE[refusal.reason]) from refusal
