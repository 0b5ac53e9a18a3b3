"""Rows of a feed: what is taken in, and what is said about those that are not."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.domain.feed import FeedPrice, FeedVariant, category, check, column_name
from services.catalog.domain.sizes import size_order
from shop.catalog.v1 import catalog_pb2 as pb
from tests.catalog.conftest import Shelf

GOOD = {"id": "a-1", "title": "Shoe", "price": "129.95 EUR"}


def good(**fields: str) -> FeedVariant:
    found = check({**GOOD, **fields})
    assert isinstance(found, FeedVariant), found
    return found


def wrong(**fields: str) -> list[tuple[str, str]]:
    found = check({**GOOD, **fields})
    assert isinstance(found, list)
    return found


def test_only_id_title_and_price_are_needed() -> None:
    found = good()
    assert (found.sku, found.product_id, found.price) == ("a-1", "a-1", FeedPrice(Decimal("129.95"), "EUR"))
    assert [field for field, _ in wrong(id="", title=" ", price="")] == ["id", "price", "title"]
    assert good(item_group_id="g").product_id == "g"


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("129.95 EUR", "129.95"),
        ("129 EUR", "129"),
        ("129.9  EUR", "129.9"),
        ("1000 JPY", "1000"),
        ("1.125 KWD", "1.125"),
    ],
)
def test_prices(written: str, amount: str) -> None:
    price = good(price=written).price
    assert price
    assert price.amount == Decimal(amount)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("129.955 EUR", "EUR has 2 decimals, not 3"),
        ("10.5 JPY", "JPY has 0 decimals, not 1"),
        ("10 XYZ", "no currency of ISO 4217"),
        ("0.00 EUR", "more than 0"),
        *(
            (text, "an amount and a currency")
            for text in ("-1 EUR", "1,50 EUR", "EUR 1", "1.50", "1e3 EUR", "NaN EUR", "1.50 eur", "9" * 12 + " EUR")
        ),
    ],
)
def test_prices_that_are_none(written: str, reason: str) -> None:
    [(field, said)] = wrong(price=written)
    assert field == "price"
    assert reason in said


@pytest.mark.parametrize("gtin", ["4006381333931", "036000291452", "96385074", "10012345678902", "4006381-333931"])
def test_gtins_with_the_right_check_digit(gtin: str) -> None:
    assert good(gtin=gtin).gtin == gtin.replace("-", "")


@pytest.mark.parametrize(
    ("gtin", "reason"), [("4006381333932", "check digit"), ("123", "digits"), ("400638133393x", "digits")]
)
def test_gtins_that_are_wrong(gtin: str, reason: str) -> None:
    [(field, said)] = wrong(gtin=gtin)
    assert field == "gtin"
    assert reason in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "with space"),
        ("id", "x" * 65),
        ("id", "schön"),
        ("item_group_id", "a\tb"),
        ("title", "x" * 501),
        ("title", "nul\0"),
        ("title", "lone \udce4"),
        ("image_link", "javascript:alert(1)"),
        ("product_type", "x" * 751),
    ],
)
def test_other_fields_that_are_wrong(field: str, value: str) -> None:
    assert [name for name, _ in wrong(**{field: value})] == [field]


@given(st.dictionaries(st.sampled_from([*GOOD, "gtin", "size", "product_type", "image_link"]), st.text()))
def test_any_row_is_either_good_or_named_field_by_field(fields: dict[str, str]) -> None:
    found = check(fields)
    if isinstance(found, list):
        assert found
        assert all(reason for _, reason in found)
    else:
        assert found.sku
        assert found.price
        assert found.price.amount > 0


def test_columns_and_categories_have_one_spelling() -> None:
    assert [column_name(text) for text in ("Item Group ID", " item_group_id ", "GTIN")] == [
        "item_group_id",
        "item_group_id",
        "gtin",
    ]
    assert category(" Wear>Shoes  > Low  Boots ") == "Wear > Shoes > Low Boots > "
    assert category("") == ""


@pytest.mark.parametrize(
    "sizes",
    [
        ["9", "41", "42", "42 1/3", "42.5", "42 2/3", "43", "100"],
        ["XXS", "XS", "S", "S/M", "M", "L", "XL", "XXL", "3XL"],
        ["W30 L32", "W32 L30", "W32 L32"],
        ["28", "S", "M", "One Size"],
        ["104", "110/116", "110/122"],
    ],
)
def test_sizes_have_the_order_people_expect(sizes: list[str]) -> None:
    backwards = sizes[::-1]
    assert sorted(backwards, key=size_order) == sizes


@given(st.text(max_size=100))
def test_any_size_has_a_place(size: str) -> None:
    assert size_order(size) == size_order(size.upper().upper()) or not size.isascii()


async def test_the_same_rows_again_change_nothing(shelf: Shelf) -> None:
    rows = [{"id": f"a-{size}", "item_group_id": "a", "size": size, "title": f"Shoe {size}"} for size in "123"]
    assert (await shelf.feed(*rows)).changed == 3
    again = await shelf.feed(*rows)
    assert (again.changed, again.unchanged) == (0, 3)
    rows[1]["price"] = "99.00 EUR"
    third = await shelf.feed(*rows)
    assert (third.changed, third.unchanged) == (1, 2)


async def test_a_product_reads_the_same_in_whatever_order_its_rows_come(shelf: Shelf) -> None:
    rows = [{"id": f"a-{size}", "item_group_id": "a", "title": f"Shoe {size}", "brand": size} for size in "123"]
    for order in permutations(rows):
        await shelf.database.pool.execute(
            "TRUNCATE products, product_texts, variants, variant_texts, prices, current_prices"
        )
        for row in order:
            await shelf.feed(row)
        assert (await shelf.feed(*order)).changed == 0
        product = (await shelf.storefront.GetProduct(pb.GetProductRequest(product_id="a"))).product
        assert (product.title, product.brand) == ("Shoe 1", "1")


async def test_broken_rows_are_reported_by_line_and_the_others_kept(shelf: Shelf) -> None:
    answer = await shelf.feed(
        {"id": "good"},
        {"id": "bad", "price": "free", "gtin": "1"},
        {"id": "good", "title": "Again"},
        {"id": "kept", "flavour": "mint", "availability": "out_of_stock"},
    )
    assert [(problem.line, problem.field) for problem in answer.problems] == [(3, "price"), (3, "gtin"), (4, "id")]
    assert "line 2" in answer.problems[2].reason
    assert list(answer.unknown_columns) == ["flavour"]
    assert answer.changed == 2


async def test_the_feeds_own_availability_is_never_believed(shelf: Shelf) -> None:
    await shelf.feed({"id": "none", "availability": "in_stock"}, {"id": "some", "availability": "out_of_stock"})
    await shelf.stock(some=1)
    assert await shelf.listed() == {"some": ["some"]}


async def test_a_variant_that_moves_to_another_product_takes_its_stock_along(shelf: Shelf) -> None:
    await shelf.feed({"id": "v", "item_group_id": "old"})
    await shelf.stock(v=1)
    await shelf.feed({"id": "v", "item_group_id": "new"})
    assert await shelf.listed() == {"new": ["v"]}
    assert (await shelf.facts())[1:] == [("ProductDelisted", "old"), ("ProductRelisted", "new")] or (
        await shelf.facts()
    )[1:] == [("ProductRelisted", "new"), ("ProductDelisted", "old")]
