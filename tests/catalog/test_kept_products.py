"""Products kept for pages: only what changed is read again; nothing is shown that a page made anew would not have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from services.catalog import answers, freshness, kept_products, queries
from services.catalog.queries import Audience
from services.chassis.database import Database
from shop.catalog.v1 import catalog_pb2 as pb
from tests.catalog.conftest import Shelf, wanted

LIST = pb.ListProductsRequest()


class Reads:
    """Which products were read for pages, page by page."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pages: list[list[str]] = []
        self.meanwhile: Callable[[], Any] | None = None
        self._shelf = queries.shelf
        monkeypatch.setattr(queries, "shelf", self._read)

    async def _read(self, database: Database, audience: Audience, product_ids: Sequence[str]) -> Any:
        self.pages.append(sorted(product_ids))
        rows = await self._shelf(database, audience, product_ids)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return rows


@pytest.fixture
async def stocked(shelf: Shelf) -> Shelf:
    await shelf.feed(
        *(
            {"id": f"{name}-{size}", "item_group_id": name, "size": size, "price": f"{size}.00 EUR"}
            for name in ("a", "b", "c")
            for size in ("41", "42")
        )
    )
    await shelf.stock(**{"a-41": 1, "a-42": 1, "b-41": 1})
    return shelf


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


async def page(shelf: Shelf, request: pb.ListProductsRequest = LIST) -> dict[str, int]:
    answer = await shelf.storefront.ListProducts(request)
    return {variant.sku: variant.free for product in answer.products for variant in product.variants}


async def test_only_what_changed_is_read_again(stocked: Shelf, reads: Reads) -> None:
    await page(stocked)
    await stocked.stock(**{"b-41": 7})
    assert await page(stocked) == {"a-41": 1, "a-42": 1, "b-41": 7}
    await stocked.stock(**{"a-41": 0, "c-41": 2})
    assert await page(stocked) == {"a-42": 1, "b-41": 7, "c-41": 2}
    await stocked.stock(**{"a-42": 0})
    assert await page(stocked) == {"b-41": 7, "c-41": 2}
    assert reads.pages == [["a", "b"], ["b"], ["a", "c"]]


async def test_a_page_of_what_is_kept_is_the_page_that_was_made(stocked: Shelf, reads: Reads) -> None:
    first = await stocked.storefront.ListProducts(pb.ListProductsRequest(order_by=pb.PRODUCT_ORDER_PRICE_ASCENDING))
    again = await stocked.storefront.ListProducts(pb.ListProductsRequest(order_by=pb.PRODUCT_ORDER_PRICE_ASCENDING))
    assert again == first
    turned = await stocked.storefront.ListProducts(pb.ListProductsRequest(order_by=pb.PRODUCT_ORDER_PRICE_DESCENDING))
    assert list(turned.products) == list(reversed(first.products))
    assert reads.pages == [["a", "b"]]


async def test_what_changed_while_it_was_read_is_not_kept(stocked: Shelf, reads: Reads) -> None:
    async def sell() -> None:
        await stocked.stock(**{"a-41": 0})

    reads.meanwhile = sell
    await page(stocked)
    assert await page(stocked) == {"a-42": 1, "b-41": 1}
    assert reads.pages == [["a", "b"], ["a"]]


async def test_each_audience_has_its_own(stocked: Shelf) -> None:
    await stocked.feed({"id": "a-41", "item_group_id": "a", "title": "Schuh", "price": "99.00 CHF"}, locale="de")
    for _ in range(2):
        for locale, currency, title in (("en", "EUR", "Shoe"), ("de", "EUR", "Schuh"), ("de", "CHF", "Schuh")):
            answer = await stocked.storefront.ListProducts(
                pb.ListProductsRequest(locale=locale, currency_code=currency)
            )
            product = next(each for each in answer.products if each.product_id == "a")
            assert (product.title, product.variants[0].price.currency_code) == (title, currency)


async def test_what_was_asked_by_its_variants_is_looked_at(stocked: Shelf, reads: Reads) -> None:
    await page(stocked)
    filtered = pb.ListProductsRequest(filters=wanted(size="42"))
    assert await page(stocked, filtered) == {"a-41": 1, "a-42": 1}
    assert reads.pages == [["a", "b"], ["a"]]


async def test_past_the_bound_inventory_is_asked_for_what_is_kept_too(
    stocked: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "READING_SECONDS", 0.0)
    await page(stocked)
    await stocked.be_stale()
    for sku, free in {"a-41": 0, "a-42": 0, "b-41": 3}.items():
        stocked.inventory.put(sku, free)
    assert await page(stocked) == {"b-41": 3}
    # And what inventory said is not kept.
    await stocked.be_fresh()
    assert await page(stocked) == {"a-41": 1, "a-42": 1, "b-41": 1}


async def test_no_answer_is_made_of_what_would_be_past_the_bound_before_the_answer_ends(
    stocked: Shelf, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    for module in (answers, freshness, kept_products):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    await stocked.database.pool.execute("DELETE FROM watermarks")
    await stocked.be_fresh(age=10)
    await page(stocked)
    bound = stocked.app._freshness.bound_seconds
    now += bound - 10 - answers.KEPT_SECONDS - 1
    await stocked.be_fresh()
    await page(stocked)
    now += 1.1
    await page(stocked)
    assert reads.pages == [["a", "b"], ["a", "b"]]


async def test_memory_has_a_bound(stocked: Shelf, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_products, "KEPT_BYTES", 900)  # of one product
    await page(stocked)
    await page(stocked)
    assert len(reads.pages[1]) == 1


async def test_when_anything_may_have_changed_nothing_is_kept(stocked: Shelf, reads: Reads) -> None:
    await page(stocked)
    await stocked.app.changes.catch_up()  # the first reading: nobody knows what was before
    await page(stocked)
    assert reads.pages == [["a", "b"], ["a", "b"]]


async def test_pages_made_at_once_do_not_disturb_each_other(stocked: Shelf) -> None:
    found = await asyncio.gather(*(page(stocked) for _ in range(5)))
    assert all(each == {"a-41": 1, "a-42": 1, "b-41": 1} for each in found)
