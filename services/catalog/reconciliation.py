"""The copy of stock compared with inventory's own: what differs is healed, and counted where it should not.

Facts are the usual way of a change; this finds what facts cannot: a copy that was lost, restored or edited, a fact
among the dead letters, an inventory that was restored.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from time import monotonic

from services.catalog import queries, usecases
from services.catalog.clients import MOST_SKUS, InventoryClient, LevelPage
from services.catalog.store import stock
from services.chassis.database import Database
from services.chassis.errors import Refusal
from services.chassis.grpc_errors import RemoteError

log = logging.getLogger(__name__)

SETTLE_SECONDS = 3.0
READY_TRIES = 5
# By so much two clocks may differ before somebody should look at them.
CLOCK_SECONDS = 1.0
READY_PAUSE_SECONDS = 1.0


class Reconciliation:
    """Full comparisons of the copy with inventory."""

    def __init__(
        self,
        database: Database,
        inventory: InventoryClient,
        partitions: Callable[[], Awaitable[int | None]],
        count_drift: Callable[[int, dict[str, str]], None],
    ) -> None:
        self._database = database
        self._inventory = inventory
        self._partitions = partitions
        self._count_drift = count_drift
        # By the last comparison.
        self.clock_ahead_seconds = 0.0

    async def begin(self) -> None:
        """The first comparison. Inventory may be away: then the answers say that they are not confirmed."""
        for _ in range(READY_TRIES):
            try:
                await self._expect_partitions()
                healed = await self.compare(settle=False)
            except (Refusal, RemoteError) as error:
                log.warning("inventory cannot be compared yet", extra={"error": type(error).__name__})
                await asyncio.sleep(READY_PAUSE_SECONDS)
            else:
                log.info("compared with inventory", extra={"healed": dict(healed)})
                return

    async def keep_comparing(self, seconds: float) -> None:
        """Compares again and again, this long apart."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._expect_partitions()
                healed = await self.compare(settle=True)
            except (Refusal, RemoteError) as error:
                log.warning("inventory was not compared", extra={"error": type(error).__name__})
                continue
            for kind, count in healed.items():
                self._count_drift(count, {"kind": kind})
            if healed:
                log.warning("the copy had drifted", extra={"healed": dict(healed)})

    async def compare(self, *, settle: bool) -> Counter[str]:
        """One comparison with everything. Returns how many places were healed, by kind.

        With `settle`, facts that are on their way get the time to arrive first, so that what is left is drift.
        """
        healed: Counter[str] = Counter()
        told = 0
        began: datetime | None = None
        as_of: datetime | None = None
        ahead: timedelta | None = None
        token = ""
        while True:
            asked = await queries.now(self._database)
            page = await self._inventory.levels_after(token)
            began = began or asked
            as_of = min(as_of or page.read_time, page.read_time)
            # It was read after we asked, so inventory's clock is ahead by this at most: the quickest page says best.
            ahead = min(ahead or page.read_time - asked, page.read_time - asked)
            told += len(page.levels)
            healed += await self._heal(page, asked, settle)
            token = page.next_token
            if not token:
                break
        # Places that inventory does not have are looked for only when there are too many. They are asked for by SKU:
        # the two databases need not agree on what comes after what.
        if await queries.copied_places(self._database) > told:
            healed += await self._compare_copied(settle)
        async with self._database.transaction() as tx:
            await stock.measure_clock(tx.connection, ahead)
            await stock.reach_all(tx.connection, as_of, began)
        self._note_clock(ahead)
        return healed

    async def _compare_copied(self, settle: bool) -> Counter[str]:
        healed: Counter[str] = Counter()
        after = ""
        while skus := await queries.copied_skus(self._database, after, MOST_SKUS):
            asked = await queries.now(self._database)
            page = await self._inventory.levels_of(skus)
            if settle:
                await self._settle(page)
            async with self._database.transaction() as tx:
                healed.update(await usecases.drop_stock(tx, page.levels, skus, asked))
            after = skus[-1]
        return healed

    async def _heal(self, page: LevelPage, asked: datetime, settle: bool) -> Counter[str]:
        if settle:
            await self._settle(page)
        async with self._database.transaction() as tx:
            return Counter(await usecases.heal_stock(tx, page.levels, asked))

    async def _settle(self, page: LevelPage) -> None:
        """Waits until all that the page knew was heard, a few seconds at most, if anything differs."""
        async with self._database.transaction() as tx:
            differs = await stock.differs(tx.connection, page.levels)
        patience = monotonic() + SETTLE_SECONDS
        while differs and monotonic() < patience:
            as_of = await queries.oldest_watermark(self._database)
            if as_of is not None and as_of >= page.read_time:
                return
            await asyncio.sleep(0.1)

    def _note_clock(self, ahead: timedelta) -> None:
        self.clock_ahead_seconds = ahead.total_seconds()
        if abs(self.clock_ahead_seconds) > CLOCK_SECONDS:
            log.warning("inventory's clock and ours disagree", extra={"seconds_ahead": self.clock_ahead_seconds})

    async def _expect_partitions(self) -> None:
        count = await self._partitions()
        if count is None:
            log.warning("Kafka does not say how many partitions there are")
            return
        async with self._database.transaction() as tx:
            await stock.expect_partitions(tx.connection, count)
