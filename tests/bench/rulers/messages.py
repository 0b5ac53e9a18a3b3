"""The third ruler: one message after the other from an idempotent producer (acks=all) through Kafka to a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from .process import Obeying, obey, timed

SECONDS = 10


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Through which broker, and with how large a value."""

    bootstrap: str
    value_bytes: int


async def setup(given: RoundTrips) -> Obeying:
    topic = f"bench.{uuid4().hex[:12]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=given.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=given.bootstrap, acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(bootstrap_servers=given.bootstrap, auto_offset_reset="earliest")
    await producer.start()
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    value = b"x" * given.value_bytes

    async def once(number: int) -> None:
        await producer.send(topic, value, key=b"key", partition=0)
        await asyncio.wait_for(consumer.getone(), SECONDS)

    async def run(calls: int) -> Mapping[str, object]:
        return await timed(once, 0, 1, calls=calls, seconds=None)

    async def close() -> None:
        await producer.stop()
        await consumer.stop()

    await run(50)  # metadata, connections and the first producer id are not the round trip
    return {}, {"run": run}, close


if __name__ == "__main__":
    obey(setup)
