"""Pages of a search that have everything once, whatever changes meanwhile, and what is wrong with a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.type.money_pb2 import Money
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.catalog.search import listing
from services.chassis.errors import InvalidInput
from shop.catalog.v1 import catalog_pb2 as pb
from tests.catalog.conftest import Shelf, wanted
from tests.catalog.test_search import ask, found, pages, put, shoes

ORDERS = [order for order in pb.ProductOrder.values() if order != pb.PRODUCT_ORDER_UNSPECIFIED]


@pytest.mark.parametrize("order", ORDERS, ids=pb.ProductOrder.Name)
@pytest.mark.parametrize("looked_at", [2, 2000])
async def test_pages_have_everything_once_in_every_order(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, order: Any, looked_at: int
) -> None:
    """Read along an order, and found by tokens and sorted; by nearness in one go, and step by step."""
    monkeypatch.setattr(listing, "LOOKED_AT", looked_at)
    monkeypatch.setattr(listing, "SORTED", looked_at)
    rows = [
        {"id": f"p{n}", "title": ("Shoe", "Shoes", "Boot")[n % 3], "price": f"{10 + n % 4}.00 EUR", "color": "red",
         "description": "Like a shoe.", "size": str(n % 2)}
        for n in range(17)
    ]  # fmt: skip
    await put(shelf, *rows)
    question = {"query": "shoes", "order_by": order, "filters": wanted(size="1")}
    expected = await found(shelf, **question, page_size=100)
    assert sorted(expected) == sorted(row["id"] for row in rows if row["size"] == "1")
    for size in (1, 3, 4):
        assert await pages(shelf, size, **question) == expected


CHANGES = st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["stock", "price", "title", "order"])), max_size=12)


@given(order=st.sampled_from(ORDERS), size=st.integers(1, 5), changes=CHANGES, filtered=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_does_not_change_is_neither_repeated_nor_skipped(
    shelf: Shelf, order: Any, size: int, changes: Sequence[tuple[int, str]], filtered: bool
) -> None:
    """While others come, go, cost more, are called otherwise and are ordered between the pages."""
    rows = {
        n: {"id": f"p{n:02}", "title": f"Shoe {'abc'[n % 3]}", "price": f"{10 + n % 3}.00 EUR", "size": "42"}
        for n in range(12)
    }
    await put(shelf, *rows.values())
    changed = {n for n, _ in changes}
    left = list(changes)
    question: dict[str, Any] = {"query": "shoe", "order_by": order, "filters": wanted(size="42") if filtered else ()}
    seen: list[str] = []
    token = ""
    while True:
        answer = await ask(shelf, page_size=size, page_token=token, **question)
        seen += [product.product_id for product in answer.products]
        assert len(seen) <= 2 * len(rows), seen
        token = answer.next_page_token
        if not token:
            break
        if left:
            n, kind = left.pop()
            row = rows[n]
            if kind == "stock":
                await shelf.stock(**{row["id"]: 0})
            elif kind == "price":
                await put(shelf, {**row, "price": "11.50 EUR"})
            elif kind == "title":
                await put(shelf, {**row, "title": "Shoe z"})
            else:
                await shelf.ordered(row["id"], 5)
    for n, row in rows.items():
        if n not in changed:
            assert seen.count(row["id"]) == 1, (row["id"], seen)


# -- wrong input


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        ({"filters": wanted(flavour="sweet")}, "filters[0].attribute", "UNKNOWN_ATTRIBUTE"),
        ({"filters": [*wanted(size="1"), *wanted(size="2")]}, "filters[1].attribute", "INVALID_INPUT"),
        ({"order_by": pb.PRODUCT_ORDER_RELEVANCE}, "order_by", "INVALID_INPUT"),
        ({"page_token": "%%%"}, "page_token", "INVALID_PAGE_TOKEN"),
        ({"page_token": "AAAAAAAAAABbXQ"}, "page_token", "INVALID_PAGE_TOKEN"),
        (
            {"price_range": pb.PriceRange(minimum=Money(currency_code="CHF", units=1))},
            "price_range.minimum.currency_code",
            "INVALID_INPUT",
        ),
        (
            {"price_range": pb.PriceRange(minimum=Money(currency_code="EUR", units=-1))},
            "price_range.minimum",
            "INVALID_INPUT",
        ),
        (
            {
                "price_range": pb.PriceRange(
                    minimum=Money(currency_code="EUR", units=2), maximum=Money(currency_code="EUR", units=1)
                )
            },
            "price_range.minimum",
            "INVALID_INPUT",
        ),
    ],
)
async def test_what_is_wrong_is_named(shelf: Shelf, request_: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await ask(shelf, **request_)
    assert [name for name, _ in refused.value.fields] == [field]
    assert refused.value.reason == reason


async def test_a_token_belongs_to_its_question(shelf: Shelf) -> None:
    await shoes(shelf)
    for order in ORDERS:
        token = (await ask(shelf, "sneaker", page_size=1, order_by=order)).next_page_token
        for other in (
            {"query": "boot"},
            {"query": "sneaker", "currency_code": "CHF"},
            {"query": "sneaker", "facets": True},
        ):
            with pytest.raises(InvalidInput, match="page_token"):
                await ask(shelf, page_token=token, order_by=order, **other)


@pytest.mark.parametrize(
    "query", ["%", "_", "'; DROP TABLE products; --", '"', "\\", "\t\n\x07", "ﷺ" * 60, "(", "a&|!b:*", "-" * 200, "🙂"]
)
async def test_signs_in_a_query_are_no_commands(shelf: Shelf, query: str) -> None:
    await shoes(shelf)
    assert await found(shelf, query) == []
    assert len(await found(shelf, "sneaker")) == 3
