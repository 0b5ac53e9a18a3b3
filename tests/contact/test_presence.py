"""Customers who vanish while they wait: within 60 s they may come back, then they have left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from services.chassis.database import Database
from services.contact import router
from shop.contact.v1 import contact_pb2 as pb
from tests.contact.conftest import Replica, facts, offer_at, pass_time, ringing, told, watching

GRACE = 64  # the 60 s, and what the notes are late


@asynccontextmanager
async def seen(replica: Replica, contact: pb.Contact) -> AsyncIterator[None]:
    """A stream of the customer is open at a replica that has noted it."""
    async with watching(replica, contact) as stream:
        first = asyncio.ensure_future(anext(stream))
        watches = replica.app.watches
        while contact.contact_id not in watches.contacts.keys:
            await asyncio.sleep(0)
        await watches.contacts.refresh([contact.contact_id])
        await first
        await watches.note()
        yield


async def state(database: Database, contact: pb.Contact) -> str:
    found: str = await database.pool.fetchval("SELECT state FROM contacts WHERE contact_id = $1", contact.contact_id)
    return found


@pytest.fixture(autouse=True)
def a_slow_test_is_no_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "BREAK_SECONDS", 3600.0)


@pytest.fixture
async def other(database: Database) -> Replica:
    """A second replica; both have swept a moment ago, as those do that run."""
    return await swept(Replica(database))


@pytest.fixture
async def replica(database: Database) -> Replica:
    return await swept(Replica(database))


async def swept(replica: Replica) -> Replica:
    await replica.app.router.sweep()
    return replica


async def test_who_vanished_has_left_once_and_makes_room(replica: Replica, other: Replica, database: Database) -> None:
    await replica.agent("ada")
    vanished = await replica.press("cus_1")
    async with seen(replica, vanished):
        pass
    await replica.route()
    await pass_time(database, 30, alive=("ada",))
    behind = await replica.press("cus_2")
    async with seen(replica, behind):
        await pass_time(database, GRACE - 45, alive=("ada",))
        await replica.app.watches.note()
        await replica.route()
        await asyncio.gather(swept(replica), swept(other))
        assert await state(database, vanished) == "waiting"
        assert ("cus_1", "ada") in await ringing(database)

        await pass_time(database, 20, alive=("ada",))
        await replica.app.watches.note()
        await asyncio.gather(swept(replica), swept(other))
        await swept(other)
        assert await state(database, vanished) == "abandoned"
        assert await told(database, "cus_1") == ["contact_pressed", "answer_promise_missed", "contact_ended"]
        assert (await facts(database, "InteractionRecorded"), await state(database, behind)) == (1, "waiting")
        await replica.route()
        assert await ringing(database) == [("cus_2", "ada")]
        noted = await database.fetch("SELECT contact_id FROM watches")
        assert [row["contact_id"] for row in noted] == [behind.contact_id]


async def test_who_comes_back_in_time_keeps_the_rank(replica: Replica, database: Database) -> None:
    first = await replica.press("cus_1")
    version = await database.fetch("SELECT version FROM contacts")
    async with seen(replica, first):
        pass
    await replica.press("cus_2")
    await pass_time(database, 50)
    async with seen(replica, first):
        pass
    await pass_time(database, 50)
    await swept(replica)
    assert await database.fetch("SELECT version FROM contacts WHERE customer_id = 'cus_1'") == version
    await replica.agent("ada")
    await replica.route()
    assert (await ringing(database))[0] == ("cus_1", "ada")


async def test_who_never_watched_waits_on(replica: Replica, database: Database) -> None:
    phone = await replica.press("cus_1")
    await pass_time(database, 3600)
    await swept(replica)
    assert await state(database, phone) == "waiting"


async def test_who_is_seen_by_any_replica_waits_on(replica: Replica, other: Replica, database: Database) -> None:
    contact = await replica.press("cus_1")
    async with seen(other, contact):
        async with seen(replica, contact):
            pass
        await pass_time(database, GRACE + 1)
        await replica.app.watches.note()
        await other.app.watches.note()
        await swept(replica)
        assert await state(database, contact) == "waiting"
    await pass_time(database, GRACE + 1)
    await swept(replica)
    assert await state(database, contact) == "abandoned"


async def test_a_talk_goes_on_unwatched(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    contact = await replica.press("cus_1")
    async with seen(replica, contact):
        await replica.route()
        await replica.accept("ada", await offer_at(database, "ada"))
        await replica.app.watches.note()
    await pass_time(database, 3600)
    await swept(replica)
    assert await state(database, contact) == "talking"
    assert await database.fetch("SELECT FROM watches") == []


async def test_a_stream_that_came_and_went_between_two_notes_was_there(replica: Replica, database: Database) -> None:
    contact = await replica.press("cus_1")
    async with seen(replica, contact):
        await database.pool.execute("DELETE FROM watches")
    async with watching(replica, contact) as stream:
        first = asyncio.ensure_future(anext(stream))
        while contact.contact_id not in replica.app.watches.contacts.keys:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert contact.contact_id not in replica.app.watches.contacts.keys
    await replica.app.watches.note()
    await pass_time(database, GRACE + 1)
    await swept(replica)
    assert await state(database, contact) == "abandoned"


async def test_after_a_break_of_ours_all_have_the_whole_time_to_come_back(replica: Replica, database: Database) -> None:
    contact = await replica.press("cus_1")
    async with seen(replica, contact):
        pass
    await pass_time(database, 3600)
    restarted = await swept(Replica(database))
    await pass_time(database, GRACE - 30)
    await swept(restarted)
    assert await state(database, contact) == "waiting"
    await pass_time(database, 31)
    await swept(restarted)
    assert await state(database, contact) == "abandoned"


async def test_running_replicas_notice_by_themselves(
    replicas: Callable[..., Awaitable[Replica]], database: Database
) -> None:
    given = {"reconnect_seconds": 0.3, "note_seconds": 0.1, "sweep_seconds": 0.1}
    near = await replicas(**given)
    await replicas(**given)
    contact = await near.press("cus_1")
    async with asyncio.timeout(20):
        async with watching(near, contact) as stream:
            assert (await anext(stream)).state == pb.CONTACT_STATE_WAITING
        while await state(database, contact) == "waiting":
            await asyncio.sleep(0.05)
    assert await state(database, contact) == "abandoned"
    assert await facts(database, "InteractionRecorded") == 1
