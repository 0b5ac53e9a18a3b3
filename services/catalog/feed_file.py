"""The product feed as a file (Google Merchant Center's columns; TSV), and what is said while it is read."""

from __future__ import annotations

import codecs
import csv
import sqlite3
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import TextIO

from services.catalog.domain.feed import (
    NEVER_BELIEVED,
    REQUIRED,
    REQUIRED_OF_TRANSLATIONS,
    USED,
    column_name,
)
from services.catalog.feed_rows import KNOWN, twice
from shop.catalog.v1 import records_pb2 as pb

# The service takes 1,000 rows and 1 MiB at once.
BATCH_ROWS = 1000
BATCH_BYTES = 900_000
LINE_CHARACTERS = 500_000
FIELD_CHARACTERS = 100_000
# How often a log is told how far it is; a terminal always is.
PROGRESS_SECONDS = 10.0


class UnusableFile(ValueError):
    """The file as a whole cannot be read as a feed."""


class Progress:
    """What became of the rows so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = self._unchanged = self._broken = 0
        self._last_broken = 0
        self._open_line = False
        self._began = self._told = monotonic()

    @property
    def summary(self) -> str:
        return f"{self._name}: {self._changed} changed, {self._unchanged} unchanged, {self._broken} broken"

    def add(self, answer: pb.ImportProductsResponse, share: float) -> None:
        """Another part is in; `share` of the file is read by now, from 0 to 1."""
        self._changed += answer.changed
        self._unchanged += answer.unchanged
        for problem in answer.problems:
            self.report(problem.line, problem.field, problem.reason)
        now = monotonic()
        rows = self._changed + self._unchanged + self._broken
        text = f"{rows} rows, {share:.0%}, {rows / max(now - self._began, 0.001):.0f} rows/s"
        if sys.stderr.isatty():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
            self._open_line = True
        elif now - self._told >= PROGRESS_SECONDS:
            self.note(text)
            self._told = now

    def report(self, line: int, column: str, reason: str) -> None:
        """One thing that is wrong with a row."""
        self.end()
        self._broken += line != self._last_broken
        self._last_broken = line
        print(f"{self._name}:{line}: {column}: {reason}", file=sys.stderr)

    def note(self, text: str) -> None:
        """Something about the file as a whole."""
        print(f"{self._name}: {text}", file=sys.stderr)

    def end(self) -> None:
        """Whatever comes next begins a line of its own."""
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False


class FeedFile:
    """The rows of a file, one by one and in the memory of a few; what cannot be read is reported. Iterate once."""

    def __init__(self, opened: TextIO, progress: Progress, *, translation: bool = False) -> None:
        self._progress = progress
        self._text = opened
        self._required = REQUIRED_OF_TRANSLATIONS if translation else REQUIRED
        # Lines that were read, and given back: they are read again before those of the file.
        self._given_back: deque[str] = deque()
        self._consumed = 0
        # The lines of the row that is being read.
        self._of_row: list[str] = []
        csv.field_size_limit(FIELD_CHARACTERS)
        self._table = self._reader()

    def __iter__(self) -> Iterator[pb.FeedRow]:
        columns = self._header()
        # Ids that were seen, with their lines: on disk, since a file may have more than fit into memory.
        with closing(sqlite3.connect("", isolation_level=None)) as ids:
            ids.execute("PRAGMA journal_mode = OFF")
            ids.execute("CREATE TABLE ids (sku TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")
            ids.execute("BEGIN")
            for line, cells in self._rows():
                if len(cells) > len(columns):
                    self._progress.report(line, "row", f"has {len(cells)} cells, the first line {len(columns)}")
                    continue
                fields = self._fields(columns, cells)
                unreadable = [column for column, cell in fields.items() if not _is_text(cell)]
                for column in unreadable:
                    self._progress.report(line, column, "has bytes that are not in the file's encoding")
                if unreadable:
                    continue
                sku = fields.get("id", "").strip()
                if sku and not ids.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (sku, line)).rowcount:
                    [first] = ids.execute("SELECT line FROM ids WHERE sku = ?", (sku,)).fetchone()
                    self._progress.report(line, "id", twice(sku, first))
                    continue
                yield pb.FeedRow(line=line, fields=fields)

    def _fields(self, columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
        fields: dict[str, str] = {}
        for column, cell in zip(columns, cells, strict=False):
            if cell and column in USED:
                # Only pictures may have several columns.
                fields[column] = f"{fields[column]},{cell}" if column in fields else cell
        return fields

    def _header(self) -> list[str]:
        names = next((cells for _, cells in self._rows()), None)
        if names is None:
            raise UnusableFile(f"is empty; the first line must name the columns, at least {', '.join(self._required)}")
        if any("\0" in name for name in names):
            raise UnusableFile("is not UTF-8; if it is UTF-16, save it with a byte order mark")
        columns = [column_name(name) for name in names]
        missing = [column for column in self._required if column not in columns]
        if missing:
            raise UnusableFile(f"the column {', '.join(missing)} is missing; the first line must name the columns")
        often = sorted({column for column in columns if column in USED and columns.count(column) > 1})
        if any(column != "additional_image_link" for column in often):
            raise UnusableFile(f"the column {', '.join(often)} stands twice")
        unknown = [name for name, column in zip(names, columns, strict=True) if column not in KNOWN]
        if unknown:
            self._progress.note(f"ignoring the columns {', '.join(map(ascii, unknown))}")
        if NEVER_BELIEVED in columns:
            self._progress.note(f"not believing the column {NEVER_BELIEVED}: stock decides")
        return columns

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each row with the number of its first line.

        A quote that is never closed takes the lines behind it with it: they are given back, and read as rows.
        """
        while True:
            line = self._consumed + 1
            self._of_row.clear()
            try:
                cells = next(self._table, None)
            except csv.Error as error:
                self._progress.report(line, "row", f"cannot be read: {_meaning(error)}")
                self._give_back(self._of_row[1:])
                continue
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield line, cells

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(iter(self._line, ""), delimiter="\t", strict=True)

    def _line(self) -> str:
        """The next line, of a bounded length however long those of the file are; empty at the end."""
        line = self._given_back.popleft() if self._given_back else self._line_of_file()
        if line:
            self._consumed += 1
            self._of_row.append(line)
        return line

    def _line_of_file(self) -> str:
        try:
            line = self._text.readline(LINE_CHARACTERS)
        except UnicodeError as error:
            raise UnusableFile(f"is broken after line {self._consumed}: {error}") from None
        if len(line) == LINE_CHARACTERS:
            raise UnusableFile(f"line {self._consumed + 1} is longer than {LINE_CHARACTERS} characters")
        return line

    def _give_back(self, lines: Sequence[str]) -> None:
        self._given_back.extendleft(reversed(lines))
        self._consumed -= len(lines)
        # The last one may have come to its end.
        self._table = self._reader()


def opened(file: Path) -> TextIO:
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


def batches(rows: Iterable[pb.FeedRow]) -> Iterator[list[pb.FeedRow]]:
    """Rows by as many as the service takes at once."""
    batch: list[pb.FeedRow] = []
    bytes_ = 0
    for row in rows:
        size = row.ByteSize() + 8
        if batch and (len(batch) == BATCH_ROWS or bytes_ + size > BATCH_BYTES):
            yield batch
            batch, bytes_ = [], 0
        batch.append(row)
        bytes_ += size
    if batch:
        yield batch
