"""What the auditor looks at: the five databases and the topics themselves, read once the shop has come to rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from deploy.local.ports import SERVICES
from deploy.local.stack import Stack
from services.chassis.database import Connection
from services.chassis.facts import CONTENT_TYPE
from services.chassis.kafka import dead_letter_topic
from services.chassis.service import Service

PAUSE_SECONDS = 0.2
# Told again and again, whatever happens; it says nothing about an order.
WATERMARK = "StockWatermark"
UNFINISHED = "SELECT count(*) FROM orders WHERE state IN ('pending', 'giving_up')"
STOCK_POSITION = "SELECT coalesce(sum(version), 0)::bigint FROM stock"


class NotAtRest(Exception):
    """The shop still works on something, though nobody asks it anything any more."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact as it stands on its topic."""

    topic: str
    id: str
    key: str
    name: str
    message: Any


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a service could not handle, as it stands on the dead-letter topic."""

    topic: str
    consumer: str
    fact_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Topics:
    """Everything that stands on the topics."""

    # Each once, oldest of each key first; the relay may send a fact again.
    facts: Sequence[Fact]
    repeats: int
    # Messages that are no facts.
    unreadable: int
    dead: Sequence[DeadLetter]

    def of(self, *names: str) -> list[Fact]:
        """The facts of these kinds."""
        return [fact for fact in self.facts if fact.name in names]


@dataclass(frozen=True, slots=True)
class Told:
    """What customers were told by the shop."""

    accepted: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()
    # Checkouts whose order was refused for good.
    refused_checkouts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it. Each connection is inside a transaction, so that it keeps seeing the same state."""

    databases: Mapping[str, Connection]
    topics: Topics
    told: Told


@cache
def declared(service: str) -> Service:
    """A service as it declares itself."""
    found: Service = import_module(f"services.{service}.__main__").SERVICE
    return found


@asynccontextmanager
async def gather(stack: Stack, told: Told, seconds: float) -> AsyncIterator[Evidence]:
    """Waits until the shop is at rest, and opens the books. Raises `NotAtRest` naming what is not done in time."""
    deadline = time.monotonic() + seconds
    async with AsyncExitStack() as opened:
        live = {name: await opened.enter_async_context(_connect(stack, name)) for name in SERVICES}
        while True:
            await _rest(stack, live, deadline)
            before = await live["inventory"].fetchval(STOCK_POSITION)
            topics = await read_topics(stack)
            async with AsyncExitStack() as books:
                snapshots = {name: await books.enter_async_context(_snapshot(stack, name)) for name in SERVICES}
                # A hold may have run out meanwhile; then the books were opened at different times.
                if before == await live["inventory"].fetchval(STOCK_POSITION) and not await _busy(live):
                    yield Evidence(snapshots, topics, told)
                    return
            if time.monotonic() > deadline:
                raise NotAtRest("stock keeps moving")


async def _rest(stack: Stack, live: Mapping[str, Connection], deadline: float) -> None:
    """Returns once nothing waits anywhere: no order, no outbox, no topic."""
    while True:
        busy = await _busy(live) or await _lagging(stack) or await _busy(live)
        if not busy:
            return
        if time.monotonic() > deadline:
            raise NotAtRest(busy)
        # What is awaited happens in five databases and a broker: there is nothing to be woken by.
        await asyncio.sleep(PAUSE_SECONDS)


async def _busy(live: Mapping[str, Connection]) -> str:
    for name, connection in live.items():
        waiting = await connection.fetchval("SELECT count(*) FROM outbox")
        if waiting:
            return f"{waiting} facts wait in the outbox of {name}"
    pending = await live["shipping"].fetchval(UNFINISHED)
    return f"{pending} orders are pending" if pending else ""


async def _lagging(stack: Stack) -> str:
    """What a service has not yet handled of what stands on the topics by now; empty when nothing."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        heard = {name: [hears.topic for hears in declared(name).hears] for name in SERVICES}
        places = await _places(consumer, sorted({topic for topics in heard.values() for topic in topics}))
        ends = await consumer.end_offsets(places)
        behind = []
        for name, topics in heard.items():
            committed = await admin.list_consumer_group_offsets(name)
            for place in (place for place in places if place.topic in topics):
                done = committed[place].offset if place in committed else 0
                if done < ends[place]:
                    behind.append(f"{name} is {ends[place] - done} messages behind on {place.topic}")
    finally:
        await consumer.stop()
        await admin.close()
    # All of them: one may be a watermark that is being handled, another the one who never will.
    return ", ".join(behind)


async def read_topics(stack: Stack) -> Topics:
    """Reads every topic of the shop from its beginning to its present end."""
    topics = [topic.name for name in SERVICES for topic in declared(name).publishes]
    facts: dict[tuple[str, str], Fact] = {}
    repeats = unreadable = 0
    async for topic, key, value, headers in _read(stack, topics):
        fact = _fact(topic, key, value, headers)
        if fact is None:
            unreadable += 1
        elif fact.name != WATERMARK:
            repeats += (topic, fact.id) in facts
            facts.setdefault((topic, fact.id), fact)
    return Topics(list(facts.values()), repeats, unreadable, await read_dead_letters(stack, topics))


async def read_dead_letters(stack: Stack, topics: Sequence[str]) -> list[DeadLetter]:
    """Reads what ever was set aside of these topics."""
    letters = [dead_letter_topic(topic) for topic in topics]
    return [_dead_letter(headers) async for _, _, _, headers in _read(stack, letters)]


def _fact(topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, str]) -> Fact | None:
    """The fact, if it is a CloudEvent of a kind of ours."""
    if key is None or value is None:
        return None
    if (headers.get("ce_specversion"), headers.get("content-type")) != ("1.0", CONTENT_TYPE):
        return None
    try:
        datetime.fromisoformat(headers["ce_time"])
        kind: type[Message] = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(headers["ce_type"]))
        return Fact(topic, headers["ce_id"], key.decode(), kind.DESCRIPTOR.name, kind.FromString(value))
    except (KeyError, ValueError, DecodeError):
        return None


def _dead_letter(headers: Mapping[str, str]) -> DeadLetter:
    place = f"@{headers['dlq_partition']}-{headers['dlq_offset']}-{headers['dlq_timestamp']}"
    fact_id = headers.get("ce_id") or place
    return DeadLetter(headers["dlq_topic"], headers["dlq_consumer"], fact_id, headers["dlq_reason"])


async def _read(
    stack: Stack, topics: Sequence[str]
) -> AsyncIterator[tuple[str, bytes | None, bytes | None, dict[str, str]]]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=stack.kafka_bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        places = await _places(consumer, topics)
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            await consumer.seek_to_beginning(place)
        while left := [place for place in places if await consumer.position(place) < ends[place]]:
            for place, records in (await consumer.getmany(*left, timeout_ms=1_000)).items():
                for record in records:
                    if record.offset < ends[place]:
                        headers = {name: text.decode("latin-1") for name, text in record.headers}
                        yield place.topic, record.key, record.value, headers
    finally:
        await consumer.stop()


async def _places(consumer: AIOKafkaConsumer, topics: Sequence[str]) -> list[TopicPartition]:
    await consumer._client.set_topics(topics)
    return [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic) or ()]


@asynccontextmanager
async def _connect(stack: Stack, service: str) -> AsyncIterator[Connection]:
    """The service's database, with the rights of the server's owner."""
    url = urlunsplit(urlsplit(stack.database_server_url)._replace(path=f"/{service}"))
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _snapshot(stack: Stack, service: str) -> AsyncIterator[Connection]:
    async with _connect(stack, service) as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        await connection.fetchval("SELECT 1 FROM outbox LIMIT 1")  # from here on it sees the same
        yield connection
        await transaction.rollback()
