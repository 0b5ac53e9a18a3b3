"""Records changed by hand: what may be changed, by whom it was, and what the window makes of it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money

from services.chassis.access import acting_as
from services.chassis.errors import Conflict, InvalidInput, NotFound, NotNow
from services.chassis.values import from_money, to_money, to_timestamp
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import records_pb2 as records
from tests.catalog.conftest import OPERATOR, Shelf

DRAFT, PUBLISHED, DISCONTINUED = (
    records.PRODUCT_STATE_DRAFT,
    records.PRODUCT_STATE_PUBLISHED,
    records.PRODUCT_STATE_DISCONTINUED,
)


def euros(money: Money) -> str:
    return f"{from_money(money):g}"


async def update(shelf: Shelf, *paths: str, product_id: str = "a", **fields: Any) -> records.ProductRecord:
    request = records.UpdateProductRequest(
        request_id=uuid4().hex,
        product=records.ProductRecord(product_id=product_id, **fields),
        update_mask=FieldMask(paths=paths or [name for name in fields if name != "etag"]),
    )
    with acting_as(OPERATOR):
        return (await shelf.admin.UpdateProduct(request)).product


async def update_variant(shelf: Shelf, *paths: str, sku: str = "a-1", etag: str = "", **fields: Any) -> Any:
    request = records.UpdateVariantRequest(
        request_id=uuid4().hex,
        variant=records.VariantRecord(sku=sku, **fields),
        update_mask=FieldMask(paths=paths or list(fields)),
        etag=etag,
    )
    with acting_as(OPERATOR):
        return (await shelf.admin.UpdateVariant(request)).product


async def set_price(
    shelf: Shelf, amount: str, currency: str = "EUR", sku: str = "a-1", etag: str = "", **more: Any
) -> Any:
    price = records.Price(amount=to_money(Decimal(amount), currency), **more)
    with acting_as(OPERATOR):
        request = records.SetPriceRequest(request_id=uuid4().hex, sku=sku, price=price, etag=etag)
        return (await shelf.admin.SetPrice(request)).product


async def record(shelf: Shelf, product_id: str = "a") -> records.ProductRecord:
    return (await shelf.admin.GetProductRecord(records.GetProductRecordRequest(product_id=product_id))).product


async def history(shelf: Shelf, product_id: str = "a") -> list[tuple[str, str, str, str]]:
    answer = await shelf.admin.ListProductChanges(
        records.ListProductChangesRequest(product_id=product_id, page_size=100)
    )
    assert {one.actor for one in answer.changes} <= {"operator:olga"}
    return [(one.sku, one.field, one.before, one.after) for one in reversed(answer.changes)]


async def shown(shelf: Shelf, product_id: str = "a", **more: str) -> pb.Product:
    answer = await shelf.storefront.GetProduct(pb.GetProductRequest(product_id=product_id, **more))
    return answer.product


async def one_product(shelf: Shelf) -> None:
    await shelf.feed(
        {"id": "a-1", "item_group_id": "a", "title": "Shoe one", "brand": "Acme", "size": "41"},
        {"id": "a-2", "item_group_id": "a", "title": "Shoe two", "brand": "Acme", "size": "42"},
    )
    await shelf.stock(**{"a-1": 1, "a-2": 1})


def wrong_fields(refused: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [field for field, _ in refused.value.fields]


async def test_a_draft_is_nowhere_and_what_is_discontinued_opens_only_by_its_link(shelf: Shelf) -> None:
    await one_product(shelf)
    await update(shelf, state=DRAFT)
    assert await shelf.listed() == {}
    with pytest.raises(NotFound):
        await shown(shelf)
    with pytest.raises(NotFound):
        await shelf.storefront.ListAlternatives(pb.ListAlternativesRequest(sku="a-1"))
    sold = await shelf.admin.BatchGetVariants(records.BatchGetVariantsRequest(skus=["a-1"]))
    assert not sold.variants
    await update(shelf, state=PUBLISHED)
    assert await shelf.listed() == {"a": ["a-1", "a-2"]}
    await update(shelf, state=DISCONTINUED)
    assert await shelf.listed() == {}
    product = await shown(shelf)
    assert (product.sold_out, product.discontinued, list(product.variants)) == (True, True, [])
    await shelf.be_stale()
    assert not (await shown(shelf)).variants
    assert await shelf.facts() == [
        ("ProductRelisted", "a"),
        ("ProductDelisted", "a"),
        ("ProductRelisted", "a"),
        ("ProductDelisted", "a"),
    ]


async def test_stock_and_feeds_leave_the_state_as_it_is(shelf: Shelf) -> None:
    await one_product(shelf)
    await update(shelf, state=DRAFT)
    await shelf.stock(**{"a-1": 5})
    await shelf.feed({"id": "a-1", "item_group_id": "a", "title": "Other"}, {"id": "a-3", "item_group_id": "a"})
    await shelf.stock(**{"a-3": 5})
    assert await shelf.listed() == {}
    assert (await record(shelf)).state == DRAFT


@pytest.mark.parametrize(("state", "wanted"), [(DRAFT, DISCONTINUED), (DISCONTINUED, DRAFT)])
async def test_not_every_state_leads_to_every_other(shelf: Shelf, state: Any, wanted: Any) -> None:
    await one_product(shelf)
    await update(shelf, state=state)
    with pytest.raises(NotNow) as refused:
        await update(shelf, state=wanted)
    names = [records.ProductState.Name(one).removeprefix("PRODUCT_STATE_") for one in (state, wanted)]
    assert refused.value.reason == "WRONG_STATE"
    assert refused.value.details == {"state": names[0], "wanted": names[1]}
    assert (await record(shelf)).state == state


async def test_an_etag_that_is_too_old_is_refused_and_changes_nothing(shelf: Shelf) -> None:
    await one_product(shelf)
    before = await record(shelf)
    after = await update(shelf, brand="Bell", etag=before.etag)
    assert after.etag != before.etag
    for attempt in (
        update(shelf, brand="Cord", etag=before.etag),
        update_variant(shelf, color="red", etag=before.etag),
        set_price(shelf, "90.00", etag=before.etag),
    ):
        with pytest.raises(Conflict) as refused:
            await attempt
        assert refused.value.reason == "ETAG_MISMATCH"
        assert refused.value.details == {"etag": after.etag, "given": before.etag}
    assert await record(shelf) == after
    await shelf.feed({"id": "a-1", "item_group_id": "a", "title": "Shoe one", "brand": "Cord"})
    assert (await record(shelf)).etag != after.etag


async def test_masks_say_what_is_wrong_with_them(shelf: Shelf) -> None:
    await one_product(shelf)
    for paths, said in (
        ((), "must name what changes"),
        (("colour",), "colour is no field"),
        (("brand", "etag"), "etag is output only"),
        (("texts.title",), "texts.title is no field"),
    ):
        request = records.UpdateProductRequest(
            request_id=uuid4().hex,
            product=records.ProductRecord(product_id="a", brand="Bell"),
            update_mask=FieldMask(paths=paths),
        )
        with acting_as(OPERATOR), pytest.raises(InvalidInput) as refused:
            await shelf.admin.UpdateProduct(request)
        assert wrong_fields(refused) == ["update_mask"]
        assert said in str(refused.value)
    with pytest.raises(InvalidInput, match="prices is output only"):
        await update_variant(shelf, "prices")
    with pytest.raises(InvalidInput, match="SerializeToString is no field"):
        await update_variant(shelf, "SerializeToString")
    assert (await record(shelf)).brand == "Acme"


async def test_only_what_the_mask_names_changes_and_each_change_is_kept(shelf: Shelf) -> None:
    await one_product(shelf)
    await update(
        shelf,
        "brand",
        "texts",
        "media",
        "product_type",
        brand=" Bell ",
        product_type="Wear>Shoes",
        state=DRAFT,  # not named
        texts=[
            records.ProductTexts(locale="EN", title="A shoe", description="Plain."),
            records.ProductTexts(locale="de-at", title="Ein Schuh"),
        ],
        media=[pb.Media(uri="https://example.org/1.jpg", alternative_text="from the side")],
    )
    found = await record(shelf)
    assert (found.brand, found.product_type, found.state) == ("Bell", "Wear > Shoes", PUBLISHED)
    assert [(one.locale, one.title) for one in found.texts] == [("de-AT", "Ein Schuh"), ("en", "A shoe")]
    assert [one.uri for one in found.media] == ["https://example.org/1.jpg"]
    # The variant as which the product reads is called the same.
    assert [one.title for one in found.variants] == ["A shoe", "Shoe two"]
    assert (await history(shelf))[3:] == [
        ("", "brand", "Acme", "Bell"),
        ("", "media", "[]", '[{"uri": "https://example.org/1.jpg", "alternative_text": "from the side"}]'),
        ("", "product_type", "", "Wear > Shoes"),
        ("", "texts.de-AT.title", "", "Ein Schuh"),
        ("", "texts.en.description", "", "Plain."),
        ("", "texts.en.title", "Shoe one", "A shoe"),
    ]
    await update(shelf, texts=[records.ProductTexts(locale="en", title="A shoe")])
    assert [one.locale for one in (await record(shelf)).texts] == ["en"]
    await update_variant(shelf, sku="a-2", color="red", size_system="uk", gtin="4006381333931", title="Two")
    found = await record(shelf)
    assert [(one.title, one.color, one.size_system, one.gtin) for one in found.variants] == [
        ("A shoe", "", "", ""),
        ("Two", "red", "UK", "4006381333931"),
    ]
    assert (await history(shelf))[-4:] == [
        ("a-2", "color", "", "red"),
        ("a-2", "gtin", "", "4006381333931"),
        ("a-2", "size_system", "", "UK"),
        ("a-2", "texts.en.title", "Shoe two", "Two"),
    ]
    # Nothing changed, so nothing is kept.
    count, etag = len(await history(shelf)), found.etag
    await update_variant(shelf, sku="a-2", color="red")
    assert (len(await history(shelf)), (await record(shelf)).etag) == (count, etag)


async def test_a_language_added_by_hand_serves_all_variants(shelf: Shelf) -> None:
    await one_product(shelf)
    await update(
        shelf,
        texts=[
            records.ProductTexts(locale="en", title="Shoe one"),
            records.ProductTexts(locale="de", title="Ein Schuh"),
        ],
    )
    page = await shown(shelf, locale="de")
    assert (page.title, [one.title for one in page.variants]) == ("Ein Schuh", ["Ein Schuh"] * 2)
    assert [one.title for one in (await shown(shelf)).variants] == ["Shoe one", "Shoe two"]


async def test_a_size_changed_by_hand_stands_where_sizes_of_that_number_stand(shelf: Shelf) -> None:
    await one_product(shelf)
    await update_variant(shelf, size="43")
    assert await shelf.listed() == {"a": ["a-2", "a-1"]}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"texts": [records.ProductTexts(locale="de", title="Nur")]}, ["product.texts"]),
        ({"texts": [records.ProductTexts(locale="en", title=" ")]}, ["product.texts[0].title"]),
        (
            {"texts": [records.ProductTexts(locale=locale, title="Shoe") for locale in ("en", "EN")]},
            ["product.texts[1].locale"],
        ),
        ({"brand": "bell\x07"}, ["product.brand"]),
        ({"media": [pb.Media(uri="https://a.b/1")] * 2}, ["product.media[1].uri"]),
        ({"state": records.PRODUCT_STATE_UNSPECIFIED}, ["product.state"]),
    ],
)
async def test_wrong_values_are_named_and_nothing_is_half_done(
    shelf: Shelf, fields: dict[str, Any], wrong: list[str]
) -> None:
    await one_product(shelf)
    before = await record(shelf)
    with pytest.raises(InvalidInput) as refused:
        await update(shelf, "product_type", *fields, product_type="Other", **fields)
    assert wrong_fields(refused) == wrong
    assert await record(shelf) == before


async def test_wrong_values_of_variants_and_unknown_ids_are_named(shelf: Shelf) -> None:
    await one_product(shelf)
    with pytest.raises(InvalidInput) as refused:
        await update_variant(shelf, title="", gtin="4006381333932", image_link="ftp://a")
    assert sorted(wrong_fields(refused)) == ["variant.gtin", "variant.image_link"]
    with pytest.raises(NotFound) as unknown:
        await update_variant(shelf, sku="nothing", color="red")
    assert (unknown.value.reason, unknown.value.details) == ("VARIANT_NOT_FOUND", {"sku": "nothing"})
    with pytest.raises(NotFound) as unknown:
        await update(shelf, product_id="nothing", brand="x")
    assert unknown.value.reason == "PRODUCT_NOT_FOUND"
    with pytest.raises(NotFound):
        await record(shelf, "nothing")


async def test_a_repeated_request_gets_the_same_answer(shelf: Shelf) -> None:
    await one_product(shelf)
    request = records.UpdateProductRequest(
        request_id="update-1234",
        product=records.ProductRecord(product_id="a", brand="Bell"),
        update_mask=FieldMask(paths=["brand"]),
    )
    with acting_as(OPERATOR):
        first = await shelf.admin.UpdateProduct(request)
        await update(shelf, brand="Cord")
        assert await shelf.admin.UpdateProduct(request) == first
    assert (await record(shelf)).brand == "Cord"


async def test_a_reduction_holds_beside_the_regular_price_for_its_period(shelf: Shelf) -> None:
    await one_product(shelf)
    now = await shelf.now()
    hour = timedelta(hours=1)
    await set_price(shelf, "80", reduced=True, start_time=to_timestamp(now - hour), end_time=to_timestamp(now + hour))
    [reduced, other] = (await shown(shelf)).variants
    assert (euros(reduced.price), euros(reduced.regular_price)) == ("80", "100")
    assert (euros(other.price), other.HasField("regular_price")) == ("100", False)
    # The one that began last counts, as long as it is one.
    await set_price(shelf, "70", reduced=True, start_time=to_timestamp(now - hour / 2))
    assert euros((await shown(shelf)).variants[0].price) == "70"
    await set_price(shelf, "60")
    [cheaper, _] = (await shown(shelf)).variants
    assert (euros(cheaper.price), cheaper.HasField("regular_price")) == ("60", False)
    prices = (await record(shelf)).variants[0].prices
    assert [(euros(one.amount), one.reduced) for one in prices] == [("60", False), ("80", True), ("70", True)]
    assert [field for _, field, _, _ in (await history(shelf))[3:]] == [
        "prices.EUR.reduced",
        "prices.EUR.reduced",
        "prices.EUR",
    ]
    assert (await history(shelf))[-1][2:] == ("100.00", "60")


async def test_prices_in_another_currency_are_for_sale_there_at_once(shelf: Shelf) -> None:
    await one_product(shelf)
    await set_price(shelf, "2500", "CZK")
    product = await shown(shelf, currency_code="CZK")
    assert [(one.sku, euros(one.price)) for one in product.variants] == [("a-1", "2500")]
    sold = await shelf.admin.BatchGetVariants(records.BatchGetVariantsRequest(skus=["a-1"], currency_code="CZK"))
    assert [euros(one.price) for one in sold.variants] == ["2500"]


@pytest.mark.parametrize(
    ("amount", "currency", "more", "wrong"),
    [
        ("10.005", "EUR", {}, "price.amount"),
        ("10.5", "JPY", {}, "price.amount"),
        ("10", "XXY", {}, "price.amount.currency_code"),
        ("0", "EUR", {}, "price.amount"),
        ("-1", "EUR", {}, "price.amount"),
        ("100", "EUR", {"reduced": True}, "price.amount"),
        ("10", "CZK", {"reduced": True}, "price.reduced"),
        (
            "10",
            "EUR",
            {"start_time": {"seconds": 2_000_000_000}, "end_time": {"seconds": 2_000_000_000}},
            "price.end_time",
        ),
        ("10", "EUR", {"start_time": {"seconds": 10**15}}, "price.start_time"),
    ],
)
async def test_prices_that_are_none_are_refused_by_field(
    shelf: Shelf, amount: str, currency: str, more: dict[str, Any], wrong: str
) -> None:
    await one_product(shelf)
    before = await record(shelf)
    with pytest.raises(InvalidInput) as refused:
        await set_price(shelf, amount, currency, **more)
    assert wrong_fields(refused) == [wrong]
    assert await record(shelf) == before
    with pytest.raises(NotFound):
        await set_price(shelf, "1", sku="nothing")


async def test_records_are_listed_by_page_and_state(shelf: Shelf) -> None:
    await shelf.feed(*({"id": name} for name in "abcde"))
    await update(shelf, product_id="b", state=DRAFT)
    await update(shelf, product_id="d", state=DRAFT)

    async def listed(**fields: Any) -> list[str]:
        request = records.ListProductRecordsRequest(page_size=2, **fields)
        found: list[str] = []
        while True:
            answer = await shelf.admin.ListProductRecords(request)
            found += [one.product_id for one in answer.products]
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    assert await listed() == list("abcde")
    assert await listed(state=DRAFT) == ["b", "d"]
    assert await listed(state=PUBLISHED) == ["a", "c", "e"]


async def test_the_history_has_pages_and_cannot_be_mistaken_for_another(shelf: Shelf) -> None:
    await one_product(shelf)
    for brand in "bcdef":
        await update(shelf, brand=brand)
    request = records.ListProductChangesRequest(product_id="a", page_size=3)
    found: list[str] = []
    while True:
        answer = await shelf.admin.ListProductChanges(request)
        found += [one.after for one in answer.changes]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert found == [*"fedcb", "a-2", "a-1", "a"]
    request.product_id = "b"
    with pytest.raises(InvalidInput, match="page_token"):
        await shelf.admin.ListProductChanges(request)


@pytest.mark.parametrize(("units", "nanos"), [(5, -500_000_000), (-1, 2_000_000_000), (1, 1_500_000_000), (0, 10**9)])
async def test_nanos_that_do_not_go_with_the_units_are_no_price(shelf: Shelf, units: int, nanos: int) -> None:
    await shelf.feed({"id": "a-1", "item_group_id": "a"})
    price = records.Price(amount=Money(currency_code="USD", units=units, nanos=nanos))
    with acting_as(OPERATOR), pytest.raises(InvalidInput) as refusal:
        await shelf.admin.SetPrice(records.SetPriceRequest(request_id=uuid4().hex, sku="a-1", price=price))
    assert [field for field, _ in refusal.value.fields] == ["price.amount"]
    assert [one.amount.currency_code for one in (await record(shelf)).variants[0].prices] == ["EUR"]
