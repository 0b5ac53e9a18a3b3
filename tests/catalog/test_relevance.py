"""The search finds what people mean: a floor under its figures for the judged queries over the demo's goods."""

from __future__ import annotations

from collections.abc import Sequence

from shop.catalog.v1 import catalog_pb2 as pb
from tests.catalog.conftest import Shelf
from tests.relevance import in_stock, judged, measure, read


async def test_judged_queries_are_answered_well(shelf: Shelf) -> None:
    queries = judged()
    assert len(queries) >= 60
    assert {each.locale for each in queries} == {"de", "en", "cs"}
    goods = in_stock()
    assert not [each.query for each in queries if all(each.grade(variants) < 2 for variants in goods.values())]
    rows = read("products.tsv")
    for start in range(0, len(rows), 500):
        await shelf.feed(*rows[start : start + 500])
    stock = read("stock.tsv")
    for start in range(0, len(stock), 500):
        await shelf.stock_at(stock[start : start + 500])

    async def search(query: str, locale: str) -> Sequence[str]:
        request = pb.ListProductsRequest(query=query, locale=locale, page_size=10)
        return [product.product_id for product in (await shelf.storefront.ListProducts(request)).products]

    found = await measure(queries, search)
    assert found.mrr > 0.95, found
    assert found.success_at_5 > 0.95, found
    # The measure itself can tell: what is listed without regard to the query is far from it.
    assert (await measure(queries, lambda _, locale: search("", locale))).mrr < 0.3
