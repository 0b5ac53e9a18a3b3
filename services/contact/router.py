"""The router of one process: looks at the queue on every event, when time is due, and at least every second.

Beside that it sweeps, each second at most: what time ends without hurry.

Every replica routes. They take turns (an advisory lock that ends with the transaction), so that each sees what the one
before it decided, and a queue is never looked at by none.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from time import monotonic

from services.chassis.database import OUTAGES, Database
from services.chassis.errors import Refusal
from services.contact import presence, ringing, store, usecases
from services.contact.settings import Settings
from services.contact.watches import Watches

log = logging.getLogger(__name__)

# When something is due that another process has in hand, do not ask for it without a breath.
SHORTEST_SECONDS = 0.02
# Offers are history so long after they ended; this many are deleted at once.
HISTORY = timedelta(days=1)
PRUNED_AT_ONCE = 1000
# Who did not sweep for so long was down, frozen or without its database, and customers could not come back to it.
BREAK_SECONDS = 10.0
TROUBLE: tuple[type[BaseException], ...] = (*OUTAGES, Refusal)


class Router:
    """Brings waiting contacts to desks."""

    def __init__(self, database: Database, settings: Settings, watches: Watches) -> None:
        self._database = database
        self._settings = settings
        self._watches = watches
        self._woken = asyncio.Event()
        self._sweep_due = monotonic()
        self._swept = float("-inf")

    def wake(self) -> None:
        """Something happened: a press, an agent who came, went or became free."""
        self._woken.set()

    async def run(self) -> None:
        """Routes until cancelled."""
        while True:
            self._woken.clear()
            try:
                due = await self.step()
                if monotonic() >= self._sweep_due:
                    self._sweep_due = monotonic() + self._settings.sweep_seconds
                    await self.sweep()
            except TROUBLE as error:
                log.warning("routing starts over", extra={"error": type(error).__name__})
                await asyncio.sleep(SHORTEST_SECONDS)
                due = None
            pause = self._settings.sweep_seconds if due is None else min(due, self._settings.sweep_seconds)
            try:
                async with asyncio.timeout(max(pause, SHORTEST_SECONDS)):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def step(self) -> float | None:
        """One look at the queue. Returns the seconds until time gives it something to do, None when nobody waits."""
        rules, promise = self._settings.rules, self._settings.promise
        async with self._database.transaction() as tx:
            agents = await usecases.route(tx, rules)
            due = await ringing.seconds_to_next(tx.connection, rules, promise.answer_within)
        self._watches.tell(agents=agents)
        if due is not None and due <= 0:
            async with self._database.transaction() as tx:
                missed = await usecases.note_misses(tx, promise)
            self._watches.tell(contacts=missed)
        return due

    async def sweep(self) -> None:
        """Lets go of customers who vanished, and deletes what is history.

        After a break of our own everybody has the whole time to come back.
        """
        if monotonic() - self._swept > BREAK_SECONDS:
            await presence.watch_anew(self._database)
        async with self._database.transaction() as tx:
            left = await usecases.abandon_unwatched(tx, self._settings.unwatched_for, self._settings.promise)
        for touched in left:
            self._watches.tell([touched.contact.contact_id], touched.agents)
            self.wake()
        await presence.forget_watches(self._database)
        async with self._database.transaction() as tx:
            await store.prune_offers(tx.connection, HISTORY, PRUNED_AT_ONCE)
        self._swept = monotonic()
