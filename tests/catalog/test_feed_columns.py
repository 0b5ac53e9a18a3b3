"""What a feed says beyond the plain row: reductions, pictures, translations, and the history of it all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.catalog.domain.feed import FeedPrice, FeedVariant, check
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import records_pb2 as records
from tests.catalog.conftest import Shelf
from tests.catalog.test_feed import good, wrong
from tests.catalog.test_records import euros, history, record, set_price, shown, update


def period(start: datetime, end: datetime) -> str:
    return f"{start.isoformat()}/{end.isoformat()}"


def test_a_reduction_has_its_period() -> None:
    effective = "2026-12-01T00:00+0100/2026-12-24T18:00+0100"
    price = good(price="100 EUR", sale_price="79.95 EUR", sale_price_effective_date=effective).price
    assert price == FeedPrice(
        Decimal(100),
        "EUR",
        Decimal("79.95"),
        datetime(2026, 11, 30, 23, tzinfo=UTC),
        datetime(2026, 12, 24, 17, tzinfo=UTC),
    )
    assert good(price="100 EUR", sale_price="80 EUR").price == FeedPrice(Decimal(100), "EUR", Decimal(80))
    # As many feeds say that there is none.
    assert good(price="100 EUR", sale_price="100.00 EUR").price == FeedPrice(Decimal(100), "EUR")
    assert good(price="100 EUR", sale_price_effective_date=effective).price == FeedPrice(Decimal(100), "EUR")


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"sale_price": "130 EUR"}, "sale_price", "must not be more than the price, 129.95 EUR"),
        ({"sale_price": "10 CZK"}, "sale_price", "must be in EUR"),
        ({"sale_price": "10.001 EUR"}, "sale_price", "2 decimals, not 3"),
        ({"sale_price_effective_date": "2026-12-24T00:00Z/2026-12-01T00:00Z"}, "sale_price_effective_date", "before"),
        ({"sale_price_effective_date": "soon"}, "sale_price_effective_date", "two times"),
        ({"sale_price_effective_date": "2026-13-01/2026-14-01"}, "sale_price_effective_date", "two times"),
        ({"sale_price_effective_date": "0001-01-01T00:00+1400/"}, "sale_price_effective_date", "two times"),
        ({"additional_image_link": "https://a.b/1,nonsense"}, "additional_image_link", "http"),
        ({"additional_image_link": ",".join(["https://a.b/1"] * 51)}, "additional_image_link", "at most 50"),
        ({"material": "x" * 201}, "material", "longer"),
    ],
)
def test_what_is_wrong_with_the_other_columns(fields: dict[str, str], field: str, said: str) -> None:
    [(name, reason)] = wrong(**fields)
    assert name == field
    assert said in reason


def test_googles_category_is_used_where_there_is_no_other() -> None:
    assert good(product_type="Wear > Shoes", google_product_category="Apparel").category == "Wear > Shoes > "
    assert good(google_product_category="Apparel > Shoes").category == "Apparel > Shoes > "
    assert good(google_product_category="187").category == ""


def test_a_row_with_every_column_is_good() -> None:
    found = check(
        {
            "id": "a",
            "title": "Shoe",
            "price": "1 EUR",
            "size_system": "uk",
            "size_type": "petite",
            "width": "G",
            "material": "suede",
            "additional_image_link": "https://a.b/1, https://a.b/2",
        }
    )
    assert isinstance(found, FeedVariant)
    assert (found.size_system, found.width, found.material) == ("UK", "G", "suede")
    assert found.additional_image_link == "https://a.b/1,https://a.b/2"


async def test_columns_without_use_are_passed_over_in_silence(shelf: Shelf) -> None:
    answer = await shelf.feed({"id": "a", "size_type": "petite", "condition": "new", "flavour": "mint"})
    assert list(answer.unknown_columns) == ["flavour"]


async def test_a_reduction_of_a_feed_is_shown_and_taken_back_by_the_next(shelf: Shelf) -> None:
    now = await shelf.now()
    held = period(now - timedelta(hours=1), now + timedelta(hours=1))
    row = {"id": "a", "sale_price": "80 EUR", "sale_price_effective_date": held}
    await shelf.feed(row)
    await shelf.stock(a=1)
    [variant] = (await shown(shelf)).variants
    assert (euros(variant.price), euros(variant.regular_price)) == ("80", "100")
    assert (await shelf.feed(row)).changed == 0
    # One by hand is not the feed's to take back.
    await set_price(shelf, "90", sku="a", reduced=True)
    assert (await shelf.feed({"id": "a"})).changed == 1
    [variant] = (await shown(shelf)).variants
    assert (euros(variant.price), euros(variant.regular_price)) == ("90", "100")
    assert (await shelf.feed({"id": "a"})).changed == 0
    assert [(field, before[:2], after[:2]) for _, field, before, after in (await history(shelf))[2:]] == [
        ("prices.EUR.reduced", "", "90"),
        ("prices.EUR.reduced", "80", ""),
    ]


async def test_what_a_feed_changes_is_kept_field_by_field(shelf: Shelf) -> None:
    await shelf.feed({"id": "a-1", "item_group_id": "a"}, {"id": "a-2", "item_group_id": "a"})
    assert await history(shelf) == [
        ("", "product_id", "", "a"),
        ("a-1", "sku", "", "a-1"),
        ("a-2", "sku", "", "a-2"),
    ]
    etag = (await record(shelf)).etag
    await shelf.feed(
        {
            "id": "a-1",
            "item_group_id": "a",
            "title": "Boot",
            "price": "90 EUR",
            "color": "red",
            "brand": "Acme",
            "additional_image_link": "https://a.b/1",
        },
        {"id": "a-2", "item_group_id": "a"},
    )
    assert sorted((await history(shelf))[3:]) == [
        ("", "brand", "", "Acme"),
        ("", "media", "[]", '[{"uri": "https://a.b/1", "alternative_text": ""}]'),
        ("", "texts.en.title", "Shoe", "Boot"),
        ("a-1", "additional_image_link", "", "https://a.b/1"),
        ("a-1", "brand", "", "Acme"),
        ("a-1", "color", "", "red"),
        ("a-1", "prices.EUR", "100.00", "90.0"),
        ("a-1", "texts.en.title", "Shoe", "Boot"),
    ]
    assert (await record(shelf)).etag != etag
    await shelf.feed({"id": "a-2", "item_group_id": "b"})
    assert (await history(shelf, "b"))[1:] == [("a-2", "product_id", "a", "b")]


async def test_a_translation_brings_texts_and_prices_and_touches_nothing_else(shelf: Shelf) -> None:
    await shelf.feed(
        {"id": "a-1", "item_group_id": "a", "title": "Shoe", "description": "Plain", "brand": "Acme", "color": "red"},
        {"id": "a-2", "item_group_id": "a", "title": "Shoe", "description": "Plain", "brand": "Acme"},
    )
    await shelf.stock(**{"a-1": 1, "a-2": 1})
    before = await record(shelf)
    rows = [
        {"id": "a-1", "title": "Bota", "description": "Prostá", "price": "2500 CZK", "brand": "Jiná"},
        {"id": "a-2", "title": "Bota"},
        {"id": "unknown", "title": "Nic", "price": "1 CZK"},
    ]
    answer = await shelf.feed(*rows, locale="CS")
    assert (answer.changed, answer.unchanged) == (2, 0)
    assert [(one.line, one.field) for one in answer.problems] == [(shelf.line, "id")]
    again = await shelf.feed(*rows, locale="cs")
    assert (again.changed, again.unchanged) == (0, 2)
    after = await record(shelf)
    assert [(one.locale, one.title, one.description) for one in after.texts] == [
        ("cs", "Bota", "Prostá"),
        ("en", "Shoe", "Plain"),
    ]
    after.ClearField("texts")
    before.ClearField("texts")
    del after.variants[1].prices[0]  # the crowns, beside the euros
    for one in (before, after):
        one.ClearField("etag")
        one.ClearField("update_time")
    assert after == before
    page = await shown(shelf, locale="cs-CZ", currency_code="CZK")
    assert (page.locale, page.title, [one.sku for one in page.variants]) == ("cs", "Bota", ["a-1"])
    assert page.variants[0].title == "Bota"


async def test_texts_fall_back_to_the_nearest_language_that_there_is(shelf: Shelf) -> None:
    await shelf.feed({"id": "a", "title": "Shoe"})
    await shelf.feed({"id": "a", "title": "Schuh"}, locale="de")
    await shelf.feed({"id": "a", "title": "Patschen"}, locale="de-AT")
    for asked, locale, title in (
        ("de-AT", "de-AT", "Patschen"),
        ("de-CH", "de", "Schuh"),
        ("fr", "en", "Shoe"),
        ("", "en", "Shoe"),
    ):
        page = await shown(shelf, locale=asked)
        assert (page.locale, page.title) == (locale, title)
    # Not even the shop's own: then any.
    await shelf.database.pool.execute("DELETE FROM product_texts WHERE locale = 'en'")
    assert (await shown(shelf, locale="fr")).locale == "de"
    sold = await shelf.admin.BatchGetVariants(records.BatchGetVariantsRequest(skus=["a"], locale="de-CH"))
    assert [one.title for one in sold.variants] == ["Schuh"]


async def test_the_feeds_price_is_the_one_that_holds_and_not_one_before_it(shelf: Shelf) -> None:
    await shelf.feed({"id": "a"})
    await shelf.stock(a=1)
    await set_price(shelf, "90", sku="a", start_time={"seconds": 1_500_000_000})
    assert (await shelf.feed({"id": "a", "price": "90 EUR"})).changed == 0
    assert (await shelf.feed({"id": "a", "price": "95 EUR"})).changed == 1
    assert euros((await shown(shelf)).variants[0].price) == "95"
    assert [euros(one.amount) for one in (await record(shelf)).variants[0].prices] == ["100", "95"]


async def test_what_is_said_of_a_picture_stays_while_the_picture_does(shelf: Shelf) -> None:
    await shelf.feed({"id": "a", "additional_image_link": "https://a.b/1,https://a.b/2"})
    media = [pb.Media(uri=f"https://a.b/{number}", alternative_text=f"view {number}") for number in (1, 2)]
    await update(shelf, media=media)
    await shelf.feed({"id": "a", "title": "Boot", "additional_image_link": "https://a.b/2,https://a.b/3"})
    assert [(one.uri[-1], one.alternative_text) for one in (await shown(shelf)).media] == [("2", "view 2"), ("3", "")]


async def test_a_new_variant_of_a_draft_is_not_shown(shelf: Shelf) -> None:
    await shelf.feed({"id": "a-1", "item_group_id": "a"})
    await update(shelf, state=records.PRODUCT_STATE_DRAFT)
    await shelf.stock(**{"a-2": 1})
    await shelf.feed({"id": "a-2", "item_group_id": "a"})
    assert await shelf.listed() == {}
