"""Facts about stock in, the window out: only what can be shipped now, by the newest that was heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.catalog import queries
from services.catalog.consumers import HEARS
from services.catalog.queries import Audience
from services.chassis.errors import InvalidInput, NotFound
from shop.access.v1 import access_pb2
from shop.catalog.v1 import back_in_stock_pb2, referrals_pb2
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import records_pb2 as records
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.contact.v1.contact_options_pb2 import CHANNEL_PHONE, ContactOptions
from shop.inventory.events.v1.facts_pb2 import OtherLevel, StockLevelChanged
from tests.catalog.conftest import Shelf, heard, level_changed, wanted

EURO = Audience(("en",), "EUR")


async def two_products(shelf: Shelf) -> None:
    await shelf.feed(
        {"id": "a-41", "item_group_id": "a", "size": "41", "color": "red", "brand": "Acme", "gender": "male"},
        {"id": "a-42.5", "item_group_id": "a", "size": "42.5", "color": "red", "brand": "Acme", "gender": "male"},
        {"id": "a-42", "item_group_id": "a", "size": "42", "color": "blue", "brand": "Acme", "gender": "male"},
        {"id": "b-42", "item_group_id": "b", "size": "42", "color": "red", "brand": "Bell", "gender": "female"},
    )


async def test_what_was_never_heard_of_is_not_shown(shelf: Shelf) -> None:
    await two_products(shelf)
    assert await shelf.listed() == {}


async def test_only_products_and_sizes_with_free_stock_are_listed_by_size(shelf: Shelf) -> None:
    await two_products(shelf)
    await shelf.stock(**{"a-41": 1, "a-42": 0, "a-42.5": 2, "b-42": 0})
    assert await shelf.listed() == {"a": ["a-41", "a-42.5"]}
    await shelf.stock(**{"a-42": 1})
    assert await shelf.listed() == {"a": ["a-41", "a-42", "a-42.5"]}


async def test_a_transfer_never_takes_a_product_from_the_list_whichever_side_is_heard_first(shelf: Shelf) -> None:
    await two_products(shelf)
    vienna = level_changed("a-41", 1)
    await shelf.hear(vienna)
    moved = StockLevelChanged(sku="a-41", location="vienna-1", version=2, free=0)
    moved.moved_with.CopyFrom(OtherLevel(location="brno-1", version=1, free=1))
    there = StockLevelChanged(sku="a-41", location="brno-1", version=1, free=1)
    there.moved_with.CopyFrom(OtherLevel(location="vienna-1", version=2, free=0))
    for fact in (moved, there, moved):
        await shelf.hear(fact)
        assert await shelf.listed() == {"a": ["a-41"]}
    assert await shelf.facts() == [("ProductRelisted", "a")]


async def test_the_last_unit_takes_the_product_from_the_list_and_tells_so_once(shelf: Shelf) -> None:
    await two_products(shelf)
    await shelf.stock(**{"a-41": 1, "b-42": 1})
    await shelf.stock(**{"b-42": 0})
    await shelf.stock(**{"b-42": 0})
    assert await shelf.listed() == {"a": ["a-41"]}
    await shelf.stock(**{"b-42": 3})
    assert await shelf.facts() == [
        ("ProductRelisted", "a"),
        ("ProductRelisted", "b"),
        ("ProductDelisted", "b"),
        ("ProductRelisted", "b"),
    ]


async def test_locations_are_added_up(shelf: Shelf) -> None:
    await shelf.feed({"id": "one"})
    await shelf.hear(level_changed("one", 2, location="vienna-1"), level_changed("one", 3, location="graz-1"))
    answer = await shelf.storefront.GetProduct(pb.GetProductRequest(product_id="one"))
    assert answer.product.variants[0].free == 5
    await shelf.hear(level_changed("one", 0, version=2, location="vienna-1"))
    answer = await shelf.storefront.GetProduct(pb.GetProductRequest(product_id="one"))
    assert answer.product.variants[0].free == 3


async def test_two_locations_heard_at_the_same_time_are_both_counted(shelf: Shelf) -> None:
    await shelf.feed({"id": "one"})
    for version in range(1, 11):
        await asyncio.gather(
            *(
                shelf.hear(level_changed("one", version, version, place), partition=number)
                for number, place in enumerate(("vienna-1", "graz-1", "linz-1"))
            )
        )
        assert (await queries.variants(shelf.database, EURO, ["one"]))[0]["free"] == 3 * version


async def test_stock_heard_before_the_feed_counts_once_the_feed_comes(shelf: Shelf) -> None:
    await shelf.stock(late=4)
    await shelf.feed({"id": "late"})
    assert await shelf.listed() == {"late": ["late"]}


async def test_a_feed_and_the_first_stock_of_its_skus_at_the_same_time_find_each_other(shelf: Shelf) -> None:
    for number in range(10):
        await asyncio.gather(shelf.stock(**{f"new-{number}": 1}), shelf.feed({"id": f"new-{number}"}))
    assert len(await shelf.listed()) == 10


HISTORY = [level_changed("x", free, version) for version, free in enumerate((5, 0, 3, 1, 0, 7), start=1)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(HISTORY),
    repeats=st.lists(st.sampled_from(HISTORY), max_size=4),
    cuts=st.lists(st.integers(0, len(HISTORY) + 4), max_size=3),
)
async def test_late_repeated_and_reordered_facts_never_win(
    shelf: Shelf, order: list[StockLevelChanged], repeats: list[StockLevelChanged], cuts: list[int]
) -> None:
    await shelf.database.pool.execute("TRUNCATE stock_copy, products, product_texts, variants")
    await shelf.feed({"id": "x"})
    arriving = [*order, *repeats]
    edges = [0, *sorted(cuts), len(arriving)]
    newest: StockLevelChanged | None = None
    for start, end in pairwise(edges):
        await shelf.hear(*arriving[start:end])
        for fact in arriving[start:end]:
            newest = max((newest, fact), key=lambda each: each.version if each else 0)
        expected = {"x": ["x"]} if newest and newest.free else {}
        assert await shelf.listed() == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"brand": "Acme"}, {"a"}),
        ({"size": "42"}, {"a", "b"}),
        ({"size": "42", "color": "red"}, {"b"}),  # a has a red and a 42, but no red 42
        ({"gender": "Female"}, {"b"}),
        ({"brand": "Acme", "gender": "female"}, set()),
        ({"size": "42", "color": "blue", "brand": "Acme", "gender": "male"}, {"a"}),
    ],
)
async def test_filters_combine(shelf: Shelf, filters: dict[str, str], expected: set[str]) -> None:
    await two_products(shelf)
    await shelf.stock(**{"a-41": 1, "a-42": 1, "a-42.5": 1, "b-42": 1})
    assert set(await shelf.listed(**filters)) == expected


async def test_a_filter_looks_at_sizes_in_stock_only(shelf: Shelf) -> None:
    await two_products(shelf)
    await shelf.stock(**{"a-41": 1, "a-42": 0})
    assert await shelf.listed(size="42") == {}


async def test_a_category_has_all_below_it_and_nothing_beside_it(shelf: Shelf) -> None:
    kinds = {"s": "Wear > Shoes", "n": "Wear>Shoes  >  Sneakers", "t": "Wear > Shoestrings", "w": "Wear", "x": ""}
    await shelf.feed(*({"id": name, "product_type": kind} for name, kind in kinds.items()))
    await shelf.stock(**dict.fromkeys(kinds, 1))
    assert set(await shelf.listed(category="Wear > Shoes")) == {"s", "n"}
    assert set(await shelf.listed(category="Wear")) == {"s", "n", "t", "w"}
    assert set(await shelf.listed()) == set(kinds)


async def test_pages_hold_everything_once_while_stock_changes(shelf: Shelf) -> None:
    names = [f"p{number:02}" for number in range(25)]
    await shelf.feed(*({"id": name} for name in names))
    await shelf.stock(**dict.fromkeys(names, 1))
    by_name = pb.ListProductsRequest(page_size=10, order_by=pb.PRODUCT_ORDER_NAME)
    first = await shelf.storefront.ListProducts(by_name)
    await shelf.stock(p05=0, p15=0)
    by_name.page_token = first.next_page_token
    second = await shelf.storefront.ListProducts(by_name)
    assert [product.product_id for product in first.products] == names[:10]
    assert [product.product_id for product in second.products] == [*names[10:15], *names[16:21]]
    with pytest.raises(InvalidInput, match="page_token"):
        await shelf.storefront.ListProducts(
            pb.ListProductsRequest(filters=wanted(brand="other"), page_token=first.next_page_token)
        )


async def test_a_sold_out_product_is_marked_and_has_alternatives(shelf: Shelf) -> None:
    await two_products(shelf)
    await shelf.stock(**{"b-42": 1})
    answer = await shelf.storefront.GetProduct(pb.GetProductRequest(product_id="a"))
    assert answer.product.sold_out
    assert answer.product.title == "Shoe"
    assert not answer.product.variants
    assert [each.product.product_id for each in answer.alternatives] == ["b"]
    assert all(each.reasons for each in answer.alternatives)
    with pytest.raises(NotFound):
        await shelf.storefront.GetProduct(pb.GetProductRequest(product_id="nothing"))


async def test_alternatives_are_near_in_stock_and_say_why(shelf: Shelf) -> None:
    def row(name: str, size: str = "42", gender: str = "male", **more: str) -> dict[str, str]:
        kind = {"product_type": "Wear > Shoes", "color": "red", "brand": "Acme"}
        return {"id": name, "size": size, "gender": gender, "price": "100.00 EUR", **kind, **more}

    await shelf.feed(
        row("wanted"),
        row("same", brand="Bell"),
        row("far-price", brand="Bell", price="300.00 EUR"),
        row("other-size", "43"),
        row("other-gender", "42", "female"),
        row("sold-out"),
        row("other-currency", price="100.00 CHF"),
        row("other-kind", product_type="Wear > Boots"),
    )
    await shelf.stock(
        **{"same": 1, "far-price": 1, "other-size": 1, "other-gender": 1, "other-currency": 1, "other-kind": 1}
    )
    answer = await shelf.storefront.ListAlternatives(pb.ListAlternativesRequest(sku="wanted"))
    found = [each.product.product_id for each in answer.alternatives]
    assert found == ["same", "far-price", "other-kind", "other-gender", "other-size"]
    assert answer.alternatives[0].reasons == [
        "the same size, 42",
        "made for the same people: male",
        "of the same kind: Shoes",
        "the same colour, red",
        "for nearly the same price",
    ]
    again = await shelf.storefront.ListAlternatives(pb.ListAlternativesRequest(sku="wanted"))
    assert again == answer
    with pytest.raises(NotFound):
        await shelf.storefront.ListAlternatives(pb.ListAlternativesRequest(sku="nothing"))


async def test_names_and_prices_for_a_checkout_are_given_in_stock_or_not(shelf: Shelf) -> None:
    await shelf.feed({"id": "one", "price": "129.95 EUR"}, {"id": "two", "price": "1000 JPY"})
    answer = await shelf.admin.BatchGetVariants(records.BatchGetVariantsRequest(skus=["two", "one", "unknown"]))
    assert [(each.sku, each.price.units, each.price.nanos, each.price.currency_code) for each in answer.variants] == [
        ("one", 129, 950_000_000, "EUR"),
        ("two", 0, 0, ""),
    ]
    answer = await shelf.admin.BatchGetVariants(records.BatchGetVariantsRequest(skus=["two"], currency_code="JPY"))
    assert [(each.price.units, each.price.currency_code) for each in answer.variants] == [(1000, "JPY")]


def offered(message: Message) -> set[str]:
    """Every SKU that stands anywhere in an answer."""
    found = {message.sku} if isinstance(message, pb.Variant) else set()
    for name, value in message.ListFields():
        parts: Sequence[Any] = value if name.is_repeated else [value]
        for part in parts:
            if isinstance(part, Message):
                found |= offered(part)
    return found


STOREFRONT = [
    method
    for proto in (pb, back_in_stock_pb2, records, referrals_pb2)
    for service in proto.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if access_pb2.ROLE_VISITOR in method.GetOptions().Extensions[access_pb2.policy].allow
]
# What a shopper may ask, for each call of the storefront. A new call needs a line here.
QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "ListProducts": [
        {},
        {"filters": wanted(size="42")},
        {"filters": wanted(color="red", gender="male")},
        {"filters": wanted(category="Wear")},
    ],
    "GetProduct": [
        {"product_id": "half"},
        {"product_id": "gone"},
        {"product_id": "half", "sku": "half-41"},
        {"product_id": "gone", "sku": "gone-42"},
    ],
    "SuggestProducts": [{"prefix": "a"}, {"prefix": "shoe"}, {"prefix": "we"}],
    "ListCategories": [{}],
    "WatchProducts": [{"product_ids": ["full", "half", "gone", "near", "none"]}],
    "ListAlternatives": [{"sku": "gone-42"}, {"sku": "half-41"}, {"sku": "full-42"}],
}


async def first_answer(shelf: Shelf, answering: Any) -> Any:
    """The answer of a call, or the first of a stream."""
    if not isinstance(answering, AsyncGenerator):
        return await answering
    watching = asyncio.create_task(shelf.app._open_lists.watches.run())
    async with aclosing(answering), asyncio.timeout(10):
        answer = await anext(answering)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return answer


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("method", STOREFRONT, ids=lambda method: method.name)
async def test_no_storefront_call_offers_what_is_sold_out(shelf: Shelf, method: Any, stale: bool) -> None:
    common = {"product_type": "Wear > Shoes", "color": "red", "gender": "male", "brand": "Acme"}
    await shelf.feed(
        *(
            {"id": f"{product}-{size}", "item_group_id": product, "size": size, **common}
            for product in ("full", "half", "gone", "near")
            for size in ("41", "42")
        )
    )
    await shelf.stock(**{"full-41": 1, "full-42": 1, "half-42": 2, "near-41": 1, "half-41": 0, "gone-42": 0})
    sold_out = {"half-41", "gone-41", "gone-42", "near-42"}
    if stale:  # and some of it went without our hearing of it
        await shelf.be_stale()
        for sku in ("full-41", "near-41"):
            shelf.inventory.put(sku, 0)
            sold_out.add(sku)
    for question in QUESTIONS[method.name]:
        request = getattr(pb, method.input_type.name)(**question)
        answer = await first_answer(shelf, getattr(shelf.storefront, method.name)(request))
        assert answer.contact_options.phone_number
        assert not offered(answer) & sold_out, question


async def test_the_latest_word_of_the_hotline_stands_there(shelf: Shelf) -> None:
    """Heard as consumption hears it; the number stands there whatever was said."""
    options = ContactOptions(open_channels=[CHANNEL_PHONE])
    message = HotlineStatusChanged(version=1, contact_options=options)
    (hears,) = (one for one in HEARS if HotlineStatusChanged in one.handlers)
    async with shelf.database.transaction() as tx:
        await hears.handlers[HotlineStatusChanged](shelf.app, tx, heard(message))
    answer = await shelf.storefront.ListProducts(pb.ListProductsRequest())
    assert answer.contact_options == ContactOptions(phone_number="+18005550199", open_channels=[CHANNEL_PHONE])
