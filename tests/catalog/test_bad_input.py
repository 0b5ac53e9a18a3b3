"""The longest that is taken, in letters that no index can press together; and one more, which is refused by field."""

from __future__ import annotations

from random import Random
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from services.catalog.domain.feed import CATEGORY_BYTES, TEXTS, category, check
from services.chassis.errors import InvalidInput
from services.chassis.validation import checker
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import records_pb2 as records
from tests.catalog.conftest import Shelf

LONGEST_TAG = "zh-Hant-TW-x-" + "abcdefgh-" * 2 + "abcd"


def letters(count: int) -> str:
    """Chinese characters, of four bytes each and in no order."""
    drawn = Random(count)
    return "".join(chr(drawn.randint(0x20000, 0x2A6DF)) for _ in range(count))


async def test_the_longest_of_every_text_at_once_is_taken_in_sold_and_found(shelf: Shelf) -> None:
    row = {column: letters(most) for column, most in TEXTS.items()}
    row["product_type"] = row["google_product_category"] = letters((CATEGORY_BYTES - 3) // 4)
    answer = await shelf.feed({"id": "a" * 64, "item_group_id": "b" * 64, **row})
    assert not answer.problems
    await shelf.stock(**{"a" * 64: 1})
    assert await shelf.listed(category=row["product_type"], brand=row["brand"]) == {"b" * 64: ["a" * 64]}


@pytest.mark.parametrize("path", [letters(300), "a>" * 374 + "a"], ids=["wide letters", "many steps"])
def test_a_category_that_no_index_can_hold_is_refused(path: str) -> None:
    assert len(path) <= TEXTS["product_type"] < CATEGORY_BYTES < len(category(path).encode())
    for column in ("product_type", "google_product_category"):
        found = check({"id": "a", "title": "Shoe", "price": "1.00 EUR", column: path})
        assert found == [(column, f"is longer than {CATEGORY_BYTES} bytes")]


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListProductsRequest(),
        pb.SuggestProductsRequest(prefix="a"),
        pb.GetProductRequest(product_id="a"),
        pb.ListAlternativesRequest(sku="a"),
        pb.WatchProductsRequest(product_ids=["a"]),
        records.ImportProductsRequest(rows=[records.FeedRow(line=2)]),
        records.ExportProductsRequest(),
        records.BatchGetVariantsRequest(skus=["a"]),
    ],
    ids=lambda request: type(request).__name__,
)
def test_a_tag_of_a_language_has_an_end(request_: Message) -> None:
    """Each of its parts is one more language to fall back to, and it stands in an index."""
    check_it = checker(type(request_))
    assert check_it is not None
    assert len(LONGEST_TAG) == 35
    setattr(request_, "locale", LONGEST_TAG)  # noqa: B010
    check_it(request_)
    setattr(request_, "locale", LONGEST_TAG + "e")  # noqa: B010
    with pytest.raises(InvalidInput) as refusal:
        check_it(request_)
    assert [field for field, _ in refusal.value.fields] == ["locale"]


def test_so_has_that_of_a_text() -> None:
    texts = [records.ProductTexts(locale="de" + "-abcdefgh" * 100, title="Shoe")]
    request = records.UpdateProductRequest(
        request_id=uuid4().hex,
        product=records.ProductRecord(product_id="a", texts=texts),
        update_mask=FieldMask(paths=["texts"]),
    )
    check_it = checker(records.UpdateProductRequest)
    assert check_it is not None
    with pytest.raises(InvalidInput) as refusal:
        check_it(request)
    assert [field for field, _ in refusal.value.fields] == ["product.texts[0].locale"]
