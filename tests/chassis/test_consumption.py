"""Consumption on real parts: each rule of the consumers has a test that fails without it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from deploy.local.stack import Stack
from services.chassis import consumption, kafka, lanes, outbox
from services.chassis.database import Transaction
from services.chassis.decoding import Letter
from services.chassis.errors import Conflict, NotNow, TooMuch, Unavailable
from services.chassis.facts import Fact, Heard, Hears
from services.chassis.handling import Handling
from tests.chassis.kafka_rig import Failing, Rig, dlq, record, record_batch, rig, until, within


@pytest.fixture
async def made(infrastructure: Stack) -> AsyncIterator[Rig]:
    async with rig(infrastructure) as made:
        yield made


@pytest.fixture
async def wide(infrastructure: Stack) -> AsyncIterator[Rig]:
    async with rig(infrastructure, partitions=3) as made:
        yield made


def headers_of(fact: Fact) -> dict[str, bytes]:
    return {
        name: text.encode() for name, text in outbox.headers(fact, "somewhere", datetime.now(UTC).isoformat()).items()
    }


async def test_facts_are_handled_once_in_the_order_of_their_key(wide: Rig) -> None:
    wide.relay()
    await wide.listen()
    await wide.announce(*(wide.fact(f"key-{number % 7}", f"{number:04}") for number in range(300)))
    await wide.handled(300)
    rows = await wide.database.fetch("SELECT key, array_agg(value ORDER BY id) AS values FROM handled GROUP BY key")
    for row in rows:
        assert row["values"] == sorted(row["values"])
    assert await wide.count("handled") == await wide.count("inbox") == 300
    assert await wide.count("attempts") == 0
    await wide.committed(300)


async def test_a_fact_that_comes_twice_is_handled_once(made: Rig) -> None:
    fact = made.fact("a", "1")
    await made.send_facts(fact, fact)
    await made.listen()
    await made.send_facts(fact, made.fact("a", "2"))
    assert await made.handled(2) == ["1", "2"]


async def test_a_fact_that_stands_twice_among_those_of_one_transaction_is_handled_once(made: Rig) -> None:
    fact = made.fact("a", "1")
    await made.send_facts(fact, fact, made.fact("a", "2"))
    handling = Handling(made.service, made.database, made.hears(), made.app)
    await handling.together([handling.decode(record) for record in await made.read(made.topic.name, 3)])
    assert await made.handled(2) == ["1", "2"]


async def test_facts_of_a_kind_nobody_wants_are_skipped(made: Rig) -> None:
    await made.send_facts(Fact(made.topic, "a", Int64Value(value=1)), made.fact("a", "2"))
    await made.listen()
    assert await made.handled(1) == ["2"]
    await made.committed(2)
    assert await made.count("dead_letters") == 0


async def test_offsets_are_committed_only_up_to_what_the_database_has_committed(wide: Rig) -> None:
    held, reached = asyncio.Event(), asyncio.Event()

    async def hold(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        await record(app, work, heard)
        if heard.message.value == "2":
            reached.set()
            await held.wait()

    listening = await wide.listen(wide.hears(hold))
    await wide.send_facts(wide.fact("a", "1"), partition=0)
    await wide.committed(1)
    assert await wide.count("handled") == 1
    await wide.send_facts(wide.fact("a", "2"), wide.fact("a", "3"), partition=0)
    await within(reached.wait())
    await wide.send_facts(wide.fact("b", "other"), partition=1)
    # All that is ready is committed at once: when the other partition's is, this one's would be.
    assert await wide.committed(2) == [1, 1, 0]
    stopping = asyncio.create_task(listening.stop())
    await asyncio.sleep(0)
    held.set()
    await within(stopping)
    # The transaction in hand was finished and committed; what was behind it is left to others.
    handled = await wide.count("handled")
    assert sum(await wide.committed(handled)) == handled
    await wide.listen()
    assert [value for value in await wide.handled(4) if value != "other"] == ["1", "2", "3"]


async def test_an_outage_pauses_its_partition_and_is_no_attempt(wide: Rig) -> None:
    handler = Failing(
        a=(Unavailable("away"), -1),
        b=(Unavailable("away", reason="DATABASE_AWAY"), 4),
        c=(TooMuch("busy", reason="OVERLOADED"), 4),
    )
    await wide.listen(wide.hears(handler), attempts=2)
    await wide.send_facts(*(wide.fact("k", value) for value in "abc"), partition=0)

    async def tried_often() -> bool:
        return handler.calls.count("a") > 4

    await until(tried_often)
    await wide.send_facts(wide.fact("l", "other"), partition=1)
    assert await wide.handled(1) == ["other"]
    del handler.errors["a"]
    assert await wide.handled(4) == ["other", "a", "b", "c"]
    assert await wide.count("dead_letters") == 0


async def test_an_outage_that_outlasts_a_restart_is_no_attempt(made: Rig) -> None:
    handler = Failing(a=(Unavailable("away"), -1))
    await made.send_facts(made.fact("k", "a"))
    for _ in range(4):
        before = len(handler.calls)
        listening = await made.listen(made.hears(handler), attempts=2)

        async def tried(before: int = before) -> bool:
            return len(handler.calls) > before

        await until(tried)
        await within(listening.stop())
    await made.listen()
    assert await made.handled(1) == ["a"]
    assert await made.count("dead_letters") == 0


async def test_a_message_the_database_cannot_digest_is_no_outage_for_ever(made: Rig) -> None:
    async def endless(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        if heard.message.value == "bad":
            await work.connection.execute("SELECT pg_sleep(60)", timeout=0.01)
        await record(app, work, heard)

    made.relay()
    await made.listen(made.hears(endless), attempts=2)
    await made.send_facts(made.fact("k", "bad"), made.fact("other", "free"))
    (letter,) = await made.dead_letters(1)
    assert (dlq(letter)["dlq_reason"], dlq(letter)["dlq_attempts"]) == ("DATABASE_AWAY", "2")
    assert await made.handled(1) == ["free"]


async def test_a_lost_race_is_repeated_and_is_no_attempt(made: Rig) -> None:
    handler = Failing(a=(Conflict("busy"), lanes.RACES))
    await made.listen(made.hears(handler), attempts=1)
    await made.send_facts(made.fact("k", "a"), made.fact("k", "b"))
    assert await made.handled(2) == ["a", "b"]


async def test_a_failure_that_passes_is_handled_in_order(made: Rig) -> None:
    handler = Failing(b=(ValueError("no"), 3))
    await made.listen(made.hears(handler))
    await made.send_facts(*(made.fact("k", value) for value in "abc"))
    assert await made.handled(3) == ["a", "b", "c"]
    assert await made.count("attempts") == await made.count("dead_letters") == 0


async def test_after_its_attempts_a_fact_is_dead_and_later_ones_of_its_key_wait_behind_it(made: Rig) -> None:
    handler = Failing(bad=(NotNow("no", reason="SOLD_OUT"), -1))
    made.relay()
    await made.listen(made.hears(handler), attempts=3)
    bad = made.fact("k", "bad")
    await made.announce(made.fact("k", "first"), bad, made.fact("k", "second"), made.fact("other", "free"))
    await made.announce(made.fact("k", "third"))
    assert await made.handled(2) == ["first", "free"]
    letters = await made.dead_letters(3)
    assert [StringValue.FromString(letter.value).value for letter in letters] == ["bad", "second", "third"]
    assert [letter.key for letter in letters] == [b"k"] * 3
    assert dlq(letters[0]) == {
        "dlq_reason": "SOLD_OUT",
        "dlq_consumer": made.service,
        "dlq_topic": made.topic.name,
        "dlq_partition": "0",
        "dlq_offset": "1",
        "dlq_timestamp": dlq(letters[0])["dlq_timestamp"],
        "dlq_attempts": "3",
    }
    assert dict(letters[0].headers)["ce_id"] == bad.id.encode()
    assert dlq(letters[1])["dlq_reason"] == "PARKED_BEHIND"
    # Once as one of a group at most, then alone.
    assert 3 <= handler.calls.count("bad") <= 4
    assert await made.parked() == [("k", 3, 0)]
    await made.committed(5)


async def test_a_count_that_cannot_be_taken_back_in_the_outage_is_taken_back_later(
    made: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [Unavailable("away"), ValueError("no")]
    uncount, failing = Handling.uncount, [Unavailable("away too")]

    async def uncount_later(handling: Handling, letter: Letter) -> None:
        if failing:
            raise failing.pop()
        await uncount(handling, letter)

    async def handle(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        if errors:
            raise errors.pop(0)
        await record(app, work, heard)

    monkeypatch.setattr(Handling, "uncount", uncount_later)
    await made.send_facts(made.fact("a", "1"))
    await made.listen(made.hears(handle), attempts=2)
    assert await made.handled(1) == ["1"]
    assert not failing


async def test_a_crash_in_the_middle_counts_as_an_attempt(made: Rig) -> None:
    """The process is killed while it handles: its consumption and its database session just end."""
    await made.send_facts(made.fact("k", "deadly"), made.fact("k", "next"), made.fact("other", "free"))
    deaths = 0
    while await made.count("dead_letters") == 0:
        dead = asyncio.Event()

        async def die(app: Any, work: Transaction, heard: Heard[Any], dead: asyncio.Event = dead) -> None:
            if heard.message.value == "deadly":
                dead.set()
                await asyncio.Event().wait()
            await record(app, work, heard)

        listening = await made.listen(made.hears(die), attempts=3)
        waiting = asyncio.create_task(dead.wait())
        parked = asyncio.create_task(until(lambda: _any(made, "dead_letters")))
        await within(asyncio.wait([waiting, parked], return_when=asyncio.FIRST_COMPLETED))
        deaths += dead.is_set()
        for task in (waiting, parked):
            task.cancel()
        await asyncio.gather(waiting, parked, return_exceptions=True)
        if dead.is_set():
            for lane in listening._lanes.values():  # as kill -9 would: nothing is finished, nothing taken back
                lane._task.cancel()
            await within(listening.stop())
        assert deaths <= 4
    assert deaths == 3
    assert await made.handled(1) == ["free"]
    reasons = [row["reason"] for row in await made.database.fetch("SELECT reason FROM dead_letters ORDER BY park_time")]
    assert reasons[0] == "NEVER_FINISHED"


async def _any(made: Rig, table: str) -> bool:
    return await made.count(table) > 0


POISON = [
    ("NO_KEY", None, b"", {}),
    ("NO_CE_SPECVERSION", b"bare", b"hello", None),
    ("NO_CE_ID", b"anonymous", b"", {"ce_id": None}),
    ("WRONG_CE_ID", b"endless", b"", {"ce_id": b"x" * 300}),
    ("WRONG_CE_ID", b"zero", b"", {"ce_id": b"a\x00b"}),
    ("UNKNOWN_SPECVERSION", b"old", b"", {"ce_specversion": b"0.3"}),
    ("UNKNOWN_CONTENT_TYPE", b"json", b"{}", {"content-type": b"application/json"}),
    ("NO_CONTENT_TYPE", b"typeless", b"{}", {"content-type": None}),
    ("UNKNOWN_TYPE", b"alien", b"", {"ce_type": b"shop.unheard.v1.Of"}),
    ("WRONG_CE_TYPE", b"binary", b"", {"ce_type": b"\xff\xfe"}),
    ("WRONG_CE_TIME", b"timeless", b"", {"ce_time": b"yesterday"}),
    ("WRONG_CE_TIME", b"before-all-time", b"", {"ce_time": b"0001-01-01T00:00:00+14:00"}),
    ("UNDECODABLE", b"torn", b"\x0a\xff\xff", {}),
    ("KEY_NOT_TEXT", b"\xff\x00\xfe", b"", {}),
    ("KEY_TOO_LONG", random.Random(1).randbytes(5_000).hex().encode(), b"", {}),
]


async def test_poison_is_dead_at_once_with_its_reason_and_blocks_no_other_key(made: Rig) -> None:
    handler = Failing()
    made.relay()
    sent = []
    for reason, key, value, changes in POISON:
        fact = made.fact("x", "poison")
        headers: dict[str, bytes | None] = {} if changes is None else {**headers_of(fact), **changes}
        await made.send(key, value, {name: text for name, text in headers.items() if text is not None})
        sent.append((reason, key, value))
    await made.send_facts(made.fact("healthy", "1"))
    await made.listen(made.hears(handler))
    assert await made.handled(1) == ["1"]
    letters = await made.dead_letters(len(sent))
    assert [(dlq(letter)["dlq_reason"], letter.key, letter.value) for letter in letters] == sent
    assert handler.calls == ["1"]
    await made.committed(len(sent) + 1)


async def test_a_header_without_a_value_is_an_empty_one(made: Rig) -> None:
    made.relay()
    heard, nothing = made.fact("k", "heard"), b""
    await made.send(b"k", heard.message.SerializeToString(), {**headers_of(heard), "traceparent": None, "x": None})
    await made.send(b"poison", nothing, {**headers_of(heard), "ce_id": None})
    await made.listen()
    assert await made.handled(1) == ["heard"]
    (letter,) = await made.dead_letters(1)
    assert (dlq(letter)["dlq_reason"], dict(letter.headers)["ce_id"]) == ("NO_CE_ID", b"")


async def test_a_tombstone_is_skipped(made: Rig) -> None:
    await made.send(b"gone", None, {})
    await made.send_facts(made.fact("k", "1"))
    await made.listen()
    assert await made.handled(1) == ["1"]
    await made.committed(2)
    assert await made.count("dead_letters") == 0


async def test_a_parked_message_that_comes_again_is_neither_doubled_nor_handled(made: Rig) -> None:
    handler = Failing(bad=(ValueError("no"), -1))
    made.relay()
    await made.listen(made.hears(handler), attempts=1)
    bad, behind = made.fact("k", "bad"), made.fact("k", "behind")
    await made.send_facts(bad, behind)
    await made.dead_letters(2)
    await made.send_facts(bad, behind, made.fact("other", "free"))
    assert await made.handled(1) == ["free"]
    assert await made.count("dead_letters") == 2
    assert await made.parked() == [("k", 2, 0)]


async def test_two_processes_with_the_same_message_in_hand_handle_it_once(made: Rig) -> None:
    """As after a rebalance or a thaw: two consumers read all, and write to the same inbox."""
    values = [f"{number:03}" for number in range(200)]
    both = asyncio.Barrier(2)

    async def slowly(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        await record(app, work, heard)
        await asyncio.sleep(0.001)

    await made.send_facts(*(made.fact(f"k{int(value) % 5}", value) for value in values))

    async def one(group: str) -> None:
        await both.wait()
        await made.listen(made.hears(slowly), service=group)

    await asyncio.gather(one(made.service + "-one"), one(made.service + "-two"))
    await made.committed(200, made.service + "-one")
    await made.committed(200, made.service + "-two")
    assert sorted(await made.handled(200)) == values
    assert await made.count("dead_letters") == 0


async def test_partitions_move_to_a_second_process_and_back_without_repeats(wide: Rig) -> None:
    async def slowly(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        await record(app, work, heard)
        await asyncio.sleep(0.002)

    values = [f"{number:04}" for number in range(600)]
    first = await wide.listen(wide.hears(slowly))
    await wide.send_facts(*(wide.fact(f"k{int(value) % 9}", value) for value in values[:300]))
    second = await wide.listen(wide.hears(slowly))
    await wide.send_facts(*(wide.fact(f"k{int(value) % 9}", value) for value in values[300:]))
    await wide.handled(450)
    for each in (first, second):  # nobody goes on with what was taken from them
        consumer = each._consumer()
        assert consumer is not None
        assert set(each._lanes) <= set(consumer.assignment()) != set()
    await within(second.stop())
    assert sorted(await wide.handled(600)) == values
    for row in await wide.database.fetch("SELECT array_agg(value ORDER BY id) AS values FROM handled GROUP BY key"):
        assert row["values"] == sorted(row["values"])
    await wide.committed(600)


async def test_a_long_handler_does_not_lose_the_group(made: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "TOGETHER", 1)
    monkeypatch.setattr(
        kafka,
        "CONSUMER",
        {
            "auto_offset_reset": "earliest",
            "session_timeout_ms": 6_000,
            "heartbeat_interval_ms": 300,
            "max_poll_interval_ms": 1_000,
            "fetch_max_wait_ms": 100,
        },
    )

    async def long(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        if heard.message.value == "long":
            await asyncio.sleep(3)  # three times the interval in which a consumer must poll
        await record(app, work, heard)

    listening = await made.listen(made.hears(long))
    generation = listening._consumer()._coordinator.generation  # type: ignore[union-attr]
    await made.send_facts(made.fact("k", "long"), made.fact("k", "next"))
    assert await made.handled(2) == ["long", "next"]
    await made.committed(2)
    assert listening._consumer()._coordinator.generation == generation  # type: ignore[union-attr]


async def test_a_lane_that_is_full_gets_no_more_until_it_is_hungry(made: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumption, "FULL", 60)
    monkeypatch.setattr(consumption, "HUNGRY", 20)
    monkeypatch.setitem(kafka.CONSUMER, "max_partition_fetch_bytes", 16 * 1024)
    held = asyncio.Event()

    async def hold(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        await held.wait()
        await record(app, work, heard)

    values = [f"{number:04}" for number in range(1_000)]
    await made.send_facts(*(made.fact("k", value) for value in values))
    listening = await made.listen(made.hears(hold))

    async def full() -> bool:
        consumer = listening._consumer()
        return consumer is not None and bool(consumer.paused())

    await until(full)
    (lane,) = listening._lanes.values()
    assert 60 < lane.waiting < 500
    held.set()
    assert await made.handled(1_000) == values


async def test_a_consumer_that_is_silent_though_facts_wait_is_replaced(made: Rig) -> None:
    listening = await made.listen(silent_seconds=0.4)
    await made.send_facts(made.fact("k", "1"))
    await made.handled(1)
    deaf = listening._consumer()
    assert deaf is not None

    async def never(*arguments: Any, **settings: Any) -> dict[Any, Any]:
        await asyncio.Event().wait()
        return {}

    deaf._fetcher.fetched_records = never
    await made.send_facts(made.fact("k", "2"))  # may still be heard, by a poll that began before
    await made.handled(2)
    await made.send_facts(made.fact("k", "3"))
    assert await made.handled(3) == ["1", "2", "3"]
    assert listening._consumer() is not deaf


async def test_a_batch_handler_gets_what_came_together_in_one_transaction(wide: Rig) -> None:
    sizes = []

    async def batch(app: Any, work: Transaction, heard: Any) -> None:
        sizes.append(len(heard))
        await record_batch(app, work, heard)

    await wide.send_facts(*(wide.fact(f"k{number}", str(number)) for number in range(400)))
    await wide.listen(Hears(wide.topic.name, batch=batch, batch_facts=(StringValue,)))
    await wide.handled(400)
    assert len(sizes) < 400
    assert max(sizes) > 20
    await wide.committed(400)
    assert await wide.count("inbox") == 0


async def test_a_batch_that_fails_is_handled_one_by_one_and_only_the_bad_one_is_dead(made: Rig) -> None:
    async def batch(app: Any, work: Transaction, heard: Any) -> None:
        await record_batch(app, work, heard)
        if any(fact.message.value == "bad" for fact in heard):
            raise ValueError

    made.relay()
    await made.send_facts(*(made.fact("k", value) for value in ("1", "bad", "2", "3")))
    await made.listen(Hears(made.topic.name, batch=batch, batch_facts=(StringValue,)), attempts=2)
    # Later ones of the key are not parked: what a batch handler hears carries versions.
    assert await made.handled(3) == ["1", "2", "3"]
    (letter,) = await made.dead_letters(1)
    assert dlq(letter)["dlq_reason"] == "ValueError"
    await made.committed(4)


async def test_a_topic_that_appears_later_is_heard_then_and_the_others_meanwhile(
    made: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumption, "LOOK_SECONDS", 0.05)
    later = replace(made.topic, name=f"{made.topic.name}.later")
    listening = await made.listen(made.hears(), Hears(later.name, {StringValue: record}))
    await made.send_facts(made.fact("k", "1"))
    assert await made.handled(1) == ["1"]
    first = listening._consumer()
    await kafka.ensure_topics(made.bootstrap, [later])
    await made.send_facts(replace(made.fact("k", "2"), topic=later))
    assert await made.handled(2) == ["1", "2"]
    assert listening._consumer() is not first
    assert [line.message for line in caplog.records].count("topics do not exist yet") == 1


async def test_nothing_is_heard_and_nobody_complains_before_any_topic_exists(
    made: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumption, "LOOK_SECONDS", 0.05)
    looked, existing = asyncio.Event(), kafka.existing

    async def look(*arguments: Any) -> set[str]:
        found = await existing(*arguments)
        looked.set()
        return found

    monkeypatch.setattr(kafka, "existing", look)
    later = replace(made.topic, name=f"{made.topic.name}.later")
    listening = consumption.Consumption(
        made.service, made.database, made.bootstrap, [Hears(later.name, {StringValue: record})], made.app
    )
    await listening.start()
    await within(looked.wait())
    await kafka.ensure_topics(made.bootstrap, [later])
    await made.send_facts(replace(made.fact("k", "1"), topic=later))
    assert await made.handled(1) == ["1"]
    await within(listening.stop())


async def test_a_dead_letter_may_be_larger_than_the_message_was(made: Rig) -> None:
    made.relay()
    value = made.fact("k", "x" * 1_048_400).message.SerializeToString()
    await made.send(b"k", value, {"ce_id": b"large"})
    await made.listen()
    (letter,) = await made.dead_letters(1)
    assert (dlq(letter)["dlq_reason"], letter.value) == ("NO_CE_SPECVERSION", value)


async def test_old_answers_are_forgotten(made: Rig) -> None:
    await made.database.pool.execute(
        "INSERT INTO requests (caller, method, request_id, body_hash, create_time)"
        " VALUES ('c', 'm', 'old', '', now() - interval '31 days'), ('c', 'm', 'new', '', now() - interval '29 days')"
    )
    await made.listen()

    async def pruned() -> bool:
        return await made.count("requests") == 1

    await until(pruned)
    assert [row["request_id"] for row in await made.database.fetch("SELECT request_id FROM requests")] == ["new"]


async def test_old_inbox_rows_are_forgotten_but_not_what_was_given_up(made: Rig) -> None:
    await made.database.pool.execute(
        "INSERT INTO inbox (topic, fact_id, handle_time, drop_reason) VALUES ('t', 'old', now() - interval '50 days',"
        " NULL), ('t', 'dropped', now() - interval '50 days', 'because'), ('t', 'new', now(), NULL)"
    )
    await made.listen()

    async def pruned() -> bool:
        return await made.count("inbox") == 2

    await until(pruned)
    rows = await made.database.fetch("SELECT fact_id FROM inbox ORDER BY 1")
    assert [row["fact_id"] for row in rows] == ["dropped", "new"]
