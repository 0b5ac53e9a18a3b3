"""Dead letters: replayed in the order of their keys, while the service runs, or given up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from deploy.local.stack import Stack
from services.chassis import dead_letters
from services.chassis.database import Transaction
from services.chassis.errors import Conflict, Unavailable
from services.chassis.facts import Heard, Hears
from services.chassis.handling import PARKED_BEHIND, Handling
from tests.chassis.kafka_rig import Failing, Rig, record, record_batch, rig, until
from tests.locks import waiting


@pytest.fixture
async def made(infrastructure: Stack) -> AsyncIterator[Rig]:
    async with rig(infrastructure) as made:
        yield made


async def replay(made: Rig, *hears: Hears, drop: str | None = None, service: str | None = None) -> int:
    return await dead_letters.replay(
        service or made.service,
        made.database,
        made.bootstrap,
        hears or (made.hears(),),
        made.app,
        made.topic.name,
        drop=drop,
    )


async def nothing_in_outbox(made: Rig) -> None:
    async def is_empty() -> bool:
        return await made.count("outbox") == 0

    await until(is_empty)


async def park(made: Rig, *values: str, bad: str = "bad") -> None:
    """Has the facts of key "k" parked behind the bad one."""
    handler = Failing(**{bad: (ValueError("no"), -1)})
    made.relay()
    listening = await made.listen(made.hears(handler), attempts=1)
    await made.announce(*(made.fact("k", value, f"id-{value}") for value in values))
    await made.dead_letters(len(values))
    await listening.stop()
    await nothing_in_outbox(made)


async def test_a_replay_keeps_the_order_and_opens_the_key(made: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    await park(made, "bad", "2", "3")
    assert await replay(made) == 0
    assert "3 replayed, 0 waiting" in capsys.readouterr().out
    assert await made.parked() == []
    await made.listen()
    await made.announce(made.fact("k", "4"))
    assert await made.handled(4) == ["bad", "2", "3", "4"]
    assert await replay(made) == 0
    assert "0 replayed, 0 waiting" in capsys.readouterr().out
    assert await made.count("handled") == 4


async def test_what_comes_while_the_last_dead_letter_of_its_key_is_replayed_is_not_parked(made: Rig) -> None:
    await park(made, "bad")
    reached, held = asyncio.Event(), asyncio.Event()

    async def hold(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        # Here the replay has the letter in hand, and says in this transaction that the key is open.
        reached.set()
        await held.wait()

    replaying = asyncio.create_task(replay(made, made.hears(hold)))
    await reached.wait()
    handling = Handling(made.service, made.database, made.hears(), made.app)
    async with made.database.transaction() as other:
        # The replay waits for this row until the later fact is at it, too.
        await other.connection.execute("SELECT FROM parked_keys FOR UPDATE")
        held.set()
        await waiting(made.database)
        await made.send_facts(made.fact("k", "2"))
        (_, later) = await made.read(made.topic.name, 2)
        parking = asyncio.create_task(handling.park(handling.decode(later), PARKED_BEHIND, 0, behind=True))
        await waiting(made.database, 2)
    assert await replaying == 0
    assert not await parking
    assert await made.count("dead_letters") == 0


async def test_what_fails_again_stays_with_its_key_and_the_others_go_on(
    made: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = Failing(bad=(ValueError("no"), -1), worse=(KeyError("no"), -1))
    made.relay()
    await made.listen(made.hears(handler), attempts=1)
    await made.announce(made.fact("k", "bad"), made.fact("l", "worse"), made.fact("k", "k2"), made.fact("l", "l2"))
    await made.dead_letters(4)
    handler.errors.pop("worse")
    assert await replay(made, made.hears(handler)) == 1
    assert "2 replayed, 2 waiting (failed: 1 ValueError)" in capsys.readouterr().out
    assert await made.handled(2) == ["worse", "l2"]
    assert await made.parked() == [("k", 2, 0)]
    handler.errors.clear()
    assert await replay(made, made.hears(handler)) == 0
    assert await made.handled(4) == ["worse", "l2", "bad", "k2"]


async def test_facts_that_arrive_during_a_replay_keep_their_place(made: Rig) -> None:
    await park(made, "bad", *(f"{n:03}" for n in range(1, 30)))

    async def slowly(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        await record(app, work, heard)
        await asyncio.sleep(0.01)

    await made.listen()
    replaying = asyncio.create_task(replay(made, made.hears(slowly)))
    for n in range(30, 60):
        await made.announce(made.fact("k", f"{n:03}"))
        await asyncio.sleep(0.01)
    await replaying

    async def all_settled() -> bool:
        await nothing_in_outbox(made)
        await replay(made)
        return await made.count("handled") == 60

    await until(all_settled)
    assert await made.handled(60) == ["bad", *(f"{n:03}" for n in range(1, 60))]
    assert await made.parked() == []
    assert await made.count("dead_letters") == 0


async def test_two_replays_at_once_handle_everything_once(made: Rig) -> None:
    await park(made, "bad", *(f"{n:03}" for n in range(1, 40)))
    parked = []

    async def look(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        await record(app, work, heard)
        parked.append(await work.connection.fetchval("SELECT parked - replayed FROM parked_keys"))

    await asyncio.gather(replay(made, made.hears(look)), replay(made, made.hears(look)))
    assert await made.handled(40) == ["bad", *(f"{n:03}" for n in range(1, 40))]
    assert parked == list(range(40, 0, -1))
    assert await made.parked() == []


async def test_nothing_is_parked_behind_a_key_that_is_open_again(made: Rig) -> None:
    handling = Handling(made.service, made.database, made.hears(), None)
    await made.send_facts(made.fact("k", "1"))
    (sent,) = await made.read(made.topic.name, 1)
    assert not await handling.park(handling.decode(sent), PARKED_BEHIND, 0, behind=True)
    assert await made.count("dead_letters") == await made.count("outbox") == await made.count("inbox") == 0


async def test_one_can_be_given_up_with_a_reason(made: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    await park(made, "bad", "2")
    assert await replay(made, drop="id-bad") == 0
    assert "id-bad is given up" in capsys.readouterr().out
    assert await replay(made, drop="id-bad") == 1
    rows = await made.database.fetch("SELECT fact_id, drop_reason FROM inbox WHERE drop_reason IS NOT NULL")
    assert [tuple(row) for row in rows] == [("id-bad", "given up by an operator")]
    assert await made.parked() == [("k", 2, 1)]
    assert await replay(made) == 0
    assert await made.handled(1) == ["2"]
    assert await made.parked() == []


async def test_only_the_service_s_own_dead_letters_are_replayed(infrastructure: Stack) -> None:
    async with rig(infrastructure) as made, rig(infrastructure) as other:
        other.topic = made.topic
        made.relay()
        other.relay()
        await other.listen(other.hears(Failing(second=(ValueError("no"), -1))), attempts=1)
        await made.announce(made.fact("k", "first"), made.fact("k", "second"))
        await made.dead_letters(1)  # the other service's: it holds the second before ours holds the first
        await made.listen(made.hears(Failing(first=(ValueError("no"), -1))), attempts=1)
        await made.dead_letters(3)
        assert await replay(made) == 0
        assert await made.handled(2) == ["first", "second"]
        assert await other.handled(1) == ["first"]
        assert await other.count("dead_letters") == 1


async def test_what_cannot_be_read_stays_until_given_up(made: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    made.relay()
    await made.listen()
    await made.send(b"k", b"junk", {})
    await made.dead_letters(1)
    assert await replay(made) == 1
    assert "1 waiting (failed: 1 NO_CE_SPECVERSION)" in capsys.readouterr().out
    (row,) = await made.database.fetch("SELECT fact_id FROM dead_letters")
    assert await replay(made, drop=row["fact_id"]) == 0
    assert await made.parked() == []


async def test_a_batch_handler_s_dead_letter_is_replayed(made: Rig) -> None:
    broken = True

    async def batch(app: Any, work: Transaction, heard: Any) -> None:
        await record_batch(app, work, heard)
        if broken:
            raise ValueError

    hears = Hears(made.topic.name, batch=batch, batch_facts=(StringValue,))
    made.relay()
    await made.listen(hears, attempts=1)
    await made.announce(made.fact("k", "1"))
    await made.dead_letters(1)
    broken = False
    assert await replay(made, hears) == 0
    assert await made.handled(1) == ["1"]
    assert await made.count("dead_letters") == 0


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_fails_every_fact_is_handled_once_in_the_order_of_its_key(
    infrastructure: Stack, seed: int
) -> None:
    """Random failures, outages, lost races, repeats and restarts; then what is dead is put right and replayed."""
    chance = random.Random(seed)
    async with rig(infrastructure, partitions=3) as made:
        facts = [made.fact(f"k{chance.randrange(12)}", f"{n:04}") for n in range(240)]
        errors: dict[str, tuple[Exception, int]] = {}
        for fact in chance.sample(facts, 60):
            errors[fact.message.value] = chance.choice(  # type: ignore[attr-defined]
                [
                    (ValueError("no"), chance.randint(1, 2)),
                    (ValueError("no"), -1),
                    (Unavailable("away"), 1),
                    (Conflict("busy"), chance.randint(1, 9)),
                ]
            )
        handler = Failing(**errors)
        made.relay()
        listening = await made.listen(made.hears(handler), attempts=3)

        sent: list[Any] = []
        rest = list(facts)
        while rest:
            size = chance.randint(1, 20)
            some, rest = rest[:size], rest[size:]
            await made.announce(*some)
            sent += some
            if chance.random() < 0.3:
                await nothing_in_outbox(made)
                await made.send_facts(*chance.sample(sent, 3))  # repeats, as of a relay that died
            if chance.random() < 0.2:
                await listening.stop()
                listening = await made.listen(made.hears(handler), attempts=3)

        async def settled() -> bool:
            return await made.count("handled") + await made.count("dead_letters") == len(facts)

        await until(settled)
        assert await made.count("dead_letters") > 0
        handler.errors.clear()

        async def replayed() -> bool:
            await nothing_in_outbox(made)
            return await replay(made, made.hears(handler)) == 0

        await until(replayed)
        assert sorted(await made.handled(240)) == [f"{n:04}" for n in range(240)]
        for row in await made.database.fetch("SELECT array_agg(value ORDER BY id) AS values FROM handled GROUP BY key"):
            assert row["values"] == sorted(row["values"])
        assert await made.parked() == []
        await listening.stop()
