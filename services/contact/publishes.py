"""What contact announces, and where."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.duration_pb2 import Duration

from services.chassis.facts import Fact, Topic
from services.chassis.values import to_timestamp
from services.contact.domain.contact import AnswerPromiseMissed, Channel, Contact, Ended
from services.contact.domain.hotline import HotlineStatus
from shop.contact.events.v1 import facts_pb2 as facts
from shop.contact.v1.contact_options_pb2 import Channel as ChannelMessage
from shop.contact.v1.contact_options_pb2 import ContactOptions

INTERACTIONS = Topic(
    "shop.contact.interactions.v1",
    (facts.InteractionRecorded, facts.AnswerPromiseMissed),
    retention_days=30,
)
HOTLINE = Topic("shop.contact.hotline.v1", (facts.HotlineStatusChanged,), compacted=True, partitions=1)
# One fact for each who left: kept for ever, so that whoever comes back from a backup hears of them again.
PRIVACY = Topic("shop.contact.privacy.v1", (facts.CustomerForgotten,), compacted=True)
PUBLISHES = (INTERACTIONS, HOTLINE, PRIVACY)

CHANNELS = {channel: ChannelMessage.Value(f"CHANNEL_{channel.name}") for channel in Channel}


def interaction_recorded(contact: Contact, happened: Ended) -> Fact:
    """We talked, or the customer left before we did."""
    message = facts.InteractionRecorded(
        customer_id=contact.customer_id,
        version=happened.version,
        contact_id=contact.contact_id,
        channel=CHANNELS[contact.channel],
        press_time=to_timestamp(contact.press_time),
        end_time=to_timestamp(happened.time),
    )
    if contact.answer_time is not None:
        message.answer_time.CopyFrom(to_timestamp(contact.answer_time))
    return Fact(INTERACTIONS, contact.customer_id, message)


def answer_promise_missed(contact: Contact, happened: AnswerPromiseMissed) -> Fact:
    """Nobody answered within the promised time."""
    return Fact(
        INTERACTIONS,
        contact.customer_id,
        facts.AnswerPromiseMissed(
            customer_id=contact.customer_id,
            version=happened.version,
            contact_id=contact.contact_id,
            press_time=to_timestamp(contact.press_time),
        ),
    )


def hotline_status_changed(version: int, options: ContactOptions) -> Fact:
    """What a storefront shows of us is now so."""
    return Fact(HOTLINE, "hotline", facts.HotlineStatusChanged(version=version, contact_options=options))


def contact_options(phone_number: str, status: HotlineStatus, as_of: datetime | None) -> ContactOptions:
    """How to reach us. Without `as_of` only the number is known."""
    options = ContactOptions(phone_number=phone_number)
    if as_of is not None:
        options.open_channels.extend(CHANNELS[channel] for channel in status.open_channels)
        options.as_of.CopyFrom(to_timestamp(as_of))
        if status.expected_wait is not None:
            options.expected_wait.CopyFrom(Duration(seconds=int(status.expected_wait.total_seconds())))
    return options
