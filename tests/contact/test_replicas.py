"""Several replicas on one database: who routes, who watches, who dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import cast

import asyncpg

from services.chassis.access import acting_as
from services.chassis.database import Database
from services.contact import ringing as rings
from services.contact.domain.contact import ContactState
from services.contact.domain.routing import OfferGone
from services.contact.watches import Watches
from shop.contact.v1 import contact_pb2 as pb
from tests.contact.conftest import (
    Replica,
    agent_caller,
    customer_caller,
    facts,
    offer_at,
    pass_time,
    ringing,
    told,
)

Start = Callable[..., Awaitable[Replica]]


@asynccontextmanager
async def desk(replica: Replica, agent_id: str) -> AsyncIterator[AsyncGenerator[pb.WatchOffersResponse]]:
    """The stream of an agent's desk."""
    with acting_as(agent_caller(agent_id)):
        responses = replica.app.desks.WatchOffers(pb.WatchOffersRequest())
        async with aclosing(cast("AsyncGenerator[pb.WatchOffersResponse]", responses)) as stream:
            yield stream


async def test_a_desk_on_another_replica_than_the_press_rings_and_sees_the_end(
    replicas: Start, database: Database
) -> None:
    """With a sweep of a second and no polling in between, what is seen sooner came by word between the replicas."""
    near, far = await replicas(), await replicas()
    for agent_id in ("ada", "bea"):
        await near.agent(agent_id)
    async with desk(far, "ada") as ada, asyncio.timeout(20):
        contact = await near.press("cus_1")
        offer = (await anext(ada)).offer
        assert (offer.state, offer.contact.contact_id) == (pb.OFFER_STATE_PENDING, contact.contact_id)
        await near.decline("ada", offer.offer_id)
        assert (await anext(ada)).offer.state == pb.OFFER_STATE_DECLINED
        async with desk(far, "bea") as bea:
            offer = (await anext(bea)).offer
            assert offer.state == pb.OFFER_STATE_PENDING
            await near.accept("bea", offer.offer_id)
            talking = (await anext(bea)).offer
            assert (talking.state, talking.contact.state) == (pb.OFFER_STATE_ACCEPTED, pb.CONTACT_STATE_TALKING)
        async with desk(near, "bea") as after_a_crash:
            assert (await anext(after_a_crash)).offer == talking
            await far.complete("bea", contact.contact_id)
            assert (await anext(after_a_crash)).offer.contact.state == pb.CONTACT_STATE_COMPLETED


@asynccontextmanager
async def watches(database: Database, poll_seconds: float) -> AsyncIterator[Watches]:
    """What one process watches, without its router."""
    watching = Watches(database, poll_seconds, 3600)
    task = asyncio.create_task(watching.run())
    try:
        yield watching
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_word_reaches_the_other_replicas_without_a_look(replica: Replica, database: Database) -> None:
    contact = await replica.press("cus_1")
    async with (
        asyncio.timeout(20),
        watches(database, 3600) as near,
        watches(database, 3600) as far,
        aclosing(far.contacts.follow(contact.contact_id)) as changes,
    ):
        first = await anext(changes)
        assert first is not None
        # Until the far one listens, which it does in its own time, the word is said again.
        change = asyncio.ensure_future(anext(changes))
        await replica.leave(contact)
        while not change.done():
            near.tell([contact.contact_id])
            await asyncio.wait([change], timeout=0.1)
        left = await change
        assert left is not None
        assert left.state is ContactState.ABANDONED


async def test_a_lost_word_is_made_up_for_by_a_look(replica: Replica, database: Database) -> None:
    """A process that died between its commit and its word to the others: nobody was told of this offer."""
    await replica.agent("ada")
    await replica.press("cus_1")
    async with watches(database, 0.1) as far, asyncio.timeout(20), aclosing(far.desks.follow("ada")) as changes:
        assert await anext(changes) == []
        await replica.route()
        assert len(await anext(changes)) == 1


async def test_racing_routers_never_ring_twice_and_nobody_is_lost(replicas: Start, database: Database) -> None:
    """40 customers, 10 agents who answer at once, two routers, agents' calls on both: everybody is answered once."""
    both = [await replicas(), await replicas()]
    agents = [f"agent_{number}" for number in range(10)]
    for agent_id in agents:
        await both[0].agent(agent_id)
    answered: list[str] = []

    async def work(agent_id: str, replica: Replica) -> None:
        async with desk(replica, agent_id) as stream:
            async for response in stream:
                offer = response.offer
                if offer.state != pb.OFFER_STATE_PENDING:
                    continue
                try:
                    contact = await replica.accept(agent_id, offer.offer_id)
                except OfferGone:
                    continue
                await replica.beat(agent_id)
                await replica.complete(agent_id, contact.contact_id)
                answered.append(contact.contact_id)
                if len(answered) >= 40:
                    done.set()

    done = asyncio.Event()
    working = [asyncio.create_task(work(agent_id, both[nth % 2])) for nth, agent_id in enumerate(agents)]
    try:
        pressed = await asyncio.gather(*(both[nth % 2].press(f"cus_{nth:02}") for nth in range(40)))
        async with asyncio.timeout(60):
            await done.wait()
    finally:
        failed = [task.exception() for task in working if task.done()]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    assert failed == []
    assert sorted(answered) == sorted(contact.contact_id for contact in pressed)
    accepted = "SELECT contact_id FROM offers WHERE state = 'accepted' GROUP BY contact_id HAVING count(*) > 1"
    assert await database.fetch(accepted) == []
    assert await facts(database, "InteractionRecorded") == 40


async def test_routers_at_once_give_each_desk_one_customer(replica: Replica, database: Database) -> None:
    """More customers than desks: a router that did not see the other's offers would ring the same desks again."""
    for number in range(4):
        await replica.agent(f"agent_{number}")
    for number in range(20):
        await replica.press(f"cus_{number:02}")
    others = [Replica(database) for _ in range(10)]
    await asyncio.gather(*(other.route() for other in others))
    assert await ringing(database) == [(f"cus_{number:02}", f"agent_{number}") for number in range(4)]


async def test_a_router_that_froze_in_its_turn_is_put_out(
    replica: Replica, database: Database, database_url: str
) -> None:
    await replica.agent("ada")
    await replica.press("cus_1")
    frozen = await asyncpg.connect(database_url)
    try:
        await frozen.execute("BEGIN")
        await rings.take_turn(frozen)
        await replica.route()  # waits until the server has ended the other one's session
        assert await ringing(database) == [("cus_1", "ada")]
    finally:
        frozen.terminate()


async def test_a_miss_is_noted_once_by_however_many_routers(replica: Replica, database: Database) -> None:
    for number in range(5):
        await replica.press(f"cus_{number}")
    await pass_time(database, 15.1)
    others = [Replica(database) for _ in range(6)]
    await asyncio.gather(*(other.route() for other in others))
    await replica.route()
    assert await facts(database, "AnswerPromiseMissed") == 5
    assert await told(database, "cus_3") == ["contact_pressed", "answer_promise_missed"]


async def test_a_miss_is_noted_once_also_when_every_router_was_down(replica: Replica, database: Database) -> None:
    """Answered at 16 s, left at 20 s, or still waiting when a router comes back: each one miss, at second 15."""
    await replica.agent("ada")
    answered, left, waits = [await replica.press(f"cus_{number}") for number in range(3)]
    await pass_time(database, 12, alive=("ada",))
    await replica.route()
    offer = await offer_at(database, "ada", answered.customer_id)
    await pass_time(database, 4, alive=("ada",))
    assert (await replica.accept("ada", offer)).promise_missed
    assert (await replica.leave(left)).promise_missed
    assert await facts(database, "AnswerPromiseMissed") == 2
    await replica.route()
    await replica.route()
    assert await facts(database, "AnswerPromiseMissed") == 3
    delays = await database.fetch(
        "SELECT t.occur_time - c.press_time AS delay, c.contact_id FROM timeline t JOIN contacts c USING (contact_id)"
        " WHERE t.kind = 'answer_promise_missed'"
    )
    assert {row["contact_id"] for row in delays} == {answered.contact_id, left.contact_id, waits.contact_id}


async def test_a_dead_desk_loses_no_waiting_customer_and_cuts_no_talk(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    talking = await replica.press("cus_1")
    await replica.route()
    await replica.accept("ada", await offer_at(database, "ada"))
    await replica.press("cus_2")
    await replica.agent("dan")
    await pass_time(database, 11 * 3600)  # no heartbeat of either since; the talk goes on over the line
    await replica.route()
    assert await ringing(database) == []
    assert (await replica.press("cus_1")).state == pb.CONTACT_STATE_TALKING
    assert (await replica.press("cus_2")).state == pb.CONTACT_STATE_WAITING
    await replica.agent("bea")
    await replica.route()
    assert await ringing(database) == [("cus_2", "bea")]
    await replica.beat("ada")
    assert (await replica.complete("ada", talking.contact_id)).state == pb.CONTACT_STATE_COMPLETED


async def test_a_waiting_customers_stream_goes_on_while_the_agents_die(replicas: Start, database: Database) -> None:
    """In real time, with short times: the first two desks never answer, the third one does."""
    replica = await replicas(
        offer_seconds=0.4, ring_all_seconds=0.8, promise_seconds=1.2, abandon_seconds=0.4, sweep_seconds=0.2
    )
    for agent_id in ("ada", "bea", "cora"):
        await replica.agent(agent_id)
    async with desk(replica, "cora") as cora, asyncio.timeout(20):
        contact = await replica.press("cus_1")
        while True:
            offer = (await anext(cora)).offer
            missed = await facts(database, "AnswerPromiseMissed")
            if offer.state == pb.OFFER_STATE_PENDING and missed:
                break
        taken = await replica.accept("cora", offer.offer_id)
    assert taken.contact_id == contact.contact_id
    assert taken.promise_missed
    assert await facts(database, "AnswerPromiseMissed") == 1
    with acting_as(customer_caller("cus_1")):
        assert await told(database, "cus_1") == ["contact_pressed", "answer_promise_missed", "contact_answered"]
