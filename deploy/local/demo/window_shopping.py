"""What a storefront does with the window: a search that forgives, a facet, and a list that stands open."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from shop.catalog.v1 import catalog_pb2 as catalog
from shop.catalog.v1 import catalog_pb2_grpc as catalog_rpc

from .checks import check
from .clients import SECONDS

if TYPE_CHECKING:
    from .story import Story

CATALOG = "shop.catalog.v1.CatalogService"
MISSPELT = "snekers"
FACET = "color"


async def search(story: Story) -> None:
    """A customer types quickly, and narrows what was found by a facet."""
    visitor = story.browser()
    request = catalog.ListProductsRequest(query=MISSPELT, page_size=3, facets=True)
    found = await visitor.call(f"{CATALOG}/ListProducts", request, catalog.ListProductsResponse)
    check(bool(found.products), f'"{MISSPELT}" finds something')
    story.say(f'  searched for "{MISSPELT}", found as "{found.corrected_query}": {found.total_size} products in stock')
    for product in found.products:
        story.say(f"  found: {product.title}")
    (facet,) = (facet for facet in found.facets if facet.attribute == FACET)
    story.say(f"  {FACET}: " + ", ".join(f"{each.value} ({each.product_count})" for each in facet.values[:5]))
    chosen = facet.values[0]
    request.filters.add(attribute=FACET, values=[chosen.value])
    narrowed = await visitor.call(f"{CATALOG}/ListProducts", request, catalog.ListProductsResponse)
    check(narrowed.total_size == chosen.product_count, "the facet's number is what choosing it gives")
    check(
        all(any(variant.color == chosen.value for variant in product.variants) for product in narrowed.products),
        f"every product found has the {FACET} chosen",
    )
    story.say(f"  chosen {chosen.value}: {narrowed.total_size} products, as the facet said")


class OpenList:
    """A list that stays open in a browser, of one product: `async with OpenList(story, product_id)`."""

    def __init__(self, story: Story, product_id: str) -> None:
        stub: catalog_rpc.CatalogServiceAsyncStub = catalog_rpc.CatalogServiceStub(story.tools.channel("catalog"))
        self._answers = stub.WatchProducts(catalog.WatchProductsRequest(product_ids=[product_id]))
        self._shown = catalog.Product()

    async def __aenter__(self) -> OpenList:
        await self._read()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.cancel()

    async def until_gone(self, sku: str) -> datetime:
        """When the list was told that the size is gone. Raises TimeoutError."""
        async with asyncio.timeout(SECONDS):
            while any(variant.sku == sku for variant in self._shown.variants):
                await self._read()
        return datetime.now(UTC)

    async def _read(self) -> None:
        answer = await asyncio.wait_for(self._answers.read(), SECONDS)
        if not isinstance(answer, catalog.WatchProductsResponse):
            raise grpc.aio.UsageError("the list was closed")
        if answer.products:
            self._shown = answer.products[-1]
