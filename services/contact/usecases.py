"""What contact does: each locks, decides in the domain, saves, and appends the facts, in one transaction.

Each returns whose screens must look anew, beside what was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import asyncpg

from services.chassis import telemetry
from services.chassis.access import NOT_THERE
from services.chassis.database import Transaction
from services.chassis.errors import NotFound
from services.chassis.facts import Fact
from services.contact import presence, publishes, ringing, store
from services.contact.domain import hotline, routing, timeline
from services.contact.domain.contact import (
    AnswerPromiseMissed,
    Channel,
    Contact,
    ContactNotFound,
    ContactState,
    Ended,
    Happened,
    Pressed,
    Promise,
)
from services.contact.domain.routing import (
    AgentBusy,
    AgentNotFound,
    AgentStatus,
    OfferGone,
    OfferNotFound,
    OfferState,
    Rules,
)
from services.contact.domain.timeline import Entry, Kind

# Misses noted in one transaction.
MISSES_AT_ONCE = 200
# Customers who vanished, let go in one transaction: few, for the router does it between two looks at the queue.
VANISHED_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Touched:
    """A contact after a change, and the agents at whose desks something changed with it."""

    contact: Contact
    agents: Collection[str] = ()


# -- the customer


async def press_help(tx: Transaction, customer_id: str, channel: Channel, page: str, promise: Promise) -> Touched:
    """Asks for a human; gives the contact that waits or talks on that channel already, if there is one."""
    while True:
        contact = await store.add_contact(tx.connection, customer_id, channel, page, telemetry.current_journey())
        if contact is not None:
            await _record(tx, contact, [Pressed(contact.press_time)], promise)
            return Touched(contact)
        contact = await store.live_contact(tx.connection, customer_id, channel)
        if contact is not None:  # None: it ended in between
            return Touched(contact)


async def leave_contact(tx: Transaction, customer_id: str, contact_id: str, promise: Promise) -> Touched:
    """The customer leaves. Raises `NotFound` for somebody else's contact."""
    contact = await store.lock_contact(tx.connection, contact_id)
    if contact is None or contact.customer_id != customer_id:
        raise NotFound(NOT_THERE)
    happened = contact.leave(await store.now(tx.connection), promise)
    return await _end(tx, contact, happened, promise) if happened else Touched(contact)


# -- the agent


async def save_agent(
    tx: Transaction, agent_id: str, display_name: str, channels: Collection[Channel], absent_after: timedelta
) -> asyncpg.Record:
    """Enters or changes an agent."""
    await store.save_agent(tx.connection, agent_id, display_name, channels)
    return await _agent(tx, agent_id, absent_after)


async def set_status(tx: Transaction, agent_id: str, status: AgentStatus, absent_after: timedelta) -> asyncpg.Record:
    """The agent takes contacts, or does not. What rings at a desk that does not is taken from it by the routers."""
    await store.set_status(tx.connection, agent_id, status)
    return await _agent(tx, agent_id, absent_after)


async def accept_offer(tx: Transaction, offer_id: str, agent_id: str, promise: Promise) -> Touched:
    """Takes the customer. First accept wins. Raises `OfferNotFound`, `OfferGone`, `AgentBusy`."""
    found = await store.lock_offered(tx.connection, offer_id, agent_id)
    if found is None:
        raise OfferNotFound("there is no such offer at this desk", offer_id=offer_id)
    contact, version = found
    waits = contact.state is ContactState.WAITING
    taken = await store.take_offer(tx.connection, offer_id, version) if waits else None
    if taken is None:
        raise await _gone(tx, offer_id, agent_id)
    name = await store.seat(tx.connection, agent_id, contact.contact_id)
    if name is None:
        raise AgentBusy("one talk at a time: complete the other one first", agent_id=agent_id)
    others = await store.rescind(tx.connection, contact.contact_id, agent_id)
    await _record(tx, contact, contact.answer(agent_id, name, taken, promise), promise)
    return Touched(contact, {agent_id, *others})


async def decline_offer(tx: Transaction, offer_id: str, agent_id: str) -> store.Offer:
    """Leaves the customer to the next agent. Raises `OfferNotFound`, `OfferGone`."""
    declined = await store.decline_offer(tx.connection, offer_id, agent_id)
    if declined is None:
        raise await _gone(tx, offer_id, agent_id)
    return declined


async def complete_contact(tx: Transaction, contact_id: str, agent_id: str, promise: Promise) -> Touched:
    """The talk is over. Raises `ContactNotFound`, `ContactNotTalking`."""
    contact = await store.lock_contact(tx.connection, contact_id)
    if contact is None:
        raise ContactNotFound("there is no such contact at this desk", contact_id=contact_id)
    happened = contact.complete(agent_id, await store.now(tx.connection))
    return await _end(tx, contact, happened, promise)


async def add_note(
    tx: Transaction, customer_id: str, contact_id: str | None, agent_id: str, encrypted: bytes
) -> tuple[int, Entry]:
    """Writes down what was said. Raises `ContactNotFound` for another's contact, `NotFound` for an unknown customer."""
    if contact_id is not None:
        contact = await store.lock_contact(tx.connection, contact_id)
        if contact is None or contact.customer_id != customer_id or contact.agent_id != agent_id:
            raise ContactNotFound("there is no such contact at this desk", contact_id=contact_id)
    elif not await store.is_known(tx.connection, customer_id):
        raise NotFound("there is no such customer", reason="CUSTOMER_NOT_FOUND")
    note = Entry(
        f"note_{uuid4().hex}",
        customer_id,
        Kind.NOTE,
        await store.now(tx.connection),
        "",
        contact_id=contact_id,
        agent_id=agent_id,
        journey_id=telemetry.current_journey(),
        note=encrypted,
    )
    (entry_id,) = await store.add_entries(tx.connection, [note])
    if entry_id is None:
        raise RuntimeError("a new note was there before")
    return entry_id, note


# -- time


async def route(tx: Transaction, rules: Rules) -> set[str]:
    """Lets whoever waits ring where it should ring now. Returns the agents at whose desks something changed."""
    await ringing.take_turn(tx.connection)
    touched = set(await ringing.end_offers(tx.connection, rules))
    desks = await ringing.open_desks(tx.connection, rules)
    if not desks:
        return touched
    waiting, customers = await ringing.lock_queue(tx.connection, desks, rules)
    planned = routing.plan(waiting, desks, rules)
    if not planned:
        return touched
    made = await ringing.add_offers(tx.connection, planned, rules)
    for contact_id in {offer.contact_id for offer in made}:
        _trace_offers(customers[contact_id], sum(offer.contact_id == contact_id for offer in made))
    return touched | {offer.agent_id for offer in made}


async def note_misses(tx: Transaction, promise: Promise) -> list[str]:
    """Notes, once, that contacts wait longer than promised. Returns which; they go on ringing."""
    contacts = await store.lock_unmissed(tx.connection, promise.answer_within, MISSES_AT_ONCE)
    if contacts:
        now = await store.now(tx.connection)
        await _record_all(tx, [(contact, contact.miss(now, promise)) for contact in contacts], promise)
    return [contact.contact_id for contact in contacts]


async def abandon_unwatched(tx: Transaction, unwatched_for: timedelta, promise: Promise) -> list[Touched]:
    """Who watched the contact, and waits unwatched for so long now, has left."""
    contacts = await presence.lock_unwatched(tx.connection, unwatched_for, VANISHED_AT_ONCE)
    now = await store.now(tx.connection)
    return [await _end(tx, contact, contact.leave(now, promise), promise) for contact in contacts]


async def announce_hotline(
    tx: Transaction, phone_number: str, absent_after: timedelta, apart: timedelta, keepalive: timedelta
) -> asyncpg.Record | None:
    """Announces the hotline if it changed, or was not announced for long. Returns what was announced."""
    last = await store.lock_hotline(tx.connection, apart)
    if last is None:
        return None
    status = hotline.status(await store.measure_hotline(tx.connection, absent_after))
    if last["age"] is not None and last["age"] < keepalive and status == store.hotline_status(last):
        return None
    row = await store.save_hotline(tx.connection, status)
    options = publishes.contact_options(phone_number, status, row["publish_time"])
    await tx.append([publishes.hotline_status_changed(row["version"], options)])
    return row


# -- inside


async def _agent(tx: Transaction, agent_id: str, absent_after: timedelta) -> asyncpg.Record:
    row = await store.agent(tx.connection, agent_id, absent_after)
    if row is None:
        raise AgentNotFound("there is no such agent", agent_id=agent_id)
    return row


async def _gone(tx: Transaction, offer_id: str, agent_id: str) -> OfferNotFound | OfferGone:
    state = await store.offer_state(tx.connection, offer_id, agent_id)
    if state is None:
        return OfferNotFound("there is no such offer at this desk", offer_id=offer_id)
    if state is OfferState.PENDING:
        # Not ended yet, but the contact does not wait any more.
        state = OfferState.RESCINDED
    return OfferGone(f"the offer is {state}", offer_id=offer_id, state=state)


async def _end(tx: Transaction, contact: Contact, happened: Sequence[Happened], promise: Promise) -> Touched:
    """Saves the end of a contact, with all that hung on it."""
    agents = await store.rescind(tx.connection, contact.contact_id, None)
    await _record(tx, contact, happened, promise)
    if contact.agent_id is not None:
        await store.free_agent(tx.connection, contact)
        agents.append(contact.agent_id)
    return Touched(contact, set(agents))


async def _record(tx: Transaction, contact: Contact, happened: Sequence[Happened], promise: Promise) -> None:
    await _record_all(tx, [(contact, happened)], promise)


async def _record_all(tx: Transaction, changed: Sequence[tuple[Contact, Sequence[Happened]]], promise: Promise) -> None:
    """Saves contacts, writes what happened to the timeline, and announces it, each on its contact's journey."""
    await store.save_contacts(tx.connection, [contact for contact, _ in changed])
    await store.add_entries(
        tx.connection,
        [timeline.of_contact(contact, one, promise) for contact, happened in changed for one in happened],
    )
    facts: list[tuple[Fact, Mapping[str, str]]] = []
    for contact, happened in changed:
        with (
            telemetry.with_journey(contact.journey_id, contact.customer_id),
            telemetry.span("record contact", {"shop.contact.state": contact.state}),
        ):
            carried = telemetry.carrier()
        facts += [(fact, carried) for one in happened for fact in _told(contact, one)]
    await tx.append_carried(facts)


def _told(contact: Contact, happened: Happened) -> list[Fact]:
    match happened:
        case AnswerPromiseMissed():
            return [publishes.answer_promise_missed(contact, happened)]
        case Ended():
            return [publishes.interaction_recorded(contact, happened)]
        case _:
            return []


def _trace_offers(customer: ringing.Customer, desks: int) -> None:
    """What the clock does for a customer is a trace of its own, found by the customer's journey."""
    with (
        telemetry.with_journey(customer.journey_id, customer.customer_id),
        telemetry.span("ring", {"shop.contact.desks": desks}),
    ):
        pass
