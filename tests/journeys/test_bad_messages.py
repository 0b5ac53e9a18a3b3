"""What the services do with what is no fact, on the topics they hear: a dead letter with its reason, and on they go.

Everything is given up again in the end, as an operator would, so that nothing is left lying.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.ports import SERVICES
from deploy.local.service import ROOT, service_environment
from services.chassis.database import Database
from services.chassis.dead_letters import replay
from services.chassis.facts import CONTENT_TYPE
from shop.loyalty.events.v1 import facts_pb2 as loyalty
from shop.loyalty.v1 import loyalty_pb2
from tests.chaos.auditor import audit
from tests.chaos.evidence import declared, read_dead_letters
from tests.journeys.rig import Shop, new_id, until

HEARD = sorted({hears.topic for service in SERVICES for hears in declared(service).hears})
HEARERS = {
    topic: [service for service in SERVICES if any(hears.topic == topic for hears in declared(service).hears)]
    for topic in HEARD
}
# How the ids of our messages begin; what has no id is known by its place.
OURS = ("bad_", "@")
GARBAGE = b"\xff\xff\xff this is no protobuf"


@dataclass(frozen=True)
class Bad:
    """A message that is no fact, and why."""

    reason: str
    headers: Mapping[str, str]
    value: bytes = b""
    key: bytes | None = b"nobody"


def _event(kind: str, **changes: str | None) -> dict[str, str]:
    """The headers of a good fact, but for the changes."""
    headers: dict[str, str | None] = {
        "ce_specversion": "1.0",
        "ce_id": new_id("bad"),
        "ce_source": "/somewhere",
        "ce_type": kind,
        "ce_time": datetime.now(UTC).isoformat(),
        "content-type": CONTENT_TYPE,
    }
    changed = headers | {name.replace("__", "-"): value for name, value in changes.items()}
    return {name: value for name, value in changed.items() if value is not None}


def bad_messages(kind: str) -> list[Bad]:
    """Each way to be no fact of a topic whose hearers handle `kind`."""
    return [
        Bad("NO_CE_SPECVERSION", {}, b"hello"),
        Bad("UNDECODABLE", _event(kind), GARBAGE),
        Bad("UNKNOWN_CONTENT_TYPE", _event(kind, content__type="application/json"), b"{}"),
        Bad("UNKNOWN_TYPE", _event("shop.nobody.v1.Nothing")),
        Bad("UNKNOWN_SPECVERSION", _event(kind, ce_specversion="0.3")),
        Bad("WRONG_CE_TIME", _event(kind, ce_time="yesterday")),
        Bad("NO_KEY", _event(kind), key=None),
        Bad("KEY_NOT_TEXT", _event(kind), key=b"\xff\xfe"),
    ]


def handled_by(service: str, topic: str) -> str:
    """A kind of fact that the service handles on the topic."""
    hears = next(hears for hears in declared(service).hears if hears.topic == topic)
    return next(iter((*hears.handlers, *hears.batch_facts))).DESCRIPTOR.full_name


@pytest.fixture
async def producer(calls: Shop) -> AsyncIterator[AIOKafkaProducer]:
    """Sends anything to any topic."""
    opened = AIOKafkaProducer(bootstrap_servers=calls.stack.kafka_bootstrap)
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture(autouse=True)
async def nothing_is_left(calls: Shop) -> AsyncIterator[None]:
    """Gives up what a test has put into the dead letters; then the books are in order."""
    yield
    for service in SERVICES:
        for topic, fact_id in await _waiting(calls, service):
            if fact_id.startswith(OURS):
                await _give_up(calls, service, topic, fact_id)
    findings = await audit(calls.stack)
    assert not findings.problems, "\n".join(findings.lines())


@pytest.mark.parametrize("topic", HEARD)
async def test_what_is_no_fact_becomes_a_dead_letter(calls: Shop, producer: AIOKafkaProducer, topic: str) -> None:
    service = HEARERS[topic][0]
    # One topic gets everything there is; the others one each, since they are all read by the same code. What cannot be
    # decoded is refused only by those who handle its kind.
    everything = bad_messages(handled_by(service, topic))
    by_all = [bad for bad in everything if bad.reason != "UNDECODABLE"]
    chosen = everything if topic == "shop.loyalty.upgrades.v1" else [by_all[HEARD.index(topic) % 3]]
    for bad in chosen:
        await _send(producer, topic, bad)
    for hearer in HEARERS[topic]:

        async def there(hearer: str = hearer) -> bool:
            return len(await _waiting(calls, hearer)) == len(chosen)

        await until(there, f"{hearer} sets aside what is no fact of {topic}")
        async with calls.database(hearer) as database:
            rows = await database.fetch("SELECT reason FROM dead_letters WHERE topic = $1", topic)
        assert sorted(row["reason"] for row in rows) == sorted(bad.reason for bad in chosen)
    await _on_dead_letter_topic(calls, topic, len(chosen))


async def test_later_facts_go_on(calls: Shop, producer: AIOKafkaProducer) -> None:
    """Other keys at once; the same key behind the bad one, until that is given up and the rest is replayed."""
    topic = "shop.loyalty.standing.v1"
    parked, other = new_id("cus"), new_id("cus")
    kind = "shop.loyalty.events.v1.StandingChanged"
    bad = Bad("UNDECODABLE", _event(kind), GARBAGE, parked.encode())
    await _send(producer, topic, bad)
    for customer_id in (parked, other):
        fact = loyalty.StandingChanged(
            customer_id=customer_id, version=1, tier=loyalty_pb2.TIER_REGULAR, points=5, points_delta=5
        )
        await _send(producer, topic, Bad("", _event(kind), fact.SerializeToString(), customer_id.encode()))

    async def goes_on() -> bool:
        return await _entries(calls, other) == 1 and len(await _waiting(calls, "contact")) == 2

    await until(goes_on, "the other customer's fact is heard, this one's waits")
    assert await _entries(calls, parked) == 0
    assert await _replay(calls, "contact", topic) == 1  # what is bad stays bad, and what waits behind it waits
    assert await _replay(calls, "contact", topic, "--drop", bad.headers["ce_id"]) == 0
    assert await _replay(calls, "contact", topic) == 0
    assert await _entries(calls, parked) == 1


async def _send(producer: AIOKafkaProducer, topic: str, bad: Bad) -> None:
    headers = [(name, text.encode()) for name, text in bad.headers.items()]
    await producer.send_and_wait(topic, bad.value, bad.key, headers=headers)


async def _waiting(calls: Shop, service: str) -> Sequence[tuple[str, str]]:
    async with calls.database(service) as database:
        rows = await database.fetch("SELECT topic, fact_id FROM dead_letters ORDER BY park_time")
    return [(row["topic"], row["fact_id"]) for row in rows]


async def _on_dead_letter_topic(calls: Shop, topic: str, number: int) -> None:
    async def sent() -> bool:
        dead = await read_dead_letters(calls.stack, [topic])
        return all(sum(letter.consumer == hearer for letter in dead) >= number for hearer in HEARERS[topic])

    await until(sent, f"the dead letters stand on {topic}.dlq")


async def _entries(calls: Shop, customer_id: str) -> int:
    async with calls.database("contact") as database:
        found: int = await database.fetchval("SELECT count(*) FROM timeline WHERE customer_id = $1", customer_id)
    return found


async def _give_up(calls: Shop, service: str, topic: str, fact_id: str) -> None:
    """What `replay --drop` does, without a process of its own."""
    database = Database(calls.stack.database_url(service), service, pool_size=2)
    await database.open()
    hears = declared(service).hears
    assert await replay(service, database, calls.stack.kafka_bootstrap, hears, None, topic, drop=fact_id) == 0
    await database.close()


async def _replay(calls: Shop, service: str, topic: str, *options: str) -> int:
    """The service's own command, as `make replay` runs it."""
    environment = service_environment(calls.stack.environment(service))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{service}", "replay", topic, *options), cwd=ROOT, env=environment
    )
    return await process.wait()
