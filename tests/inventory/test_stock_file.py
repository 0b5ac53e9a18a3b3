"""The command that imports a stock file: each row that cannot be used is named, whatever is wrong with it, and the
others are kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from io import StringIO
from pathlib import Path

import pytest

from services.chassis.database import Database
from services.inventory import stock_import
from services.inventory.grpc_api import InventoryApi
from services.inventory.stock_file import Progress, StockFile
from services.inventory.stock_import import import_file
from tests.chassis.grpc_rig import INVENTORY, Issuer, issuing, serving

HEADER = "sku\tlocation\tquantity\n"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as started:
        yield started


class Command:
    def __init__(self, folder: Path, target: str, token: str) -> None:
        self._folder = folder
        self.target = target
        self.token_file = folder / "operator"
        self.token_file.write_text(token)

    async def __call__(self, content: str | bytes) -> int:
        file = self._folder / "stock.tsv"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return await import_file([str(file), "--address", self.target, "--token-file", str(self.token_file)])


@pytest.fixture
async def command(tmp_path: Path, api: InventoryApi, issuer: Issuer) -> AsyncIterator[Command]:
    async with serving(issuer, (INVENTORY, api)) as rig:
        yield Command(tmp_path, rig.target, issuer.token(role="operator", sub="op"))


async def levels(database: Database) -> dict[str, int]:
    return {row["sku"]: row["on_hand"] for row in await database.fetch("SELECT sku, on_hand FROM stock")}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_reads_what_spreadsheets_write(command: Command, database: Database, encoding: str, newline: str) -> None:
    text = ("SKU\tlocation\tquantity\n" + '"a"\tvienna-1\t3\n\nb\tbrno-1\t0').replace("\n", newline)
    assert await command(text.encode(encoding)) == 0
    assert await levels(database) == {"a": 3, "b": 0}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"b\xff\tvienna-1\t1", "sku: must be 1 to 64"),
        (b"b\x00\tvienna-1\t1", "sku: must be 1 to 64"),
        (b"\tvienna-1\t1", "sku: must be 1 to 64"),
        (b"b" * 65 + b"\tvienna-1\t1", "sku: must be 1 to 64"),
        (b'"b\tVienna 1\t1', "location: must be 1 to 32"),
        (b"b\tvienna-1", "quantity: must be a whole number"),
        (b"b\tvienna-1\t-1", "quantity: must be a whole number"),
        (b"b\tvienna-1\t1.5", "quantity: must be a whole number"),
        (b"b\tvienna-1\t1e3", "quantity: must be a whole number"),
        (b"b\tvienna-1\t1000001", "quantity: must be a whole number"),
        ("b\tvienna-1\t\N{ARABIC-INDIC DIGIT THREE}".encode(), "quantity: must be a whole number"),
        (b"b\tvienna-1\t1\t7", "row: has 4 cells, the first line 3"),
        # What the line breaks off into is no row of its own.
        (b"b" * 10_000 + b"b\tvienna-1\t7" * 5_000, "row: is longer than 10000 characters"),
        (b"a\tvienna-1\t4", "sku: a at vienna-1 stands in line 2 already; the first row counts"),
    ],
)
async def test_a_broken_row_is_named_and_the_others_are_kept(
    command: Command, database: Database, capsys: pytest.CaptureFixture[str], row: bytes, said: str
) -> None:
    assert await command(HEADER.encode() + b"a\tvienna-1\t3\n" + row + b"\nc\tvienna-1\t4\n") == 0
    told = capsys.readouterr()
    assert told.err.startswith(f"stock.tsv:3: {said}")
    assert told.err.count("\n") == 1
    assert told.out == "stock.tsv: 2 changed, 0 unchanged, 1 broken\n"
    assert await levels(database) == {"a": 3, "c": 4}


async def test_a_row_that_stands_twice_is_found_over_the_whole_file_and_names_the_first(
    command: Command, database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_import, "BATCH", 2)
    # A broken row is none: the good one after it counts.
    rows = ["a\tvienna-1\tmany", "a\tvienna-1\t1", *(f"b{number}\tvienna-1\t2" for number in range(5))]
    assert await command(HEADER + "\n".join([*rows, "a\tvienna-1\t9", "a\tbrno-1\t0"])) == 0
    told = capsys.readouterr()
    assert [line.split(";")[0] for line in told.err.splitlines()] == [
        "stock.tsv:2: quantity: must be a whole number from 0 to 1000000",
        "stock.tsv:9: sku: a at vienna-1 stands in line 3 already",
    ]
    assert told.out == "stock.tsv: 6 changed, 1 unchanged, 2 broken\n"
    [row] = await database.fetch("SELECT on_hand FROM stock WHERE sku = 'a' AND location = 'vienna-1'")
    assert row["on_hand"] == 1


async def test_a_utf_16_file_that_breaks_off_loses_its_last_row_only(
    command: Command, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (HEADER + "a\tvienna-1\t3\nb\tvienna-1\t55").encode("utf-16")[:-1]
    assert await command(content) == 0
    assert capsys.readouterr().err.startswith("stock.tsv:3: quantity: ")
    assert await levels(database) == {"a": 3}


async def test_other_columns_are_ignored_and_columns_may_stand_in_any_order(
    command: Command, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command(b"quantity\tnote\tlocation\tsku\n5\t\xff\tvienna-1\ta\n") == 0
    assert capsys.readouterr().err == "stock.tsv: ignoring the columns 'note'\n"
    assert await levels(database) == {"a": 5}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; the first line must name the columns"),
        (b"\xef\xbb\xbf\n \n", "is empty; the first line must name the columns"),
        (b"sku\tquantity\n", "the column location is missing; the first line must name"),
        (b"sku,location,quantity\n", "the column sku, location, quantity is missing; the first line must name"),
        (b"sku\tlocation\tquantity\tsku\n", "the column sku stands twice"),
        (b"x" * 50_000, "is no table: its first line is longer than 10000 characters"),
        (HEADER.encode("utf-16-le"), "is not UTF-8; if it is UTF-16, save it with a byte order mark"),
        (HEADER.encode("utf-16-be"), "is not UTF-8; if it is UTF-16, save it with a byte order mark"),
        (HEADER.encode("utf-32"), "is UTF-32; save it as UTF-8"),
    ],
)
async def test_a_file_that_cannot_be_used_says_why(
    command: Command, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    assert await command(content) == 2
    assert f"stock.tsv: {said}" in capsys.readouterr().err


async def test_a_file_or_a_token_that_is_not_there_is_named(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command.token_file.unlink()
    assert await command(HEADER) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_file_needs_the_memory_of_a_few_rows() -> None:
    def peak(rows: int) -> int:
        text = StringIO(HEADER + "".join(f"sku-{number}\tvienna-1\t1\n" for number in range(rows)))
        tracemalloc.start()
        try:
            assert sum(1 for _ in StockFile(text, Progress("stock.tsv"))) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(20_000) < peak(1_000) + 50_000
