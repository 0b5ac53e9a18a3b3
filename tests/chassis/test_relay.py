"""The relay on real parts: order, at least once, one at a time, and what goes away comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import OutOfOrderSequenceNumber
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from deploy.local.stack import Stack
from services.chassis import kafka, relay
from services.chassis.database import Database
from services.chassis.relay import Relay, Watermark
from tests.chassis.kafka_rig import Rig, rig, until, within

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def made(infrastructure: Stack) -> AsyncIterator[Rig]:
    async with rig(infrastructure) as made:
        yield made


def values(records: list[Any]) -> list[str]:
    return [StringValue.FromString(record.value).value for record in records]


async def empty(made: Rig) -> None:
    async def is_empty() -> bool:
        return await made.count("outbox") == 0

    await until(is_empty)


async def holding(*relays: Relay) -> Relay:
    """The one that relays."""

    async def any_holds() -> bool:
        return any(each.holding for each in relays)

    await until(any_holds)
    return next(each for each in relays if each.holding)


async def test_facts_arrive_as_cloud_events_with_key_and_context(made: Rig) -> None:
    fact = made.fact("the key", "1")
    await made.announce(fact)
    made.relay()
    (record,) = await made.read(made.topic.name, 1)
    headers = {name: value.decode() for name, value in record.headers}
    assert record.key == b"the key"
    assert values([record]) == ["1"]
    assert datetime.fromisoformat(headers.pop("ce_time")).tzinfo is not None
    assert {name: text for name, text in headers.items() if name not in ("traceparent", "baggage")} == {
        "ce_specversion": "1.0",
        "ce_id": fact.id,
        "ce_source": f"/shop/{made.service}",
        "ce_type": "google.protobuf.StringValue",
        "content-type": "application/protobuf",
    }
    await empty(made)


async def test_order_of_keys_holds_over_many_batches(infrastructure: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BATCH", 7)
    async with rig(infrastructure, partitions=3) as made:
        made.relay()
        for start in range(0, 200, 20):
            await made.announce(*(made.fact(f"k{n % 5}", f"{n:04}") for n in range(start, start + 20)))
        records = await made.read(made.topic.name, 200)
        for key in {record.key for record in records}:
            sent = values([record for record in records if record.key == key])
            assert sent == sorted(sent)
        assert len(records) == 200
        await empty(made)


async def test_a_transaction_that_commits_late_is_not_passed_over(made: Rig) -> None:
    made.relay()
    async with made.database.transaction() as late:
        await late.append([made.fact("a", "late")])  # draws the lower id
        await made.announce(made.fact("b", "early"))
        assert values(await made.read(made.topic.name, 1)) == ["early"]
    assert values(await made.read(made.topic.name, 2)) == ["early", "late"]
    await empty(made)


async def test_two_relays_one_sends_and_the_other_takes_over(made: Rig) -> None:
    other = Database(made.url, made.service, pool_size=2)
    await other.open()
    try:
        first = made.relay()
        await holding(first)
        second = made.relay(other)
        await made.announce(*(made.fact("k", f"{n:03}") for n in range(100)))
        records = await made.read(made.topic.name, 100)
        assert not second.holding
        await empty(made)
        first_task = made._started.pop(0)
        first_task.cancel()
        await asyncio.gather(first_task, return_exceptions=True)
        await made.announce(made.fact("k", "100"))
        records = await made.read(made.topic.name, 101)
        assert second.holding
        assert values(records) == [f"{n:03}" for n in range(101)]
    finally:
        await made.stop_relay()
        await other.close()


async def test_what_this_process_commits_is_sent_without_polling(made: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 3600.0)
    await holding(made.relay())
    for n in range(20):
        await made.announce(made.fact("k", f"{n:02}"))
    assert values(await made.read(made.topic.name, 20)) == [f"{n:02}" for n in range(20)]


async def test_what_another_process_commits_is_heard_without_polling(
    made: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 3600.0)
    other = Database(made.url, made.service, pool_size=2)
    await other.open()
    try:
        await holding(made.relay())
        made.relay(other)
        for n in range(20):
            async with other.transaction() as work:
                await work.append([made.fact("k", f"{n:02}")])
        assert values(await made.read(made.topic.name, 20)) == [f"{n:02}" for n in range(20)]
    finally:
        await made.stop_relay()
        await other.close()


async def test_what_nobody_told_of_is_found_by_polling(made: Rig) -> None:
    await holding(made.relay())
    await empty(made)
    made.database.wake_relay = lambda: None
    await made.announce(made.fact("k", "1"))
    assert values(await made.read(made.topic.name, 1)) == ["1"]


FROZEN = """
import asyncio, logging, sys
from services.chassis import relay
from services.chassis.database import Database

logging.basicConfig(stream=sys.stdout, format="%(message)s", level="INFO")
send = relay.Relay._send

async def slowly(*arguments):
    print("has read", flush=True)
    sys.stdin.readline()  # nothing else runs in between: no ping can find out
    await send(*arguments)

relay.Relay._send = slowly

async def main():
    database = Database(sys.argv[1], sys.argv[2], pool_size=2)
    await database.open()
    await relay.Relay(database, sys.argv[3]).run()

asyncio.run(main())
"""


async def test_a_frozen_relay_loses_the_lock_and_sends_nothing_when_it_thaws(made: Rig) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FROZEN,
        made.url,
        made.service,
        made.bootstrap,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None

    async def says(text: bytes) -> None:
        while text not in (line := await process.stdout.readline()):  # type: ignore[union-attr]
            assert line, "it ended"

    try:
        await within(says(b"relaying"))
        await made.announce(made.fact("k", "0"))
        process.stdin.write(b"go on\n")
        await empty(made)  # its producer is warm now: what it is told to send goes out at once
        await within(says(b"has read"))
        await made.announce(made.fact("k", "1"), made.fact("k", "2"))
        await within(says(b"has read"))
        process.send_signal(signal.SIGSTOP)
        await holding(made.relay())
        await made.announce(made.fact("k", "3"))
        assert values(await made.read(made.topic.name, 4)) == ["0", "1", "2", "3"]
        await empty(made)
        process.send_signal(signal.SIGCONT)
        process.stdin.write(b"go on\n")
        await within(says(b"relay starts over"))
        await made.announce(made.fact("k", "4"))
        assert values(await made.read(made.topic.name, 5)) == ["0", "1", "2", "3", "4"]
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def test_a_lost_database_session_is_made_anew(made: Rig) -> None:
    await holding(made.relay())
    for n in range(3):
        await made.database.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
            f"{made.service}-session",
        )
        await made.announce(made.fact("k", str(n)))
        await made.read(made.topic.name, n + 1)
    await empty(made)


async def test_a_producer_that_refuses_is_replaced(made: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    build, built = kafka.producer, []

    def producer(*arguments: Any) -> Any:
        new = build(*arguments)
        built.append(new)
        if len(built) == 1:  # as a producer does that is out of step with the broker: it never recovers

            async def refuse(*arguments: Any, **settings: Any) -> asyncio.Future[Any]:
                future = asyncio.get_running_loop().create_future()
                future.set_exception(OutOfOrderSequenceNumber())
                return future

            new.send = refuse
        return new

    monkeypatch.setattr(kafka, "producer", producer)
    await made.announce(made.fact("k", "1"), made.fact("k", "2"))
    made.relay()
    assert values(await made.read(made.topic.name, 2)) == ["1", "2"]
    assert len(built) == 2


async def test_kafka_goes_away_and_comes_back(
    made: Rig, infrastructure: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "ACKNOWLEDGE_SECONDS", 1.0)
    await holding(made.relay())
    await made.listen()
    await made.announce(made.fact("k", "0"))
    await made.handled(1)

    infrastructure.signal("kafka", signal.SIGSTOP)
    try:
        for n in range(1, 6):
            await made.announce(made.fact("k", str(n)))
        await asyncio.sleep(2.5)  # long enough for the relay to give up on its producer
        assert await made.count("outbox") == 5
    finally:
        infrastructure.signal("kafka", signal.SIGCONT)
    assert await made.handled(6) == [str(n) for n in range(6)]

    await asyncio.to_thread(infrastructure.stop, "kafka")
    await made.announce(made.fact("k", "6"))
    await asyncio.to_thread(infrastructure.start, "kafka")
    await asyncio.to_thread(infrastructure.await_ready, "kafka")
    assert await made.handled(7) == [str(n) for n in range(7)]
    await empty(made)


def watermark(made: Rig) -> Watermark:
    def build(as_of: datetime) -> Timestamp:
        stamp = Timestamp()
        stamp.FromDatetime(as_of)
        return stamp

    return Watermark(made.topic, build)


def as_of(record: Any) -> datetime:
    return Timestamp.FromString(record.value).ToDatetime(UTC)


def is_watermark(record: Any) -> bool:
    return bool(record.key.startswith(b"watermark-"))


async def test_the_watermark_reaches_every_partition_also_when_nothing_happens(infrastructure: Stack) -> None:
    async with rig(infrastructure, partitions=3, compacted=True) as made:
        made.relay(watermark=watermark(made))
        records = await made.read(made.topic.name, 9)
        for record in records:
            assert record.key == f"watermark-{record.partition}".encode()
        for partition in range(3):
            times = [as_of(record) for record in records if record.partition == partition]
            assert len(times) >= 2
            assert times == sorted(set(times))


async def test_the_watermark_comes_after_everything_it_speaks_for(infrastructure: Stack) -> None:
    async with rig(infrastructure, partitions=3) as made:
        made.relay(watermark=watermark(made))
        committed: dict[str, datetime] = {}
        for n in range(150):
            await made.announce(made.fact(f"k{n}", str(n)))
            committed[str(n)] = await made.database.pool.fetchval("SELECT clock_timestamp()")
            await asyncio.sleep(0.005)
        await empty(made)
        records = await made.read(made.topic.name, 150 + 9)
        seen = 0
        for partition in range(3):
            before: set[str] = set()
            mine = [record for record in records if record.partition == partition]
            facts = values([record for record in mine if not is_watermark(record)])
            for record in mine:
                if not is_watermark(record):
                    before.update(values([record]))
                    continue
                seen += 1
                assert not [fact for fact in facts if committed[fact] <= as_of(record) and fact not in before]
        assert seen >= 9


async def test_a_fact_that_cannot_be_sent_holds_back_its_key_and_the_watermark_only(made: Rig) -> None:
    await made.announce(made.fact("big", "x" * 2_000_000), made.fact("big", "after"), made.fact("k", "1"))
    stuck = await made.database.pool.fetchval("SELECT clock_timestamp()")
    made.relay(watermark=watermark(made))
    await made.announce(made.fact("k", "2"))
    assert values(await made.read(made.topic.name, 2)) == ["1", "2"]

    async def only_stuck() -> bool:
        return await made.count("outbox") == 2

    await until(only_stuck)
    for n in range(3, 6):
        await made.announce(made.fact("k", str(n)))
        await until(only_stuck)
    records = await made.read(made.topic.name, 5)
    assert values(records) == ["1", "2", "3", "4", "5"]
    await made.database.pool.execute("DELETE FROM outbox WHERE length(value) > 1000000")
    records = await made.read(made.topic.name, 7)
    assert values([records[5]]) == ["after"]
    assert is_watermark(records[6])
    assert as_of(records[6]) > stuck


async def test_a_fact_that_the_broker_refuses_holds_back_its_key_only(
    made: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "MAX_MESSAGE_BYTES", 5_000_000)
    await made.announce(made.fact("k", "1"), made.fact("big", "x" * 2_000_000), made.fact("big", "after"))
    made.relay()
    await made.announce(*(made.fact("k", str(n)) for n in range(2, 6)))
    records = await made.read(made.topic.name, 5)
    assert list(dict.fromkeys(values([record for record in records if record.key == b"k"]))) == [
        "1",
        "2",
        "3",
        "4",
        "5",
    ]
    assert await made.count("outbox WHERE key = 'big'") == 2
