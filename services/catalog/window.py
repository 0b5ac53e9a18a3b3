"""The shop window: what a storefront is shown. Nothing gets past `_confirmed`.

Within the bound the copy of stock answers. Past it inventory is asked for what would be shown, and what it does not
have any more is taken out; when it does not answer either, the answer says since when it is not confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import asyncpg

from services.catalog import queries
from services.catalog.clients import InventoryClient
from services.catalog.domain.alternatives import Article, Likeness, nearest
from services.catalog.freshness import Freshness
from services.catalog.kept_products import KeptProducts
from services.catalog.queries import Audience
from services.catalog.search.asking import Question
from services.catalog.search.counting import Counted, Value
from services.catalog.search.finding import Finding, Search
from services.catalog.search.listing import Place
from services.catalog.search.suggesting import Suggestion
from services.catalog.store import referrals
from services.chassis.database import Database
from services.chassis.errors import NotFound, Refusal
from services.chassis.grpc_errors import RemoteError

# Products looked at for each way in which one may be like another.
CANDIDATES = 20
SOLD_OUT_ALTERNATIVES = 5


@dataclass(frozen=True, slots=True)
class Shown:
    """A variant that may be shown, and its free units."""

    row: asyncpg.Record
    free: int


@dataclass(frozen=True, slots=True)
class ShownProduct:
    """A product with what may be shown of it, by size. `head` is a row with the product's texts."""

    head: asyncpg.Record
    variants: Sequence[Shown]


@dataclass(frozen=True, slots=True)
class ShownAlternative:
    """A product that is like what was wanted."""

    product: ShownProduct
    likeness: Likeness


@dataclass(frozen=True, slots=True)
class Opened:
    """A product somebody opened, and what else there is for them where we do not have it: in stock, and elsewhere."""

    product: ShownProduct
    alternatives: Sequence[ShownAlternative]
    elsewhere: Sequence[asyncpg.Record]
    unconfirmed_since: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the window, and the place it goes on after, if there may be more."""

    # As `Window` was given to write them.
    products: Sequence[bytes]
    last: Place | None
    unconfirmed_since: datetime | None
    # What was looked for instead of the query.
    instead: str
    # None where nobody asked for it.
    counted: Counted | None


class Window:
    """What can be shipped now."""

    def __init__(
        self,
        database: Database,
        freshness: Freshness,
        inventory: InventoryClient,
        count_asked: Callable[[int, dict[str, str]], None],
        finding: Finding,
        kept: KeptProducts,
        write: Callable[[ShownProduct], bytes],
    ) -> None:
        """`write`: a product as bytes that pages are made of, the same on every page."""
        self._kept = kept
        self._write = write
        self._database = database
        self._finding = finding
        self._freshness = freshness
        self._inventory = inventory
        self._count_asked = count_asked

    async def page(self, question: Question, instead: str, after: Place | None, size: int, *, count: bool) -> Page:
        """What answers a question, after a place; `instead` as `Finding.find` has it."""
        stale_since = await self._freshness.stale_since()
        search = await self._finding.find(question, instead, after, size)
        products, unconfirmed_since = await self._on_page(search, stale_since)
        counted = await self._finding.count(search) if count else None
        if search.wanted is None and counted:
            counted = replace(counted, total=len(products))
        more = search.wanted is not None and len(search.found) == size
        return Page(products, search.found[-1].place if more else None, unconfirmed_since, search.instead, counted)

    async def suggestions(
        self, audience: Audience, typed: str, most: int
    ) -> tuple[Sequence[Suggestion], datetime | None]:
        """Brands, categories and products that begin with what was typed; and since when that is not confirmed."""
        stale_since = await self._freshness.stale_since()
        suggested = await self._finding.suggesting.suggest(typed, audience.currency, most)
        rows = await self._shelf(audience, [each.product_id for each in suggested if each.product_id])
        confirmed, unconfirmed_since = await self._confirmed(rows, stale_since)
        titles = {
            head["product_id"]: head["product_title"]
            for head, variants in _products(rows)
            if any(row["sku"] in confirmed for row in variants)
        }
        shown = [
            replace(each, text=titles[each.product_id]) if each.product_id else each
            for each in suggested
            if not each.product_id or each.product_id in titles
        ]
        if any(not each.product_id for each in shown):
            # Nobody asks inventory for all of a brand or a category.
            unconfirmed_since = stale_since
        return shown, unconfirmed_since

    async def categories(self, parent: str, currency: str) -> tuple[Sequence[Value], datetime | None]:
        """Those below one, with the number of their products; and since when that is not confirmed."""
        stale_since = await self._freshness.stale_since()
        return await self._finding.suggesting.categories(parent, currency), stale_since

    async def product(self, audience: Audience, product_id: str, sku: str = "") -> Opened:
        """A product, and what else there is when it, or the variant that was looked for, is sold out.

        Raises `NotFound`.
        """
        stale_since = await self._freshness.stale_since()
        found, unconfirmed_since = await self._whole(audience, [product_id], stale_since)
        if not found:
            raise NotFound("there is no such product", product_id=product_id)
        (shown,) = found
        rows = await queries.sought(self._database, audience, sku) if sku else []
        sought = [row for row in rows if row["product_id"] == product_id]
        in_stock = {one.row["sku"] for one in shown.variants}
        is_there = sku in in_stock if sought else bool(in_stock)
        if is_there:
            return Opened(shown, [], [], unconfirmed_since)
        if sought:
            wanted = _article(sought[0])
        else:
            wanted = _article(shown.head, size=await queries.only_size(self._database, product_id))
        alternatives, since = await self._alternatives(audience, wanted, SOLD_OUT_ALTERNATIVES, stale_since)
        elsewhere = await referrals.elsewhere(self._database, product_id, shown.head["product_brand"])
        return Opened(shown, alternatives, elsewhere, unconfirmed_since or since)

    async def products(
        self, audience: Audience, product_ids: Sequence[str]
    ) -> tuple[list[ShownProduct], datetime | None]:
        """Some products, sold out or not; none that does not exist."""
        stale_since = await self._freshness.stale_since()
        return await self._whole(audience, product_ids, stale_since)

    async def alternatives(
        self, audience: Audience, sku: str, most: int
    ) -> tuple[list[ShownAlternative], datetime | None]:
        """What is like a variant, nearest first. Raises `NotFound`."""
        stale_since = await self._freshness.stale_since()
        rows = await queries.sought(self._database, audience, sku)
        if not rows:
            raise NotFound("there is no such SKU", sku=sku)
        return await self._alternatives(audience, _article(rows[0]), most, stale_since)

    async def _on_page(self, search: Search, stale_since: datetime | None) -> tuple[Sequence[bytes], datetime | None]:
        """What is left of the products that were found. Read is only what is not kept."""
        question, audience = search.question, search.question.audience
        product_ids = [each.product_id for each in search.found]
        # Found by an article number, whatever else was asked.
        named = search.wanted is None
        with self._kept.reading() as reading:
            # Of what was asked by its variants or named, and past the bound, every row is looked at.
            is_read = stale_since is not None or question.asks_for_variants or named
            written = {} if is_read else self._kept.find(audience, product_ids)
            rows = await self._shelf(audience, [each for each in product_ids if each not in written])
            confirmed, unconfirmed_since = await self._confirmed(rows, stale_since)
            for head, variants in _products(rows):
                product = ShownProduct(head, _kept(variants, confirmed))
                # What is left of a product must still be what was asked for.
                if any(question.fits(one.row) for one in product.variants) and (not named or _fits(question, product)):
                    written[head["product_id"]] = body = self._write(product)
                    if stale_since is None:
                        self._kept.keep(reading, audience, head["product_id"], body)
        return [written[each] for each in product_ids if each in written], unconfirmed_since

    async def _shelf(self, audience: Audience, product_ids: Sequence[str]) -> list[asyncpg.Record]:
        return await queries.shelf(self._database, audience, product_ids) if product_ids else []

    async def _whole(
        self, audience: Audience, product_ids: Sequence[str], stale_since: datetime | None
    ) -> tuple[list[ShownProduct], datetime | None]:
        rows = await queries.whole(self._database, audience, product_ids)
        # Past the bound all their variants are asked for: one that is back may be shown, too.
        considered = [row for row in rows if row["offered" if stale_since else "shown"]]
        confirmed, unconfirmed_since = await self._confirmed(considered, stale_since)
        if unconfirmed_since:
            confirmed = {row["sku"]: row["free"] for row in rows if row["shown"]}
        return [ShownProduct(head, _kept(variants, confirmed)) for head, variants in _products(rows)], unconfirmed_since

    async def _alternatives(
        self, audience: Audience, wanted: Article, most: int, stale_since: datetime | None
    ) -> tuple[list[ShownAlternative], datetime | None]:
        candidates = set(await queries.near(self._database, wanted, CANDIDATES)) if wanted.size else set()
        if len(candidates) < most:
            candidates |= set(await queries.around(self._database, wanted, CANDIDATES))
        rows = await queries.products(self._database, audience, sorted(candidates))
        confirmed, unconfirmed_since = await self._confirmed(rows, stale_since)
        shown = {
            head["product_id"]: ShownProduct(head, kept)
            for head, variants in _products(rows)
            if (kept := _kept(variants, confirmed))
        }
        in_stock = (_article(one.row) for product in shown.values() for one in product.variants)
        found = nearest(wanted, in_stock, most)
        return [ShownAlternative(shown[each.found.product_id], each) for each in found], unconfirmed_since

    async def _confirmed(
        self, rows: Sequence[asyncpg.Record], stale_since: datetime | None
    ) -> tuple[dict[str, int], datetime | None]:
        """Free units of what may be shown: by the copy all of it, past the bound what inventory has. And since when not
        even that is sure."""
        by_copy = {row["sku"]: row["free"] for row in rows}
        if stale_since is None or not rows:
            # Past the bound, that there is nothing is not confirmed either.
            return by_copy, stale_since
        try:
            free = await self._inventory.free_now(list(by_copy))
        except (Refusal, RemoteError):
            self._count_asked(1, {"outcome": "unanswered"})
            return by_copy, stale_since
        self._count_asked(1, {"outcome": "answered"})
        return {sku: units for sku, units in free.items() if units > 0}, None


def _products(rows: Iterable[asyncpg.Record]) -> list[tuple[asyncpg.Record, list[asyncpg.Record]]]:
    """Rows that stand together by product, each with the row that has its texts."""
    found: list[tuple[asyncpg.Record, list[asyncpg.Record]]] = []
    for row in rows:
        if row["nth"] == 1:
            found.append((row, []))
        found[-1][1].append(row)
    return found


def _fits(question: Question, product: ShownProduct) -> bool:
    return question.fits_product(product.head["product_brand"], product.head["product_category"])


def _kept(rows: Iterable[asyncpg.Record], free: dict[str, int]) -> list[Shown]:
    return [Shown(row, free[row["sku"]]) for row in rows if row["sku"] in free]


def _article(row: asyncpg.Record, *, size: str | None = None) -> Article:
    return Article(
        row["product_id"],
        row["sku"],
        row["category"],
        row["brand"],
        row["color"],
        row["size"] if size is None else size,
        row["gender"],
        row["price"],
        row["currency"],
        row["width"],
        row["material"],
    )
