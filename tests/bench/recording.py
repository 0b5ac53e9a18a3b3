"""What one real call wrote: every row, by transaction, noted by triggers while the call runs.

It is the measure of the bare transactions: they write these rows, no more and no fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Row = Mapping[str, Any]

# What consumers and the relay write on their own time, not the call.
BACKGROUND = {"inbox", "attempts", "parked_keys", "dead_letters"}

NOTE = """
CREATE SCHEMA recording;
CREATE SEQUENCE recording.number;
CREATE FUNCTION recording.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    note text := format(
        'INSERT INTO recording.%I SELECT pg_current_xact_id()::text::bigint, nextval(''recording.number''), $1, ($2).*',
        TG_TABLE_NAME);
BEGIN
    IF TG_OP <> 'INSERT' THEN EXECUTE note USING 'before ' || TG_OP, OLD; END IF;
    IF TG_OP <> 'DELETE' THEN EXECUTE note USING 'after ' || TG_OP, NEW; END IF;
    RETURN NULL;
END $$;
"""
NOTED = ("noted_transaction", "noted_number", "noted_what")


@dataclass(frozen=True, slots=True)
class Table:
    """What of a table matters for writing its rows again."""

    name: str
    # Column -> type, without those that the database fills in itself.
    columns: Mapping[str, str]
    key: Sequence[str]
    # The columns of each unique index, the key's among them.
    unique: Sequence[Sequence[str]]
    references: frozenset[str]


@dataclass(frozen=True, slots=True)
class Change:
    """One row that was written."""

    table: str
    verb: Literal["insert", "update", "delete"]
    before: Row | None
    after: Row | None


Transaction = Sequence[Change]


@dataclass(frozen=True, slots=True)
class Recording:
    """The transactions of a call in one database, in their order, and the tables they wrote."""

    tables: Mapping[str, Table]
    transactions: Sequence[Transaction]

    def counts(self) -> Counter[tuple[str, str]]:
        """(table, verb) -> rows."""
        return Counter((change.table, change.verb) for transaction in self.transactions for change in transaction)

    def text(self) -> str:
        """For the reader: "2 transactions: 1 orders inserted, 1 orders updated"."""
        rows = ", ".join(f"{count} {table} {verb}" for (table, verb), count in sorted(self.counts().items()))
        return f"{len(self.transactions)} transaction{'s' * (len(self.transactions) > 1)}: {rows}"


class Recorder:
    """Filled while its block runs; ask it for the recording inside of the block, when the call was answered."""

    def __init__(self, connection: Connection, tables: Mapping[str, Table]) -> None:
        self._connection, self._tables = connection, tables

    async def recording(self) -> Recording:
        """All that calls wrote until now; what consumers and the relay wrote is left out."""
        noted: dict[int, list[tuple[int, str, str, Row]]] = {}
        for table in self._tables:
            for row in await self._connection.fetch(f'SELECT * FROM recording."{table}"'):
                values = {name: _plain(value) for name, value in row.items() if name not in NOTED}
                transaction, number, what = (row[name] for name in NOTED)
                noted.setdefault(transaction, []).append((number, what, table, values))
        transactions = [_merged(_changes(notes), self._tables) for _, notes in sorted(noted.items())]
        return Recording(self._tables, [each for each in transactions if each and not _is_background(each)])


@asynccontextmanager
async def recorder(url: str) -> AsyncIterator[Recorder]:
    """Notes what is written to a database while the block runs. The URL's role must own the server."""
    connection = await asyncpg.connect(url)
    try:
        tables = await _tables(connection)
        await connection.execute("DROP SCHEMA IF EXISTS recording CASCADE;" + NOTE)
        for name in tables:
            await connection.execute(
                f'CREATE TABLE recording."{name}" AS SELECT 0::bigint AS noted_transaction, 0::bigint AS noted_number,'
                f" '' AS noted_what, * FROM public.\"{name}\" WITH NO DATA;"
                f'CREATE TRIGGER recording AFTER INSERT OR UPDATE OR DELETE ON public."{name}"'
                " FOR EACH ROW EXECUTE FUNCTION recording.note()"
            )
        try:
            yield Recorder(connection, tables)
        finally:
            await connection.execute("DROP SCHEMA recording CASCADE")
    finally:
        await connection.close()


def _changes(notes: Iterable[tuple[int, str, str, Row]]) -> list[Change]:
    changes: list[Change] = []
    before: Row | None = None
    for _, what, table, row in sorted(notes, key=lambda note: note[0]):
        match what:
            case "after INSERT":
                changes.append(Change(table, "insert", None, row))
            case "before DELETE":
                changes.append(Change(table, "delete", row, None))
            case "before UPDATE":
                before = row
            case "after UPDATE":
                changes.append(Change(table, "update", before, row))
    return changes


def _merged(changes: Iterable[Change], tables: Mapping[str, Table]) -> list[Change]:
    """Each row once, as it was left: who knows the end beforehand writes it at once."""
    merged: dict[tuple[str, tuple[Any, ...]], Change] = {}
    for change in changes:
        row = change.after or change.before or {}
        place = (change.table, tuple(row[name] for name in tables[change.table].key))
        first = merged.get(place)
        if first is None:
            merged[place] = change
        elif first.verb == "insert" and change.verb == "delete":
            del merged[place]
        elif first.verb == "insert":
            merged[place] = Change(change.table, "insert", None, change.after)
        else:
            merged[place] = Change(change.table, change.verb, first.before, change.after)
    return list(merged.values())


def _is_background(transaction: Transaction) -> bool:
    touched = {change.table for change in transaction}
    return bool(touched & BACKGROUND) or all(each.table == "outbox" and each.verb == "delete" for each in transaction)


def _plain(value: Any) -> Any:
    """A composite as a tuple, as it is written."""
    return tuple(_plain(part) for part in value.values()) if isinstance(value, asyncpg.Record) else value


async def _tables(connection: Connection) -> dict[str, Table]:
    names = await connection.fetch(
        "SELECT c.oid, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'public' AND c.relkind = 'r' AND EXISTS"
        " (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)"
    )
    return {row["name"]: await _table(connection, row["oid"], row["name"]) for row in names}


async def _table(connection: Connection, oid: int, name: str) -> Table:
    columns = await connection.fetch(
        "SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute WHERE attrelid = $1"
        " AND attnum > 0 AND NOT attisdropped AND attidentity = '' AND attgenerated = '' ORDER BY attnum",
        oid,
    )
    unique = await connection.fetch(
        "SELECT i.indisprimary AS primary, array_agg(a.attname::text ORDER BY k.n) AS columns FROM pg_index i,"
        " unnest(i.indkey) WITH ORDINALITY AS k(attnum, n) JOIN pg_attribute a ON a.attnum = k.attnum"
        " WHERE i.indrelid = $1 AND a.attrelid = $1 AND i.indisunique GROUP BY i.indexrelid, i.indisprimary",
        oid,
    )
    references = await connection.fetch(
        "SELECT f.relname AS name FROM pg_constraint c JOIN pg_class f ON f.oid = c.confrelid"
        " WHERE c.conrelid = $1 AND c.contype = 'f' AND c.confrelid <> $1",
        oid,
    )
    return Table(
        name,
        {row["name"]: row["type"] for row in columns},
        next(list(row["columns"]) for row in unique if row["primary"]),
        [list(row["columns"]) for row in unique],
        frozenset(row["name"] for row in references),
    )
