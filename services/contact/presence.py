"""The tables as those write them who are there: signs of life of desks, and of customers who watch their contact.

They lie apart from what they tell of, so that they wait for nobody who routes or talks.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import asyncpg

from services.chassis.database import Connection, Database
from services.contact import store
from services.contact.domain.contact import Contact


async def beat(database: Database, agent_id: str, absent_after: timedelta) -> asyncpg.Record | None:
    """The desk is alive: notes it, and returns the agent, with `came_back` when it was absent before."""
    rows = await database.fetch(
        "UPDATE heartbeats h SET beat_time = clock_timestamp() FROM agents a"
        " WHERE a.agent_id = h.agent_id AND h.agent_id = $2"
        " RETURNING a.*, true AS present,"
        " coalesce(old.beat_time <= clock_timestamp() - $1::interval, true) AS came_back,"
        " EXISTS (SELECT FROM offers o WHERE o.agent_id = a.agent_id AND o.state = 'pending') AS ringing",
        absent_after,
        agent_id,
    )
    return rows[0] if rows else None


async def note_watched(database: Database, contact_ids: Iterable[str]) -> None:
    """These contacts are watched now. Only those that wait are noted."""
    await database.fetch(
        "INSERT INTO watches (contact_id, watch_time) SELECT contact_id, clock_timestamp() FROM contacts"
        " WHERE contact_id = ANY($1) AND state = 'waiting' ORDER BY contact_id"  # all processes lock in one order
        " ON CONFLICT (contact_id) DO UPDATE SET watch_time = excluded.watch_time",
        list(contact_ids),
    )


async def watch_anew(database: Database) -> None:
    """All who ever watched are taken to watch now; who is noted in this moment needs no help."""
    await database.fetch(
        "UPDATE watches SET watch_time = clock_timestamp()"
        " WHERE contact_id IN (SELECT contact_id FROM watches FOR UPDATE SKIP LOCKED)"
    )


async def lock_unwatched(connection: Connection, unwatched_for: timedelta, limit: int) -> list[Contact]:
    """Locks contacts that wait, were watched, and are not for so long; those locked elsewhere are left out."""
    rows = await connection.fetch(
        "SELECT c.*, NULL AS agent_name FROM watches w JOIN contacts c USING (contact_id)"
        " WHERE c.state = 'waiting' AND w.watch_time < clock_timestamp() - $1::interval"
        " ORDER BY c.press_time LIMIT $2 FOR UPDATE SKIP LOCKED",
        unwatched_for,
        limit,
    )
    return [store.contact_of(row) for row in rows]


async def forget_watches(database: Database) -> None:
    """Deletes the notes about contacts that do not wait any more."""
    await database.fetch(
        "DELETE FROM watches WHERE contact_id IN (SELECT w.contact_id FROM watches w WHERE NOT EXISTS ("
        " SELECT FROM contacts c WHERE c.contact_id = w.contact_id AND c.state = 'waiting') FOR UPDATE SKIP LOCKED)"
    )
