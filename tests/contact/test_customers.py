"""What a customer does: press, watch, leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.chassis.access import acting_as
from services.chassis.database import Database
from services.chassis.errors import NotFound
from services.chassis.requests import RequestIdReused
from shop.contact.v1 import contact_pb2 as pb
from shop.contact.v1.contact_options_pb2 import CHANNEL_CHAT, CHANNEL_PHONE
from tests.contact.conftest import Replica, customer_caller, facts, offer_at, pass_time, ringing, told, watching


async def test_a_storm_of_presses_is_one_contact_each(replica: Replica, database: Database) -> None:
    customers = [f"cus_{number}" for number in range(10)]
    pressed = await asyncio.gather(*(replica.press(customer) for customer in customers for _ in range(10)))
    ids = {contact.customer_id: contact.contact_id for contact in pressed}
    assert len(ids) == 10
    assert {(contact.customer_id, contact.contact_id) for contact in pressed} == set(ids.items())
    assert await database.pool.fetchval("SELECT count(*) FROM contacts") == 10
    assert await told(database, "cus_1") == ["contact_pressed"]


async def test_another_press_keeps_the_rank_and_another_channel_is_another_contact(
    replica: Replica, database: Database
) -> None:
    first = await replica.press("cus_1", page="/shoes")
    await pass_time(database, 3)
    await replica.press("cus_2")
    again = await replica.press("cus_1", page="/boots")
    assert (again.contact_id, again.page) == (first.contact_id, "/shoes")
    assert first.press_time.ToDatetime() > again.press_time.ToDatetime()
    assert (await replica.press("cus_1", CHANNEL_CHAT)).contact_id != first.contact_id
    await replica.agent("ada", CHANNEL_PHONE)
    await replica.route()
    assert await ringing(database) == [("cus_1", "ada")]


async def test_a_press_while_talking_gives_the_talk_and_after_it_a_new_contact(
    replica: Replica, database: Database
) -> None:
    await replica.agent("ada")
    first = await replica.press("cus_1")
    await replica.route()
    await replica.accept("ada", await offer_at(database, "ada"))
    talking = await replica.press("cus_1")
    assert (talking.contact_id, talking.state, talking.agent_name) == (
        first.contact_id,
        pb.CONTACT_STATE_TALKING,
        "Ada",
    )
    await replica.complete("ada", first.contact_id)
    assert (await replica.press("cus_1")).contact_id != first.contact_id


async def test_a_request_id_is_good_for_one_press(replica: Replica) -> None:
    first = await replica.press("cus_1", request="the-press")
    assert await replica.press("cus_1", request="the-press") == first
    with pytest.raises(RequestIdReused):
        await replica.press("cus_1", CHANNEL_CHAT, request="the-press")


@pytest.mark.parametrize(("seconds", "missed"), [(4.9, 0), (5.1, 1), (16, 1)])
async def test_leaving_within_5_s_is_no_miss_later_is(
    replica: Replica, database: Database, seconds: float, missed: int
) -> None:
    await replica.agent("ada")
    contact = await replica.press("cus_1")
    await pass_time(database, seconds, alive=("ada",))
    left = await replica.leave(contact)
    assert left.state == pb.CONTACT_STATE_ABANDONED
    assert left.promise_missed is bool(missed)
    await replica.route()
    assert await ringing(database) == []
    assert await facts(database, "AnswerPromiseMissed") == missed
    assert await facts(database, "InteractionRecorded") == 1
    again = await replica.leave(contact)
    assert (again.state, again.end_time) == (left.state, left.end_time)
    assert await facts(database, "InteractionRecorded") == 1


async def test_leaving_a_talk_completes_it_and_frees_the_agent(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    contact = await replica.press("cus_1")
    await replica.route()
    await replica.accept("ada", await offer_at(database, "ada"))
    assert (await replica.beat("ada")).state == pb.AGENT_STATE_TALKING
    assert (await replica.leave(contact)).state == pb.CONTACT_STATE_COMPLETED
    assert (await replica.beat("ada")).state == pb.AGENT_STATE_IDLE
    await replica.press("cus_2")
    await replica.route()
    assert await ringing(database) == [("cus_2", "ada")]


async def test_accept_and_leave_at_once_end_in_one_state(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    for number in range(15):
        contact = await replica.press(f"cus_{number}")
        await replica.beat("ada")
        await replica.route()
        offer = await offer_at(database, "ada")
        taken, left = await asyncio.gather(replica.accept("ada", offer), replica.leave(contact), return_exceptions=True)
        assert isinstance(left, pb.Contact)
        answered = isinstance(taken, pb.Contact)
        ended = pb.CONTACT_STATE_COMPLETED if answered else pb.CONTACT_STATE_ABANDONED
        assert left.state == ended
        assert (await replica.beat("ada")).state == pb.AGENT_STATE_IDLE
        assert await ringing(database) == []
    assert await facts(database, "InteractionRecorded") == 15


async def test_somebody_elses_contact_is_not_there(replica: Replica) -> None:
    contact = await replica.press("cus_1")
    with pytest.raises(NotFound) as refusal:
        await replica.leave(contact, "cus_2")
    with pytest.raises(NotFound) as missing:
        await replica.leave(pb.Contact(contact_id="con_none"), "cus_2")
    assert (str(refusal.value), refusal.value.reason) == (str(missing.value), missing.value.reason)
    with pytest.raises(NotFound):
        async with watching(replica, contact, "cus_2") as changes, asyncio.timeout(10):
            await anext(changes)


async def test_a_watch_shows_it_as_it_is_then_each_change_until_it_ends(
    replicas: Callable[..., Awaitable[Replica]], replica: Replica, database: Database
) -> None:
    """The customer's stream is on one replica, the agent's calls on another."""
    far = await replicas()
    await replica.agent("ada")
    contact = await replica.press("cus_1")
    async with watching(far, contact) as changes, asyncio.timeout(10):
        assert (await anext(changes)).state == pb.CONTACT_STATE_WAITING
        await replica.route()
        async with replica.running():
            await replica.accept("ada", await offer_at(database, "ada"))
            talking = await anext(changes)
            assert (talking.state, talking.agent_name) == (pb.CONTACT_STATE_TALKING, "Ada")
            await replica.complete("ada", contact.contact_id)
            assert (await anext(changes)).state == pb.CONTACT_STATE_COMPLETED
        with pytest.raises(StopAsyncIteration):
            await anext(changes)
    async with watching(far, contact) as changes, asyncio.timeout(10):
        assert (await anext(changes)).state == pb.CONTACT_STATE_COMPLETED
        with pytest.raises(StopAsyncIteration):
            await anext(changes)


async def test_each_answer_says_how_to_reach_us(replica: Replica) -> None:
    with acting_as(customer_caller("cus_1")):
        request = pb.PressHelpRequest(request_id="press-for-options", customer_id="cus_1", channel=CHANNEL_PHONE)
        pressed = await replica.app.customers.PressHelp(request)
    status = await replica.app.customers.GetHotlineStatus(pb.GetHotlineStatusRequest())
    assert pressed.contact_options.phone_number == status.contact_options.phone_number == "+18005550199"
