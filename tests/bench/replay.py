"""The bare transactions: the rows of a recorded call, written again with other ids, as few statements as can be.

Each row is written once, as the call left it; rows of one table go in one statement. Nothing is read or decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .recording import Change, Connection, Recording, Row, Table, Transaction

# A generated id has such a run somewhere; its last eight digits are replaced by the number of the replay.
GENERATED = re.compile(r"[0-9a-f]{12,}")
STEP = 1000

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Generated:
    """An id that must differ each time: text around the places where the replay's number goes."""

    pieces: Sequence[str]
    is_uuid: bool

    @classmethod
    def of(cls, value: str | UUID) -> Generated:
        text, pieces, position = str(value), [], 0
        pattern = re.compile(r"[0-9a-f]{12}$") if isinstance(value, UUID) else GENERATED
        for found in pattern.finditer(text):
            pieces.append(text[position : found.end() - 8])
            position = found.end()
        return cls([*pieces, text[position:]], isinstance(value, UUID))

    def at(self, number: int) -> str | UUID:
        text = f"{number:08x}".join(self.pieces)
        return UUID(text) if self.is_uuid else text


@dataclass(frozen=True, slots=True)
class Counted:
    """A whole number that must differ each time."""

    value: int

    def at(self, number: int) -> int:
        return self.value + STEP * (number + 1)


@dataclass(frozen=True, slots=True)
class Placed:
    """The SKU or the location of one of the places that take turns."""

    places: Sequence[Place]
    # Which of the call's places this was, and how many it had.
    nth: int
    per_call: int
    part: int

    def at(self, number: int) -> str:
        return self.places[(number * self.per_call + self.nth) % len(self.places)][self.part]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and what fills it."""

    sql: str
    arguments: Sequence[Any]

    def arguments_at(self, number: int) -> list[Any]:
        """Those of one replay."""
        return [each.at(number) if isinstance(each, Generated | Counted | Placed) else each for each in self.arguments]


@dataclass(frozen=True, slots=True)
class Replay:
    """One call's transactions in one database, ready to be written any number of times."""

    transactions: Sequence[Sequence[Statement]]

    async def run(self, connection: Connection, number: int, only: slice = slice(None)) -> None:
        """Writes the call's rows for the `number`-th time; each number is good for once."""
        for statements in self.transactions[only]:
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement.sql, *statement.arguments_at(number))


def replay(recording: Recording, places: Sequence[Place] = ()) -> Replay:
    """The recorded call to be done again. `places`: (sku, location) pairs that take the place of the call's own."""
    own = sorted({place for each in recording.transactions for change in each if (place := _place(change))})
    turns = {place: (nth, len(own)) for nth, place in enumerate(own)} if places else {}
    writer = _Writer(recording.tables, places, turns)
    return Replay([writer.statements(each) for each in recording.transactions])


def _place(change: Change) -> Place | None:
    row = change.after or change.before or {}
    return (row["sku"], row["location"]) if "sku" in row and "location" in row else None


class _Writer:
    def __init__(
        self, tables: Mapping[str, Table], places: Sequence[Place], turns: Mapping[Place, tuple[int, int]]
    ) -> None:
        self._tables, self._places, self._turns = tables, places, turns

    def statements(self, transaction: Transaction) -> list[Statement]:
        groups: dict[tuple[str, str, tuple[str, ...]], list[Change]] = {}
        for change in transaction:
            groups.setdefault((change.verb, change.table, self._written(change)), []).append(change)
        ordered = sorted(groups.items(), key=lambda group: self._order(group[0][0], group[0][1]))
        return [self._statement(self._tables[table], columns, rows) for (_, table, columns), rows in ordered]

    def _written(self, change: Change) -> tuple[str, ...]:
        """The columns a statement names."""
        columns = self._tables[change.table].columns
        if change.verb == "insert":
            return tuple(columns)
        before, after = change.before or {}, change.after or {}
        return tuple(name for name in columns if change.verb == "update" and before[name] != after[name])

    def _order(self, verb: str, table: str) -> tuple[int, int]:
        """Rows that others point to first; changes of what is there after that, so that locks are held shortly."""
        return ("insert", "update", "delete").index(verb), self._depth(table)

    def _depth(self, table: str) -> int:
        return max((1 + self._depth(name) for name in self._tables[table].references), default=0)

    def _statement(self, table: Table, columns: Sequence[str], changes: Sequence[Change]) -> Statement:
        verb, name = changes[0].verb, f'"{table.name}"'
        if verb == "insert":
            rows = [[self._value(table, column, change.after or {}) for column in columns] for change in changes]
            return _filled(f"INSERT INTO {name} ({_names(columns)}) VALUES {{rows}}", rows, [])
        rows = [
            [
                *(self._value(table, column, change.before or {}) for column in table.key),
                *(self._value(table, column, change.after or {}) for column in columns),
            ]
            for change in changes
        ]
        types = [table.columns.get(column, "bigint") for column in (*table.key, *columns)]
        keys = [f"k{number}" for number in range(len(table.key))]
        new = [f"n{number}" for number in range(len(columns))]
        given = f"(VALUES {{rows}}) AS given({', '.join(keys + new)})"
        where = " AND ".join(f't."{column}" = given.{k}' for column, k in zip(table.key, keys, strict=True))
        if verb == "delete":
            return _filled(f"DELETE FROM {name} t USING {given} WHERE {where}", rows, types)
        settings = ", ".join(f'"{column}" = given.{n}' for column, n in zip(columns, new, strict=True))
        return _filled(f"UPDATE {name} t SET {settings} FROM {given} WHERE {where}", rows, types)

    def _value(self, table: Table, column: str, row: Row) -> Any:
        value = row[column]
        place = (row.get("sku"), row.get("location"))
        if column in ("sku", "location") and place in self._turns:
            nth, per_call = self._turns[place]  # type: ignore[index]  # it is in there
            return Placed(self._places, nth, per_call, ("sku", "location").index(column))
        if isinstance(value, UUID) or (isinstance(value, str) and GENERATED.search(value)):
            return Generated.of(value)
        if isinstance(value, int) and not isinstance(value, bool) and self._must_differ(table, column, row):
            return Counted(value)
        return value

    def _must_differ(self, table: Table, column: str, row: Row) -> bool:
        """Whether nothing else of a unique index differs from replay to replay."""
        return any(
            column in columns
            and not any(isinstance(row[each], UUID) or GENERATED.search(str(row[each])) for each in columns)
            for columns in table.unique
        )


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _filled(sql: str, rows: Sequence[Sequence[Any]], types: Sequence[str]) -> Statement:
    """The statement with a placeholder for each value; typed where PostgreSQL cannot tell the type itself."""
    arguments: list[Any] = []
    texts = []
    for row in rows:
        marks = []
        for number, value in enumerate(row):
            arguments.append(value)
            marks.append(f"${len(arguments)}" + (f"::{types[number]}" if types else ""))
        texts.append(f"({', '.join(marks)})")
    return Statement(sql.format(rows=", ".join(texts)), arguments)
