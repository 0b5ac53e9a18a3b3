"""Prices that begin or end by the clock: what holds now is moved on, and the window with it.

By the database's clock, on any number of replicas: one works at a time. What was missed while none ran is made up for
in order. The position moves only past what was found, so a price that is committed a little after it began is found
by whoever wrote it or by the next look, never by nobody.
"""

from __future__ import annotations

import asyncio
import logging

from services.catalog import publishes
from services.catalog.store import prices
from services.catalog.store.refreshing import plan_for_few, refresh, share_feed
from services.chassis.database import Database, Transaction
from services.chassis.errors import Refusal

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
AT_ONCE = 500


async def move_on(tx: Transaction) -> bool:
    """Moves on the next prices that are due. Returns whether there may be more."""
    # Nearly always there is nothing to do, and then nobody is kept waiting.
    if not await prices.due(tx.connection, 1):
        return False
    await plan_for_few(tx.connection)
    await share_feed(tx.connection)
    await prices.lock_prices(tx.connection)
    moves = await prices.due(tx.connection, AT_ONCE)
    if moves:
        product_ids = await prices.settle(tx.connection, sorted({sku for _, sku in moves}))
        await tx.append(map(publishes.listing_changed, await refresh(tx, product_ids)))
        await prices.move_clock(tx.connection, *moves[-1])
    return len(moves) == AT_ONCE


async def keep_moving(database: Database) -> None:
    """Looks again and again, whatever goes away and comes back."""
    while True:
        more = False
        try:
            async with database.transaction() as tx:
                more = await move_on(tx)
        except Refusal as error:
            log.warning("prices are moved on later", extra={"error": type(error).__name__})
        if not more:
            await asyncio.sleep(LOOK_SECONDS)
