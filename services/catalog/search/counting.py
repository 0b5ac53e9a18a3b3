"""How many products answer a question, and the values there are to choose from.

Exact to 10,000. Beyond that it is told from a sample: rows of some lots, which were drawn at random when each row was
made. What the whole window has is counted as it changes, and exact at any size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from services.catalog.domain.feed import product_type
from services.catalog.domain.sizes import size_order
from services.catalog.search import conditions
from services.catalog.search.asking import ATTRIBUTES, OF_VARIANT, Wanted
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
NO_PLACES = "SELECT NULL::bigint AS number, NULL::int AS token WHERE false"
COLUMNS = {"brand": "ARRAY[f.brand]", "category": "f.categories"}
# How long counts are kept in this process, and of how many questions. Numbers beside a list need not be to the moment;
# what the list shows is never kept here.
KEPT_SECONDS, KEPT = 1.0, 500

# Parts of counts that are read at the same moment: the rest of the pool is for those who show products.
AT_ONCE = 3

SIZE = """
SELECT coalesce(sum(products), 0)::bigint AS products FROM search_counts WHERE currency = $1 AND token = $1
"""
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
        self._reading = asyncio.Semaphore(AT_ONCE)
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
        if wanted.everything:
            whole = await self.whole(wanted.currency)
            size = sum(each.products for each in whole.get("currency", ()))
            return Counted(size, False, _best({name: whole.get(name, []) for name in ATTRIBUTES}))
        is_small = (await self._database.fetch(SIZE, wanted.currency))[0]["products"] <= SMALL
        filtered = [attribute for attribute, _ in wanted.values]
        # Of an attribute that is filtered, what the other filters leave.
        tally, *others = await asyncio.gather(
            self._tally(wanted, is_small, [name for name in ATTRIBUTES if name not in filtered]),
            *(self._tally(wanted.without(attribute), is_small, [attribute]) for attribute in filtered),
        )
        for other in others:
            tally.values |= other.values
            tally.estimated |= other.estimated
        return Counted(tally.total, tally.estimated, _best(tally.values))

    async def _tally(self, wanted: Wanted, is_small: bool, attributes: Sequence[str]) -> _Tally:
        if wanted.everything:
            whole = await self.whole(wanted.currency)
            return _Tally(values={name: list(whole.get(name, ())) for name in attributes})
        if not is_small:
            tally = await self._read(wanted, attributes, f"r.lot < {LOTS}", f"ORDER BY r.lot LIMIT {COUNTED}")
            if tally.total > TELLING:
                return _scaled(tally, OF_LOTS / LOTS)
        return await self._read(wanted, attributes, "true", "")

    async def _read(self, wanted: Wanted, attributes: Sequence[str], among: str, some: str) -> _Tally:
        arguments = Arguments()
        answering = conditions.rows(wanted, arguments)
        if answering is None:
            return _Tally()
        of_variant = [f"o.{name}" for name in attributes if name in OF_VARIANT]
        of_product = [column for name, column in COLUMNS.items() if name in attributes]
        # What a product has is of all its variants alike, and each once.
        parts = [
            f"SELECT f.number, each.token FROM counted f CROSS JOIN LATERAL unnest({column}) AS each(token)"
            " WHERE each.token > 0"
            for column in of_product
        ]
        if of_variant:
            parts.append(
                f"SELECT DISTINCT f.number, each.token FROM counted f CROSS JOIN LATERAL unnest(f.offers) o"
                f" CROSS JOIN LATERAL unnest(ARRAY[{', '.join(of_variant)}]) AS each(token)"
                f" WHERE {conditions.offers(wanted, arguments)} AND each.token > 0"
            )
        async with self._reading:
            rows = await self._database.fetch(
                "WITH found AS MATERIALIZED (SELECT r.number, r.lot, r.brand, r.categories, r.offers"
                f" FROM search_rows r WHERE {' AND '.join(answering)} AND {among}),"
                f" counted AS MATERIALIZED (SELECT * FROM found r {some}),"
                f" places AS ({' UNION ALL '.join(parts) or NO_PLACES}),"
                " summed AS (SELECT t.kind, t.value, s.products,"
                f" row_number() OVER (PARTITION BY t.kind ORDER BY s.products DESC, t.value) AS nth"
                f" FROM (SELECT p.token, count(*) AS products FROM places p GROUP BY p.token) s"
                f" JOIN search_tokens t ON t.token = s.token)"
                f" SELECT (SELECT count(*) FROM found) AS total, (SELECT count(*) FROM counted) AS counted,"
                f" s.kind, s.value, s.products FROM (SELECT 1) one LEFT JOIN summed s ON s.nth <= {MOST_VALUES}",
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
