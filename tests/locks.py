"""Schedules that turn on a lock, played for certain: who shall wait is seen waiting before the test goes on."""

from __future__ import annotations

import asyncio

from services.chassis.database import Database

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def waiting(database: Database, sessions: int = 1) -> None:
    """Returns once so many sessions of this database wait for a lock. Raises `TimeoutError` when they do not."""
    async with asyncio.timeout(10):
        while (await database.fetch(WAITING))[0]["count"] < sessions:
            await asyncio.sleep(0.01)
