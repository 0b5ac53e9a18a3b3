"""What catalog does with what it is told: each saves and appends the facts, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from services.catalog import publishes, queueing
from services.catalog.domain.feed import FeedVariant
from services.catalog.store import feed, searching, stock
from services.catalog.store.refreshing import lock_products_of, plan_for_few, share_feed
from services.catalog.store.stock import Level
from services.chassis.database import Transaction


async def import_variants(
    tx: Transaction, variants: Sequence[FeedVariant], locale: str, actor: str, *, translation: bool
) -> int:
    """Takes in rows of a feed. Returns how many were new or other than before."""
    await plan_for_few(tx.connection)
    found = await feed.news(tx.connection, variants, locale, translation=translation)
    # Most runs of an import change nothing: those do not stop the hearing of stock.
    if not found.skus:
        return 0
    await tx.append(map(publishes.listing_changed, await feed.take_in(tx, found, locale, actor)))
    return len(found.skus)


async def hear_stock(tx: Transaction, levels: Sequence[Level], watermarks: Mapping[int, datetime]) -> bool:
    """Keeps the newest of each place, and how far all of it was heard, which must not be seen without it.

    Units that came in are the turn of those who wait. Returns whether it is somebody's.
    """
    newest: dict[tuple[str, str], Level] = {}
    for level in levels:
        known = newest.setdefault((level.sku, level.location), level)
        if level.version > known.version:
            newest[level.sku, level.location] = level
    listings, arrived = await stock.hear(tx, newest.values(), watermarks)
    await tx.append(map(publishes.listing_changed, listings))
    return await queueing.give_turns(tx, arrived)


async def lock_ordered(tx: Transaction, skus: Iterable[str]) -> None:
    """The products of these SKUs, of all orders that are heard together in one order."""
    await share_feed(tx.connection)
    await lock_products_of(tx.connection, sorted(set(skus)))


async def hear_order(tx: Transaction, units: Mapping[str, int], time: datetime) -> None:
    """So many units of each SKU were ordered: their products are more popular."""
    await lock_ordered(tx, units)
    await searching.order(tx.connection, units, time)


async def heal_stock(tx: Transaction, levels: Sequence[Level], asked: datetime) -> list[str]:
    """Makes the copy what inventory said when asked, see `store.stock.heal`. Returns the kind of each wrong place."""
    kinds, listings, arrived = await stock.heal(tx, levels, asked)
    await tx.append(map(publishes.listing_changed, listings))
    await queueing.give_turns(tx, arrived)
    return kinds


async def drop_stock(tx: Transaction, levels: Sequence[Level], skus: Sequence[str], asked: datetime) -> list[str]:
    """Takes out what inventory does not have, see `store.stock.drop`. Returns the kind of each wrong place."""
    kinds, listings = await stock.drop(tx, levels, skus, asked)
    await tx.append(map(publishes.listing_changed, listings))
    return kinds
