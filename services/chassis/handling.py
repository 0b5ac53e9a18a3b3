"""Handling of facts inside the database: inbox, counted attempts, dead letters and parked keys.

Every method is one transaction (or one statement), safe to repeat and to run in two processes at once. What waits,
retries and decides is in `consumption` and `dead_letters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import asyncpg
from aiokafka import ConsumerRecord
from google.protobuf.message import Message

from services.chassis import outbox, telemetry
from services.chassis.database import Connection, Database, Transaction
from services.chassis.decoding import Letter, decode
from services.chassis.errors import Refusal
from services.chassis.facts import Hears
from services.chassis.kafka import dead_letter_topic

PARKED_BEHIND = "PARKED_BEHIND"

# Without waiting for the disk: a count that is lost with the whole server is only one more attempt.
COUNT = """
WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO attempts (topic, partition_number, message_offset, attempts) SELECT $1, $2, $3, 1 FROM quick
ON CONFLICT (topic, partition_number, message_offset) DO UPDATE SET attempts = attempts.attempts + 1
RETURNING attempts
"""
UNCOUNT = """
UPDATE attempts SET attempts = attempts - 1 WHERE topic = $1 AND partition_number = $2 AND message_offset = $3
"""
FINISH = """
DELETE FROM attempts AS a USING unnest($2::int[], $3::bigint[]) AS last (partition_number, message_offset)
WHERE a.topic = $1 AND a.partition_number = last.partition_number AND a.message_offset <= last.message_offset
"""
TAKE = f"""
WITH finished AS ({FINISH})
INSERT INTO inbox (topic, fact_id) SELECT $1, unnest($4::text[]) ON CONFLICT DO NOTHING RETURNING fact_id
"""
PARKED = "SELECT FROM parked_keys WHERE topic = $1 AND key = ANY($2::bytea[]) LIMIT 1"
# Waits for a replay that settles the last one just now.
LOCK = "SELECT FROM parked_keys WHERE topic = $1 AND key = $2 FOR UPDATE"
PARK = """
INSERT INTO parked_keys (topic, key, parked) VALUES ($1, $2, 1)
ON CONFLICT (topic, key) DO UPDATE SET parked = parked_keys.parked + 1
"""
SETTLE = "UPDATE parked_keys SET replayed = replayed + 1 WHERE topic = $1 AND key = $2"
UNPARK = "DELETE FROM parked_keys WHERE topic = $1 AND key = $2 AND replayed >= parked"


class KeyIsParked(Exception):
    """An earlier fact of the same key waits among the dead letters: nothing was done."""


class Handling:
    """What a service does with the facts of one topic."""

    def __init__(self, service: str, database: Database, hears: Hears, app: object) -> None:
        self.service = service
        self.database = database
        self.topic = hears.topic
        self.batch = hears.batch
        self._handlers = hears.handlers
        self._lock_ahead = hears.lock_ahead
        self._app = app
        kinds = (*hears.handlers, *hears.batch_facts)
        self._kinds: Mapping[str, type[Message]] = {kind.DESCRIPTOR.full_name: kind for kind in kinds}

    def decode(self, record: ConsumerRecord[bytes | None, bytes | None]) -> Letter:
        """Reads a message of the topic."""
        return decode(record, self._kinds)

    async def count(self, letter: Letter) -> int:
        """Counts that an attempt begins, and returns how many have begun. Handling it takes the count away."""
        tries: int = (await self._at_place(COUNT, letter))[0]["attempts"]
        return tries

    async def uncount(self, letter: Letter) -> None:
        """Takes back the last count: what happened was no attempt."""
        await self._at_place(UNCOUNT, letter)

    async def _at_place(self, query: str, letter: Letter) -> list[asyncpg.Record]:
        return await self.database.fetch(query, self.topic, letter.record.partition, letter.record.offset)

    async def is_database_there(self) -> bool:
        """Whether the database answers somebody who asks for nothing."""
        try:
            await self.database.fetch("SELECT 1")
        except Refusal:
            return False
        return True

    async def together(self, letters: Sequence[Letter], *, counted: bool = False) -> None:
        """Handles all in one transaction: all or nothing. Takes away the count if there is one.

        Raises `KeyIsParked` when the key of one is parked, and what a handler raises.
        """
        if self.batch is not None:
            async with self.database.transaction() as work:
                if counted:
                    await work.connection.execute(FINISH, self.topic, *_places(letters))
                await self._call_batch(work, letters)
            return
        async with self.database.transaction() as work:
            new = await self._take(work.connection, letters)
            # Only after the inbox rows: they wait for another process that parks one of these just now.
            if await work.connection.fetch(PARKED, self.topic, [letter.record.key for letter in letters]):
                raise KeyIsParked
            if self._lock_ahead is not None and len(new) > 1:
                messages = [letter.message for letter in letters if letter.id in new and letter.message is not None]
                await self._lock_ahead(self._app, work, messages)
            for letter in letters:
                if letter.id in new:
                    new.discard(letter.id)  # the same fact may stand in a topic twice
                    await self._call(work, letter)

    async def park(self, letter: Letter, reason: str, attempts: int, *, behind: bool = False) -> bool:
        """Moves the message to the dead-letter topic, and makes later ones of its key wait behind it.

        With `behind`, only if the key is still parked; otherwise returns False and has done nothing.
        """
        key = letter.parked_key if self.batch is None else None
        async with self.database.transaction() as work:
            connection = work.connection
            await connection.execute(FINISH, self.topic, *_places([letter]))
            # Waits for another process that handles the same fact just now, and finds its row if that ended well.
            if not await connection.fetch(
                "INSERT INTO inbox (topic, fact_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1",
                self.topic,
                letter.id,
            ):
                return True
            await connection.execute("DELETE FROM inbox WHERE topic = $1 AND fact_id = $2", self.topic, letter.id)
            if behind and not await connection.fetch(LOCK, self.topic, key):
                return False
            if not await connection.fetch(
                "INSERT INTO dead_letters (topic, fact_id, key, reason) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT DO NOTHING RETURNING 1",
                self.topic,
                letter.id,
                key,
                reason,
            ):
                return True
            if key is not None:
                await connection.execute(PARK, self.topic, key)
            await work.send([self._dead_letter(letter, reason, attempts)])
        return True

    async def replay(self, letter: Letter) -> bool:
        """Handles a dead letter again and takes it out of the parked ones. False when it does not wait any more.

        Raises what the handler raises; then nothing has changed.
        """
        key = letter.parked_key if self.batch is None else None
        async with self.database.transaction() as work:
            connection = work.connection
            if not await self._unwait(connection, letter.id):
                return False
            if self.batch is not None:
                await self._call_batch(work, [letter])
            elif await self._take(connection, [letter]):
                await self._call(work, letter)
            await self._settle(connection, key)
        return True

    async def drop(self, fact_id: str, reason: str) -> bool:
        """Gives a dead letter up and records why. False when no such letter waits."""
        async with self.database.transaction() as work:
            connection = work.connection
            key = await connection.fetchval(
                "SELECT key FROM dead_letters WHERE topic = $1 AND fact_id = $2", self.topic, fact_id
            )
            if not await self._unwait(connection, fact_id):
                return False
            await connection.execute(
                "INSERT INTO inbox (topic, fact_id, drop_reason) VALUES ($1, $2, $3)"
                " ON CONFLICT (topic, fact_id) DO UPDATE SET drop_reason = excluded.drop_reason",
                self.topic,
                fact_id,
                reason,
            )
            await self._settle(connection, key)
        return True

    async def waiting(self) -> set[str]:
        """The ids of the dead letters that wait."""
        rows = await self.database.fetch("SELECT fact_id FROM dead_letters WHERE topic = $1", self.topic)
        return {row["fact_id"] for row in rows}

    async def _take(self, connection: Connection, letters: Sequence[Letter]) -> set[str]:
        """Writes the inbox rows; returns the ids that were not there."""
        rows = await connection.fetch(TAKE, self.topic, *_places(letters), [letter.id for letter in letters])
        return {row["fact_id"] for row in rows}

    async def _unwait(self, connection: Connection, fact_id: str) -> bool:
        query = "DELETE FROM dead_letters WHERE topic = $1 AND fact_id = $2 RETURNING 1"
        return bool(await connection.fetch(query, self.topic, fact_id))

    async def _settle(self, connection: Connection, key: bytes | None) -> None:
        if key is not None:
            await connection.execute(SETTLE, self.topic, key)
            await connection.execute(UNPARK, self.topic, key)

    async def _call(self, work: Transaction, letter: Letter) -> None:
        assert letter.message is not None  # noqa: S101
        handler = self._handlers[type(letter.message)]
        carried = letter.carried
        with telemetry.attached(carried), ExitStack() as span:
            if outbox.sampled(carried):
                span.enter_context(self._span(letter))
            await handler(self._app, work, letter.heard(telemetry.current_journey()))

    async def _call_batch(self, work: Transaction, letters: Sequence[Letter]) -> None:
        """Calls the batch handler, inside a span for each fact whose trace is recorded; none is current."""
        assert self.batch is not None  # noqa: S101
        heard, spans = [], []
        for letter in letters:
            carried = letter.carried
            context = telemetry.extracted(carried)
            heard.append(letter.heard(telemetry.current_journey(context)))
            if outbox.sampled(carried):
                record = letter.record
                spans.append(
                    telemetry.begin_processing(
                        context,
                        self.topic,
                        self.service,
                        record.partition,
                        record.offset,
                        fact_type=letter.type,
                        message_id=letter.id,
                    )
                )
        with telemetry.ending(spans):
            await self.batch(self._app, work, heard)

    def _span(self, letter: Letter) -> Any:
        record = letter.record
        return telemetry.processing(
            self.topic, self.service, record.partition, record.offset, fact_type=letter.type, message_id=letter.id
        )

    def _dead_letter(self, letter: Letter, reason: str, attempts: int) -> outbox.Row:
        record = letter.record
        return outbox.Row(
            dead_letter_topic(self.topic),
            record.key,
            {
                **letter.headers,
                "dlq_reason": reason,
                "dlq_consumer": self.service,
                "dlq_topic": self.topic,
                "dlq_partition": str(record.partition),
                "dlq_offset": str(record.offset),
                "dlq_timestamp": str(record.timestamp),
                "dlq_attempts": str(attempts),
            },
            record.value,
        )


def _places(letters: Sequence[Letter]) -> tuple[list[int], list[int]]:
    """Partitions and offsets; of each partition the last one counts."""
    places = {letter.record.partition: letter.record.offset for letter in letters}
    return list(places), list(places.values())
