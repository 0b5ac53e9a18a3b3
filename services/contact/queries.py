"""What contact answers without changing anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from services.chassis.database import Database
from services.contact import store
from services.contact.domain.contact import Contact


async def contacts(database: Database, contact_ids: Sequence[str]) -> dict[str, Contact]:
    """Contacts by id, as they are now."""
    rows = await database.fetch(store.CONTACT + " WHERE c.contact_id = ANY($1)", contact_ids)
    return {row["contact_id"]: store.contact_of(row) for row in rows}


async def open_offers(database: Database, agent_ids: Sequence[str]) -> dict[str, list[store.Offer]]:
    """What is open at some desks: the talk first, then what rings, longest waiting first."""
    rows = await database.fetch(
        f"SELECT * FROM ({store.OFFER} WHERE o.agent_id = ANY($1) AND o.state = 'pending'"
        f" UNION ALL {store.OFFER} JOIN agents t ON t.agent_id = o.agent_id AND t.contact_id = o.contact_id"
        " WHERE o.agent_id = ANY($1) AND o.state = 'accepted') AS open"
        " ORDER BY offer_state, press_time, offer_id",  # accepted comes before pending
        agent_ids,
    )
    found: dict[str, list[store.Offer]] = {}
    for row in rows:
        found.setdefault(row["desk"], []).append(store.offer_of(row))
    return found


async def offers(database: Database, offer_ids: Sequence[str]) -> list[store.Offer]:
    """Offers by id, as they are now."""
    return [store.offer_of(row) for row in await database.fetch(f"{store.OFFER} WHERE o.offer_id = ANY($1)", offer_ids)]


async def agent(database: Database, agent_id: str, absent_after: timedelta) -> asyncpg.Record | None:
    """An agent as it is now."""
    rows = await database.fetch(store.AGENT + "WHERE a.agent_id = $2", absent_after, agent_id)
    return rows[0] if rows else None


async def hotline(database: Database) -> asyncpg.Record:
    """What was last announced."""
    return (await database.fetch("SELECT * FROM hotline"))[0]


async def timeline(
    database: Database, customer_id: str, before: tuple[datetime, int, int] | None, limit: int
) -> list[asyncpg.Record]:
    """The entries of a customer before a position (occur_time, cause, entry_id), newest first."""
    time, cause, entry_id = before or (None, 0, 0)
    return await database.fetch(
        "SELECT * FROM timeline WHERE customer_id = $1"
        " AND (occur_time, cause, entry_id) < (coalesce($2::timestamptz, 'infinity'), $3::bigint, $4::bigint)"
        " ORDER BY occur_time DESC, cause DESC, entry_id DESC LIMIT $5",
        customer_id,
        time,
        cause,
        entry_id,
        limit,
    )
