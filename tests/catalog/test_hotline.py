"""The hotline stands in every answer, whatever is known of it."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.catalog import hotline
from services.catalog.hotline import HEARS_HOTLINE, Hotline
from services.chassis.facts import Heard
from shop.catalog.v1 import catalog_pb2 as pb
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.contact.v1.contact_options_pb2 import CHANNEL_PHONE, ContactOptions
from tests.catalog.conftest import Shelf

NUMBER = "+18005550199"


async def hear(shelf: Shelf, version: int, number: str = "+431234567") -> None:
    options = ContactOptions(phone_number=number, open_channels=[CHANNEL_PHONE])
    options.expected_wait.FromSeconds(version)
    message = HotlineStatusChanged(version=version, contact_options=options)
    fact = Heard(uuid4().hex, message, HEARS_HOTLINE.topic, 0, 0, "hotline", datetime.now(UTC), "/shop/contact", None)
    async with shelf.database.transaction() as tx:
        await HEARS_HOTLINE.handlers[HotlineStatusChanged](shelf.app, tx, fact)


async def shown(shelf: Shelf) -> ContactOptions:
    answer = await shelf.storefront.ListProducts(pb.ListProductsRequest())
    options: ContactOptions = answer.contact_options
    return options


async def test_the_number_stands_there_before_anything_was_heard(shelf: Shelf) -> None:
    assert await shown(shelf) == ContactOptions(phone_number=NUMBER)


async def test_what_contact_said_is_shown_at_once(shelf: Shelf) -> None:
    await shown(shelf)
    await hear(shelf, 1)
    options = await shown(shelf)
    assert (options.phone_number, list(options.open_channels)) == ("+431234567", [CHANNEL_PHONE])


async def test_a_status_without_a_number_does_not_take_ours_off(shelf: Shelf) -> None:
    await hear(shelf, 1, number="")
    assert (await shown(shelf)).phone_number == NUMBER


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 9), min_size=1))
async def test_the_newest_status_wins_whatever_comes_when(shelf: Shelf, versions: list[int]) -> None:
    await shelf.database.pool.execute("TRUNCATE hotline")
    for version in versions:
        await hear(shelf, version)
    assert (await shown(shelf)).expected_wait.seconds == max(versions)


async def test_another_replica_reads_it_from_the_database(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Hotline(shelf.database, NUMBER)
    assert (await replica.contact_options()).phone_number == NUMBER
    await hear(shelf, 1)
    clock = monotonic() + hotline.REFRESH_SECONDS
    monkeypatch.setattr(hotline, "monotonic", lambda: clock)
    assert (await replica.contact_options()).phone_number == "+431234567"
