"""What the hotline says of itself, and when."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from services.chassis.database import Database
from services.contact.domain.contact import Channel
from services.contact.domain.hotline import ENOUGH_TALKS, Measured, expected_wait, status
from shop.contact.events.v1 import facts_pb2 as facts_pb
from shop.contact.v1 import contact_pb2 as pb
from shop.contact.v1.contact_options_pb2 import CHANNEL_CHAT, CHANNEL_PHONE
from tests.contact.conftest import Replica, offer_at, pass_time


def measured(waiting: int, agents: int, idle: int = 0, talks: int = 100, mean: float = 300) -> Measured:
    return Measured([Channel.PHONE], waiting, agents, idle, talks, timedelta(seconds=mean))


@pytest.mark.parametrize(("ahead", "seconds"), [(0, 30), (1, 60), (9, 300)])
def test_the_expected_wait_is_k_plus_1_talks_over_n(ahead: int, seconds: int) -> None:
    assert expected_wait(measured(ahead, agents=10)) == timedelta(seconds=seconds)


def test_nobody_waits_while_an_agent_is_free_for_them() -> None:
    assert expected_wait(measured(1, agents=3, idle=2, talks=0)) == timedelta(0)
    assert expected_wait(measured(2, agents=3, idle=2)) == timedelta(seconds=300)


def test_not_enough_data_is_an_answer() -> None:
    assert expected_wait(measured(0, agents=1, talks=ENOUGH_TALKS - 1)) is None
    assert expected_wait(measured(0, agents=0)) is None


def test_channels_stand_in_one_order() -> None:
    some = Measured([Channel.VIDEO, Channel.CHAT], 0, 0, 0, 0, timedelta(0))
    assert status(some).open_channels == (Channel.CHAT, Channel.VIDEO)


async def announced(database: Database) -> list[facts_pb.HotlineStatusChanged]:
    rows = await database.fetch("SELECT * FROM outbox WHERE topic = 'shop.contact.hotline.v1' ORDER BY id")
    assert {row["key"] for row in rows} <= {b"hotline"}
    return [facts_pb.HotlineStatusChanged.FromString(row["value"]) for row in rows]


async def test_it_is_announced_when_it_changes_and_as_a_sign_of_life(replica: Replica, database: Database) -> None:
    hotline = replica.app.hotline
    assert await hotline.announce()
    await replica.agent("ada", CHANNEL_PHONE, CHANNEL_CHAT)
    assert not await hotline.announce(), "at most about one a second"
    await pass_time(database, 1, alive=("ada",))
    assert await hotline.announce()
    await pass_time(database, 1, alive=("ada",))
    assert not await hotline.announce(), "nothing changed"
    await pass_time(database, 30, alive=("ada",))
    assert await hotline.announce(), "a sign of life"
    await pass_time(database, 7)
    assert await hotline.announce(), "ada is gone"
    facts = await announced(database)
    assert [fact.version for fact in facts] == [1, 2, 3, 4]
    assert [list(fact.contact_options.open_channels) for fact in facts] == [
        [],
        [CHANNEL_CHAT, CHANNEL_PHONE],
        [CHANNEL_CHAT, CHANNEL_PHONE],
        [],
    ]
    assert all(fact.contact_options.phone_number == "+18005550199" for fact in facts)
    assert facts[1].contact_options.HasField("expected_wait")
    assert not facts[3].contact_options.HasField("expected_wait")
    shown = await replica.app.customers.GetHotlineStatus(pb.GetHotlineStatusRequest())
    assert shown.contact_options == facts[3].contact_options


async def test_an_agent_who_is_away_opens_no_channel(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    await replica.status("ada", pb.AGENT_STATUS_AWAY)
    await replica.app.hotline.announce()
    assert list((await announced(database))[0].contact_options.open_channels) == []


async def test_the_wait_is_measured_from_real_talks(replica: Replica, database: Database) -> None:
    await replica.agent("ada")
    for number in range(ENOUGH_TALKS):
        await replica.press(f"cus_{number}")
        await replica.route()
        contact = await replica.accept("ada", await offer_at(database, "ada"))
        await pass_time(database, 60, alive=("ada",))
        await replica.complete("ada", contact.contact_id)
    await replica.press("cus_waits")
    await replica.app.hotline.announce()
    wait = (await announced(database))[0].contact_options.expected_wait.seconds
    assert 120 <= wait <= 125  # two talks of a minute each, and what the test itself took


async def test_many_replicas_announce_it_once(database: Database) -> None:
    many = [Replica(database) for _ in range(6)]
    assert sum(await asyncio.gather(*(replica.app.hotline.announce() for replica in many))) == 1
    assert len(await announced(database)) == 1
