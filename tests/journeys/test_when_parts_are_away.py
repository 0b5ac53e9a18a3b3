"""What a storefront sees while a part is away: what is gone is taken out, or the answer says that it is not sure.

What is stated in services/catalog/README.md, seen from outside, with every part real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from shop.catalog.v1 import catalog_pb2 as catalog
from shop.inventory.v1 import inventory_pb2 as inventory
from tests.journeys.rig import Refused, Shop, new_id

SECONDS = 60.0


@asynccontextmanager
async def away(calls: Shop, part: str) -> AsyncIterator[None]:
    """The part is stopped within the block, and ready again after it."""
    await asyncio.to_thread(calls.stack.stop, part)
    try:
        yield
    finally:
        await asyncio.to_thread(calls.stack.start, part)


async def page_of(calls: Shop, sku: str) -> catalog.GetProductResponse:
    found: catalog.GetProductResponse = await calls.call(
        "CatalogService/GetProduct", catalog.GetProductRequest(product_id=sku), None
    )
    return found


async def until(
    calls: Shop, sku: str, seen: Callable[[catalog.GetProductResponse], bool]
) -> catalog.GetProductResponse:
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                answer = await page_of(calls, sku)
            except Refused as refused:  # on its way down, or up
                assert refused.answer.status == "UNAVAILABLE", refused
            else:
                if seen(answer):
                    return answer
            await asyncio.sleep(0.02)


def in_stock(answer: catalog.GetProductResponse) -> bool:
    return not answer.product.sold_out and not answer.HasField("unconfirmed_since")


def sold_out(answer: catalog.GetProductResponse) -> bool:
    return answer.product.sold_out and not answer.HasField("unconfirmed_since")


async def reserve(calls: Shop, sku: str) -> None:
    """Somebody takes the last unit."""
    line = inventory.ReservationLine(sku=sku, quantity=1)
    request = inventory.ReserveStockRequest(request_id=new_id("req"), customer_id=new_id("cus"), lines=[line])
    await calls.call("InventoryService/ReserveStock", request, calls.stack.mint("service", service="shipping"))


@pytest.fixture
async def last_one(calls: Shop) -> str:
    """A product of which one unit is left, and listed."""
    sku = await calls.stock(1)
    await until(calls, sku, in_stock)
    return sku


async def test_without_kafka_inventory_is_asked_and_what_went_is_taken_out(calls: Shop, last_one: str) -> None:
    async with away(calls, "kafka"):
        await reserve(calls, last_one)
        # That there are no alternatives either is not sure, and said so.
        await until(calls, last_one, lambda answer: answer.product.sold_out)
    await until(calls, last_one, sold_out)


async def test_without_inventory_answers_say_since_when_they_are_not_confirmed(calls: Shop, last_one: str) -> None:
    async with away(calls, "inventory"):
        answer = await until(calls, last_one, lambda answer: answer.HasField("unconfirmed_since"))
        assert not answer.product.sold_out  # the last that is known
    await until(calls, last_one, in_stock)


async def test_after_catalog_was_away_its_first_answer_knows_what_went_meanwhile(calls: Shop, last_one: str) -> None:
    async with away(calls, "catalog"):
        await reserve(calls, last_one)
    answer = await page_of(calls, last_one)
    assert sold_out(answer)
