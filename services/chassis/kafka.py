"""Kafka: topics, and how our producers and consumers are set."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from services.chassis.brokers import Brokers, client
from services.chassis.facts import Topic

DEAD_LETTERS = ".dlq"
DAY_MS = 24 * 3600 * 1000
# Smaller than the broker's own limit, so that a message too large is refused here, before it is queued.
MAX_MESSAGE_BYTES = 1_000_000
# A dead letter is a message, which may be as large as any broker took it, and the headers that say why it is dead.
MAX_DEAD_LETTER_BYTES = 2 * 1024 * 1024
# How long a producer waits before it asks again who leads what, when nobody answered.
PATIENCE_SECONDS = 0.1
# A session this long outlives a pause of the process; frozen longer, its partitions go to the others.
SESSION_TIMEOUT_MS = 10_000
# What a consumer of ours is given, beside its topics and its group. An answer to a fetch waits at most a fifth of a
# second for facts, since partitions that were paused are only asked for in the next one.
CONSUMER: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "session_timeout_ms": SESSION_TIMEOUT_MS,
    "heartbeat_interval_ms": 3_000,
    "max_poll_interval_ms": 60_000,
    "fetch_max_wait_ms": 200,
    "max_partition_fetch_bytes": 256 * 1024,
}


def dead_letter_topic(topic: str) -> str:
    """Where messages of the topic go that could not be handled."""
    return f"{topic}{DEAD_LETTERS}"


def is_too_large(topic: str, size: int) -> bool:
    """Whether a message of this many bytes is never sent to the topic."""
    return size > (MAX_DEAD_LETTER_BYTES if topic.endswith(DEAD_LETTERS) else MAX_MESSAGE_BYTES)


def producer(brokers: Brokers | str, client_id: str) -> AIOKafkaProducer:
    """A producer that neither loses, doubles nor reorders what it sends for as long as it lives. Not yet started."""
    made = AIOKafkaProducer(
        **client(brokers),
        client_id=client_id,
        enable_idempotence=True,
        acks="all",
        max_batch_size=256 * 1024,
        max_request_size=MAX_DEAD_LETTER_BYTES,
        request_timeout_ms=10_000,
    )
    ask = made.client._metadata_update

    async def ask_patiently(*arguments: Any) -> bool:
        # While no broker is there and a partition has no leader, aiokafka would ask hundreds of times a second.
        updated: bool = await ask(*arguments)
        if not updated:
            await asyncio.sleep(PATIENCE_SECONDS)
        return updated

    made.client._metadata_update = ask_patiently
    return made


async def discard(old: AIOKafkaProducer) -> None:
    """Closes a producer without waiting for what it has not sent."""
    with suppress(KafkaError, OSError):
        await asyncio.wait_for(old.stop(), 1)
        return
    # Its stop waits for the broker. What it holds is still in the outbox, so let go of it at once.
    sender = old._sender
    if sender is not None and sender.sender_task is not None:
        sender.sender_task.cancel()
        await asyncio.wait([sender.sender_task], timeout=1)
    with suppress(KafkaError, OSError):
        await asyncio.wait_for(old.client.close(), 1)


async def ensure_topics(brokers: Brokers | str, topics: Sequence[Topic], *, wait_seconds: float = 60) -> None:
    """Creates the topics, each with its dead-letter topic, where they are missing; returns once all can be used.

    Existing topics keep their settings. Raises KafkaError when that fails, and TimeoutError when Kafka stays away.
    """
    async with asyncio.timeout(wait_seconds):
        admin = await _admin(brokers)
        try:
            wanted = [new for topic in topics for new in (_topic(topic), _dead_letters(topic))]
            existing = set(await admin.list_topics())
            missing = [new for new in wanted if new.name not in existing]
            if missing:
                await _create(admin, missing)
            while not await _led(admin, [new.name for new in wanted]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        finally:
            await admin.close()


async def existing(brokers: Brokers | str, names: Iterable[str]) -> set[str]:
    """Those of the topics that exist. Raises KafkaError when no broker says so."""
    admin = AIOKafkaAdminClient(**client(brokers), request_timeout_ms=2_000)
    try:
        await admin.start()
        return set(names).intersection(await admin.list_topics())
    finally:
        await admin.close()


async def partition_count(brokers: Brokers | str, topic: str) -> int | None:
    """How many partitions the topic has. None when no broker says so, or there is no such topic."""
    admin = AIOKafkaAdminClient(**client(brokers), request_timeout_ms=2_000)
    try:
        await admin.start()
        described = await admin.describe_topics([topic])
    except (KafkaError, OSError):
        return None
    finally:
        await admin.close()
    return len(described[0]["partitions"]) or None


async def _admin(brokers: Brokers | str) -> AIOKafkaAdminClient:
    while True:
        admin = AIOKafkaAdminClient(**client(brokers), request_timeout_ms=10_000)
        try:
            await admin.start()
        except KafkaConnectionError:
            await admin.close()
            await asyncio.sleep(0.5)
        else:
            return admin


def _topic(topic: Topic) -> NewTopic:
    configs = (
        {"cleanup.policy": "compact"}
        if topic.compacted
        else {"cleanup.policy": "delete", "retention.ms": str(topic.retention_days * DAY_MS)}
    )
    return _new(topic.name, topic.partitions, configs)


def _dead_letters(topic: Topic) -> NewTopic:
    # Kept until somebody has looked: a key stays parked as long as its messages wait here.
    configs = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": str(MAX_DEAD_LETTER_BYTES)}
    return _new(dead_letter_topic(topic.name), 1, configs)


def _new(name: str, partitions: int, configs: dict[str, str]) -> NewTopic:
    # As many replicas as the broker's default says; aiokafka insists on the empty assignment then.
    return NewTopic(name, partitions, -1, replica_assignments={}, topic_configs=configs)


async def _create(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    response = await admin.create_topics(list(topics))
    for result in response.to_object()["topic_errors"]:
        error = for_code(result["error_code"])
        if result["error_code"] and error is not TopicAlreadyExistsError:  # another process was faster
            raise error(f"{result['topic']}: {result.get('error_message') or error.__name__}")


async def _led(admin: AIOKafkaAdminClient, names: Iterable[str]) -> bool:
    described = await admin.describe_topics(list(names))
    return all(
        topic["error_code"] == 0 and topic["partitions"] and all(part["leader"] >= 0 for part in topic["partitions"])
        for topic in described
    )
