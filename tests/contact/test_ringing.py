"""Who rings where and when, on real rows: 0 s and 5 s one desk, 10 s all, 15 s the miss."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from services.chassis import telemetry
from services.chassis.database import Database
from services.contact import ringing as rings
from services.contact.domain.routing import AgentBusy, NewOffer, OfferGone, OfferNotFound, Rules
from shop.contact.v1 import contact_pb2 as pb
from shop.contact.v1.contact_options_pb2 import CHANNEL_CHAT, CHANNEL_PHONE
from tests.contact.conftest import Replica, facts, offer_at, pass_time, ringing, told


async def test_one_desk_then_another_then_all_then_the_miss_and_on(replica: Replica, database: Database) -> None:
    agents = ("ada", "bea", "cora")
    for agent_id in agents:
        await replica.agent(agent_id)
    await replica.press("cus_1")

    await replica.route()
    assert await ringing(database) == [("cus_1", "ada")]
    await pass_time(database, 5, alive=agents)
    await replica.route()
    assert await ringing(database) == [("cus_1", "bea")]
    await pass_time(database, 5, alive=agents)
    await replica.route()
    assert await ringing(database) == [("cus_1", "ada"), ("cus_1", "bea"), ("cus_1", "cora")]
    assert await facts(database, "AnswerPromiseMissed") == 0
    await pass_time(database, 5.1, alive=agents)
    await replica.route()
    await replica.route()
    assert await facts(database, "AnswerPromiseMissed") == 1
    assert len(await ringing(database)) == 3


async def test_customers_come_in_the_order_of_their_waiting(replica: Replica, database: Database) -> None:
    for number in range(3):
        await replica.press(f"cus_{number}")
    await replica.agent("ada")
    await replica.route()
    assert await ringing(database) == [("cus_0", "ada")]


async def test_agents_come_longest_since_their_last_completed_contact_first(
    replica: Replica, database: Database
) -> None:
    for agent_id in ("ada", "bea"):
        await replica.agent(agent_id)
    await replica.press("cus_1")
    await replica.route()
    contact = await replica.accept("ada", await offer_at(database, "ada"))
    await replica.complete("ada", contact.contact_id)
    # Bea lets one ring: that neither improves nor spoils her rank.
    await replica.press("cus_2")
    await replica.route()
    assert await ringing(database) == [("cus_2", "bea")]
    await pass_time(database, 5, alive=("ada", "bea"))
    await replica.route()
    assert await ringing(database) == [("cus_2", "ada")]
    await replica.press("cus_3")
    await replica.route()
    assert await ringing(database) == [("cus_2", "ada"), ("cus_3", "bea")]


async def test_a_desk_that_died_while_ringing_loses_the_offer_before_its_time(
    replica: Replica, database: Database
) -> None:
    for agent_id in ("ada", "bea"):
        await replica.agent(agent_id)
    await pass_time(database, 4, alive=("bea",))
    await replica.press("cus_1")
    await replica.route()
    assert await ringing(database) == [("cus_1", "ada")]
    await pass_time(database, 2.5, alive=("bea",))  # the last heartbeat of ada is 6.5 s old, the offer 2.5 s
    await replica.route()
    assert await ringing(database) == [("cus_1", "bea")]


@pytest.mark.parametrize("status", [pb.AGENT_STATUS_AWAY, pb.AGENT_STATUS_OFF])
async def test_who_goes_away_is_not_rung_and_what_rings_goes_on_to_the_next(
    replica: Replica, database: Database, status: pb.AgentStatus.ValueType
) -> None:
    for agent_id in ("ada", "bea"):
        await replica.agent(agent_id)
    await replica.press("cus_1")
    await replica.route()
    await replica.status("ada", status)
    await replica.route()
    assert await ringing(database) == [("cus_1", "bea")]


async def test_a_channel_rings_only_where_it_is_taken(replica: Replica, database: Database) -> None:
    await replica.agent("ada", CHANNEL_PHONE)
    await replica.agent("bea", CHANNEL_CHAT)
    for number in range(3):
        await replica.press(f"phone_{number}", CHANNEL_PHONE)
    await replica.press("cus_chat", CHANNEL_CHAT)
    await replica.route()
    assert await ringing(database) == [("phone_0", "ada"), ("cus_chat", "bea")]


async def test_decline_passes_on_and_leaves_that_desk_alone_for_a_while(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await replica.press("cus_1")
    await replica.route()
    declined = await replica.decline("ada", await offer_at(database, "ada"))
    assert declined.state == pb.OFFER_STATE_DECLINED
    await replica.route()
    assert await ringing(database) == []
    await pass_time(database, 5, alive=("ada",))
    await replica.route()
    assert await ringing(database) == [("cus_1", "ada")]


async def test_who_was_declined_keeps_no_desk_from_those_behind(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    for number in range(4):
        await replica.press(f"cus_{number}")
    for number in range(3):
        await replica.route()
        await replica.decline("ada", await offer_at(database, "ada", f"cus_{number}"))
    await replica.route()
    assert await ringing(database) == [("cus_3", "ada")]


async def test_first_accept_wins_and_the_others_are_rescinded(replica: Replica, database: Database) -> None:
    agents = [f"agent_{number}" for number in range(8)]
    for agent_id in agents:
        await replica.agent(agent_id)
    await replica.press("cus_1")
    await pass_time(database, 10, alive=tuple(agents))
    await replica.route()
    offers = {agent_id: await offer_at(database, agent_id) for agent_id in agents}
    results = await asyncio.gather(
        *(replica.accept(agent_id, offer) for agent_id, offer in offers.items()), return_exceptions=True
    )
    won = [result for result in results if isinstance(result, pb.Contact)]
    assert len(won) == 1
    assert won[0].state == pb.CONTACT_STATE_TALKING
    lost = [result for result in results if isinstance(result, OfferGone)]
    assert len(lost) == 7
    assert {refusal.details["state"] for refusal in lost} == {"rescinded"}
    states = await database.pool.fetch("SELECT state, count(*) FROM offers GROUP BY state ORDER BY state")
    assert [tuple(row) for row in states] == [("accepted", 1), ("rescinded", 7)]


async def test_an_agent_takes_one_of_the_contacts_that_ring(replica: Replica, database: Database) -> None:
    for agent_id in ("ada", "bea"):
        await replica.agent(agent_id)
    for number in range(2):
        await replica.press(f"cus_{number}")
    await pass_time(database, 10, alive=("ada", "bea"))
    await replica.route()
    assert len(await ringing(database)) == 4
    both = [await offer_at(database, "ada", f"cus_{number}") for number in range(2)]
    results = await asyncio.gather(*(replica.accept("ada", offer) for offer in both), return_exceptions=True)
    assert sum(isinstance(result, pb.Contact) for result in results) == 1
    assert sum(isinstance(result, AgentBusy | OfferGone) for result in results) == 1
    await replica.route()
    assert [agent_id for _, agent_id in await ringing(database)] == ["bea"]


async def test_an_expired_offer_cannot_be_accepted_also_when_nobody_swept(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await replica.press("cus_1")
    await replica.route()
    offer = await offer_at(database, "ada")
    await pass_time(database, 5, alive=("ada",))
    with pytest.raises(OfferGone) as refusal:
        await replica.accept("ada", offer)
    assert refusal.value.details["state"] == "timed_out"
    with pytest.raises(OfferGone):
        await replica.decline("ada", offer)


async def test_a_declined_offer_cannot_be_accepted_any_more(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await replica.press("cus_1")
    await replica.route()
    offer = await offer_at(database, "ada")
    await replica.decline("ada", offer)
    with pytest.raises(OfferGone) as refusal:
        await replica.accept("ada", offer)
    assert refusal.value.details["state"] == "declined"


async def test_anothers_offer_is_not_found(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await replica.press("cus_1")
    await replica.route()
    offer = await offer_at(database, "ada")
    for attempt in (replica.accept("mallory", offer), replica.decline("mallory", offer), replica.accept("ada", "off")):
        with pytest.raises(OfferNotFound):
            await attempt
    assert await ringing(database) == [("cus_1", "ada")]


async def test_a_repeated_accept_gets_the_same_answer(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await replica.press("cus_1")
    await replica.route()
    offer = await offer_at(database, "ada")
    first = await replica.accept("ada", offer, request="accept-it-once")
    assert await replica.accept("ada", offer, request="accept-it-once") == first
    with pytest.raises(OfferGone) as refusal:
        await replica.accept("ada", offer)
    assert refusal.value.details["state"] == "accepted"
    assert await told(database, "cus_1") == ["contact_pressed", "contact_answered"]


async def test_a_long_queue_rings_the_longest_waiting_at_the_one_desk_that_is_free(
    replica: Replica, database: Database
) -> None:
    for number in range(30):
        await replica.press(f"cus_{number:02}")
    await pass_time(database, 60)
    await replica.agent("ada")
    await replica.route()
    assert await ringing(database) == [("cus_00", "ada")]


async def test_an_absent_agent_is_not_rung(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await pass_time(database, 6)
    await replica.press("cus_1")
    await replica.route()
    assert await database.fetch("SELECT FROM offers") == []
    assert not (await replica.status("ada", pb.AGENT_STATUS_AVAILABLE)).present
    await replica.beat("ada")
    await replica.route()
    assert await ringing(database) == [("cus_1", "ada")]


async def test_who_talks_is_passed_over(replica: Replica, database: Database) -> None:
    for agent_id in ("ada", "bea"):
        await replica.agent(agent_id)
    await replica.press("cus_1")
    await replica.route()
    await replica.accept("ada", await offer_at(database, "ada"))
    await replica.press("cus_2")
    await replica.route()
    assert await ringing(database) == [("cus_2", "bea")]


async def leave_over(database: Database, contact: pb.Contact, agent_id: str) -> str:
    """An offer that rings though it should not: somebody else held its row when it was to be ended, and failed."""
    await database.pool.execute(
        "INSERT INTO offers SELECT 'off_left_over', $1, $2, 'pending', t, t + interval '5 s'"
        " FROM clock_timestamp() AS t",
        contact.contact_id,
        agent_id,
    )
    return "off_left_over"


async def test_an_offer_left_over_takes_nobody_who_talks_already(replica: Replica, database: Database) -> None:
    for agent_id in ("ada", "bea"):
        await replica.agent(agent_id)
    first = await replica.press("cus_1")
    await replica.route()
    await replica.accept("ada", await offer_at(database, "ada"))
    with pytest.raises(OfferGone) as refusal:
        await replica.accept("bea", await leave_over(database, first, "bea"))
    assert refusal.value.details["state"] == "rescinded"
    await replica.route()
    assert await ringing(database) == [], "the next look ends it"


async def test_an_agent_who_talks_takes_nobody_else(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await replica.press("cus_1")
    await replica.route()
    await replica.accept("ada", await offer_at(database, "ada"))
    second = await replica.press("cus_2")
    with pytest.raises(AgentBusy):
        await replica.accept("ada", await leave_over(database, second, "ada"))
    await replica.route()
    assert await ringing(database) == []


async def test_an_agent_taken_between_look_and_offer_is_not_rung(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await replica.press("cus_1")
    await replica.route()
    offer = await offer_at(database, "ada")
    second = await replica.press("cus_2")
    rules = Rules()
    async with database.transaction() as tx:
        desks = await rings.open_desks(tx.connection, rules)
        assert [desk.agent_id for desk in desks] == ["ada"]
        await replica.accept("ada", offer)
        assert await rings.add_offers(tx.connection, [NewOffer(second.contact_id, "ada")], rules) == []


async def test_the_journey_of_the_press_goes_on_with_all_that_follows(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    with telemetry.with_journey("journey-of-the-press"):
        contact = await replica.press("cus_1")
    await pass_time(database, 15.1, alive=("ada",))
    await replica.route()
    with telemetry.with_journey("journey-of-the-agent"):
        await replica.accept("ada", await offer_at(database, "ada"))
        await replica.complete("ada", contact.contact_id)
    headers = [json.loads(row["headers"]) for row in await database.fetch("SELECT headers FROM outbox")]
    assert len(headers) == 2
    assert all("journey.id=journey-of-the-press" in header["baggage"] for header in headers)
    assert all("customer.id=cus_1" in header["baggage"] for header in headers)
    journeys = await database.fetch("SELECT DISTINCT journey_id FROM timeline")
    assert [row["journey_id"] for row in journeys] == ["journey-of-the-press"]


async def test_offers_are_deleted_a_day_after_they_and_their_talk_ended(replica: Replica, database: Database) -> None:
    for agent_id in ("ada", "bea"):
        await replica.agent(agent_id)
    contact = await replica.press("cus_1")
    await replica.route()
    await replica.decline("ada", await offer_at(database, "ada"))
    await replica.route()
    await replica.accept("bea", await offer_at(database, "bea"))

    async def left_after(hours: float) -> list[str]:
        await pass_time(database, hours * 3600)
        await replica.app.router.sweep()
        return [row["state"] for row in await database.fetch("SELECT state FROM offers ORDER BY state")]

    assert await left_after(23) == ["accepted", "declined"]
    assert await left_after(2) == ["accepted"]  # the talk goes on
    await replica.complete("bea", contact.contact_id)
    assert await left_after(23) == ["accepted"]
    assert await left_after(2) == []


async def test_the_router_sweeps_by_itself(replicas: Callable[..., Awaitable[Replica]], database: Database) -> None:
    replica = await replicas(sweep_seconds=0.1)
    await replica.agent("ada")
    await replica.press("cus_1")
    async with asyncio.timeout(20):
        while await ringing(database) == []:
            await asyncio.sleep(0.05)
        await replica.status("ada", pb.AGENT_STATUS_OFF)  # or it might ring anew while time passes
        await pass_time(database, 25 * 3600)
        while await database.fetch("SELECT FROM offers"):
            await asyncio.sleep(0.05)
