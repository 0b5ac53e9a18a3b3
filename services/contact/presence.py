"""The tables as those write them who are there: signs of life.

They lie apart from what they tell of, so that they wait for nobody who routes or talks.
"""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from services.chassis.database import Database


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
