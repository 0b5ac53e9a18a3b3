"""A page of what was found, in an order.

An order is read from its index while rows that answer stand close together there; where they do not, all that answer
are found by their tokens and sorted. Either way a page begins after the place of the last row of the page before, so
that a row that does not change is neither repeated nor skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import asyncpg

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


# A way to read a page, as a statement; its arguments are those of `_read_along`.
_Read = Callable[[Wanted, Order, _Sort, Place | None, int, Sequence[str], Arguments], str]
# Behind the last of those that are just so near.
PASSED = Place((), -1)


async def page(
    database: Database, wanted: Wanted, order: Order, languages: Sequence[str], after: Place | None, size: int
) -> list[Found]:
    """The next products after a place. `languages` are those of the reader, best first."""
    if wanted.impossible:
        return []
    if order is Order.RELEVANCE:
        return await _by_relevance(database, wanted, after, size)
    sort = _sort(order, languages)
    ways = (_read_along, _read_all)
    return await _in_order(database, wanted, order, sort, after, size, Nearness.TEXT, None, ways)


async def _in_order(
    database: Database,
    wanted: Wanted,
    order: Order,
    sort: _Sort,
    after: Place | None,
    size: int,
    nearness: Nearness,
    nearer: Nearness | None,
    ways: Sequence[_Read],
) -> list[Found]:
    """Rows that answer at least so well, but not as well as `nearer`: by the first way that fills the page, or the
    last."""
    rows: Sequence[asyncpg.Record] = ()
    for read in ways:
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
    found = await _nearest_along(database, wanted, after, size)
    if found is None:
        found = await _sorted_by_nearness(database, wanted, after, size)
    if found is None:
        found = []
        for nearness in reversed(Nearness):
            here = _within(after, nearness)
            if here is not PASSED:
                found += await _as_near(database, wanted, nearness, here, size - len(found), (_read_along, _read_all))
            if len(found) == size:
                break
    return found


async def _nearest_along(database: Database, wanted: Wanted, after: Place | None, size: int) -> list[Found] | None:
    """A page of those as near as can be, where they stand close together among the popular; else None."""
    for nearness in reversed(Nearness):
        here = _within(after, nearness)
        if here is not PASSED and conditions.rows(wanted, Arguments(), nearness) is not None:
            found = await _as_near(database, wanted, nearness, here, size, (_read_along,))
            return found if len(found) == size else None
    return None


async def _sorted_by_nearness(database: Database, wanted: Wanted, after: Place | None, size: int) -> list[Found] | None:
    """All that answers, sorted; None where that is too much."""
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
    return None


async def _as_near(
    database: Database, wanted: Wanted, nearness: Nearness, after: Place | None, size: int, ways: Sequence[_Read]
) -> list[Found]:
    """The next of those that are just so near. `after` is a place among them."""
    nearer = Nearness(nearness + 1) if nearness < FARTHEST else None
    sort = _sort(Order.POPULARITY, ())
    part = await _in_order(database, wanted, Order.POPULARITY, sort, after, size, nearness, nearer, ways)
    return [Found(each.product_id, Place((FARTHEST - nearness, *each.place.key), each.place.number)) for each in part]


def _within(after: Place | None, nearness: Nearness) -> Place | None:
    """The place among those that are just so near: None before the first, PASSED after the last."""
    far = FARTHEST - nearness
    if after is None or far > after.key[0]:  # type: ignore[operator]
        return None
    return PASSED if far < after.key[0] else Place(after.key[1:], after.number)  # type: ignore[operator]


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
