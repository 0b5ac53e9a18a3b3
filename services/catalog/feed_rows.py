"""Rows of a feed as they arrive, split into good ones and problems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import asyncpg

from services.catalog.domain.currencies import DECIMALS
from services.catalog.domain.feed import (
    NEVER_BELIEVED,
    PASSED_OVER,
    USED,
    FeedVariant,
    check,
    check_translation,
    product_type,
)
from shop.catalog.v1 import records_pb2 as pb

# Columns of an export that are kept as they are written.
COPIED = (
    "brand",
    "color",
    "size",
    "size_system",
    "width",
    "material",
    "gender",
    "age_group",
    "gtin",
    "image_link",
    "additional_image_link",
)
COLUMNS = (
    "id",
    "item_group_id",
    "title",
    "description",
    "price",
    "sale_price",
    "sale_price_effective_date",
    "availability",
    "product_type",
    *COPIED,
)
KNOWN = frozenset((*USED, NEVER_BELIEVED, *PASSED_OVER))


@dataclass(slots=True)
class Checked:
    """Good rows by their SKU, the line of each, and what is wrong with the others."""

    variants: dict[str, FeedVariant] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[pb.RowProblem] = field(default_factory=list)
    unknown_columns: list[str] = field(default_factory=list)

    def refuse(self, sku: str, reason: str) -> None:
        """A good row cannot be taken in after all."""
        del self.variants[sku]
        self.problems.append(pb.RowProblem(line=self.lines[sku], field="id", reason=reason))


def check_rows(rows: Iterable[pb.FeedRow], *, translation: bool = False) -> Checked:
    """Checks each row. Of two rows with one id, the first counts."""
    checked = Checked()
    columns: set[str] = set()
    rule = check_translation if translation else check
    for row in rows:
        fields = dict(row.fields)
        columns.update(fields)
        found = rule(fields)
        if isinstance(found, list):
            checked.problems += [pb.RowProblem(line=row.line, field=name, reason=reason) for name, reason in found]
        elif found.sku in checked.variants:
            reason = twice(found.sku, checked.lines[found.sku])
            checked.problems.append(pb.RowProblem(line=row.line, field="id", reason=reason))
        else:
            checked.variants[found.sku] = found
            checked.lines[found.sku] = row.line
    checked.unknown_columns = sorted(columns - KNOWN)
    return checked


def twice(sku: str, line: int) -> str:
    """What is said of a second row with one id."""
    return f"{sku} stands in line {line} already; the first row counts"


def feed_row(row: asyncpg.Record) -> pb.FeedRow:
    """A variant as a row of the feed; what it does not have is left out."""
    fields = {
        "id": row["sku"],
        "item_group_id": row["product_id"],
        "title": row["title"],
        "description": row["description"],
        "price": _money(row["amount"], row["currency"]),
        "availability": "in_stock",
        "product_type": product_type(row["category"]),
        **{column: row[column] for column in COPIED},
    }
    if row["sale_amount"] is not None:
        fields["sale_price"] = _money(row["sale_amount"], row["currency"])
        fields["sale_price_effective_date"] = _period(row["sale_start"], row["sale_end"])
    return pb.FeedRow(fields={column: text for column, text in fields.items() if text})


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount:.{DECIMALS[currency]}f} {currency}"


def _period(start: datetime | None, end: datetime | None) -> str:
    if start is None and end is None:
        return ""
    return f"{start.isoformat() if start else ''}/{end.isoformat() if end else ''}"
