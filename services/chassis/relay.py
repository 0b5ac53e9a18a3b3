"""The relay: sends what stands in the outbox to Kafka, in the order of each key, at least once.

One relay of a service works at a time: it holds an advisory lock on a database session of its own, and does all its
reading and deleting on that session. A process that is frozen stops pinging the session, the server ends it, and
another process takes over; when it thaws, its session is gone before it can read or delete anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from google.protobuf.message import Message
from opentelemetry.metrics import Meter, NoOpMeter

from services.chassis import kafka, outbox, telemetry
from services.chassis.brokers import Brokers
from services.chassis.database import Database
from services.chassis.facts import Fact, Topic
from services.chassis.lock_session import SESSION_ENDS, LockSession, take_lock
from services.chassis.waiting import Pause, first_to_end

log = logging.getLogger(__name__)

CHANNEL = "outbox"
BATCH = 500
POLL_SECONDS = 1.0
WATERMARK_SECONDS = 0.2
PING_SECONDS = 1.0
ACKNOWLEDGE_SECONDS = 20.0
NOTIFY_SECONDS = 0.005
SET_ASIDE_SECONDS = 10.0
# One fact's own fault: it stays in the outbox, with the later ones of its key, and the others go on.
UNSENDABLE = (
    MessageSizeTooLargeError,
    InvalidTopicError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

# All of one snapshot, with the time at which it was taken: one row without an id when the outbox is empty.
READ = """
SELECT now() AS snapshot, o.* FROM (VALUES (1)) AS one
LEFT JOIN LATERAL (SELECT id, topic, key, headers, value FROM outbox ORDER BY id LIMIT $1) AS o ON true
"""
DELETE = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"
PING = "SELECT extract(epoch FROM clock_timestamp() - create_time)::float8 AS age FROM outbox ORDER BY id LIMIT 1"


@dataclass(frozen=True, slots=True)
class Watermark:
    """A message that says how far a topic is complete, sent to each partition again and again.

    `build` gets the database's time of a snapshot of the outbox, once all that the snapshot showed is acknowledged.
    """

    topic: Topic
    build: Callable[[datetime], Message]


class Relay:
    """The relay of one process. Only one process of a service relays at a time; the others stand by."""

    def __init__(
        self,
        database: Database,
        brokers: Brokers | str,
        *,
        watermark: Watermark | None = None,
        meter: Meter | None = None,
    ) -> None:
        meter = meter or NoOpMeter("relay")
        self._database = database
        self._brokers = brokers
        self._watermark = watermark
        self._watermark_due = 0.0
        self._woken = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self._tell_again = False
        # Keys whose next fact cannot be sent.
        self._stuck: set[tuple[str, bytes | None]] = set()
        # What is not tried again before this time: keys whose fact was refused, and topics that do not exist.
        self._not_before: dict[object, float] = {}
        self.holding = False
        self._age = meter.create_gauge("shop.outbox.age", "s", "age of the oldest fact that is not yet announced")
        self._sent = meter.create_counter("shop.outbox.sent", "1", "facts announced")
        self._batch = meter.create_histogram("shop.outbox.batch", "1", "facts announced in one go")
        self._stuck_keys = meter.create_gauge("shop.outbox.stuck_keys", "1", "keys whose next fact cannot be sent")

    def wake(self) -> None:
        """Says that facts were committed: sends them at once, or tells the process that does."""
        if self.holding:
            self._woken.set()
        elif self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())
        else:
            self._tell_again = True

    async def run(self) -> None:
        """Relays until cancelled, whatever goes away and comes back meanwhile."""
        pause = Pause()
        while True:
            try:
                async with self._database.connect() as connection:
                    session = await take_lock(connection)
                    pause.reset()
                    await self._hold(session)
            except SESSION_ENDS as error:
                log.warning("relay starts over", extra={"error": type(error).__name__})
            finally:
                self.holding = False
            await pause()

    async def _tell(self) -> None:
        """Wakes the process that relays. Not in a writing transaction: that would make all commits queue."""
        self._tell_again = True
        while self._tell_again:
            self._tell_again = False
            try:
                await self._database.pool.execute(f"NOTIFY {CHANNEL}")
            except SESSION_ENDS:
                return  # the one who relays polls, too
            await asyncio.sleep(NOTIFY_SECONDS)

    async def _hold(self, session: LockSession) -> None:
        await session.connection.add_listener(CHANNEL, lambda *_: self._woken.set())
        self.holding = True
        log.info("relaying")
        # Once the session is lost nothing more may be sent, so the pings end the work.
        await first_to_end(self._ping(session), self._work(session))

    async def _ping(self, session: LockSession) -> None:
        while True:
            rows = await session.fetch(PING)
            self._age.set(rows[0]["age"] if rows else 0.0)
            await asyncio.sleep(PING_SECONDS)

    async def _work(self, session: LockSession) -> None:
        pause = Pause()
        producer: AIOKafkaProducer | None = None
        try:
            while True:
                try:
                    if producer is None:
                        producer = kafka.producer(self._brokers, self._database.service)
                        await producer.start()
                    if not await self._pass(session, producer):
                        await self._rest()
                    pause.reset()
                except (KafkaError, OSError) as error:
                    session.check()
                    log.warning("Kafka does not take facts", extra={"error": type(error).__name__})
                    # An idempotent producer that failed once may refuse for ever.
                    if producer is not None:
                        await kafka.discard(producer)
                        producer = None
                    await pause()
        finally:
            if producer is not None:
                await asyncio.shield(kafka.discard(producer))

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(WATERMARK_SECONDS if self._watermark else POLL_SECONDS):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _pass(self, session: LockSession, producer: AIOKafkaProducer) -> bool:
        """Reads once, sends, deletes what was acknowledged. True when more may be waiting."""
        self._woken.clear()
        # What is stuck stays at the head of the outbox: read past it.
        limit = BATCH + len(self._stuck)
        read = await session.fetch(READ, limit)
        rows = [row for row in read if row["id"] is not None]
        self._stuck.clear()
        acknowledged: list[int] = []
        try:
            if rows:
                await self._send(session, producer, rows, acknowledged)
        finally:
            if acknowledged:
                await session.fetch(DELETE, acknowledged)
                self._sent.add(len(acknowledged))
                self._batch.record(len(acknowledged))
            self._stuck_keys.set(len(self._stuck))
        if len(acknowledged) == len(rows) < limit:
            await self._send_watermark(session, producer, read[0]["snapshot"])
        return len(rows) == limit and bool(acknowledged)

    async def _send(
        self,
        session: LockSession,
        producer: AIOKafkaProducer,
        rows: Sequence[asyncpg.Record],
        acknowledged: list[int],
    ) -> None:
        """Sends the rows in their order and adds the ids of those that were acknowledged, also when it raises."""
        sent: list[tuple[asyncpg.Record, asyncio.Future[Any]]] = []
        failure: BaseException | None = None
        for row in rows:
            session.check()
            key = (row["topic"], row["key"])
            if max(self._not_before.get(key, 0), self._not_before.get(row["topic"], 0)) > monotonic():
                self._stuck.add(key)
            if key in self._stuck:
                continue
            try:
                sent.append((row, await _send_row(producer, row)))
            except MessageSizeTooLargeError as error:  # refused here, at no cost: tried each time
                _log_refused(row, error)
                self._stuck.add(key)
            except UNSENDABLE as error:
                self._set_aside(row, error)
            except (KafkaError, OSError) as error:
                failure = error
                break
        if sent:
            await asyncio.wait([future for _, future in sent], timeout=ACKNOWLEDGE_SECONDS)
        for row, future in sent:
            if not future.done():
                failure = failure or TimeoutError("not acknowledged in time")
            elif (refused := future.exception()) is None:
                acknowledged.append(row["id"])
            else:
                failure = failure or refused
                if isinstance(refused, UNSENDABLE):
                    self._set_aside(row, refused)
        if failure is not None:
            raise failure

    def _set_aside(self, row: asyncpg.Record, error: BaseException) -> None:
        """Leaves a fact that the broker refuses, and with it the later ones of its key, in the outbox for a while."""
        _log_refused(row, error)
        key = (row["topic"], row["key"])
        self._stuck.add(key)
        # That a topic does not exist takes seconds to find out.
        set_aside = row["topic"] if isinstance(error, UnknownTopicOrPartitionError) else key
        self._not_before[set_aside] = monotonic() + SET_ASIDE_SECONDS

    async def _send_watermark(self, session: LockSession, producer: AIOKafkaProducer, snapshot: datetime) -> None:
        if self._watermark is None or monotonic() < self._watermark_due:
            return
        session.check()
        topic = self._watermark.topic
        message = self._watermark.build(snapshot)
        futures = []
        for partition in sorted(await producer.partitions_for(topic.name)):
            fact = Fact(topic, f"watermark-{partition}", message)
            headers = outbox.headers(fact, self._database.service, snapshot.isoformat())
            futures.append(
                await producer.send(
                    topic.name,
                    message.SerializeToString(),
                    fact.key.encode(),
                    partition,
                    headers=[(name, text.encode()) for name, text in headers.items()],
                )
            )
        async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
            await asyncio.gather(*futures)
        self._watermark_due = monotonic() + WATERMARK_SECONDS * 0.9


def _log_refused(row: asyncpg.Record, error: BaseException) -> None:
    log.warning("a fact cannot be sent", extra={"topic": row["topic"], "error": type(error).__name__})


async def _send_row(producer: AIOKafkaProducer, row: asyncpg.Record) -> asyncio.Future[Any]:
    headers: dict[str, str] = json.loads(row["headers"])
    if not outbox.sampled(headers):
        return await _queue(producer, row, headers)
    with (
        telemetry.attached(headers),
        telemetry.sending(row["topic"], headers.get("ce_type", ""), headers.get("ce_id", "")),
    ):
        return await _queue(producer, row, {**headers, **telemetry.carrier()})


async def _queue(producer: AIOKafkaProducer, row: asyncpg.Record, headers: dict[str, str]) -> asyncio.Future[Any]:
    encoded = [(name, text.encode("latin-1")) for name, text in headers.items()]
    size = DefaultRecordBatchBuilder.estimate_size_in_bytes(row["key"], row["value"], encoded)
    if kafka.is_too_large(row["topic"], size):
        raise MessageSizeTooLargeError
    future: asyncio.Future[Any] = await producer.send(row["topic"], row["value"], row["key"], headers=encoded)
    return future
