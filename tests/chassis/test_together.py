"""Group commit: who waits at the same moment shares a transaction, and nobody pays for another's trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.chassis.access import VISITOR, set_caller
from services.chassis.database import Database, Transaction
from services.chassis.errors import Conflict, NotNow, Refusal, Unavailable
from services.chassis.requests import RequestIdReused
from services.chassis.together import MOST, Together
from shop.inventory.v1 import inventory_pb2 as pb
from tests.chassis.kafka_rig import Rig, rig

Answer = pb.GetReservationResponse


class Works:
    """Writes each command into a table, and does badly when told so."""

    def __init__(self, made: Rig) -> None:
        self.rig = made
        # The commands of each transaction that was tried.
        self.batches: list[list[str]] = []
        self.together: Together[str, Answer] = Together(
            made.database, Answer, self.run, apart=lambda command: [command.partition("/")[0]], lanes=1
        )

    async def run(self, tx: Transaction, commands: Sequence[str]) -> list[Answer | Refusal]:
        self.batches.append(list(commands))
        outcomes: list[Answer | Refusal] = []
        for command in commands:
            if "refuse" in command:
                outcomes.append(NotNow("no", reason="NO"))
                continue
            if "break" in command:
                raise RuntimeError("broken")
            if "late" in command:
                await tx.connection.execute("INSERT INTO refused_at_commit VALUES (1)")
            if "locked" in command:
                await tx.connection.execute("UPDATE busy SET id = id")
            await tx.connection.execute("INSERT INTO handled (key, value) VALUES ($1, '')", command)
            outcomes.append(Answer(reservation=pb.Reservation(reservation_id=uuid4().hex, order_id=command)))
        return outcomes

    async def ask(self, command: str, request_id: str = "", body: str = "") -> Answer:
        request = pb.GetReservationRequest(reservation_id=body or command)
        named = pb.ReleaseOrderRequest(request_id=request_id or uuid4().hex, order_id=request.reservation_id)
        return await self.together(named, command)

    async def all(self, *commands: str) -> list[Answer | BaseException]:
        return await asyncio.gather(*map(self.ask, commands), return_exceptions=True)

    async def written(self) -> list[str]:
        return [row["key"] for row in await self.rig.database.fetch("SELECT key FROM handled ORDER BY id")]


@pytest.fixture
async def works(infrastructure: Stack) -> AsyncIterator[Works]:
    async with rig(infrastructure) as made:
        set_caller(VISITOR)
        await made.database.pool.execute("CREATE TABLE busy AS SELECT 1 AS id")
        await made.database.pool.execute(
            "CREATE TABLE nothing (id int PRIMARY KEY);"
            " CREATE TABLE refused_at_commit (id int REFERENCES nothing DEFERRABLE INITIALLY DEFERRED)"
        )
        yield Works(made)


async def test_who_waits_at_the_same_moment_shares_a_transaction(works: Works) -> None:
    names = [f"c{number}" for number in range(200)]
    answers = await works.all(*names)
    assert [answer.reservation.order_id for answer in answers if isinstance(answer, Answer)] == names
    assert await works.written() == names
    assert max(map(len, works.batches)) == MOST
    assert len(works.batches) <= 5


async def test_a_refusal_leaves_nothing_behind_and_is_judged_anew(works: Works) -> None:
    answers = await works.all("a", "refuse", "b")
    assert isinstance(answers[1], NotNow)
    assert await works.written() == ["a", "b"]
    assert await works.rig.count("requests") == 2
    with pytest.raises(NotNow):
        await works.ask("refuse", "again")
    assert (await works.ask("now", "again", body="refuse")).reservation.order_id == "now"


async def test_one_that_breaks_breaks_alone(works: Works) -> None:
    answers = await works.all("a", "break", "b")
    assert isinstance(answers[1], RuntimeError)
    assert sorted(await works.written()) == ["a", "b"]
    assert sorted(map(len, works.batches)) == [1, 1, 1, 3]
    with pytest.raises(RuntimeError):
        await works.ask("break")


async def test_nobody_is_answered_before_the_commit(works: Works) -> None:
    answers = await works.all("a", "late", "b")
    assert [isinstance(answer, Answer) for answer in answers] == [True, False, True]
    assert sorted(await works.written()) == ["a", "b"]
    # Each was answered by the transaction that was kept.
    assert max(map(len, works.batches)) == 3
    assert await works.rig.count("requests") == 2


async def test_a_repeat_gets_the_same_answer_also_at_the_same_moment(works: Works) -> None:
    answers = await asyncio.gather(*(works.ask("a", "same") for _ in range(10)))
    assert len({answer.reservation.reservation_id for answer in answers}) == 1
    assert await works.written() == ["a"]
    with pytest.raises(RequestIdReused):
        await works.ask("b", "same")


async def test_replicas_with_the_same_request_run_it_once(works: Works) -> None:
    other = Works(works.rig)
    for number in range(20):
        one, two = await asyncio.gather(works.ask("a", f"same-{number}"), other.ask("a", f"same-{number}"))
        assert one == two
    assert await works.written() == ["a"] * 20


async def test_what_must_stand_apart_never_shares_a_transaction(works: Works) -> None:
    await works.all("x/1", "x/2", "y/1", "x/3")
    assert [sorted(batch) for batch in works.batches] == [["x/1", "y/1"], ["x/2"], ["x/3"]]


async def test_who_left_before_their_turn_is_not_run(works: Works) -> None:
    waiting = [asyncio.create_task(works.ask(name)) for name in ("x/1", "x/2")]
    while not works.batches:
        await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await works.ask("last")
    assert await works.written() == ["x/1", "last"]


async def test_who_waits_for_a_lock_does_not_hold_up_the_others(works: Works) -> None:
    holder = await asyncpg.connect(works.rig.url)
    try:
        async with holder.transaction():
            await holder.execute("UPDATE busy SET id = id")
            stuck = asyncio.create_task(works.ask("locked"))
            while not works.batches:
                await asyncio.sleep(0)
            others = [asyncio.create_task(works.ask(name)) for name in ("a", "b")]
            # While the lock is still held, and long before the stuck one gives up.
            async with asyncio.timeout(2):
                await asyncio.gather(*others)
            assert not stuck.done()
        assert (await stuck).reservation.order_id == "locked"
    finally:
        await holder.close()


async def test_a_lock_that_is_never_given_back_is_a_conflict_of_its_caller_only(works: Works) -> None:
    holder = await asyncpg.connect(works.rig.url)
    try:
        async with holder.transaction():
            await holder.execute("UPDATE busy SET id = id")
            with pytest.raises(Conflict):
                await works.ask("locked")
        assert await works.written() == []
    finally:
        await holder.close()


async def test_without_a_database_all_are_told_so(works: Works) -> None:
    works.together.database = Database("postgresql://nowhere", "nowhere")
    answers = await works.all("a", "b")
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert not works.batches
