"""The feed that is written: only what can be shipped now, and reading it again changes nothing."""

from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path

import pytest

from services.catalog.feed_commands import export_file, import_file
from services.catalog.feed_writer import FeedWriter
from services.catalog.grpc_api import records as records_api
from services.chassis.values import to_timestamp
from shop.catalog.v1 import records_pb2 as records
from tests.catalog.conftest import Shelf
from tests.catalog.test_feed_file import Command, command, target
from tests.catalog.test_records import set_price, update

__all__ = ["command", "target"]


async def exported(command: Command, file: Path, *more: str) -> int:
    return await export_file([str(file), "--address", command.target, "--token-file", str(command.token_file), *more])


async def imported(command: Command, file: Path, *more: str) -> int:
    return await import_file([str(file), "--address", command.target, "--token-file", str(command.token_file), *more])


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text, delimiter="\t"))


async def full_shelf(shelf: Shelf) -> None:
    now = await shelf.now()
    effective = f"{(now + timedelta(days=1)).isoformat()}/{(now + timedelta(days=2)).isoformat()}"
    await shelf.feed(
        {
            "id": "a-1",
            "item_group_id": "a",
            "title": 'Shoe "one"',
            "description": "A plain, light shoe",
            "brand": "Acme",
            "product_type": "Wear > Shoes",
            "size": "41",
            "size_system": "EU",
            "width": "G",
            "material": "suede",
            "gender": "male",
            "age_group": "adult",
            "gtin": "4006381333931",
            "image_link": "https://a.b/0",
            "additional_image_link": "https://a.b/1,https://a.b/2",
            "sale_price": "80 EUR",
            "sale_price_effective_date": effective,
        },
        {"id": "a-2", "item_group_id": "a", "title": "Shoe two", "price": "10 EUR", "sale_price": "9 EUR"},
        {"id": "b", "price": "1000 JPY"},
        {"id": "c"},
        {"id": "d"},
        {"id": "gone"},
        {"id": "draft"},
    )
    await shelf.feed({"id": "a-1", "title": "Bota", "price": "2500 CZK"}, locale="cs")
    await shelf.stock(**{"a-1": 1, "a-2": 1, "b": 1, "c": 1, "d": 1, "gone": 0, "draft": 1})
    await update(shelf, product_id="draft", state=records.PRODUCT_STATE_DRAFT)
    await set_price(shelf, "70", sku="c", reduced=True, end_time=to_timestamp(now + timedelta(days=1)))
    await set_price(shelf, "120", sku="d", start_time=to_timestamp(now - timedelta(days=1)))


async def test_only_what_can_be_shipped_now_is_exported_and_reads_back_unchanged(
    shelf: Shelf, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await full_shelf(shelf)
    file = tmp_path / "out.tsv"
    assert await exported(command, file) == 0
    rows = {row["id"]: row for row in rows_of(file)}
    assert list(rows) == ["a-1", "a-2", "c", "d"]
    assert {row["availability"] for row in rows.values()} == {"in_stock"}
    assert (rows["a-1"]["title"], rows["a-1"]["price"], rows["a-1"]["sale_price"]) == (
        'Shoe "one"',
        "100.00 EUR",
        "80.00 EUR",
    )
    assert (rows["a-2"]["sale_price"], rows["a-2"]["sale_price_effective_date"]) == ("9.00 EUR", "")
    assert (rows["c"]["sale_price"], rows["d"]["price"]) == ("70.00 EUR", "120.00 EUR")
    count = "SELECT count(*) FROM product_history"
    before = await shelf.database.pool.fetchval(count)
    capsys.readouterr()
    assert await imported(command, file) == 0
    assert capsys.readouterr().out == "out.tsv: 0 changed, 4 unchanged, 0 broken\n"
    assert await shelf.database.pool.fetchval(count) == before


async def test_another_language_and_currency_read_back_unchanged_too(
    shelf: Shelf, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await full_shelf(shelf)
    file = tmp_path / "cs.tsv"
    assert await exported(command, file, "--locale", "cs", "--currency", "CZK") == 0
    [row] = rows_of(file)
    assert (row["id"], row["title"], row["price"]) == ("a-1", "Bota", "2500.00 CZK")
    capsys.readouterr()
    assert await imported(command, file, "--locale", "cs") == 0
    assert capsys.readouterr().out == "cs.tsv: 0 changed, 1 unchanged, 0 broken\n"


async def test_an_export_that_was_stopped_goes_on_where_it_was(
    shelf: Shelf, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_api, "EXPORT_ROWS", 2)
    names = [f"s{number:02}" for number in range(7)]
    await shelf.feed(*({"id": name} for name in names))
    await shelf.stock(**dict.fromkeys(names, 1))
    file = tmp_path / "out.tsv"
    part = tmp_path / "out.tsv.own.own.part"
    with FeedWriter(part) as writer:
        writer.write(records.FeedRow(fields={"id": name, "title": "Shoe"}) for name in names[:3])
    with part.open("a") as text:
        text.write("s03\tcut o")  # in the middle of a row
    assert await exported(command, file) == 0
    assert "going on after s02" in capsys.readouterr().err
    assert [(row["id"], row["title"]) for row in rows_of(file)] == [(name, "Shoe") for name in names]
    assert not part.exists()


async def test_a_service_that_refuses_leaves_the_file_as_it_is(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.tsv"
    file.write_text("before")
    command.token_file.write_text("nonsense")
    assert await exported(command, file) == 1
    assert "UNAUTHENTICATED" in capsys.readouterr().err
    assert file.read_text() == "before"
    assert await exported(command, tmp_path / "absent" / "out.tsv") == 2
