"""What keeps the search whole, beside the transactions that change products."""

from __future__ import annotations

import logging

from services.catalog.store import searching
from services.catalog.store.refreshing import lock_products, share_feed
from services.chassis.database import Database

log = logging.getLogger(__name__)

# Products read in one transaction.
TOGETHER = 200


class Upkeep:
    """Reads products whose texts nobody has read, and sums up counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def describe_all(self) -> int:
        """Has every product found by what it is. Returns how many were not: after an upgrade all of them."""
        described = 0
        while True:
            async with self._database.transaction() as tx:
                await share_feed(tx.connection)
                product_ids = await searching.undescribed(tx.connection, TOGETHER)
                if product_ids:
                    await lock_products(tx.connection, product_ids)
                    await searching.refresh_search(tx.connection, product_ids)
            described += len(product_ids)
            if len(product_ids) < TOGETHER:
                break
        if described:
            log.info("products can be searched now", extra={"products": described})
        return described

    async def sum_up(self) -> None:
        """Once."""
        async with self._database.transaction() as tx:
            await searching.sum_counts(tx.connection)
