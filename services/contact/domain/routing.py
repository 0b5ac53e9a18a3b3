"""Routing: which waiting contact rings at which desk.

Customers come in the order of their waiting, so nobody starves. Desks come in the order of their rank: longest since
their last completed contact. At first a contact rings at one desk at a time; from `ring_all_after` on at all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from services.chassis.errors import NotFound, NotNow
from services.contact.domain.contact import Channel


class AgentStatus(StrEnum):
    """What an agent says about taking contacts."""

    AVAILABLE = "available"
    AWAY = "away"
    OFF = "off"


class AgentState(StrEnum):
    """What an agent is busy with."""

    IDLE = "idle"
    RINGING = "ringing"
    TALKING = "talking"


class OfferState(StrEnum):
    """Where an offer stands: pending, or how it ended."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    TIMED_OUT = "timed_out"
    RESCINDED = "rescinded"


class AgentNotFound(NotFound):
    """There is no such agent."""

    reason = "AGENT_NOT_FOUND"


class OfferNotFound(NotFound):
    """There is no such offer, or it rings at another desk."""

    reason = "OFFER_NOT_FOUND"


class OfferGone(NotNow):
    """The offer has ended: somebody else was faster, its time ran out, or the customer left."""

    reason = "OFFER_GONE"


class AgentBusy(NotNow):
    """The agent talks to somebody."""

    reason = "AGENT_BUSY"


@dataclass(frozen=True, slots=True)
class Rules:
    """The times of routing."""

    offer_life: timedelta = timedelta(seconds=5)
    ring_all_after: timedelta = timedelta(seconds=10)
    absent_after: timedelta = timedelta(seconds=6)
    # When many wait, a desk shows the longest waiting ones and no more than this.
    rings_at_once: int = 3


@dataclass(frozen=True, slots=True)
class Rung:
    """How a contact was offered to one agent lately."""

    times: int
    # Since the latest of these offers was made.
    ago: timedelta
    pending: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A contact that waits, with the agents it was offered to lately."""

    contact_id: str
    channel: Channel
    waited: timedelta
    rung: Mapping[str, Rung] = field(default_factory=dict)

    @property
    def rings(self) -> bool:
        """It rings somewhere now."""
        return any(rung.pending for rung in self.rung.values())


@dataclass(slots=True)
class Desk:
    """An agent who is present, available and not talking."""

    agent_id: str
    channels: frozenset[Channel]
    # Contacts that ring here now.
    ringing: int = 0


@dataclass(frozen=True, slots=True)
class NewOffer:
    """This contact shall ring at this agent's desk."""

    contact_id: str
    agent_id: str


def plan(waiting: Sequence[Waiting], desks: Sequence[Desk], rules: Rules) -> list[NewOffer]:
    """The offers to make now. `waiting` in the order of waiting, `desks` in the order of rank."""
    offers: list[NewOffer] = []
    free = [desk for desk in desks if not desk.ringing]
    ringing = {desk.agent_id: desk.ringing for desk in desks}
    made: set[tuple[str, str]] = set()

    def offer(contact: Waiting, desk: Desk) -> None:
        offers.append(NewOffer(contact.contact_id, desk.agent_id))
        made.add((contact.contact_id, desk.agent_id))
        ringing[desk.agent_id] += 1

    # First everybody gets a desk of their own, as far as they go.
    for contact in waiting:
        if contact.rings:
            continue
        desk = _best(contact, free, rules)
        if desk is not None:
            free.remove(desk)
            offer(contact, desk)
    # Then those who wait too long ring everywhere.
    for contact in waiting:
        if contact.waited < rules.ring_all_after:
            continue
        for desk in desks:
            fits = ringing[desk.agent_id] < rules.rings_at_once and _may_ring(contact, desk, rules)
            if fits and (contact.contact_id, desk.agent_id) not in made:
                offer(contact, desk)
    return offers


def _best(contact: Waiting, free: Sequence[Desk], rules: Rules) -> Desk | None:
    """The first in rank of the desks that this contact rang at least often."""
    best, fewest = None, 0
    for desk in free:
        if _may_ring(contact, desk, rules):
            rung = contact.rung.get(desk.agent_id)
            if rung is None:
                return desk
            if best is None or rung.times < fewest:
                best, fewest = desk, rung.times
    return best


def _may_ring(contact: Waiting, desk: Desk, rules: Rules) -> bool:
    """The desk takes the channel, and who let it ring or declined is left alone for the life of an offer."""
    rung = contact.rung.get(desk.agent_id)
    return contact.channel in desk.channels and (rung is None or (not rung.pending and rung.ago >= rules.offer_life))
