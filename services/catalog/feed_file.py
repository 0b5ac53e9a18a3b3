"""The product feed (Google Merchant Center's columns; TSV): its rows checked, and the command that imports one."""

from __future__ import annotations

import argparse
import codecs
import csv
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import grpc

from services.catalog.domain.feed import NEVER_BELIEVED, REQUIRED, USED, FeedVariant, check, column_name
from shop.catalog.v1 import records_pb2 as pb
from shop.catalog.v1 import records_pb2_grpc as rpc

# The service takes 1,000 rows and 1 MiB at once.
BATCH_ROWS = 500
BATCH_CHARACTERS = 200_000
LINE_CHARACTERS = 500_000
FIELD_CHARACTERS = 100_000
CALL_SECONDS = 30
_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


@dataclass(slots=True)
class Checked:
    """Rows of a feed, split into good ones and problems."""

    variants: list[FeedVariant] = field(default_factory=list)
    problems: list[pb.RowProblem] = field(default_factory=list)
    unknown_columns: list[str] = field(default_factory=list)


def check_rows(rows: Iterable[pb.FeedRow]) -> Checked:
    """Checks each row. Of two rows with one id, the first counts."""
    checked = Checked()
    seen: dict[str, int] = {}
    unknown: dict[str, None] = {}
    for row in rows:
        unknown |= dict.fromkeys(column for column in sorted(row.fields) if column not in (*USED, NEVER_BELIEVED))
        found = check(row.fields)
        if isinstance(found, list):
            checked.problems += [pb.RowProblem(line=row.line, field=name, reason=reason) for name, reason in found]
        elif found.sku in seen:
            checked.problems.append(pb.RowProblem(line=row.line, field="id", reason=_twice(found.sku, seen[found.sku])))
        else:
            seen[found.sku] = row.line
            checked.variants.append(found)
    checked.unknown_columns = list(unknown)
    return checked


def _twice(sku: str, line: int) -> str:
    return f"{sku} stands in line {line} already; the first row counts"


async def import_file(arguments: Sequence[str]) -> int:
    """The command `import-products`: streams a file to the service, shows progress, and reports each broken row.

    Returns 0 when the whole file was read, 1 when the service did not take it all, 2 when the file cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m services.catalog import-products", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--address", required=True, help="host:port of catalog's gRPC")
    parser.add_argument("--token-file", type=Path, required=True, help="file with an operator's token")
    given = parser.parse_args(arguments)
    progress = _Progress(given.file.name)
    try:
        metadata = (("authorization", f"Bearer {given.token_file.read_text().strip()}"),)
        options = [("grpc.service_config", json.dumps(_RETRIES))]
        with _opened(given.file) as opened:
            async with grpc.aio.insecure_channel(given.address, options) as channel:
                stub: rpc.CatalogAdminServiceAsyncStub = rpc.CatalogAdminServiceStub(channel)
                for batch in _batches(FeedFile(opened, progress)):
                    request = pb.ImportProductsRequest(rows=batch)
                    progress.add(await stub.ImportProducts(request, metadata=metadata, timeout=CALL_SECONDS))
    except (OSError, UnusableFile) as error:
        progress.end()
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    except grpc.aio.AioRpcError as error:
        progress.end()
        print(f"the import stopped: {error.code().name} {error.details()}; run it again", file=sys.stderr)
        return 1
    progress.end()
    print(progress.summary)
    return 0


class UnusableFile(ValueError):
    """The file as a whole cannot be read as a feed."""


class _Progress:
    """What became of the rows so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = self._unchanged = self._broken = 0
        self._last_broken = 0
        self._open_line = False

    @property
    def summary(self) -> str:
        return f"{self._name}: {self._changed} changed, {self._unchanged} unchanged, {self._broken} broken"

    def add(self, answer: pb.ImportProductsResponse) -> None:
        self._changed += answer.changed
        self._unchanged += answer.unchanged
        for problem in answer.problems:
            self.report(problem.line, problem.field, problem.reason)
        if sys.stderr.isatty():
            rows = self._changed + self._unchanged + self._broken
            print(f"\r{rows} rows", end="", file=sys.stderr, flush=True)
            self._open_line = True

    def report(self, line: int, column: str, reason: str) -> None:
        self.end()
        self._broken += line != self._last_broken
        self._last_broken = line
        print(f"{self._name}:{line}: {column}: {reason}", file=sys.stderr)

    def note(self, text: str) -> None:
        print(f"{self._name}: {text}", file=sys.stderr)

    def end(self) -> None:
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False


class FeedFile:
    """The rows of a file, one by one and in the memory of a few; what cannot be read is reported. Iterate once."""

    def __init__(self, opened: TextIO, report: _Progress) -> None:
        self._progress = report
        self._text = opened
        self._consumed = 0
        csv.field_size_limit(FIELD_CHARACTERS)
        self._table = csv.reader(self._lines(), delimiter="\t", strict=True)

    def __iter__(self) -> Iterator[pb.FeedRow]:
        columns = self._header()
        # Ids that were seen, with their lines: on disk, since a file may have more than fit into memory.
        with closing(sqlite3.connect("", isolation_level=None)) as ids:
            ids.execute("PRAGMA journal_mode = OFF")
            ids.execute("CREATE TABLE ids (sku TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")
            for line, cells in self._rows():
                if len(cells) > len(columns):
                    self._progress.report(line, "row", f"has {len(cells)} cells, the first line {len(columns)}")
                    continue
                fields = {column: cell for column, cell in zip(columns, cells, strict=False) if column in USED and cell}
                unreadable = [column for column, cell in fields.items() if not _is_text(cell)]
                for column in unreadable:
                    self._progress.report(line, column, "has bytes that are not in the file's encoding")
                if unreadable:
                    continue
                sku = fields.get("id", "").strip()
                first = ids.execute("SELECT line FROM ids WHERE sku = ?", (sku,)).fetchone() if sku else None
                if first:
                    self._progress.report(line, "id", _twice(sku, first[0]))
                    continue
                ids.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (sku, line))
                yield pb.FeedRow(line=line, fields=fields)

    def _header(self) -> list[str]:
        names = next((cells for _, cells in self._rows()), None)
        if names is None:
            raise UnusableFile(f"is empty; the first line must name the columns, at least {', '.join(REQUIRED)}")
        if any("\0" in name for name in names):
            raise UnusableFile("is not UTF-8; if it is UTF-16, save it with a byte order mark")
        columns = [column_name(name) for name in names]
        missing = [column for column in REQUIRED if column not in columns]
        if missing:
            raise UnusableFile(f"the column {', '.join(missing)} is missing; the first line must name the columns")
        twice = sorted({column for column in columns if column in USED and columns.count(column) > 1})
        if twice:
            raise UnusableFile(f"the column {', '.join(twice)} stands twice")
        unknown = [name for name, column in zip(names, columns, strict=True) if column not in (*USED, NEVER_BELIEVED)]
        if unknown:
            self._progress.note(f"ignoring the columns {', '.join(map(ascii, unknown))}")
        if NEVER_BELIEVED in columns:
            self._progress.note(f"not believing the column {NEVER_BELIEVED}: stock decides")
        return columns

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each row with the number of its first line."""
        while True:
            line = self._consumed + 1
            try:
                cells = next(self._table, None)
            except csv.Error as error:
                self._progress.report(line, "row", f"cannot be read: {_meaning(error)}")
                continue
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield line, cells

    def _lines(self) -> Iterator[str]:
        """Lines of a bounded length, however long those of the file are."""
        while True:
            try:
                line = self._text.readline(LINE_CHARACTERS)
            except UnicodeError as error:
                raise UnusableFile(f"is broken after line {self._consumed}: {error}") from None
            if not line:
                return
            self._consumed += 1
            if len(line) == LINE_CHARACTERS:
                raise UnusableFile(f"line {self._consumed} is longer than {LINE_CHARACTERS} characters")
            yield line


def _opened(file: Path) -> TextIO:
    """The file as text. A wrong byte of UTF-8 breaks its row, not the file."""
    with file.open("rb") as bytes_:
        start = bytes_.read(4)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise UnusableFile("is UTF-32; save it as UTF-8")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return file.open(encoding="utf-16", newline="")
    return file.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_text(cell: str) -> bool:
    return cell.isascii() or not any("\ud800" <= character <= "\udfff" for character in cell)


def _meaning(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text or "field limit" in text:
        return "a quote is opened and not closed"
    if "expected after" in text:
        return 'a text goes on after its closing quote; write quotes inside as ""'
    return text


def _batches(rows: Iterable[pb.FeedRow]) -> Iterator[list[pb.FeedRow]]:
    """Rows by as many as the service takes at once."""
    batch: list[pb.FeedRow] = []
    characters = 0
    for row in rows:
        length = sum(map(len, row.fields.values()))
        if batch and (len(batch) == BATCH_ROWS or characters + length > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(row)
        characters += length
    if batch:
        yield batch
