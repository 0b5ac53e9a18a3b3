"""Consumption: what a service hears from Kafka, through FastStream.

The loop that polls never waits for a handler: it hands messages to lanes (`lanes`), so that a long handler or an outage
costs the process neither its place in the group nor its other partitions. An offset is committed, by name, only after
the database has committed what the messages before it did. Why it is built so: decisions/0002-consumers.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from opentelemetry.metrics import Meter, NoOpMeter

from services.chassis import kafka, requests
from services.chassis.brokers import Brokers
from services.chassis.database import Database
from services.chassis.errors import Refusal
from services.chassis.facts import Hears
from services.chassis.handling import Handling
from services.chassis.lanes import Counters, Lane, Patience
from services.chassis.waiting import Pause, first_to_end

log = logging.getLogger(__name__)

# How many lanes may use the database at once; the rest of the pool is for those who wait for an answer.
CONCURRENCY = 4
# A lane with more messages than this is not given more, until it has less than that.
FULL, HUNGRY = 2_000, 500
# Under a steady stream a poll takes in what came in this time, so that a transaction has several facts and each costs
# little. A few in a row are done at once: what comes alone does not wait.
POLL_SECONDS, AT_ONCE = 0.04, 4
COMMIT_SECONDS = 0.05
CLOSE_SECONDS = 10.0
# So long may a consumer hear nothing while there is something to hear.
SILENT_SECONDS = 30.0
LAG_SECONDS = 5.0
# Longer than any topic keeps its facts: nothing that old is delivered again.
INBOX_DAYS = 45
PRUNE_SECONDS, PRUNE_ROWS = 3600.0, 5_000
# Topics that do not exist yet, as their owner comes up later, are looked for this often.
LOOK_SECONDS = 3.0
PRUNE = """
DELETE FROM inbox WHERE ctid IN (
    SELECT ctid FROM inbox
    WHERE handle_time < now() - make_interval(days => $1) AND drop_reason IS NULL LIMIT $2)
RETURNING 1
"""


class Silent(Exception):
    """The consumer hears nothing although there is something to hear."""


class Consumption:
    """Runs the handlers of one service in this process. Any number of processes may do so at once."""

    def __init__(
        self,
        service: str,
        database: Database,
        brokers: Brokers | str,
        hears: Sequence[Hears],
        app: object,
        *,
        meter: Meter | None = None,
        patience: Patience | None = None,
        group_instance_id: str | None = None,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        """With a `group_instance_id`, which must be the process's own, a restart within the session timeout moves no
        partitions.
        """
        self._service = service
        self._database = database
        self._brokers = brokers if isinstance(brokers, Brokers) else Brokers(brokers)
        self._handlings = {heard.topic: Handling(service, database, heard, app) for heard in hears}
        self._counters = Counters(meter or NoOpMeter("consumption"))
        self._patience = patience or Patience()
        self._group_instance_id = group_instance_id
        self._silent_seconds = silent_seconds
        self._slots = asyncio.Semaphore(CONCURRENCY)
        # By topic and partition; of a topic with a batch handler by topic alone.
        self._lanes: dict[TopicPartition | str, Lane] = {}
        self._done: dict[TopicPartition, int] = {}
        self._progress = asyncio.Event()
        self._stopping = asyncio.Event()
        self._assigned = asyncio.Event()
        self._heard_at = 0.0
        self._missing: set[str] = set()
        self._consumer: Callable[[], AIOKafkaConsumer | None] = lambda: None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to listen, and returns; goes on listening whatever goes away and comes back."""
        if self._handlings and self._running is None:
            self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finishes the transactions in hand, commits, and leaves the group."""
        self._stopping.set()
        if self._running is not None:
            await self._running

    async def assigned(self) -> None:
        """Returns once this process has been given partitions (perhaps none, if others have them all)."""
        await self._assigned.wait()

    async def _run(self) -> None:
        pause = Pause()
        while not self._stopping.is_set():
            try:
                await self._session(pause)
            except (KafkaError, OSError, Silent) as error:
                log.warning("consumer starts over", extra={"error": type(error).__name__})
            except Exception:
                log.exception("consumer starts over")
            if not self._stopping.is_set():
                await pause()

    async def _session(self, pause: Pause) -> None:
        """One consumer, from joining the group to leaving it."""
        topics = await self._existing()
        if not topics:
            await first_to_end(self._stopping.wait(), asyncio.sleep(LOOK_SECONDS))
            return
        broker = KafkaBroker(
            self._brokers.addresses,
            security=self._brokers.security(),
            client_id=self._service,
            consumer_only=True,
            allow_auto_create_topics=False,
            logger=None,
        )
        # Without a handler of FastStream's: see the decision.
        subscriber = broker.subscriber(
            *topics,
            batch=True,
            ack_policy=AckPolicy.MANUAL,
            group_id=self._service,
            group_instance_id=self._group_instance_id,
            listener=_Rebalance(self._close_lanes, self._assigned),
            **kafka.CONSUMER,
        )

        self._consumer = lambda: subscriber.consumer

        async def listen() -> None:
            await broker.start()
            consumer = subscriber.consumer
            assert consumer is not None  # noqa: S101
            self._heard_at = monotonic()
            pause.reset()
            await first_to_end(
                self._poll(consumer), self._commit_often(consumer), self._watch(consumer), self._measure(consumer),
                self._prune(), self._look_for_missing(),
            )  # fmt: skip

        try:
            await first_to_end(self._stopping.wait(), listen())
        finally:
            await self._close_lanes()
            with suppress(TimeoutError):  # leaving the group waits for the broker, which may be away
                async with asyncio.timeout(CLOSE_SECONDS):
                    await broker.stop()

    async def _existing(self) -> list[str]:
        """The topics that exist: with one that does not, aiokafka would hear none of them."""
        existing = await kafka.existing(self._brokers, self._handlings)
        missing = self._handlings.keys() - existing
        if missing and missing != self._missing:
            log.warning("topics do not exist yet", extra={"topics": sorted(missing)})
        self._missing = missing
        return sorted(existing)

    async def _look_for_missing(self) -> None:
        """Ends when a topic has appeared that did not exist."""
        found = False
        while not found:
            await asyncio.sleep(LOOK_SECONDS)
            if self._missing:
                with suppress(KafkaError, OSError):
                    found = bool(await kafka.existing(self._brokers, self._missing))

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        lately: deque[float] = deque([0.0] * AT_ONCE, maxlen=AT_ONCE)
        while True:
            polled: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]
            polled = await consumer.getmany(timeout_ms=1_000)
            if polled:
                self._heard_at = monotonic()
                lately.append(self._heard_at)
            for place, records in polled.items():
                handling = self._handlings[place.topic]
                self._lane(place).put([handling.decode(record) for record in records], consumer.highwater(place))
            self._balance(consumer)
            await asyncio.sleep(max(0.0, lately[0] + AT_ONCE * POLL_SECONDS - monotonic()))

    def _lane(self, place: TopicPartition) -> Lane:
        handling = self._handlings[place.topic]
        name = place.topic if handling.batch is not None else place
        if name not in self._lanes:
            self._lanes[name] = Lane(handling, self._slots, self._counters, self._finished, self._patience)
        return self._lanes[name]

    def _balance(self, consumer: AIOKafkaConsumer) -> None:
        """Fetches no more for lanes that are full, until they are hungry."""
        paused = consumer.paused()
        for place in consumer.assignment():
            lane = self._lanes.get(place) or self._lanes.get(place.topic)
            waiting = lane.waiting if lane is not None else 0
            if waiting > FULL and place not in paused:
                consumer.pause(place)
            elif waiting < HUNGRY and place in paused:
                consumer.resume(place)

    def _finished(self, place: TopicPartition, offset: int) -> None:
        self._done[place] = offset
        self._progress.set()

    async def _commit_often(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            await self._progress.wait()
            await self._commit(consumer)
            self._balance(consumer)
            await asyncio.sleep(COMMIT_SECONDS)

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        self._progress.clear()
        assigned = consumer.assignment()
        offsets = {place: offset for place, offset in self._done.items() if place in assigned}
        if not offsets:
            return
        try:
            await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            # The partitions were given to another process. What it handles again finds its inbox row.
            log.info("offsets were not committed: the group has moved on")
        self._done = {place: offset for place, offset in self._done.items() if offsets.get(place) != offset}

    async def _close_lanes(self) -> None:
        """Ends all handling here, and commits how far it came."""
        lanes, self._lanes = list(self._lanes.values()), {}
        await asyncio.gather(*(lane.close(CLOSE_SECONDS) for lane in lanes))
        consumer = self._consumer()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if consumer is not None:
                    await self._commit(consumer)
        except (KafkaError, TimeoutError) as error:
            log.warning("offsets were not committed", extra={"error": type(error).__name__})
        self._done.clear()

    async def _watch(self, consumer: AIOKafkaConsumer) -> None:
        """Ends when a lane broke, or when nothing is heard though there is something to hear."""
        unanswered = 0
        while True:
            await asyncio.sleep(min(1.0, self._silent_seconds / 4))
            if any(lane.ended for lane in self._lanes.values()):
                raise Silent
            if monotonic() - self._heard_at < self._silent_seconds:
                continue
            idle = [place for place in consumer.assignment() if place not in consumer.paused()]
            heard_at = self._heard_at
            try:
                async with asyncio.timeout(10):
                    ends: Mapping[TopicPartition, int] = await consumer.end_offsets(idle) if idle else {}
                    behind = [place for place in idle if await consumer.position(place) < ends[place]]
            except (KafkaError, IllegalStateError, TimeoutError):
                # Kafka is away, or partitions move. A silent connection does not pass.
                unanswered += 1
                if unanswered < 10:
                    continue
                raise Silent from None
            unanswered = 0
            if behind and heard_at == self._heard_at:
                raise Silent
            self._heard_at = monotonic()

    async def _measure(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            for place in consumer.assignment():
                lane = self._lanes.get(place) or self._lanes.get(place.topic)
                end = consumer.highwater(place) or 0
                reached = lane.reached.get(place.partition, end) if lane is not None else end
                self._counters.lag.set(max(0, end - reached), {"topic": place.topic, "partition": place.partition})
            await asyncio.sleep(LAG_SECONDS)

    async def _prune(self) -> None:
        """Forgets facts handled so long ago that they cannot come again, and answers that nobody asks for again."""
        while True:
            try:
                await self._delete(PRUNE, INBOX_DAYS)
                await self._delete(requests.PRUNE, requests.KEPT_DAYS)
            except Refusal:
                log.info("the tables are pruned later")
            await asyncio.sleep(PRUNE_SECONDS)

    async def _delete(self, query: str, days: int) -> None:
        while len(await self._database.fetch(query, days, PRUNE_ROWS)) == PRUNE_ROWS:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    """Told by aiokafka before the group takes all partitions back, and after it has given them out anew."""

    def __init__(self, revoked: Callable[[], Awaitable[None]], assigned: asyncio.Event) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._assigned.set()
