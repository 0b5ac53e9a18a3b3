"""Dead letters: handling them again, once what was wrong is put right, or giving one up."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from services.chassis.brokers import Brokers, client
from services.chassis.database import Database
from services.chassis.decoding import Letter
from services.chassis.errors import Conflict, Refusal
from services.chassis.facts import Hears
from services.chassis.handling import Handling
from services.chassis.kafka import dead_letter_topic
from services.chassis.lanes import name_of

log = logging.getLogger(__name__)

PREFIX = "dlq_"
RACES = 5
POLL_MS = 1_000


async def replay(
    service: str,
    database: Database,
    brokers: Brokers | str,
    hears: Sequence[Hears],
    app: object,
    topic: str,
    *,
    drop: str | None = None,
    reason: str = "given up by an operator",
) -> int:
    """Handles the waiting dead letters of a topic again, those of a key in their order. Prints a summary.

    A letter that fails again stays, and so do the later ones of its key. May be run at any time, again and by several
    at once, while the service runs. With `drop`, gives that one up instead and records the reason. Returns the exit
    code: 0 when nothing waits any more (or the letter was dropped), 1 otherwise.
    """
    heard = next((heard for heard in hears if heard.topic == topic), None)
    if heard is None:
        print(f"{service} does not hear {topic}; it hears {', '.join(heard.topic for heard in hears)}")
        return 1
    handling = Handling(service, database, heard, app)
    if drop is not None:
        dropped = await handling.drop(drop, reason)
        print(f"{topic}: {drop} {'is given up' if dropped else 'does not wait here'}")
        return 0 if dropped else 1
    replayed, failed = await _replay_all(handling, brokers)
    waiting = len(await handling.waiting())
    reasons = ", ".join(f"{count} {why}" for why, count in sorted(failed.items()))
    print(f"{topic}: {replayed} replayed, {waiting} waiting" + (f" (failed: {reasons})" if reasons else ""))
    return 0 if waiting == 0 else 1


async def _replay_all(handling: Handling, brokers: Brokers | str) -> tuple[int, Counter[str]]:
    waiting = await handling.waiting()
    replayed, failed = 0, Counter[str]()
    held: set[bytes] = set()
    async for record in _read(brokers, dead_letter_topic(handling.topic)):
        letter = _letter(handling, record)
        if letter is None or letter.id not in waiting or letter.record.key in held:
            continue
        try:
            if letter.message is None:
                raise Refusal("still not readable", reason=letter.poison or "UNWANTED")
            replayed += await _replay_one(handling, letter)
        except Exception as error:
            why = name_of(error)
            failed[why] += 1
            if letter.record.key is not None and handling.batch is None:
                held.add(letter.record.key)
            log.warning("a dead letter fails again", extra={"fact_id": letter.id, "error": why})
    return replayed, failed


async def _replay_one(handling: Handling, letter: Letter) -> bool:
    for _ in range(RACES):
        try:
            return await handling.replay(letter)
        except Conflict:  # a fact of the same key arrives just now
            continue
    return await handling.replay(letter)


def _letter(handling: Handling, record: ConsumerRecord[bytes | None, bytes | None]) -> Letter | None:
    """The message as it was on its own topic; None when it is another service's."""
    headers = dict(record.headers)
    if headers.get("dlq_consumer") != handling.service.encode():
        return None
    return handling.decode(
        ConsumerRecord(
            topic=handling.topic,
            partition=int(headers["dlq_partition"]),
            offset=int(headers["dlq_offset"]),
            timestamp=int(headers["dlq_timestamp"]),
            timestamp_type=record.timestamp_type,
            key=record.key,
            value=record.value,
            checksum=None,
            serialized_key_size=record.serialized_key_size,
            serialized_value_size=record.serialized_value_size,
            headers=tuple((name, value) for name, value in record.headers if not name.startswith(PREFIX)),
        )
    )


async def _read(brokers: Brokers | str, topic: str) -> AsyncIterator[ConsumerRecord[bytes | None, bytes | None]]:
    """Everything that stands in the topic now, from its beginning."""
    consumer = AIOKafkaConsumer(**client(brokers), enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        numbers = await consumer._client._wait_on_metadata(topic)
        places = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            await consumer.seek_to_beginning(place)
        left = {place for place in places if await consumer.position(place) < ends[place]}
        while left:
            for place, records in (await consumer.getmany(*left, timeout_ms=POLL_MS)).items():
                for record in records:
                    if record.offset < ends[place]:
                        yield record
            left = {place for place in left if await consumer.position(place) < ends[place]}
    finally:
        await consumer.stop()
