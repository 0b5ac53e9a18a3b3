"""The stock file (sku, location, quantity; TSV), and what is said while it is read."""

from __future__ import annotations

import codecs
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import TextIOWrapper
from time import monotonic
from typing import BinaryIO, TextIO

from services.inventory.stock_rows import problem, twice
from shop.inventory.v1 import inventory_pb2 as pb

COLUMNS = ("sku", "location", "quantity")
LINE_CHARACTERS = 10_000
# How often a log is told how far it is; a terminal always is.
PROGRESS_SECONDS = 10.0


class UnusableFile(ValueError):
    """The file as a whole cannot be read as a stock file."""


class Progress:
    """What became of the rows so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = self._unchanged = self._broken = 0
        self._open_line = False
        self._began = self._told = monotonic()

    @property
    def summary(self) -> str:
        return f"{self._name}: {self._changed} changed, {self._unchanged} unchanged, {self._broken} broken"

    def add(self, answer: pb.ImportStockResponse) -> None:
        """Another part is in."""
        self._changed += answer.changed
        self._unchanged += answer.unchanged
        for wrong in answer.problems:
            self.report(wrong.line, wrong.field, wrong.reason)
        now = monotonic()
        rows = self._changed + self._unchanged + self._broken
        text = f"{rows} rows, {rows / max(now - self._began, 0.001):.0f} rows/s"
        if sys.stderr.isatty():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
            self._open_line = True
        elif now - self._told >= PROGRESS_SECONDS:
            self.note(text)
            self._told = now

    def report(self, line: int, field: str, reason: str) -> None:
        """A row is broken."""
        self.end()
        self._broken += 1
        print(f"{self._name}:{line}: {field}: {reason}", file=sys.stderr)

    def note(self, text: str) -> None:
        """Something about the file as a whole."""
        print(f"{self._name}: {text}", file=sys.stderr)

    def end(self) -> None:
        """Whatever comes next begins a line of its own."""
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False


class StockFile:
    """The good rows of a file, one by one and in the memory of a few; the others are reported. Iterate once."""

    def __init__(self, opened: TextIO, progress: Progress) -> None:
        self._progress = progress
        self._text = opened
        self._line = 0

    def __iter__(self) -> Iterator[pb.StockRow]:
        columns = self._header()
        sku, location, quantity = map(columns.index, COLUMNS)
        # Places that were seen, with their lines: on disk, since a file may have more than fit into memory.
        with closing(sqlite3.connect("", isolation_level=None)) as places:
            places.execute("PRAGMA journal_mode = OFF")
            places.execute("CREATE TABLE places (place TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")
            places.execute("BEGIN")
            for cells in self._rows():
                if len(cells) > len(columns):
                    self._report("row", f"has {len(cells)} cells, the first line {len(columns)}")
                    continue
                cells += [""] * (len(columns) - len(cells))
                row = cells[sku], cells[location], cells[quantity]
                wrong = problem(*row)
                if wrong is None:
                    place = f"{row[0]} {row[1]}"
                    if places.execute("INSERT OR IGNORE INTO places VALUES (?, ?)", (place, self._line)).rowcount:
                        yield pb.StockRow(line=self._line, sku=row[0], location=row[1], quantity=row[2])
                        continue
                    [first] = places.execute("SELECT line FROM places WHERE place = ?", (place,)).fetchone()
                    wrong = twice(row[0], row[1], first)
                self._report(*wrong)

    def _header(self) -> Sequence[str]:
        names = next(self._rows(), None)
        if names is None:
            raise UnusableFile(f"is empty; the first line must name the columns {', '.join(COLUMNS)}")
        if any("\0" in name for name in names):
            raise UnusableFile("is not UTF-8; if it is UTF-16, save it with a byte order mark")
        columns = [name.lower() for name in names]
        missing = [column for column in COLUMNS if column not in columns]
        if missing:
            raise UnusableFile(
                f"the column {', '.join(missing)} is missing; the first line must name {', '.join(COLUMNS)},"
                " with tabs between"
            )
        often = [column for column in COLUMNS if columns.count(column) > 1]
        if often:
            raise UnusableFile(f"the column {', '.join(often)} stands twice")
        unknown = [name for name, column in zip(names, columns, strict=True) if column not in COLUMNS]
        if unknown:
            self._progress.note(f"ignoring the columns {', '.join(map(ascii, unknown))}")
        return columns

    def _rows(self) -> Iterator[list[str]]:
        """The cells of each line. No value has a tab or a line break in it, so quotes end where the line does."""
        while line := self._text.readline(LINE_CHARACTERS):
            self._line += 1
            if len(line) == LINE_CHARACTERS and not line.endswith("\n"):
                if self._line == 1:
                    raise UnusableFile(f"is no table: its first line is longer than {LINE_CHARACTERS} characters")
                self._skip_line()
                self._report("row", f"is longer than {LINE_CHARACTERS} characters")
            elif line.strip():
                yield [cell.strip().strip('"') for cell in line.split("\t")]

    def _skip_line(self) -> None:
        while (rest := self._text.readline(LINE_CHARACTERS)) and not rest.endswith("\n"):
            pass

    def _report(self, field: str, reason: str) -> None:
        self._progress.report(self._line, field, reason)


def as_text(opened: BinaryIO) -> TextIO:
    """The file as text. A wrong byte breaks its row, not the file."""
    start = opened.read(4)
    opened.seek(0)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise UnusableFile("is UTF-32; save it as UTF-8")
    utf_16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return TextIOWrapper(opened, encoding="utf-16" if utf_16 else "utf-8-sig", errors="replace")
