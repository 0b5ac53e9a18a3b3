"""Rows of a feed as they arrive, split into good ones and problems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.catalog.domain.feed import NEVER_BELIEVED, PASSED_OVER, USED, FeedVariant, check, check_translation
from shop.catalog.v1 import records_pb2 as pb

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
