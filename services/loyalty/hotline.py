"""How to reach a human: the latest word of contact, kept here so that every answer of the storefront can carry it."""

from __future__ import annotations

from time import monotonic
from typing import Any

from services.chassis.database import Database, Transaction
from services.chassis.errors import Unavailable
from services.chassis.facts import Heard, Hears
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.contact.v1.contact_options_pb2 import ContactOptions

REFRESH_SECONDS = 1.0


class Hotline:
    """The contact options as this service knows them. The phone number always stands there."""

    def __init__(self, database: Database, phone_number: str) -> None:
        self._database = database
        self._phone_number = phone_number
        self._known = ContactOptions(phone_number=phone_number)
        self._due = 0.0

    async def contact_options(self) -> ContactOptions:
        """What to show; at most a second behind the table. A database that is away never takes the number off."""
        if monotonic() >= self._due:
            self._due = monotonic() + REFRESH_SECONDS
            try:
                rows = await self._database.fetch("SELECT contact_options FROM hotline")
            except Unavailable:
                rows = []
            if rows:
                self._show(ContactOptions.FromString(rows[0]["contact_options"]))
        return self._known

    async def hear(self, tx: Transaction, status: HotlineStatusChanged) -> None:
        """Keeps what contact said, unless something newer is known."""
        options = status.contact_options
        kept = await tx.connection.fetchval(
            "INSERT INTO hotline AS known (version, contact_options) VALUES ($1, $2)"
            " ON CONFLICT (only_row) DO UPDATE SET version = excluded.version,"
            " contact_options = excluded.contact_options WHERE excluded.version > known.version RETURNING true",
            status.version,
            options.SerializeToString(),
        )
        if kept:
            tx.after_commit(lambda: self._show(options))

    def _show(self, options: ContactOptions) -> None:
        shown = ContactOptions()
        shown.CopyFrom(options)
        shown.phone_number = options.phone_number or self._phone_number
        self._known = shown


async def on_hotline_status_changed(app: Any, tx: Transaction, heard: Heard[HotlineStatusChanged]) -> None:
    """Contact says who is there to answer."""
    await app.hotline.hear(tx, heard.message)


HEARS_HOTLINE = Hears("shop.contact.hotline.v1", {HotlineStatusChanged: on_hotline_status_changed})
