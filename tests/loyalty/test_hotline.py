"""The number stands in every answer; what contact says last is shown."""

from __future__ import annotations

from services.loyalty.hotline import Hotline
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.contact.v1.contact_options_pb2 import CHANNEL_CHAT, CHANNEL_PHONE, ContactOptions
from tests.loyalty.conftest import Shop


def status(version: int, *channels: int, number: str = "+18005550000") -> HotlineStatusChanged:
    return HotlineStatusChanged(
        version=version,
        contact_options=ContactOptions(phone_number=number, open_channels=channels),  # type: ignore[arg-type]
    )


async def test_a_higher_version_wins_in_any_order(shop: Shop) -> None:
    await shop.hear(status(2, CHANNEL_PHONE))
    await shop.hear(status(1, CHANNEL_CHAT))
    await shop.hear(status(2, CHANNEL_CHAT))
    assert list((await shop.hotline.contact_options()).open_channels) == [CHANNEL_PHONE]
    replica = Hotline(shop.database, "+18005550199")
    assert await replica.contact_options() == await shop.hotline.contact_options()


async def test_the_number_stands_there_whatever_was_said(shop: Shop) -> None:
    await shop.hear(status(1, CHANNEL_PHONE, number=""))
    assert (await shop.hotline.contact_options()).phone_number == "+18005550199"
