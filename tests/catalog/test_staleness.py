"""Past the bound inventory is asked; when it does not answer, the answer says so."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import monotonic

import pytest

from services.catalog import freshness
from services.catalog.freshness import NEVER, Freshness
from services.chassis import grpc_calls
from services.chassis.errors import Unavailable
from services.chassis.values import to_datetime, to_timestamp
from shop.catalog.v1 import catalog_pb2 as pb
from shop.inventory.events.v1.facts_pb2 import StockWatermark
from tests.catalog.conftest import Shelf, wanted


@pytest.fixture
async def stocked(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Two products of two sizes; every question reads the watermark anew."""
    monkeypatch.setattr(freshness, "READING_SECONDS", 0.0)
    await shelf.feed(
        *({"id": f"{name}-{size}", "item_group_id": name, "size": size} for name in ("a", "b") for size in ("41", "42"))
    )
    await shelf.stock(**{"a-41": 1, "a-42": 1, "b-41": 1, "b-42": 0})
    return shelf


async def list_all(shelf: Shelf) -> pb.ListProductsResponse:
    return await shelf.storefront.ListProducts(pb.ListProductsRequest())


def skus(answer: pb.ListProductsResponse) -> list[str]:
    return [variant.sku for product in answer.products for variant in product.variants]


async def test_within_the_bound_the_copy_answers_alone(stocked: Shelf) -> None:
    await stocked.be_fresh(age=30)
    answer = await list_all(stocked)
    assert skus(answer) == ["a-41", "a-42", "b-41"]
    assert not answer.HasField("unconfirmed_since")
    assert stocked.asked() == []


async def test_the_slowest_partition_decides(stocked: Shelf) -> None:
    await stocked.be_stale()
    await list_all(stocked)
    await stocked.be_fresh()
    await list_all(stocked)
    assert len(stocked.asked()) == 1


async def test_past_the_bound_the_page_is_asked_at_once_and_what_went_is_taken_out(stocked: Shelf) -> None:
    await stocked.be_stale()
    stocked.inventory.put("a-42", 0)
    stocked.inventory.put("b-41", 0)
    answer = await list_all(stocked)
    assert skus(answer) == ["a-41"]
    assert not answer.HasField("unconfirmed_since")
    assert stocked.asked() == [("a-41", "a-42", "b-41")]


async def test_what_is_left_must_still_fit_the_filter(stocked: Shelf) -> None:
    await stocked.be_stale()
    stocked.inventory.put("a-42", 0)
    assert await stocked.listed(size="42") == {}


async def test_a_page_that_got_shorter_still_leads_to_the_next(stocked: Shelf) -> None:
    await stocked.be_stale()
    for sku in ("a-41", "a-42"):
        stocked.inventory.put(sku, 0)
    first = await stocked.storefront.ListProducts(pb.ListProductsRequest(page_size=1))
    assert not first.products
    second = await stocked.storefront.ListProducts(
        pb.ListProductsRequest(page_size=1, page_token=first.next_page_token)
    )
    assert skus(second) == ["b-41"]


async def test_a_product_page_shows_what_inventory_has_both_ways(stocked: Shelf) -> None:
    await stocked.be_stale()
    stocked.inventory.put("b-41", 0)
    stocked.inventory.put("b-42", 3)
    answer = await stocked.storefront.GetProduct(pb.GetProductRequest(product_id="b"))
    assert [(variant.sku, variant.free) for variant in answer.product.variants] == [("b-42", 3)]
    stocked.inventory.put("b-42", 0)
    answer = await stocked.storefront.GetProduct(pb.GetProductRequest(product_id="b"))
    assert answer.product.sold_out
    assert [each.product.product_id for each in answer.alternatives] == ["a"]


async def test_one_call_for_all_who_ask_for_the_same_page_at_once(stocked: Shelf) -> None:
    page = ["a-41", "b-41"]
    stocked.inventory.answering.clear()
    asking = [asyncio.create_task(stocked.app._inventory.free_now(page)) for _ in range(10)]
    while not stocked.asked():
        await asyncio.sleep(0.01)
    asking[0].cancel()  # who goes away does not take the answer from the others
    stocked.inventory.answering.set()
    assert await asyncio.gather(*asking[1:]) == [{"a-41": 1, "b-41": 1}] * 9
    assert stocked.asked() == [("a-41", "b-41")]
    await stocked.app._inventory.free_now(page)
    assert len(stocked.asked()) == 2  # nothing is kept for later


async def test_whoever_asks_first_lends_the_others_neither_its_time_nor_its_trace(stocked: Shelf) -> None:
    page = ["a-41", "b-41"]

    async def hurried() -> dict[str, int]:
        grpc_calls._deadline.set(monotonic())
        return await stocked.app._inventory.free_now(page)

    first, second = await asyncio.gather(hurried(), stocked.app._inventory.free_now(page), return_exceptions=True)
    assert isinstance(first, Unavailable)
    assert second == {"a-41": 1, "b-41": 1}
    assert stocked.asked() == [("a-41", "b-41")]


@pytest.mark.parametrize("trouble", ["away", "hanging"])
async def test_unanswered_the_answer_says_since_when_it_is_not_confirmed(stocked: Shelf, trouble: str) -> None:
    as_of = await stocked.be_stale()
    if trouble == "away":
        stocked.inventory.away = True
    else:
        stocked.inventory.answering.clear()
    listed = await list_all(stocked)
    assert skus(listed) == ["a-41", "a-42", "b-41"]
    product = await stocked.storefront.GetProduct(pb.GetProductRequest(product_id="a"))
    alternatives = await stocked.storefront.ListAlternatives(pb.ListAlternativesRequest(sku="a-41"))
    for answer in (listed, product, alternatives):
        assert to_datetime(answer.unconfirmed_since) == as_of


async def test_an_empty_page_is_not_confirmed_either(stocked: Shelf) -> None:
    as_of = await stocked.be_stale()
    answer = await stocked.storefront.ListProducts(pb.ListProductsRequest(filters=wanted(brand="nobody")))
    assert not answer.products
    assert to_datetime(answer.unconfirmed_since) == as_of


async def test_never_heard_is_stale_since_the_beginning_of_time(stocked: Shelf) -> None:
    await stocked.database.pool.execute("DELETE FROM watermarks")
    stocked.inventory.away = True
    assert to_datetime((await list_all(stocked)).unconfirmed_since) == NEVER


async def test_a_watermark_never_goes_back(stocked: Shelf) -> None:
    await stocked.be_fresh()
    late = to_timestamp(await stocked.now() - timedelta(hours=1))
    await stocked.hear(StockWatermark(as_of=late), partition=0)
    assert skus(await list_all(stocked))
    assert stocked.asked() == []


async def test_every_replica_reads_what_another_heard_and_its_reading_ages(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(freshness, "monotonic", lambda: clock)
    replica = Freshness(shelf.database, 60)
    stale = await shelf.be_stale()
    assert await replica.stale_since() == stale
    await shelf.be_fresh(age=50)
    clock += 1
    assert await replica.stale_since() is None
    # Between readings time goes on.
    monkeypatch.setattr(freshness, "READING_SECONDS", 3600.0)
    clock += 20
    assert await replica.stale_since() is not None


async def test_what_is_measured_of_it(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Age, breaches of the bound and how answers past it went, as Prometheus reads them; also when nobody asks."""
    monkeypatch.setattr(freshness, "READING_SECONDS", 0.0)
    monkeypatch.setattr(freshness, "LOOK_SECONDS", 0.01)

    def measured(name: str, **labels: str) -> float:
        return shelf.telemetry._registry.get_sample_value(name, labels) or 0.0

    looking = asyncio.create_task(shelf.app._freshness.keep_looking())
    try:
        async with asyncio.timeout(20):
            while not 0 < measured("shop_catalog_staleness_seconds") < 60:
                await asyncio.sleep(0.01)
            for breaches in (1, 2):
                await shelf.database.pool.execute(
                    "UPDATE watermarks SET as_of = as_of - interval '1 hour' WHERE partition_number = 1"
                )
                while measured("shop_catalog_bound_breaches_total") < breaches:
                    await asyncio.sleep(0.01)
                assert measured("shop_catalog_staleness_seconds") > 60
                await shelf.be_fresh()
                while measured("shop_catalog_staleness_seconds") > 60:
                    await asyncio.sleep(0.01)
            assert measured("shop_catalog_bound_breaches_total") == 2
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await shelf.feed({"id": "a"})
    await shelf.stock(a=1)
    await shelf.be_stale()
    await list_all(shelf)
    shelf.inventory.away = True
    await list_all(shelf)
    assert measured("shop_catalog_asked_total", outcome="answered") == 1
    assert measured("shop_catalog_asked_total", outcome="unanswered") == 1


async def test_a_brand_is_not_confirmed_by_the_products_beside_it(stocked: Shelf) -> None:
    await stocked.feed({"id": "c", "title": "Acme", "brand": "Acme"})
    await stocked.stock(c=1)
    suggest = pb.SuggestProductsRequest(prefix="acm")
    assert not (await stocked.storefront.SuggestProducts(suggest)).HasField("unconfirmed_since")
    as_of = await stocked.be_stale()
    answer = await stocked.storefront.SuggestProducts(suggest)
    assert [each.kind for each in answer.suggestions] == [pb.SUGGESTION_KIND_BRAND, pb.SUGGESTION_KIND_PRODUCT]
    assert to_datetime(answer.unconfirmed_since) == as_of
    products_only = await stocked.storefront.SuggestProducts(pb.SuggestProductsRequest(prefix="shoe"))
    assert products_only.suggestions and not products_only.HasField("unconfirmed_since")
