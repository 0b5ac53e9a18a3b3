"""A product feed written row by row, into a file that may have been begun before."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from services.catalog.feed_rows import COLUMNS
from shop.catalog.v1 import records_pb2 as pb

_TAIL_BYTES = 500_000


class FeedWriter:
    """Appends rows. A row that was cut off when an earlier writer ended is taken out first."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = _whole_rows(file)
        # The last row that is there already, or empty.
        self.last_sku = _last_sku(file, self._kept)
        # Written by this writer.
        self.rows = 0

    def __enter__(self) -> FeedWriter:
        begun = self._kept > 0
        if begun:
            with self._file.open("r+b") as bytes_:
                bytes_.truncate(self._kept)
        self._text = self._file.open("a" if begun else "w", encoding="utf-8", newline="")
        self._table = csv.DictWriter(self._text, COLUMNS, delimiter="\t", lineterminator="\n")
        if not begun:
            self._table.writeheader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._text.close()

    def write(self, rows: Iterable[pb.FeedRow]) -> None:
        """Appends rows, each on a line of its own: no text of the catalog has a line break."""
        for row in rows:
            self._table.writerow(row.fields)
            self.rows += 1


def _whole_rows(file: Path) -> int:
    """How many bytes of a file are whole rows; 0 when there is none, not even the first."""
    if not file.exists():
        return 0
    size = file.stat().st_size
    with file.open("rb") as bytes_:
        bytes_.seek(max(0, size - _TAIL_BYTES))
        tail = bytes_.read()
    return size - len(tail) + tail.rfind(b"\n") + 1 if b"\n" in tail else 0


def _last_sku(file: Path, size: int) -> str:
    if not size:
        return ""
    with file.open("rb") as bytes_:
        bytes_.seek(max(0, size - _TAIL_BYTES))
        lines = bytes_.read(min(size, _TAIL_BYTES)).decode(errors="replace").splitlines()
    sku = next(csv.reader([lines[-1]], delimiter="\t"))[0]
    return "" if sku == COLUMNS[0] and len(lines) == 1 else sku
