"""The latest word of another service on something: one message that every process of this one shows.

It is kept in the database, so that a process that did not hear it shows it too.
"""

from __future__ import annotations

from datetime import datetime
from time import monotonic
from typing import Generic, TypeVar

from google.protobuf.message import Message

from services.chassis.database import Database, Transaction
from services.chassis.errors import Unavailable

M = TypeVar("M", bound=Message)

REFRESH_SECONDS = 1.0

# The one place that says which of two words is newer: the later one, and of one time the higher version. Versions alone
# would shut out a service that was restored from a backup and counts them again. A time that has not come yet is of a
# wrong clock, and would shut out all that is said until then.
KEEP = """
INSERT INTO latest AS known (name, as_of, version, message) VALUES ($1, least($2, clock_timestamp()), $3, $4)
ON CONFLICT (name) DO UPDATE SET as_of = excluded.as_of, version = excluded.version, message = excluded.message
WHERE (excluded.as_of, excluded.version) > (known.as_of, known.version) RETURNING true
"""


class Latest(Generic[M]):
    """The latest message under a name. `usual` is shown before any was heard, and where one leaves a field empty."""

    def __init__(self, database: Database, name: str, usual: M) -> None:
        self._database = database
        self._name = name
        self._usual = usual
        self._known = usual
        self._due = 0.0

    async def read(self) -> M:
        """What to show, at most a second behind the table. A database that is away takes nothing off."""
        if monotonic() >= self._due:
            self._due = monotonic() + REFRESH_SECONDS
            try:
                rows = await self._database.fetch("SELECT message FROM latest WHERE name = $1", self._name)
            except Unavailable:
                rows = []
            if rows:
                self._show(type(self._usual).FromString(rows[0]["message"]))
        return self._known

    @property
    def shown(self) -> M:
        """What `read` gave last, or was heard since; another object once it changed."""
        return self._known

    async def hear(self, tx: Transaction, message: M, as_of: datetime, version: int) -> None:
        """Keeps what was said at a time, unless something newer is known."""
        kept = await tx.connection.fetchval(KEEP, self._name, as_of, version, message.SerializeToString())
        if kept:
            tx.after_commit(lambda: self._show(message))

    def _show(self, message: M) -> None:
        shown = type(self._usual)()
        shown.CopyFrom(self._usual)
        shown.MergeFrom(message)
        if shown != self._known:
            self._known = shown
