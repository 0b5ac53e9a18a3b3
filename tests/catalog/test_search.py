"""Search: words of three languages, typing errors, filters that one variant must meet, counts, orders and pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.type.money_pb2 import Money

from services.catalog.search import counting
from shop.catalog.v1 import catalog_pb2 as pb
from tests.catalog.conftest import Shelf, wanted

SNEAKERS, BOOTS = "Wear > Shoes > Sneakers", "Wear > Shoes > Boots"


async def ask(shelf: Shelf, query: str = "", **more: Any) -> pb.ListProductsResponse:
    return await shelf.storefront.ListProducts(pb.ListProductsRequest(query=query, **more))


async def found(shelf: Shelf, query: str = "", **more: Any) -> list[str]:
    return [product.product_id for product in (await ask(shelf, query, **more)).products]


async def pages(shelf: Shelf, size: int, **more: Any) -> list[str]:
    """All products, page by page."""
    seen: list[str] = []
    token = ""
    while True:
        answer = await ask(shelf, page_size=size, page_token=token, **more)
        seen += [product.product_id for product in answer.products]
        assert len(seen) < 1_000
        token = answer.next_page_token
        if not token:
            return seen


async def put(shelf: Shelf, *rows: dict[str, str]) -> None:
    """Imports rows, with units of each."""
    await shelf.feed(*rows)
    await shelf.stock(**{row["id"]: 3 for row in rows})


async def say(shelf: Shelf, product_id: str, locale: str, title: str, description: str = "") -> None:
    """The product has texts in one more language."""
    await shelf.database.pool.execute(
        "INSERT INTO product_texts VALUES ($1, $2, $3, $4)", product_id, locale, title, description
    )
    await shelf.refresh(product_id)


async def shoes(shelf: Shelf) -> None:
    await put(
        shelf,
        {"id": "comet", "title": "Solvane Comet Sneaker", "brand": "Solvane", "color": "Red", "product_type": SNEAKERS,
         "description": "For cobbled streets."},
        {"id": "drift", "title": "Tarnfeld Drift Sneaker", "brand": "Tarnfeld", "color": "Blue",
         "product_type": SNEAKERS},
        {"id": "ridge", "title": "Solvane Ridge Hiking Boot", "brand": "Solvane", "color": "Red", "product_type": BOOTS,
         "description": "Firmer than a sneaker."},
    )  # fmt: skip


async def test_words_are_found_in_any_form_case_and_accent_in_three_languages(shelf: Shelf) -> None:
    await shoes(shelf)
    await say(shelf, "drift", "de", "Tarnfeld Drift Läufer für Größen", "Mit weichen Sohlen")
    await say(shelf, "drift", "cs", "Tarnfeld Drift běžecké boty", "Měkká podrážka")
    for query in ("SNEAKERS", "sneaker", "Sneaker's"):
        assert set(await found(shelf, query)) == {"comet", "drift", "ridge"}
    for query in ("läufer", "laufer", "laeufer", "Grosse", "größe", "sohle", "bezecke boty", "BĚŽECKÝCH", "podrazky"):
        assert await found(shelf, query, locale="en") == ["drift"], query


async def test_who_reads_another_language_finds_what_is_sold_in_one(shelf: Shelf) -> None:
    await shoes(shelf)
    # The boot is red, too, and its description speaks of sneakers.
    assert await found(shelf, "rote Turnschuhe") == ["comet", "ridge"]
    assert await found(shelf, "červené tenisky") == ["comet", "ridge"]
    assert await found(shelf, "Wanderschuhe") == ["ridge"]


async def test_all_words_must_stand_somewhere_and_the_title_counts_most(shelf: Shelf) -> None:
    await shoes(shelf)
    # In the description only: last, although as popular.
    assert await found(shelf, "sneaker") == ["comet", "drift", "ridge"]
    assert await found(shelf, "solvane sneaker") == ["comet", "ridge"]
    assert await found(shelf, "blue sneaker") == ["drift"]
    # As it is written before other forms.
    await put(shelf, {"id": "plural", "title": "Sneakers", "product_type": SNEAKERS})
    assert (await found(shelf, "sneakers"))[0] == "plural"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("snekers", "sneakers"),
        ("sneakres", "sneakers"),
        ("solvanne", "solvane"),
        ("slovane comet", "solvane comet"),
        ("tarnfeldd sneeker", "tarnfeld sneaker"),
        ("hikking boot", "hiking boot"),
        ("comet zzzzzz", "comet"),
    ],
)
async def test_typing_errors_are_forgiven_and_said(shelf: Shelf, typed: str, meant: str) -> None:
    await shoes(shelf)
    await put(shelf, {"id": "plural", "title": "Comet Sneakers", "product_type": SNEAKERS})
    answer = await ask(shelf, typed)
    assert answer.products
    assert answer.corrected_query == meant


async def test_what_is_found_as_it_was_written_is_not_corrected(shelf: Shelf) -> None:
    await shoes(shelf)
    await put(
        shelf, {"id": "one", "title": "Kestral"}, {"id": "two", "title": "Kestrel"}, {"id": "three", "title": "Kestrel"}
    )
    answer = await ask(shelf, "kestral")
    assert [product.product_id for product in answer.products] == ["one"]
    assert not answer.corrected_query


async def test_a_corrected_query_goes_on_page_after_page(shelf: Shelf) -> None:
    await shoes(shelf)
    assert set(await pages(shelf, 1, query="snekaer")) == {"comet", "drift", "ridge"}


async def test_nobody_is_led_to_what_is_sold_out(shelf: Shelf) -> None:
    await shoes(shelf)
    await shelf.stock(drift=0)
    assert await found(shelf, "drift") == []
    assert await found(shelf, "tarnfelt") == []
    answer = await shelf.storefront.SuggestProducts(pb.SuggestProductsRequest(prefix="ta"))
    assert not answer.suggestions


async def test_an_article_is_found_by_its_numbers(shelf: Shelf) -> None:
    await put(shelf, {"id": "A-1/42", "item_group_id": "A-1", "gtin": "9520000000011"}, {"id": "B-1"})
    for query in ("A-1/42", "A-1", "9520000000011"):
        assert await found(shelf, query) == ["A-1"], query


async def test_filters_narrow_and_one_variant_meets_all_of_them(shelf: Shelf) -> None:
    await put(
        shelf,
        {"id": "a1", "item_group_id": "a", "size": "41", "color": "red", "gender": "male", "price": "50.00 EUR"},
        {"id": "a2", "item_group_id": "a", "size": "42", "color": "blue", "gender": "male", "price": "90.00 EUR"},
        {"id": "b1", "item_group_id": "b", "size": "42", "color": "red", "gender": "female", "price": "70.00 EUR"},
    )
    assert set(await found(shelf, filters=wanted(size="42"))) == {"a", "b"}
    # The page is looked through before it is shown; how many there are is told by the index alone.
    answer = await ask(shelf, filters=wanted(size="42", color="red"), facets=True)
    assert [product.product_id for product in answer.products] == ["b"]
    assert answer.total_size == 1
    assert await found(shelf, filters=wanted(size="41", color="blue")) == []
    assert await found(shelf, filters=wanted(size="42", color="red", gender="male")) == []
    either = [pb.Filter(attribute="size", values=["41", "42"]), *wanted(color="red", gender="male")]
    assert await found(shelf, filters=either) == ["a"]
    # The price is one of the variant, too.
    cheap = pb.PriceRange(maximum=Money(currency_code="EUR", units=60))
    assert await found(shelf, filters=wanted(size="42"), price_range=cheap) == []
    assert await found(shelf, filters=wanted(size="41"), price_range=cheap) == ["a"]
    between = pb.PriceRange(minimum=Money(currency_code="EUR", units=90), maximum=Money(currency_code="EUR", units=90))
    assert await found(shelf, price_range=between) == ["a"]
    # What went meanwhile takes the product out, though others of its variants are there.
    await shelf.stock(b1=0)
    assert await found(shelf, filters=wanted(size="42", color="red")) == []


def counts(answer: pb.ListProductsResponse) -> dict[str, dict[str, int]]:
    return {facet.attribute: {each.value: each.product_count for each in facet.values} for facet in answer.facets}


async def test_facets_count_products_and_ignore_their_own_filter(shelf: Shelf) -> None:
    await put(
        shelf,
        *(
            {"id": f"{product}-{size}", "item_group_id": product, "size": size, "color": color, "brand": brand,
             "product_type": SNEAKERS}
            for product, color, brand in (("a", "red", "Acme"), ("b", "red", "Bell"), ("c", "blue", "Bell"))
            for size in ("9", "10")
        ),
    )  # fmt: skip
    await shelf.stock(**{"a-9": 0})
    everything = await ask(shelf, facets=True)
    assert (everything.total_size, everything.estimated) == (3, False)
    assert counts(everything) == {
        "category": {"Wear": 3, "Wear > Shoes": 3, SNEAKERS: 3},
        "brand": {"Bell": 2, "Acme": 1},
        "size": {"9": 2, "10": 3},
        "color": {"red": 2, "blue": 1},
    }
    assert [each.value for each in everything.facets[2].values] == ["9", "10"]
    narrowed = await ask(shelf, filters=wanted(size="9", color="red"), facets=True)
    assert narrowed.total_size == 1
    assert counts(narrowed) == {
        "category": {"Wear": 1, "Wear > Shoes": 1, SNEAKERS: 1},
        "brand": {"Bell": 1},
        "size": {"9": 1, "10": 2},
        "color": {"red": 1, "blue": 1},
    }
    searched = await ask(shelf, "acme", facets=True)
    assert counts(searched)["size"] == {"10": 1}


async def test_every_attribute_may_be_filtered_at_once(shelf: Shelf) -> None:
    has = {"size_system": "EU", "width": "wide", "material": "cork", "gender": "female", "age_group": "adult"}
    await put(shelf, {"id": "full", "brand": "Acme", "product_type": "Wear", "size": "9", "color": "red", **has})
    filters = wanted(category="Wear", brand="Acme", size="9", color="red", **has)
    answer = await ask(shelf, filters=filters, facets=True)
    assert [product.product_id for product in answer.products] == ["full"]
    assert answer.total_size == 1
    assert set(counts(answer)) == {filtered.attribute for filtered in filters}


async def test_counts_beyond_the_exact_are_estimates_and_say_so(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"p{n}", "color": "red" if n % 4 else "blue", "brand": f"B{n % 3}"} for n in range(400)]
    for start in range(0, 400, 100):
        await put(shelf, *rows[start : start + 100])
    monkeypatch.setattr(counting, "SMALL", 50)
    monkeypatch.setattr(counting, "TELLING", 20)
    monkeypatch.setattr(counting, "LOTS", 4096)
    answer = await ask(shelf, filters=wanted(color="red"), facets=True)
    assert answer.estimated
    assert 220 < answer.total_size < 380
    few = await ask(shelf, filters=wanted(color="red", brand="none"), facets=True)
    assert (few.total_size, few.estimated) == (0, True)  # how many others there are is told from the sample


async def test_what_the_window_counts_is_what_stands_in_it(shelf: Shelf) -> None:
    """Whatever happened to products and stock."""
    await shoes(shelf)
    await shelf.stock(comet=0)
    await put(shelf, {"id": "ridge", "title": "Solvane Ridge", "brand": "Other", "product_type": SNEAKERS})
    await shelf.stock(comet=2, drift=0)
    answer = await ask(shelf, facets=True)
    assert counts(answer)["brand"] == {"Other": 1, "Solvane": 1}
    assert counts(answer)["category"][SNEAKERS] == 2
    assert answer.total_size == 2


async def test_orders(shelf: Shelf) -> None:
    await put(
        shelf,
        {"id": "cheap", "title": "Čápi", "price": "10.00 EUR"},
        {"id": "dear", "title": "Cizí", "price": "300.00 EUR"},
        {"id": "middle", "title": "Hory", "price": "20.50 EUR"},
        {"id": "other", "title": "Chata", "price": "100.00 EUR"},
    )
    assert await found(shelf, order_by=pb.PRODUCT_ORDER_PRICE_ASCENDING) == ["cheap", "middle", "other", "dear"]
    assert await found(shelf, order_by=pb.PRODUCT_ORDER_PRICE_DESCENDING) == ["dear", "other", "middle", "cheap"]
    # Czech has č after c, and ch after h; others sort letter by letter.
    assert await found(shelf, order_by=pb.PRODUCT_ORDER_NAME, locale="cs-CZ") == ["dear", "cheap", "middle", "other"]
    assert await found(shelf, order_by=pb.PRODUCT_ORDER_NAME, locale="de") == ["cheap", "other", "dear", "middle"]
    await shelf.database.pool.execute(
        "UPDATE products SET create_time = now() + interval '1 h' WHERE product_id = 'middle'"
    )
    await shelf.stock(middle=0)
    await shelf.stock(middle=1)
    assert (await found(shelf, order_by=pb.PRODUCT_ORDER_NEWEST))[0] == "middle"


async def test_a_product_in_another_currency_has_its_price_and_the_rest_is_not_shown(shelf: Shelf) -> None:
    await put(shelf, {"id": "both", "price": "10.00 EUR"}, {"id": "euro", "price": "20.00 EUR"})
    await shelf.database.pool.execute("INSERT INTO current_prices (sku, currency, amount) VALUES ('both', 'CHF', 12)")
    await shelf.refresh("both")
    answer = await ask(shelf, currency_code="CHF", order_by=pb.PRODUCT_ORDER_PRICE_ASCENDING, facets=True)
    assert [(each.product_id, each.variants[0].price.units) for each in answer.products] == [("both", 12)]
    assert answer.total_size == 1
    assert await found(shelf, currency_code="JPY") == []


async def test_what_was_ordered_most_lately_stands_first(shelf: Shelf) -> None:
    await put(shelf, *({"id": name, "title": "Shoe"} for name in ("a", "b", "c")))
    await shelf.ordered("a", 9, ago=timedelta(days=90))
    await shelf.ordered("b", 2)
    assert await found(shelf) == ["b", "a", "c"]
    await shelf.ordered("a", 4)
    assert await found(shelf) == ["a", "b", "c"]
    assert await found(shelf, "shoe") == ["a", "b", "c"]


async def test_only_what_moves_is_written(shelf: Shelf) -> None:
    """A change of the number of free units leaves the row of the search alone."""
    await put(shelf, {"id": "a-1", "item_group_id": "a"}, {"id": "a-2", "item_group_id": "a"})
    row = "SELECT xmin::text FROM search_rows"
    before = await shelf.database.pool.fetchval(row)
    await shelf.stock(**{"a-1": 7})
    assert await shelf.database.pool.fetchval(row) == before
    await shelf.stock(**{"a-1": 0})
    assert await shelf.database.pool.fetchval(row) != before


async def test_a_search_that_was_emptied_is_made_anew(shelf: Shelf) -> None:
    await shoes(shelf)
    before = await ask(shelf, "sneaker", facets=True)
    await shelf.database.pool.execute("TRUNCATE product_words, search_rows, search_prices, search_counts")
    assert await found(shelf) == []
    assert await shelf.app.upkeep.describe_all() == 3
    assert await found(shelf, "sneaker") == [product.product_id for product in before.products]
    assert await shelf.app.upkeep.describe_all() == 0


async def test_counts_are_summed_up_without_being_changed(shelf: Shelf) -> None:
    await shoes(shelf)
    await shelf.stock(comet=0)
    rows = "SELECT count(*) FROM search_counts"
    before = await shelf.database.pool.fetchval(rows)
    await shelf.app.upkeep.sum_up()
    assert await shelf.database.pool.fetchval(rows) < before
    assert counts(await ask(shelf, facets=True))["brand"] == {"Solvane": 1, "Tarnfeld": 1}


# -- suggestions and categories


async def suggested(shelf: Shelf, prefix: str, **more: Any) -> list[tuple[str, str, int]]:
    answer = await shelf.storefront.SuggestProducts(pb.SuggestProductsRequest(prefix=prefix, **more))
    return [
        (pb.SuggestionKind.Name(each.kind).removeprefix("SUGGESTION_KIND_"), each.text, each.product_count)
        for each in answer.suggestions
    ]


async def test_suggestions_are_brands_categories_and_products_that_begin_so(shelf: Shelf) -> None:
    await shoes(shelf)
    assert await suggested(shelf, "so") == [
        ("BRAND", "Solvane", 2),
        ("PRODUCT", "Solvane Comet Sneaker", 1),
        ("PRODUCT", "Solvane Ridge Hiking Boot", 1),
    ]
    assert await suggested(shelf, "SNEAK", page_size=2) == [
        ("CATEGORY", SNEAKERS, 2),
        ("PRODUCT", "Solvane Comet Sneaker", 1),
    ]
    assert await suggested(shelf, "solvane com") == [("PRODUCT", "Solvane Comet Sneaker", 1)]
    assert await suggested(shelf, "comet ") == [("PRODUCT", "Solvane Comet Sneaker", 1)]
    assert await suggested(shelf, "%_'\"\\ ") == []
    await say(shelf, "drift", "cs", "Tarnfeld běžecká bota")
    assert await suggested(shelf, "běž", locale="cs") == [("PRODUCT", "Tarnfeld běžecká bota", 1)]
    assert await suggested(shelf, "bezecka b", locale="cs") == [("PRODUCT", "Tarnfeld běžecká bota", 1)]


async def test_categories_have_what_is_in_stock(shelf: Shelf) -> None:
    await shoes(shelf)
    await shelf.stock(ridge=0)
    answer = await shelf.storefront.ListCategories(pb.ListCategoriesRequest())
    assert [(each.product_type, each.product_count) for each in answer.categories] == [
        ("Wear", 2),
        ("Wear > Shoes", 2),
        (SNEAKERS, 2),
    ]
    below = await shelf.storefront.ListCategories(pb.ListCategoriesRequest(parent="Wear>Shoes"))
    assert [each.product_type for each in below.categories] == [SNEAKERS]


async def test_what_an_article_number_finds_must_be_what_else_was_asked_and_is_counted_so(shelf: Shelf) -> None:
    await shelf.feed({"id": "a-1", "item_group_id": "a", "brand": "Acme", "product_type": "Shoes > Boots"})
    await shelf.stock(**{"a-1": 1})
    for narrowed, there in (
        (pb.ListProductsRequest(query="a-1"), 1),
        (pb.ListProductsRequest(query="a-1", filters=wanted(brand="Other")), 0),
        (pb.ListProductsRequest(query="a-1", filters=wanted(brand="Acme", category="Shoes")), 1),
        (pb.ListProductsRequest(query="a-1", filters=wanted(category="Shoes > Boot")), 0),
        (pb.ListProductsRequest(query="a-1", currency_code="CZK"), 0),
    ):
        narrowed.facets = True
        answer = await shelf.storefront.ListProducts(narrowed)
        assert (len(answer.products), answer.total_size) == (there, there)
