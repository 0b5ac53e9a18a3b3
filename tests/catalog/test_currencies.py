"""For sale is what has a price in the currency that was asked for; texts are in the nearest language."""

from __future__ import annotations

from shop.catalog.v1 import catalog_pb2 as pb
from tests.catalog.conftest import Shelf


async def test_what_has_no_price_in_a_currency_is_not_for_sale_in_it(shelf: Shelf) -> None:
    await shelf.feed(
        {"id": "a-1", "item_group_id": "a"},
        {"id": "a-2", "item_group_id": "a", "price": "2500 CZK"},
        {"id": "b", "price": "1900.50 CZK"},
    )
    await shelf.stock(**{"a-1": 1, "a-2": 1, "b": 1})
    assert await shelf.listed() == {"a": ["a-1"]}
    crowns = await shelf.storefront.ListProducts(pb.ListProductsRequest(currency_code="CZK"))
    assert [[one.sku for one in product.variants] for product in crowns.products] == [["a-2"], ["b"]]
    assert [(one.price.units, one.price.currency_code) for one in crowns.products[0].variants] == [(2500, "CZK")]
    dollars = await shelf.storefront.ListProducts(pb.ListProductsRequest(currency_code="USD"))
    assert not dollars.products
    page = await shelf.storefront.GetProduct(pb.GetProductRequest(product_id="b", currency_code="EUR"))
    assert (page.product.sold_out, list(page.product.variants)) == (True, [])


async def test_past_the_bound_the_currency_counts_too(shelf: Shelf) -> None:
    await shelf.feed({"id": "a-1", "item_group_id": "a"}, {"id": "a-2", "item_group_id": "a", "price": "2500 CZK"})
    await shelf.stock(**{"a-1": 1, "a-2": 1})
    await shelf.be_stale()
    page = await shelf.storefront.GetProduct(pb.GetProductRequest(product_id="a"))
    assert [one.sku for one in page.product.variants] == ["a-1"]
