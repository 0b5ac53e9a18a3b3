"""What the hotline says of itself: the channels open now, and how long somebody who presses now will wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from services.contact.domain.contact import Channel

# Fewer talks than this say nothing about how long talks are.
ENOUGH_TALKS = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """The hotline at one instant."""

    # Those on which a present agent takes contacts.
    open_channels: Sequence[Channel]
    # Customers waiting.
    waiting: int
    # Agents present and available, and those of them who talk to nobody.
    agents: int
    idle: int
    # Of the latest talks: how many, and how long on average.
    talks: int
    mean_talk: timedelta


@dataclass(frozen=True, slots=True)
class HotlineStatus:
    """What a storefront shows."""

    open_channels: tuple[Channel, ...]
    # In whole seconds. None: not enough data.
    expected_wait: timedelta | None


def status(measured: Measured) -> HotlineStatus:
    """What to show."""
    return HotlineStatus(tuple(sorted(measured.open_channels)), expected_wait(measured))


def expected_wait(measured: Measured) -> timedelta | None:
    """How long somebody who presses now will wait: (k + 1) * mean talk / n with k ahead and n agents.

    Nothing while an agent is free for them, and None when there is not enough data.
    """
    if measured.idle > measured.waiting:
        return timedelta(0)
    if not measured.agents or measured.talks < ENOUGH_TALKS:
        return None
    seconds = (measured.waiting + 1) * measured.mean_talk.total_seconds() / measured.agents
    return timedelta(seconds=round(seconds))
