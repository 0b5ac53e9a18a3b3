"""A service for tests of the Kafka half: a database of its own, topics of its own, and helpers that await events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from deploy.local.stack import Stack
from services.chassis import outbox
from services.chassis.consumption import Consumption
from services.chassis.database import Database, Transaction
from services.chassis.facts import Fact, Heard, Hears, Topic
from services.chassis.kafka import dead_letter_topic, ensure_topics
from services.chassis.lanes import Patience
from services.chassis.migrations import migrate
from services.chassis.relay import Relay

SECONDS = 40.0
"""How long an event may take before the test gives up; nothing is measured by it."""


@dataclass
class Rig:
    """One made-up service: what it has handled stands in its table `handled`, in the order of its commits."""

    service: str
    url: str
    bootstrap: str
    topic: Topic
    database: Database
    app: dict[str, Any] = field(default_factory=dict)
    _started: list[Any] = field(default_factory=list)

    def fact(self, key: str, value: str, fact_id: str | None = None) -> Fact:
        return Fact(self.topic, key, StringValue(value=value), fact_id or uuid4().hex)

    async def announce(self, *facts: Fact) -> None:
        async with self.database.transaction() as work:
            await work.append(facts)

    async def send(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes | None],
        partition: int | None = None,
        topic: str | None = None,
    ) -> None:
        """Sends a message as it is, whatever it is."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        try:
            await producer.send_and_wait(
                topic or self.topic.name, value, key, partition=partition, headers=list(headers.items())
            )
        finally:
            await producer.stop()

    async def send_facts(self, *facts: Fact, partition: int | None = None) -> None:
        """Sends facts without outbox and relay."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, enable_idempotence=True)
        await producer.start()
        try:
            for fact in facts:
                headers = outbox.headers(fact, "somewhere", datetime.now(UTC).isoformat())
                await producer.send(
                    fact.topic.name,
                    fact.message.SerializeToString(),
                    fact.key.encode(),
                    partition=partition,
                    headers=[(name, text.encode()) for name, text in headers.items()],
                )
        finally:
            await producer.stop()

    def hears(self, handler: Callable[[Any, Transaction, Heard[Any]], Awaitable[None]] | None = None) -> Hears:
        return Hears(self.topic.name, {StringValue: handler or record})

    async def listen(
        self, *hears: Hears, service: str | None = None, attempts: int = 5, **settings: Any
    ) -> Consumption:
        settings = {"patience": Patience(attempts, (0.01, 0.05), (0.01, 0.05)), **settings}
        listening = Consumption(
            service or self.service, self.database, self.bootstrap, hears or (self.hears(),), self.app, **settings
        )
        self._started.append(listening)
        await listening.start()
        await within(listening.assigned())
        return listening

    def relay(self, database: Database | None = None, **settings: Any) -> Relay:
        """A relay that runs until the test ends."""
        database = database or self.database
        relay = Relay(database, self.bootstrap, **settings)
        database.wake_relay = relay.wake
        self._started.append(asyncio.create_task(relay.run()))
        return relay

    async def stop_relay(self) -> None:
        for task in [task for task in self._started if isinstance(task, asyncio.Task)]:
            self._started.remove(task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def handled(self, count: int) -> list[str]:
        """The values that were handled, once there are that many."""

        async def enough() -> bool:
            rows = await self.database.pool.fetch("SELECT value FROM handled ORDER BY id")
            return len(rows) >= count

        await until(enough)
        return [row["value"] for row in await self.database.pool.fetch("SELECT value FROM handled ORDER BY id")]

    async def count(self, table: str) -> int:
        found: int = await self.database.pool.fetchval(f"SELECT count(*) FROM {table}")
        return found

    async def parked(self) -> list[tuple[str, int, int]]:
        """Parked keys with how many messages were parked and replayed."""
        rows = await self.database.fetch("SELECT key, parked, replayed FROM parked_keys ORDER BY key")
        return [(row["key"].decode(), row["parked"], row["replayed"]) for row in rows]

    async def committed(self, total: int, group: str | None = None) -> list[int]:
        """The group's committed offset of each partition, once they add up to the total."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=group or self.service, enable_auto_commit=False
        )
        await consumer.start()
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    places = [TopicPartition(self.topic.name, number) for number in range(self.topic.partitions)]
                    offsets = [await consumer.committed(place) or 0 for place in places]
                    if sum(offsets) >= total:
                        return offsets
                    await asyncio.sleep(0.02)
        finally:
            await consumer.stop()

    async def read(self, topic: str, count: int) -> list[ConsumerRecord[Any, Any]]:
        """The first messages of a topic, in the order of each partition, once there are that many."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
        )
        await consumer.start()
        records: list[ConsumerRecord[Any, Any]] = []
        try:
            async with asyncio.timeout(SECONDS):
                while len(records) < count:
                    for found in (await consumer.getmany(timeout_ms=100)).values():
                        records += found
        finally:
            await consumer.stop()
        return records

    async def dead_letters(self, count: int) -> list[ConsumerRecord[Any, Any]]:
        return await self.read(dead_letter_topic(self.topic.name), count)

    async def close(self) -> None:
        for started in self._started:
            if isinstance(started, Consumption):
                await within(started.stop())
        await self.stop_relay()
        await self.database.close()


async def record(app: Any, work: Transaction, heard: Heard[Any]) -> None:
    """The simplest handler: writes down what it heard."""
    await work.connection.execute(
        "INSERT INTO handled (key, value, journey_id) VALUES ($1, $2, $3)",
        heard.key,
        heard.message.value,
        heard.journey_id,
    )


async def record_batch(app: Any, work: Transaction, heard: Sequence[Heard[Any]]) -> None:
    for fact in heard:
        await record(app, work, fact)


class Failing:
    """A handler that raises for some values, as often as told (-1: always), and otherwise writes down."""

    def __init__(self, **errors: tuple[Exception, int]) -> None:
        self.errors = errors
        self.calls: list[str] = []

    async def __call__(self, app: Any, work: Transaction, heard: Heard[Any]) -> None:
        value = heard.message.value
        self.calls.append(value)
        await record(app, work, heard)
        error, times = self.errors.get(value, (None, 0))
        if error is not None and times:
            self.errors[value] = (error, times - 1)
            raise error


def dlq(record: Any) -> dict[str, str]:
    """What the headers say about a dead letter."""
    return {name: value.decode() for name, value in record.headers if name.startswith("dlq_")}


async def within(waiting: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SECONDS):
        return await waiting


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await true():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def rig(infrastructure: Stack, *, partitions: int = 1, compacted: bool = False) -> AsyncIterator[Rig]:
    """A service with a new database and a new topic."""
    name = f"t{uuid4().hex[:12]}"
    server = infrastructure.database_url("inventory")
    admin = await asyncpg.connect(infrastructure.database_server_url)
    try:
        await admin.execute(f"CREATE DATABASE {name} OWNER inventory")
    finally:
        await admin.close()
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    await migrate(url, Path(__file__).parent / "no_such_folder")
    database = Database(url, name, pool_size=8)
    await database.open()
    await database.pool.execute(
        "CREATE TABLE handled (id bigint GENERATED ALWAYS AS IDENTITY, key text, value text, journey_id text)"
    )
    topic = Topic(f"test.{name}.v1", (StringValue, Int64Value), compacted=compacted, partitions=partitions)
    made = Rig(name, url, infrastructure.kafka_bootstrap, topic, database)
    try:
        await ensure_topics(infrastructure.kafka_bootstrap, [topic])
        yield made
    finally:
        await made.close()
