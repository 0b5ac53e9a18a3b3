"""A page of what was found, in an order.

An order is read from its index while rows that answer stand close together there; where they do not, all that answer
are found by their tokens and sorted. Either way a page begins after the place of the last row of the page before, so
that a row that does not change is neither repeated nor skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.catalog.domain.words import STEMMERS
from services.catalog.search import conditions
from services.catalog.search.asking import Order, Wanted
from services.catalog.search.conditions import Arguments, Nearness
from services.chassis.database import Database

# So many rows of an order are looked at before all that answer are found by their tokens.
LOOKED_AT = 2_000
# So many rows are sorted by nearness at once; of more, the nearest are read first.
SORTED = 2_000

# Orders begin with the nearest, and with the most popular.
FARTHEST = int(max(Nearness))

# What stands before the number in an order.
Key = tuple[int | str | Decimal | datetime, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a product stands in an order."""

    key: Key
    number: int


@dataclass(frozen=True, slots=True)
class Found:
    """A product that answers, and its place."""

    product_id: str
    place: Place


@dataclass(frozen=True, slots=True)
class _Sort:
    """An order: what it sorts by, of which kind that is, and which way. The number follows, the same way."""

    expression: str
    kind: str
    descending: bool


async def page(
    database: Database, wanted: Wanted, order: Order, languages: Sequence[str], after: Place | None, size: int
) -> list[Found]:
    """The next products after a place. `languages` are those of the reader, best first."""
    if wanted.impossible:
        return []
    if order is Order.RELEVANCE:
        return await _by_relevance(database, wanted, after, size)
    sort = _sort(order, languages)
    return await _in_order(database, wanted, order, sort, after, size, Nearness.TEXT, None)


async def _in_order(
    database: Database,
    wanted: Wanted,
    order: Order,
    sort: _Sort,
    after: Place | None,
    size: int,
    nearness: Nearness,
    nearer: Nearness | None,
) -> list[Found]:
    """Rows that answer at least so well, but not as well as `nearer`."""
    for read in (_read_along, _read_all):
        arguments = Arguments()
        answering = _between(wanted, arguments, nearness, nearer)
        if answering is None:
            return []
        statement = read(wanted, order, sort, after, size, answering, arguments)
        rows = await database.fetch(statement, *arguments.values)
        if len(rows) == size:
            break
    return [Found(row["product_id"], Place((row["key"],), row["number"])) for row in rows]


def _read_along(
    wanted: Wanted,
    order: Order,
    sort: _Sort,
    after: Place | None,
    size: int,
    answering: Sequence[str],
    arguments: Arguments,
) -> str:
    """The first rows of the order that answer, among so many."""
    way = "DESC" if sort.descending else "ASC"
    where = " AND ".join(answering)
    if order in (Order.PRICE_ASCENDING, Order.PRICE_DESCENDING):
        beyond = f"s.currency = {arguments.add(wanted.currency, 'int')}" + _after(
            "s.amount", "s.number", sort, after, arguments
        )
        return (
            f"SELECT r.product_id, s.number, s.amount AS key FROM ("
            f"SELECT s.amount, s.number FROM search_prices s WHERE {beyond}"
            f" ORDER BY s.amount {way}, s.number {way} LIMIT {LOOKED_AT}) s"
            f" CROSS JOIN LATERAL ("
            f"SELECT r.product_id FROM search_rows r WHERE r.number = s.number AND {where} OFFSET 0) r"
            f" ORDER BY s.amount {way}, s.number {way} LIMIT {size}"
        )
    beyond = "true" + _after(sort.expression, "r.number", sort, after, arguments)
    return (
        f"SELECT r.product_id, r.number, r.key FROM ("
        f"SELECT r.*, {sort.expression} AS key FROM search_rows r WHERE {beyond}"
        f" ORDER BY {sort.expression} {way}, r.number {way} LIMIT {LOOKED_AT}) r"
        f" WHERE {where} ORDER BY r.key {way}, r.number {way} LIMIT {size}"
    )


def _read_all(
    wanted: Wanted,
    order: Order,
    sort: _Sort,
    after: Place | None,
    size: int,
    answering: Sequence[str],
    arguments: Arguments,
) -> str:
    """All rows that answer, sorted. Found apart from sorting, as the planner would else read along the order."""
    way = "DESC" if sort.descending else "ASC"
    expression = sort.expression
    if order in (Order.PRICE_ASCENDING, Order.PRICE_DESCENDING):
        # As search_prices has it.
        currency = arguments.add(wanted.currency, "int")
        expression = f"(SELECT min(o.amount) FROM unnest(r.offers) o WHERE o.currency = {currency})"
    return (
        f"WITH found AS MATERIALIZED ("
        f"SELECT r.product_id, r.number, {expression} AS key FROM search_rows r WHERE {' AND '.join(answering)})"
        f" SELECT f.product_id, f.number, f.key FROM found f"
        f" WHERE true{_after('f.key', 'f.number', sort, after, arguments)}"
        f" ORDER BY f.key {way}, f.number {way} LIMIT {size}"
    )


async def _by_relevance(database: Database, wanted: Wanted, after: Place | None, size: int) -> list[Found]:
    """Nearest first, of those as near the most popular."""
    arguments = Arguments()
    answering = conditions.rows(wanted, arguments)
    assert answering is not None  # noqa: S101
    near = conditions.nearness(wanted, arguments)
    beyond = ""
    if after is not None:
        beyond = f"WHERE (f.far, f.unpopular, f.number) > ({_place(after, arguments, ('int', 'bigint'))})"
    rows = await database.fetch(
        f"WITH answering AS MATERIALIZED (SELECT r.number, r.product_id, r.popularity, r.title, r.facts"
        f" FROM search_rows r WHERE {' AND '.join(answering)} LIMIT {SORTED + 1}),"
        f" found AS MATERIALIZED (SELECT r.product_id, r.number, -r.popularity AS unpopular, {FARTHEST} - {near} AS far"
        f" FROM answering r"
        f" WHERE (SELECT count(*) FROM answering) <= {SORTED})"
        # One row at least, as the number of all stands in each.
        f" SELECT a.found, f.* FROM (SELECT count(*) AS found FROM answering) a LEFT JOIN LATERAL"
        f" (SELECT * FROM found f {beyond} ORDER BY f.far, f.unpopular, f.number LIMIT {size}) f"
        f" ON true"
        f" ORDER BY f.far, f.unpopular, f.number",
        *arguments.values,
    )
    if rows[0]["found"] <= SORTED:
        return [
            Found(row["product_id"], Place((row["far"], row["unpopular"]), row["number"]))
            for row in rows
            if row["number"] is not None
        ]
    found: list[Found] = []
    sort = _sort(Order.POPULARITY, ())
    for nearness in reversed(Nearness):
        far = FARTHEST - nearness
        here = None
        if after is not None:
            reached, *key = after.key
            if far < int(str(reached)):
                continue
            here = Place(tuple(key), after.number) if far == reached else None
        nearer = Nearness(nearness + 1) if nearness < Nearness.EXACT else None
        part = await _in_order(database, wanted, Order.POPULARITY, sort, here, size - len(found), nearness, nearer)
        found += [Found(each.product_id, Place((far, *each.place.key), each.place.number)) for each in part]
        if len(found) == size:
            break
    return found


def _between(wanted: Wanted, arguments: Arguments, nearness: Nearness, nearer: Nearness | None) -> list[str] | None:
    answering = conditions.rows(wanted, arguments, nearness)
    if answering is None or nearer is None:
        return answering
    near = conditions.nearness(wanted, arguments)
    return [*answering, f"{near} = {int(nearness)}"]


def _sort(order: Order, languages: Sequence[str]) -> _Sort:
    if order is Order.NEWEST:
        return _Sort("r.create_time", "timestamptz", descending=True)
    if order is Order.NAME:
        language = next((each for each in languages if each in STEMMERS), "")
        return _Sort(f"r.name_{language}" if language else "r.name", "text", descending=False)
    if order is Order.POPULARITY:
        return _Sort("(-r.popularity)", "bigint", descending=False)
    return _Sort("s.amount", "numeric", descending=order is Order.PRICE_DESCENDING)


def _after(key: str, number: str, sort: _Sort, after: Place | None, arguments: Arguments) -> str:
    if after is None:
        return ""
    comparison = "<" if sort.descending else ">"
    return f" AND ({key}, {number}) {comparison} ({_place(after, arguments, (sort.kind,))})"


def _place(place: Place, arguments: Arguments, kinds: Sequence[str]) -> str:
    parts = [arguments.add(part, kind) for part, kind in zip(place.key, kinds, strict=True)]
    return ", ".join([*parts, arguments.add(place.number, "bigint")])
