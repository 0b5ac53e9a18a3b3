"""The change feed inside catalog: every replica learns which products changed in the window, whoever changed them.

Whoever changes a product notes it in the same transaction (`refresh_products`). After the commit the process that wrote
tells its own listeners at once and the other replicas by NOTIFY: outside of the writing transaction (inside, it would
make all commits queue) and in one go for all changes since the last. A word that was lost is made up for by reading
what was noted since the last reading: every second, and whenever the session that listens was replaced.

What was committed since a reading is told by snapshots (`pg_snapshot`), not by a sequence: a transaction that drew its
number early and committed late is not passed over.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from uuid import uuid4

import asyncpg

from services.catalog import queries
from services.chassis.database import OUTAGES, Connection, Database
from services.chassis.errors import Refusal

log = logging.getLogger(__name__)

CHANNEL = "products"
# A NOTIFY carries less than 8000 bytes; ids are at most 64 characters long, of which JSON may make six bytes each.
PAYLOAD_BYTES = 7_900
POLL_SECONDS = 1.0
PING_SECONDS = 2.0
# How long what was noted can be read; whoever comes later takes it that everything changed. The part after the time
# that counts is for transactions that took long.
KEPT_SECONDS, COUNTED_SECONDS = 600.0, 300.0
FORGET_SECONDS, FORGET_ROWS = 30.0, 10_000
AWAY: tuple[type[BaseException], ...] = (*OUTAGES, asyncpg.InterfaceError)
TROUBLE: tuple[type[BaseException], ...] = (*AWAY, Refusal)

FORGET = """
DELETE FROM product_changes WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM product_changes WHERE note_time < now() - make_interval(secs => $1) LIMIT $2))
RETURNING 1
"""

# Told the products that changed; None says that it may have been any.
Listener = Callable[[Collection[str] | None], None]


async def forget(connection: Connection) -> int:
    """Deletes notes that nobody needs any more, some at a time. Returns how many."""
    return len(await connection.fetch(FORGET, KEPT_SECONDS, FORGET_ROWS))


class Changes:
    """What changed, told to the listeners of this process. They are called in the event loop and must not wait."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # So that a process does not hear its own words.
        self._name = uuid4().hex
        self._listeners: list[Listener] = []
        self._to_send: set[str] = set()
        self._something_to_send = asyncio.Event()
        # Up to which snapshot everything was told, when that was by the database's clock, and by ours.
        self._snapshot: str | None = None
        self._time: datetime | None = None
        self._read = float("-inf")
        self._reading = asyncio.Lock()
        self._poll_now = asyncio.Event()
        database.tell = self.tell

    def listen(self, listener: Listener) -> None:
        """Has the listener told from now on."""
        self._listeners.append(listener)

    @property
    def position(self) -> tuple[int, datetime] | None:
        """The transaction before which all that was committed was told, and when that was; None before any reading."""
        return None if self._snapshot is None or self._time is None else (xmin(self._snapshot), self._time)

    def tell(self, product_ids: Collection[str]) -> None:
        """These changed, by a transaction of this process that is committed."""
        self._told(product_ids)
        self._to_send.update(product_ids)
        self._something_to_send.set()

    async def run(self) -> None:
        """Tells and hears until cancelled, whatever goes away and comes back."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send())
            group.create_task(self._hear())
            group.create_task(self._poll())
            group.create_task(self._forget())

    async def catch_up(self) -> None:
        """Tells what was committed since the last reading. Raises what a read raises when the database is away."""
        async with self._reading:
            asked = monotonic()
            snapshot, time, product_ids = await queries.changed_since(self._database, self._snapshot)
            # Also where the database was restored, and counts its transactions again.
            missed_some = (
                self._snapshot is None or asked - self._read > COUNTED_SECONDS or xmin(snapshot) < xmin(self._snapshot)
            )
            self._snapshot, self._time, self._read = snapshot, time, asked
        if missed_some:
            self._told(None)
        elif product_ids:
            self._told(product_ids)

    async def _send(self) -> None:
        while True:
            await self._something_to_send.wait()
            self._something_to_send.clear()
            told, self._to_send = sorted(self._to_send), set()
            with suppress(*AWAY):  # the others read, too
                for payload in payloads(self._name, told):
                    await self._database.pool.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)

    async def _hear(self) -> None:
        while True:
            with suppress(*AWAY):
                async with self._database.connect() as connection:
                    await connection.add_listener(CHANNEL, self._heard)
                    self._poll_now.set()  # what was told while nobody listened
                    while True:
                        await asyncio.sleep(PING_SECONDS)
                        await connection.execute("SELECT 1")
            await asyncio.sleep(POLL_SECONDS)

    async def _poll(self) -> None:
        while True:
            self._poll_now.clear()
            try:
                await self.catch_up()
            except TROUBLE as error:
                log.warning("changes are read later", extra={"error": type(error).__name__})
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._poll_now.wait()

    async def _forget(self) -> None:
        while True:
            with suppress(*TROUBLE):
                async with self._database.transaction() as tx:
                    forgotten = await forget(tx.connection)
                if forgotten == FORGET_ROWS:
                    continue
            await asyncio.sleep(FORGET_SECONDS)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        sender, product_ids = json.loads(str(payload))
        if sender != self._name:
            self._told(product_ids)

    def _told(self, product_ids: Collection[str] | None) -> None:
        for listener in self._listeners:
            listener(product_ids)


def xmin(snapshot: str) -> int:
    """The first transaction that was not decided at a snapshot: all before it were."""
    return int(snapshot.partition(":")[0])


def payloads(sender: str, product_ids: Sequence[str]) -> list[str]:
    """The ids, with who sends them, in words that fit into a NOTIFY each."""
    found: list[str] = []
    part: list[str] = []
    room = PAYLOAD_BYTES - len(sender)
    for product_id in product_ids:
        size = len(json.dumps(product_id)) + 1
        if room < size:
            found.append(json.dumps([sender, part], separators=(",", ":")))
            part, room = [], PAYLOAD_BYTES - len(sender)
        part.append(product_id)
        room -= size
    if part:
        found.append(json.dumps([sender, part], separators=(",", ":")))
    return found
