"""The hotline as this process shows it, and its announcement to everybody else."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic

import asyncpg

from services.chassis.database import OUTAGES, Database
from services.chassis.errors import Refusal, Unavailable
from services.contact import publishes, queries, store, usecases
from services.contact.settings import Settings
from shop.contact.v1.contact_options_pb2 import ContactOptions

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
TROUBLE: tuple[type[BaseException], ...] = (*OUTAGES, Refusal)


class Hotline:
    """What was last announced. The phone number always stands there."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._known = ContactOptions(phone_number=settings.hotline_phone_number)
        self._due = 0.0

    async def contact_options(self) -> ContactOptions:
        """What to show, at most a second old. A database that is away never takes the number off."""
        if monotonic() >= self._due:
            self._due = monotonic() + REFRESH_SECONDS
            with suppress(Unavailable):
                self._show(await queries.hotline(self._database))
        return self._known

    async def run(self) -> None:
        """Announces the hotline when it changes, and as a sign of life, until cancelled. One process at a time does."""
        while True:
            try:
                await self.announce()
            except TROUBLE as error:
                log.warning("the hotline is not announced", extra={"error": type(error).__name__})
            await asyncio.sleep(self._settings.hotline_seconds)

    async def announce(self) -> bool:
        """Announces what changed; False when nothing did, or it was just done."""
        settings = self._settings
        async with self._database.transaction() as tx:
            row = await usecases.announce_hotline(
                tx,
                settings.hotline_phone_number,
                settings.rules.absent_after,
                settings.hotline_apart,
                settings.hotline_keepalive,
            )
        if row is not None:
            self._show(row)
        return row is not None

    def _show(self, row: asyncpg.Record) -> None:
        self._known = publishes.contact_options(
            self._settings.hotline_phone_number, store.hotline_status(row), row["publish_time"]
        )
