"""The timeline: everything that happened between us and a customer, once, in order, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.contact.domain.contact import Answered, AnswerPromiseMissed, Contact, Happened, Pressed, Promise


class Kind(StrEnum):
    """What kind of thing happened."""

    CONTACT_PRESSED = "contact_pressed"
    CONTACT_ANSWERED = "contact_answered"
    CONTACT_ENDED = "contact_ended"
    ANSWER_PROMISE_MISSED = "answer_promise_missed"
    NOTE = "note"
    ORDER_PLACED = "order_placed"
    ORDER_REJECTED = "order_rejected"
    ORDER_CANCELLED = "order_cancelled"
    UPGRADE_GRANTED = "upgrade_granted"
    UPGRADE_DECLINED = "upgrade_declined"
    SHIPMENT_UPGRADED = "shipment_upgraded"
    UPGRADE_NOT_APPLIED = "upgrade_not_applied"
    SHIPMENT_DISPATCHED = "shipment_dispatched"
    SHIPMENT_DELIVERED = "shipment_delivered"
    STANDING_CHANGED = "standing_changed"
    BACK_IN_STOCK = "back_in_stock"


# Of things that happened at the same instant, the one that leads to the other comes first.
# The numbers are stored: new kinds go in between.
CAUSE = {
    Kind.CONTACT_PRESSED: 10,
    Kind.ANSWER_PROMISE_MISSED: 20,
    Kind.CONTACT_ANSWERED: 30,
    Kind.NOTE: 40,
    Kind.CONTACT_ENDED: 50,
    Kind.BACK_IN_STOCK: 105,
    Kind.ORDER_PLACED: 110,
    Kind.ORDER_REJECTED: 120,
    Kind.UPGRADE_GRANTED: 130,
    Kind.UPGRADE_DECLINED: 130,
    Kind.SHIPMENT_UPGRADED: 140,
    Kind.UPGRADE_NOT_APPLIED: 140,
    Kind.ORDER_CANCELLED: 150,
    Kind.SHIPMENT_DISPATCHED: 160,
    Kind.SHIPMENT_DELIVERED: 170,
    Kind.STANDING_CHANGED: 180,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    # What it is known by: the same id is the same thing, however often it is heard.
    fact_id: str
    customer_id: str
    kind: Kind
    # When it happened, as its owner says.
    occur_time: datetime
    # In plain words, free of personal data.
    summary: str
    order_id: str | None = None
    contact_id: str | None = None
    agent_id: str | None = None
    journey_id: str | None = None
    # The words of a note, encrypted.
    note: bytes | None = None

    @property
    def cause(self) -> int:
        """Its rank among things of the same instant."""
        return CAUSE[self.kind]


def of_contact(contact: Contact, happened: Happened, promise: Promise) -> Entry:
    """What happened to a contact, as an entry."""
    kind, summary = _told(contact, happened, promise)
    return Entry(
        f"{contact.contact_id}:{kind}",
        contact.customer_id,
        kind,
        happened.time,
        summary,
        contact_id=contact.contact_id,
        agent_id=contact.agent_id,
        journey_id=contact.journey_id,
    )


def _told(contact: Contact, happened: Happened, promise: Promise) -> tuple[Kind, str]:
    waited = in_words(happened.time - contact.press_time)
    if isinstance(happened, Pressed):
        return Kind.CONTACT_PRESSED, f"Asked for a human by {contact.channel}"
    if isinstance(happened, Answered):
        return Kind.CONTACT_ANSWERED, f"{contact.agent_name} answered after {waited}"
    if isinstance(happened, AnswerPromiseMissed):
        return Kind.ANSWER_PROMISE_MISSED, f"We promised a human within {in_words(promise.answer_within)}: none came"
    if contact.answer_time is None:
        return Kind.CONTACT_ENDED, f"Left after {waited}; nobody had answered"
    return Kind.CONTACT_ENDED, f"Talked with {contact.agent_name} for {in_words(happened.time - contact.answer_time)}"


def in_words(time: timedelta) -> str:
    """A length of time to the second, such as `4 min 3 s`."""
    seconds = max(0, round(time.total_seconds()))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    parts = [(hours, "h"), (minutes, "min"), (seconds % 60, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"
