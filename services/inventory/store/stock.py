"""Stock rows, the ledger, and what operators set. Stock rows are locked last, in (sku, location) order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from services.chassis.database import Connection
from services.inventory.domain.levels import Level, Movement
from services.inventory.domain.stock import Shelves


async def now(connection: Connection) -> datetime:
    """The database's clock."""
    instant: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return instant


async def lock_shelves(connection: Connection, skus: Iterable[str]) -> Shelves:
    """Locks the stock rows of some SKUs and expires what is due on them."""
    rows = await connection.fetch("SELECT * FROM lock_levels($1)", sorted(set(skus)))
    levels = {
        (row["sku"], row["location"]): Level(
            row["sku"],
            row["location"],
            row["on_hand"],
            row["held"],
            row["committed"],
            row["received_total"],
            row["version"],
            row["safety"],
        )
        for row in rows
    }
    locked = rows[0]["lock_time"] if rows else await now(connection)
    return Shelves(levels, locked, {(row["sku"], row["location"]) for row in rows if row["expired"]})


async def add_places(connection: Connection, places: Iterable[tuple[str, str]]) -> None:
    """Makes sure that there is a stock row for each (sku, location)."""
    wanted = sorted(set(places))
    await connection.execute(
        "INSERT INTO stock (sku, location) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING",
        [sku for sku, _ in wanted],
        [location for _, location in wanted],
    )


async def write_movements(connection: Connection, movements: Sequence[Movement]) -> None:
    """Changes the balances and writes the ledger. The rows are locked by the caller."""
    if not movements:
        return
    await connection.execute(
        "SELECT write_movements($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        [move.sku for move in movements],
        [move.location for move in movements],
        [move.kind for move in movements],
        [move.on_hand for move in movements],
        [move.held for move in movements],
        [move.committed for move in movements],
        [move.safety for move in movements],
        [move.version for move in movements],
        [move.cause.reservation_id for move in movements],
        [move.cause.order_id for move in movements],
        [move.cause.actor for move in movements],
        [move.cause.reason for move in movements],
        [move.cause.request_id for move in movements],
    )


async def claim_counts(
    connection: Connection, document_id: str, counts: Mapping[tuple[str, str], int]
) -> set[tuple[str, str]]:
    """Marks rows of a document as taken in and makes sure that there is a stock row for each.

    Returns the places of those that were not taken in before and say otherwise than the books. The others were true as
    this statement was run: nothing needs to be locked for them.
    """
    wanted = sorted(counts)
    rows = await connection.fetch(
        "WITH counts AS MATERIALIZED ("
        " SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[]) AS c (sku, location, quantity)"
        "), claimed AS ("
        " INSERT INTO imported_rows (document_id, sku, location) SELECT $1, sku, location FROM counts"
        " ON CONFLICT DO NOTHING RETURNING sku, location"
        "), added AS ("
        " INSERT INTO stock (sku, location) SELECT sku, location FROM claimed ON CONFLICT DO NOTHING"
        ") SELECT sku, location FROM claimed JOIN counts USING (sku, location) LEFT JOIN stock USING (sku, location)"
        " WHERE coalesce(on_hand, 0) <> quantity",
        document_id,
        [sku for sku, _ in wanted],
        [location for _, location in wanted],
        [counts[place] for place in wanted],
    )
    return {(row["sku"], row["location"]) for row in rows}


async def set_ranks(connection: Connection, country: str, locations: Sequence[str]) -> None:
    """Sets the order of locations for a country; none forgets it."""
    if locations:
        await connection.execute(
            "INSERT INTO location_ranks (country, locations) VALUES ($1, $2)"
            " ON CONFLICT (country) DO UPDATE SET locations = excluded.locations",
            country,
            list(locations),
        )
    else:
        await connection.execute("DELETE FROM location_ranks WHERE country = $1", country)


async def ranks_for(connection: Connection, countries: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """The order of locations for each of these countries: its own, or that for all others."""
    wanted = sorted({*countries, ""})
    rows = await connection.fetch("SELECT country, locations FROM location_ranks WHERE country = ANY($1)", wanted)
    known: dict[str, Sequence[str]] = {row["country"]: row["locations"] for row in rows}
    return {country: known.get(country, known.get("", ())) for country in wanted}
