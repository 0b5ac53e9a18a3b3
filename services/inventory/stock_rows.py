"""Rows of a stock file: what makes one good."""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.inventory.usecases.stock import Counted
from shop.inventory.v1 import inventory_pb2 as pb

SKU = re.compile(r"[!-~]{1,64}")
LOCATION = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
QUANTITY = re.compile(r"[0-9]{1,7}")
MOST = 1_000_000


def check_rows(rows: Iterable[pb.StockRow]) -> tuple[list[Counted], list[pb.RowProblem]]:
    """Splits rows into good ones and problems. Of two rows for one place, the first counts."""
    counts: list[Counted] = []
    problems: list[pb.RowProblem] = []
    lines: dict[tuple[str, str], int] = {}
    for row in rows:
        place = (row.sku, row.location)
        wrong = problem(row.sku, row.location, row.quantity)
        if wrong is None and place in lines:
            wrong = twice(row.sku, row.location, lines[place])
        if wrong:
            problems.append(pb.RowProblem(line=row.line, field=wrong[0], reason=wrong[1]))
            continue
        lines[place] = row.line
        counts.append(Counted(row.line, row.sku, row.location, int(row.quantity)))
    return counts, problems


def problem(sku: str, location: str, quantity: str) -> tuple[str, str] | None:
    """What is wrong with a row, if anything: the field, and why."""
    if not SKU.fullmatch(sku):
        return "sku", "must be 1 to 64 printable ASCII characters without spaces"
    if not LOCATION.fullmatch(location):
        return "location", "must be 1 to 32 of a-z, 0-9 and -"
    if not QUANTITY.fullmatch(quantity) or int(quantity) > MOST:
        return "quantity", f"must be a whole number from 0 to {MOST}"
    return None


def twice(sku: str, location: str, line: int) -> tuple[str, str]:
    """What is said of a second row for one place."""
    return "sku", f"{sku} at {location} stands in line {line} already; the first row counts"
