"""How many products answer a question, and the values there are to choose from.

Exact to 10,000. Beyond that it is told from a sample: rows of some lots, which were drawn at random when each row was
made. What the whole window has is counted as it changes, and exact at any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from services.catalog.domain.feed import product_type
from services.catalog.domain.sizes import size_order
from services.catalog.search import conditions
from services.catalog.search.asking import ATTRIBUTES, OF_PRODUCT, OF_VARIANT, Wanted
from services.catalog.search.conditions import Arguments
from services.chassis.database import Database

EXACT = 10_000
# A window of so many is counted without a look at the sample.
SMALL = 20_000
# The sample: so many of all lots, see search_rows.
LOTS, OF_LOTS = 128, 8192
# A sample with so many answers speaks for more than 10,000, and for their number to some per cent.
TELLING = 200
# Of a sample with many answers so many are counted value by value.
COUNTED = 2_500
MOST_VALUES = 100
# How long counts are kept in this process, and of how many questions. Numbers beside a list need not be to the moment;
# what the list shows is never kept here.
KEPT_SECONDS, KEPT = 1.0, 500

COUNTS = """
SELECT t.token, t.kind, t.value, sum(c.products)::bigint AS products
FROM search_counts c JOIN search_tokens t ON t.token = c.token
WHERE c.currency = $1 GROUP BY t.token HAVING sum(c.products) > 0
"""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of an attribute, and how many products have it."""

    value: str
    products: int


@dataclass(frozen=True, slots=True)
class Counted:
    """How many there are, and of which values."""

    total: int
    estimated: bool
    facets: Mapping[str, Sequence[Value]]


@dataclass(slots=True)
class _Tally:
    """Products by attribute and value."""

    total: int = 0
    estimated: bool = False
    values: dict[str, list[Value]] = field(default_factory=dict)


class Counting:
    """Counts of this process, kept for a moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[object, tuple[float, Counted | Mapping[str, list[Value]]]] = {}

    async def count(self, wanted: Wanted) -> Counted:
        """All that answers, and the values of each attribute as if it were not filtered by itself."""
        kept = self._recent(wanted)
        if isinstance(kept, Counted):
            return kept
        counted = await self._count(wanted)
        self._keep(wanted, counted)
        return counted

    async def whole(self, currency: int) -> Mapping[str, list[Value]]:
        """The products of the whole window by kind and value, exact. The kind "currency" has the number of all."""
        kept = self._recent(currency)
        if isinstance(kept, Mapping):
            return kept
        found: dict[str, list[Value]] = {}
        for row in await self._database.fetch(COUNTS, currency):
            found.setdefault(row["kind"], []).append(Value(row["value"], row["products"]))
        self._keep(currency, found)
        return found

    async def _count(self, wanted: Wanted) -> Counted:
        if not wanted.currency:
            return Counted(0, False, {})
        whole = await self.whole(wanted.currency)
        size = sum(each.products for each in whole.get("currency", ()))
        if wanted.everything:
            return Counted(size, False, _best({name: whole.get(name, []) for name in ATTRIBUTES}))
        filtered = [attribute for attribute, _ in wanted.values]
        tally = await self._tally(wanted, size, [name for name in ATTRIBUTES if name not in filtered])
        for attribute in filtered:
            others = wanted.without(attribute)
            if others.everything:
                tally.values[attribute] = list(whole.get(attribute, ()))
            else:
                more = await self._tally(others, size, [attribute])
                tally.values |= more.values
                tally.estimated |= more.estimated
        return Counted(tally.total, tally.estimated, _best(tally.values))

    async def _tally(self, wanted: Wanted, size: int, attributes: Sequence[str]) -> _Tally:
        if size > SMALL:
            tally = await self._read(wanted, attributes, f"r.lot < {LOTS}", f"ORDER BY r.lot LIMIT {COUNTED}")
            if tally.total > TELLING:
                return _scaled(tally, OF_LOTS / LOTS)
        return await self._read(wanted, attributes, "true", "")

    async def _read(self, wanted: Wanted, attributes: Sequence[str], among: str, some: str) -> _Tally:
        arguments = Arguments()
        answering = conditions.rows(wanted, arguments)
        if answering is None:
            return _Tally()
        of_product = [name for name in attributes if name in OF_PRODUCT]
        of_variant = [name for name in attributes if name in OF_VARIANT]
        tokens = "|| ".join(
            [f"ARRAY[{', '.join(f'o.{name}' for name in of_variant)}]::int[]"]
            + [{"brand": "f.brand", "category": "f.categories"}[name] for name in of_product]
        )
        rows = await self._database.fetch(
            f"WITH found AS MATERIALIZED (SELECT r.number, r.lot, r.brand, r.categories, r.offers FROM search_rows r"
            f" WHERE {' AND '.join(answering)} AND {among}),"
            f" counted AS MATERIALIZED (SELECT * FROM found r {some}),"
            f" places AS (SELECT DISTINCT f.number, each.token FROM counted f CROSS JOIN LATERAL unnest(f.offers) o"
            f" CROSS JOIN LATERAL unnest({tokens}) AS each(token)"
            f" WHERE {conditions.offers(wanted, arguments)} AND each.token > 0),"
            f" summed AS (SELECT p.token, count(*) AS products FROM places p GROUP BY p.token)"
            f" SELECT (SELECT count(*) FROM found) AS total, (SELECT count(*) FROM counted) AS counted,"
            f" t.kind, t.value, s.products FROM (SELECT 1) one LEFT JOIN"
            f" (summed s JOIN search_tokens t ON t.token = s.token) ON true",
            *arguments.values,
        )
        total, counted = rows[0]["total"], rows[0]["counted"]
        tally = _Tally(total, False, {name: [] for name in attributes})
        for row in rows:
            if row["kind"] is not None:
                tally.values[row["kind"]].append(Value(row["value"], round(row["products"] * total / counted)))
        return tally

    def _recent(self, question: object) -> object:
        time, kept = self._kept.get(question, (float("-inf"), None))
        return kept if monotonic() - time < KEPT_SECONDS else None

    def _keep(self, question: object, counted: Counted | Mapping[str, list[Value]]) -> None:
        if len(self._kept) >= KEPT:
            self._kept.clear()
        self._kept[question] = (monotonic(), counted)


def _scaled(tally: _Tally, factor: float) -> _Tally:
    values = {
        name: [Value(each.value, round(each.products * factor)) for each in values]
        for name, values in tally.values.items()
    }
    return _Tally(round(tally.total * factor), True, values)


def _best(values: Mapping[str, Sequence[Value]]) -> Mapping[str, Sequence[Value]]:
    """In the order of the attributes; the values of each as they are shown."""
    found = {}
    for attribute in ATTRIBUTES:
        most = sorted(values.get(attribute, ()), key=lambda each: (-each.products, each.value))[:MOST_VALUES]
        if attribute == "size":
            most.sort(key=lambda each: size_order(each.value))
        if attribute == "category":
            most = [Value(product_type(each.value), each.products) for each in most]
        if most:
            found[attribute] = most
    return found
