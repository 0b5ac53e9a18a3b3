"""The command that imports a feed: any file of that form, as good as it is."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, cast

import pytest

from services.catalog import feed_commands, feed_file, usecases
from services.catalog.feed_commands import import_file
from services.catalog.feed_file import FeedFile, Progress
from services.chassis.errors import Conflict, InvalidInput, Refusal, Unavailable
from tests.catalog.conftest import Shelf
from tests.chassis.grpc_rig import Issuer, serving

HEADER = "id\ttitle\tprice\n"


@pytest.fixture
async def target(shelf: Shelf, issuer: Issuer) -> AsyncIterator[str]:
    async with serving(issuer, *shelf.app.servicers) as rig:
        yield rig.target


class Command:
    def __init__(self, folder: Path, target: str, token: str) -> None:
        self._folder = folder
        self.target = target
        self.token_file = folder / "operator"
        self.token_file.write_text(token)

    async def __call__(self, content: str | bytes, name: str = "feed.tsv") -> int:
        file = self._folder / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return await import_file([str(file), "--address", self.target, "--token-file", str(self.token_file)])


@pytest.fixture
def command(tmp_path: Path, target: str, issuer: Issuer) -> Command:
    return Command(tmp_path, target, issuer.token(role="operator", sub="op"))


async def known(shelf: Shelf) -> dict[str, str]:
    return {row["sku"]: row["title"] for row in await shelf.database.fetch("SELECT sku, title FROM variant_texts")}


async def test_the_demo_feed_goes_in_and_changes_nothing_again(
    command: Command, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    content = Path("deploy/demo_data/products.tsv").read_bytes()
    assert await command(content) == 0
    first = capsys.readouterr()
    count = content.count(b"\n") - 1
    assert first.out == f"feed.tsv: {count} changed, 0 unchanged, 0 broken\n"
    assert first.err == "feed.tsv: not believing the column availability: stock decides\n"
    assert await command(content) == 0
    assert capsys.readouterr().out == f"feed.tsv: 0 changed, {count} unchanged, 0 broken\n"


async def test_each_broken_row_is_reported_with_its_line_and_the_good_ones_kept(
    command: Command, shelf: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_file, "BATCH_ROWS", 2)
    content = (
        HEADER
        + "a\tFirst\t1.00 EUR\n"
        + "b\tNo price\t\n"
        + 'c\t"Two\nlines"\t2.00 EUR\n'
        + "d\tWrong\t2.001 EUR\n"  # line 6: a row before it has two
        + "\n"
        + "a\tFirst again\t1.00 EUR\n"  # in a later batch
        + "e\tToo many\t1.00 EUR\tcells\n"
        + 'f\t"Quoted" badly\t1.00 EUR\n'
        + 'g\tInch 6" fine\t1.00 EUR\n'
    )
    assert await command(content) == 0
    said = capsys.readouterr()
    # What the command finds itself comes before what the service finds in the same batch.
    assert sorted(re.findall(r"^feed\.tsv:.*", said.err, re.MULTILINE)) == [
        'feed.tsv:10: row: cannot be read: a text goes on after its closing quote; write quotes inside as ""',
        "feed.tsv:3: price: is missing",
        "feed.tsv:6: price: EUR has 2 decimals, not 3",
        "feed.tsv:8: id: a stands in line 2 already; the first row counts",
        "feed.tsv:9: row: has 4 cells, the first line 3",
    ]
    assert said.out == "feed.tsv: 3 changed, 0 unchanged, 5 broken\n"
    assert await known(shelf) == {"a": "First", "c": "Two lines", "g": 'Inch 6" fine'}


async def test_a_quote_that_is_never_closed_loses_its_own_row_only(
    command: Command, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    behind = "".join(f"s{number}\tGood\t1.00 EUR\n" for number in range(50))
    content = HEADER + 'a\t"Never closed\t1.00 EUR\nb\tGood\t1.00 EUR\nc\t"Quoted"\t1.00 EUR\n'
    content += behind + 'd\t"Nor this\t1.00 EUR\n'
    content += "e\tLast, without a line end\t1.00 EUR"
    assert await command(content) == 0
    said = capsys.readouterr()
    assert re.findall(r"^feed\.tsv:.*", said.err, re.MULTILINE) == [
        'feed.tsv:2: row: cannot be read: a text goes on after its closing quote; write quotes inside as ""',
        "feed.tsv:55: row: cannot be read: a quote is opened and not closed",
    ]
    assert said.out == "feed.tsv: 53 changed, 0 unchanged, 2 broken\n"
    assert set(await known(shelf)) == {"b", "c", "e", *(f"s{number}" for number in range(50))}


async def test_a_nul_character_breaks_its_row_and_not_those_around_it(
    command: Command, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_rows = "b\tNot\0good\t1.00 EUR\nc\tGood\t1.00\0 EUR\nd\0\tGood\t1.00 EUR\n"
    content = f"{HEADER}a\tGood\t1.00 EUR\n{broken_rows}e\tGood\t1.00 EUR\n"
    assert await command(content) == 0
    said = capsys.readouterr()
    assert said.out == "feed.tsv: 2 changed, 0 unchanged, 3 broken\n"
    broken = re.findall(r"^feed\.tsv:(\d+): (\w+):", said.err, re.MULTILINE)
    assert broken == [("3", "title"), ("4", "price"), ("5", "id")]
    assert set(await known(shelf)) == {"a", "e"}


@pytest.mark.parametrize(
    "content",
    [
        (HEADER + "a\tGrün\t1.00 EUR\n").encode("utf-8-sig"),
        (HEADER + "a\tGrün\t1.00 EUR\n").encode("utf-16"),
        b"\xfe\xff" + (HEADER + "a\tGrün\t1.00 EUR\n").encode("utf-16-be"),
        (HEADER + "a\tGrün\t1.00 EUR").replace("\n", "\r\n").encode(),
        (HEADER + "a\tGrün\t1.00 EUR").replace("\n", "\r").encode(),
        "Title\tID\tPrice\nGrün\ta\t1.00 EUR\n".encode(),
        "id\ttitle\tprice\tbrand\na\tGrün\t1.00 EUR\n".encode(),
    ],
    ids=["utf-8 bom", "utf-16", "utf-16-be", "crlf", "cr", "other order and case", "short row"],
)
async def test_files_of_every_make_are_read(command: Command, shelf: Shelf, content: bytes) -> None:
    assert await command(content) == 0
    assert await known(shelf) == {"a": "Grün"}


async def test_a_wrong_byte_breaks_its_row_only(
    command: Command, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command(HEADER.encode() + "a\tGrün\t1.00 EUR\n".encode("latin-1") + b"b\tFine\t1.00 EUR\n") == 0
    assert "feed.tsv:2: title: has bytes that are not in the file's encoding" in capsys.readouterr().err
    assert await known(shelf) == {"b": "Fine"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; the first line must name the columns"),
        (b"\xef\xbb\xbf\n\n", "is empty"),
        (b"id\ttitle\nx\ty\n", "the column price is missing"),
        (b"id,title,price\n", "the column id, title, price is missing"),
        (b"id\tid\ttitle\tprice\n", "the column id stands twice"),
        (HEADER.encode("utf-16-le"), "is not UTF-8; if it is UTF-16, save it with a byte order mark"),
        (HEADER.encode("utf-32"), "is UTF-32; save it as UTF-8"),
        ((HEADER + "a\tb\t1.00 EUR\n").encode("utf-16")[:-1], "is broken after line"),
        (HEADER.encode() + b"x" * 600_000, "line 2 is longer than"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    command: Command, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    assert await command(content) == 2
    assert message in capsys.readouterr().err


async def test_an_open_quote_is_found_where_it_was_opened(
    command: Command, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command(HEADER + 'a\tFine\t1.00 EUR\nb\t"Open\t1.00 EUR\nc\tBehind it\t1.00 EUR\n') == 0
    assert "feed.tsv:3: row: cannot be read: a quote is opened and not closed" in capsys.readouterr().err
    assert set(await known(shelf)) == {"a", "c"}


async def test_a_missing_file_and_a_service_that_refuses_have_their_own_exit_codes(
    command: Command, tmp_path: Path, issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = ["absent.tsv", "--address", "localhost:1", "--token-file", str(command.token_file)]
    assert await import_file(absent) == 2
    command.token_file.write_text(issuer.token(role="customer", customer_id="cus_1"))
    assert await command(HEADER + "a\tb\t1.00 EUR\n") == 1
    assert "PERMISSION_DENIED" in capsys.readouterr().err


async def test_an_import_that_was_stopped_passes_over_what_is_in_and_goes_on(
    command: Command, shelf: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_file, "BATCH_ROWS", 2)
    monkeypatch.setattr(feed_file, "PROGRESS_SECONDS", 0.0)
    import_variants = usecases.import_variants
    calls = 0

    async def stops(*arguments: Any, **more: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise InvalidInput([("rows", "no more of this")])
        return await import_variants(*arguments, **more)

    content = HEADER + "".join(f"s{number}\tShoe\t1.00 EUR\n" for number in range(10))
    monkeypatch.setattr(usecases, "import_variants", stops)
    assert await command(content) == 1
    assert "the import stopped: INVALID_ARGUMENT" in capsys.readouterr().err
    taken = len(await known(shelf))
    assert taken in (4, 6)  # two parts are under way at once: the one beside the refused one may be in or not
    monkeypatch.setattr(usecases, "import_variants", import_variants)
    assert await command(content) == 0
    said = capsys.readouterr()
    counts = re.fullmatch(r"feed\.tsv: (\d) changed, (\d) unchanged, 0 broken\n", said.out)
    assert counts
    assert int(counts[1]) + int(counts[2]) == 10
    assert int(counts[2]) >= taken
    assert re.search(r"feed\.tsv: 10 rows, 100%, \d+ rows/s", said.err)


async def test_what_passes_by_itself_is_tried_again(
    command: Command, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_commands, "PAUSES_SECONDS", (0.0, 0.0))
    import_variants = usecases.import_variants
    refusals: list[Refusal] = [Unavailable("restarting"), Conflict("somebody else is at it")]

    async def hesitates(*arguments: Any, **more: Any) -> int:
        if refusals:
            raise refusals.pop()
        return await import_variants(*arguments, **more)

    monkeypatch.setattr(usecases, "import_variants", hesitates)
    assert await command(HEADER + "a\tShoe\t1.00 EUR\n") == 0
    assert set(await known(shelf)) == {"a"}
    refusals += [Unavailable("restarting")] * 3
    assert await command(HEADER + "b\tShoe\t1.00 EUR\n") == 1


class Endless:
    """A feed of many rows that exists nowhere as a whole."""

    def __init__(self, rows: int) -> None:
        self._lines = chain([HEADER], (f"sku-{n}\t{'x' * 200}\t1.00 EUR\n" for n in range(rows)))

    def readline(self, limit: int = -1) -> str:
        return next(self._lines, "")


def test_a_file_of_any_size_takes_the_memory_of_a_few_rows() -> None:
    peaks = []
    for rows in (2_000, 20_000):
        tracemalloc.start()
        read = 0
        for _ in FeedFile(cast(TextIO, Endless(rows)), Progress("feed")):
            read += 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert read == rows
    assert peaks[1] < 2 * peaks[0]
