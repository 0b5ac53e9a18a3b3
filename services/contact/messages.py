"""From what contact knows to the messages of its contract."""

from __future__ import annotations

from datetime import datetime

import asyncpg

from services.chassis.values import to_timestamp
from services.contact.domain.contact import Channel, Contact, ContactState
from services.contact.domain.routing import AgentState, AgentStatus, OfferState
from services.contact.domain.timeline import Entry, Kind
from services.contact.notes import Notes
from services.contact.publishes import CHANNELS
from services.contact.store import Offer
from shop.contact.v1 import contact_pb2 as pb

CHANNEL_OF = {number: channel for channel, number in CHANNELS.items()}
STATUSES = {status: pb.AgentStatus.Value(f"AGENT_STATUS_{status.name}") for status in AgentStatus}
STATUS_OF = {number: status for status, number in STATUSES.items()}
AGENT_STATES = {state: pb.AgentState.Value(f"AGENT_STATE_{state.name}") for state in AgentState}
CONTACT_STATES = {state: pb.ContactState.Value(f"CONTACT_STATE_{state.name}") for state in ContactState}
OFFER_STATES = {state: pb.OfferState.Value(f"OFFER_STATE_{state.name}") for state in OfferState}
KINDS = {kind: pb.TimelineKind.Value(f"TIMELINE_KIND_{kind.name}") for kind in Kind}


def agent(row: asyncpg.Record) -> pb.Agent:
    """An agent; what it is busy with follows from its talk and from what rings."""
    state = AgentState.RINGING if row["ringing"] else AgentState.IDLE
    return pb.Agent(
        agent_id=row["agent_id"],
        display_name=row["display_name"],
        status=STATUSES[AgentStatus(row["status"])],
        state=AGENT_STATES[AgentState.TALKING if row["contact_id"] else state],
        present=row["present"],
        channels=[CHANNELS[Channel(channel)] for channel in row["channels"]],
    )


def contact(known: Contact) -> pb.Contact:
    """A contact."""
    return pb.Contact(
        contact_id=known.contact_id,
        customer_id=known.customer_id,
        channel=CHANNELS[known.channel],
        state=CONTACT_STATES[known.state],
        press_time=to_timestamp(known.press_time),
        answer_time=to_timestamp(known.answer_time) if known.answer_time else None,
        end_time=to_timestamp(known.end_time) if known.end_time else None,
        agent_id=known.agent_id or "",
        agent_name=known.agent_name,
        promise_missed=known.promise_missed,
        page=known.page,
    )


def offer(known: Offer) -> pb.Offer:
    """An offer."""
    return pb.Offer(
        offer_id=known.offer_id,
        contact=contact(known.contact),
        state=OFFER_STATES[known.state],
        create_time=to_timestamp(known.create_time),
        expire_time=to_timestamp(known.expire_time),
    )


def note(entry_id: int, entry: Entry) -> pb.TimelineEntry:
    """A note without its words."""
    return pb.TimelineEntry(
        entry_id=str(entry_id),
        kind=KINDS[entry.kind],
        occur_time=to_timestamp(entry.occur_time),
        contact_id=entry.contact_id or "",
        agent_id=entry.agent_id or "",
        journey_id=entry.journey_id or "",
    )


def timeline_entry(row: asyncpg.Record, notes: Notes) -> pb.TimelineEntry:
    """An entry, with the words of a note."""
    return pb.TimelineEntry(
        entry_id=str(row["entry_id"]),
        kind=KINDS[Kind(row["kind"])],
        occur_time=to_timestamp(row["occur_time"]),
        summary=row["summary"] if row["note"] is None else notes.decrypt(row["note"]),
        order_id=row["order_id"] or "",
        contact_id=row["contact_id"] or "",
        agent_id=row["agent_id"] or "",
        journey_id=row["journey_id"] or "",
    )


def position(row: asyncpg.Record) -> tuple[datetime, int, int]:
    """Where an entry stands in the timeline."""
    return row["occur_time"], row["cause"], row["entry_id"]
