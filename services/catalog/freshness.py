"""How old the copy of stock may be at most: read from the database, so that every replica knows, whoever heard it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic

from services.catalog import queries
from services.chassis.database import Database
from services.chassis.errors import Refusal

log = logging.getLogger(__name__)

# How long one reading serves this process; the time since then counts as age.
READING_SECONDS = 0.2
LOOK_SECONDS = 0.5
NEVER = datetime.fromtimestamp(0, UTC)


class Freshness:
    """The age of the oldest partition of the copy, against the bound."""

    def __init__(self, database: Database, bound_seconds: float) -> None:
        self._database = database
        self.bound_seconds = bound_seconds
        self._oldest = NEVER
        self._age = float("inf")
        self._read = float("-inf")
        self._reading = asyncio.Lock()
        # How often the copy went past the bound.
        self.breaches = 0

    async def keep_looking(self) -> None:
        """Looks again and again, also when nobody asks: for what is measured."""
        was_past = False
        while True:
            with suppress(Refusal):
                await self.stale_since()
            is_past = self.age_seconds > self.bound_seconds
            if is_past and not was_past:
                self.breaches += 1
                log.warning("the copy of stock is past its bound", extra={"age_seconds": round(self.age_seconds, 1)})
            was_past = is_past
            await asyncio.sleep(LOOK_SECONDS)

    async def stale_since(self) -> datetime | None:
        """None while the copy is within the bound; otherwise the time up to which it was last known to be right.

        All by the clock of our database: see `queries.freshness`.
        """
        if monotonic() - self._read >= READING_SECONDS:
            async with self._reading:
                if monotonic() - self._read >= READING_SECONDS:
                    await self._refresh()
        return self.known_stale_since

    @property
    def known_stale_since(self) -> datetime | None:
        """As `stale_since`, by the last reading."""
        return None if self.age_seconds <= self.bound_seconds else self._oldest

    @property
    def age_seconds(self) -> float:
        """How old the copy may be now, by the last reading; infinite when nothing was ever heard."""
        return self._age + max(0.0, monotonic() - self._read)

    @property
    def as_of(self) -> float:
        """The moment of our `monotonic` clock up to which the copy is right, by the last reading."""
        return self._read - self._age

    async def _refresh(self) -> None:
        # The clock is taken before the question, so that the time it takes counts as age.
        asked = monotonic()
        oldest, age = await queries.freshness(self._database)
        self._oldest, self._age = (oldest, age.total_seconds()) if oldest and age is not None else (NEVER, float("inf"))
        self._read = asked
