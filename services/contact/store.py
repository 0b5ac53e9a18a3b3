"""Contact's tables, inside a transaction.

Whoever changes a contact locks it first, then its offers, then the agent. Those who route wait for nobody: what is
locked is left out, and whoever held it wakes them when it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

import asyncpg

from services.chassis.database import Connection
from services.contact.domain.contact import Channel, Contact, ContactState
from services.contact.domain.hotline import HotlineStatus, Measured
from services.contact.domain.routing import AgentStatus, OfferState
from services.contact.domain.timeline import Entry

# A contact with the name of who answered.
CONTACT = "SELECT c.*, a.display_name AS agent_name FROM contacts c LEFT JOIN agents a USING (agent_id)"
# An agent; $1 is after how long without a heartbeat it is absent.
AGENT = """
SELECT a.*, coalesce(h.beat_time > clock_timestamp() - $1::interval, false) AS present,
    EXISTS (SELECT FROM offers o WHERE o.agent_id = a.agent_id AND o.state = 'pending') AS ringing
FROM agents a JOIN heartbeats h USING (agent_id)
"""
# Offers with their contacts, which bring the columns of both.
OFFER = """
SELECT o.offer_id, o.agent_id AS desk, o.state AS offer_state, o.create_time, o.expire_time, c.*,
    a.display_name AS agent_name
FROM offers o JOIN contacts c USING (contact_id) LEFT JOIN agents a ON a.agent_id = c.agent_id
"""
# How many of the latest talks tell how long talks are.
TALKS_MEASURED = 200


@dataclass(frozen=True, slots=True)
class Offer:
    """A contact that rings, rang, or was taken at one desk."""

    offer_id: str
    agent_id: str
    state: OfferState
    create_time: datetime
    expire_time: datetime
    contact: Contact


async def now(connection: Connection) -> datetime:
    """The database's clock."""
    instant: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return instant


# -- agents


async def save_agent(connection: Connection, agent_id: str, display_name: str, channels: Iterable[Channel]) -> None:
    """Enters or changes an agent."""
    await connection.execute(
        "WITH saved AS ("
        " INSERT INTO agents (agent_id, display_name, channels) VALUES ($1, $2, $3)"
        " ON CONFLICT (agent_id) DO UPDATE SET display_name = excluded.display_name, channels = excluded.channels"
        " RETURNING agent_id"
        ") INSERT INTO heartbeats (agent_id) SELECT agent_id FROM saved ON CONFLICT DO NOTHING",
        agent_id,
        display_name,
        sorted(channels),
    )


async def set_status(connection: Connection, agent_id: str, status: AgentStatus) -> None:
    """Writes what an agent says about taking contacts."""
    await connection.execute("UPDATE agents SET status = $2 WHERE agent_id = $1", agent_id, status)


async def agent(connection: Connection, agent_id: str, absent_after: timedelta) -> asyncpg.Record | None:
    """An agent as it is now."""
    return await connection.fetchrow(AGENT + "WHERE a.agent_id = $2", absent_after, agent_id)


async def seat(connection: Connection, agent_id: str, contact_id: str) -> str | None:
    """The agent now talks to this contact. Returns the agent's name, None when it talks to somebody already."""
    name: str | None = await connection.fetchval(
        "UPDATE agents SET contact_id = $2 WHERE agent_id = $1 AND contact_id IS NULL RETURNING display_name",
        agent_id,
        contact_id,
    )
    return name


async def free_agent(connection: Connection, contact: Contact) -> None:
    """The talk of the contact's agent is over: the agent goes to the end of the rank."""
    await connection.execute(
        "UPDATE agents SET contact_id = NULL, last_complete_time = $3 WHERE agent_id = $1 AND contact_id = $2",
        contact.agent_id,
        contact.contact_id,
        contact.end_time,
    )


# -- contacts


async def add_contact(
    connection: Connection, customer_id: str, channel: Channel, page: str, journey_id: str | None
) -> Contact | None:
    """Writes a new contact that waits from now on; None when one is live on that channel."""
    row = await connection.fetchrow(
        "INSERT INTO contacts (contact_id, customer_id, channel, state, page, press_time, journey_id)"
        " VALUES ($1, $2, $3, 'waiting', $4, clock_timestamp(), $5)"
        " ON CONFLICT (customer_id, channel) WHERE state IN ('waiting', 'talking') DO NOTHING"
        " RETURNING *, NULL AS agent_name",
        f"con_{uuid4().hex}",
        customer_id,
        channel,
        page,
        journey_id,
    )
    return contact_of(row) if row else None


async def live_contact(connection: Connection, customer_id: str, channel: Channel) -> Contact | None:
    """The contact that waits or talks on a channel. Not locked."""
    row = await connection.fetchrow(
        CONTACT + " WHERE c.customer_id = $1 AND c.channel = $2 AND c.state IN ('waiting', 'talking')",
        customer_id,
        channel,
    )
    return contact_of(row) if row else None


async def lock_contact(connection: Connection, contact_id: str) -> Contact | None:
    """Locks a contact."""
    row = await connection.fetchrow(CONTACT + " WHERE c.contact_id = $1 FOR UPDATE OF c", contact_id)
    return contact_of(row) if row else None


async def lock_offered(connection: Connection, offer_id: str, agent_id: str) -> tuple[Contact, int] | None:
    """Locks the contact of an offer to this agent. Returns it with the offer's version."""
    row = await connection.fetchrow(
        "SELECT c.*, NULL AS agent_name, o.version AS offer_version FROM offers o JOIN contacts c USING (contact_id)"
        " WHERE o.offer_id = $1 AND o.agent_id = $2 FOR UPDATE OF c",
        offer_id,
        agent_id,
    )
    return (contact_of(row), row["offer_version"]) if row else None


async def lock_unmissed(connection: Connection, waited: timedelta, limit: int) -> list[Contact]:
    """Locks contacts that wait longer than this and are not noted as missed; those locked elsewhere are left out."""
    rows = await connection.fetch(
        "SELECT *, NULL AS agent_name FROM contacts WHERE state = 'waiting' AND NOT promise_missed"
        " AND press_time < clock_timestamp() - $1::interval ORDER BY press_time LIMIT $2 FOR UPDATE SKIP LOCKED",
        waited,
        limit,
    )
    return [contact_of(row) for row in rows]


async def save_contacts(connection: Connection, contacts: Sequence[Contact]) -> None:
    """Writes locked contacts."""
    await connection.execute(
        "UPDATE contacts c SET state = n.state, answer_time = n.answer_time, end_time = n.end_time,"
        " agent_id = n.agent_id, promise_missed = n.promise_missed, version = n.version"
        " FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::boolean[],"
        " $7::bigint[]) AS n(contact_id, state, answer_time, end_time, agent_id, promise_missed, version)"
        " WHERE c.contact_id = n.contact_id",
        [contact.contact_id for contact in contacts],
        [contact.state for contact in contacts],
        [contact.answer_time for contact in contacts],
        [contact.end_time for contact in contacts],
        [contact.agent_id for contact in contacts],
        [contact.promise_missed for contact in contacts],
        [contact.version for contact in contacts],
    )


# -- offers


async def take_offer(connection: Connection, offer_id: str, version: int) -> datetime | None:
    """The one statement that gives a contact to an agent. Returns when; None when the offer is gone."""
    instant: datetime | None = await connection.fetchval(
        "UPDATE offers SET state = 'accepted', version = version + 1"
        " WHERE offer_id = $1 AND state = 'pending' AND version = $2 AND expire_time > clock_timestamp()"
        " RETURNING clock_timestamp()",
        offer_id,
        version,
    )
    return instant


async def decline_offer(connection: Connection, offer_id: str, agent_id: str) -> Offer | None:
    """Ends an offer to this agent. None when it is gone."""
    declined = await connection.fetchval(
        "UPDATE offers SET state = 'declined', version = version + 1"
        " WHERE offer_id = $1 AND agent_id = $2 AND state = 'pending' AND expire_time > clock_timestamp()"
        " RETURNING true",
        offer_id,
        agent_id,
    )
    row = await connection.fetchrow(OFFER + " WHERE o.offer_id = $1", offer_id) if declined else None
    return offer_of(row) if row else None


async def offer_state(connection: Connection, offer_id: str, agent_id: str) -> OfferState | None:
    """Where an offer to this agent stands: past its time it has timed out, whatever is written down."""
    state: str | None = await connection.fetchval(
        "SELECT CASE WHEN state = 'pending' AND expire_time <= clock_timestamp() THEN 'timed_out' ELSE state END"
        " FROM offers WHERE offer_id = $1 AND agent_id = $2",
        offer_id,
        agent_id,
    )
    return OfferState(state) if state else None


async def rescind(connection: Connection, contact_id: str, agent_id: str | None) -> list[str]:
    """Ends what else rings: this contact at other desks, and others at this desk. Returns whose desks.

    An offer that is locked is being ended by somebody else; should that fail, the next look at the queue ends it.
    """
    rows = await connection.fetch(
        "UPDATE offers SET state = 'rescinded', version = version + 1 WHERE offer_id IN ("
        " SELECT offer_id FROM offers WHERE state = 'pending' AND (contact_id = $1 OR agent_id = $2)"
        " FOR UPDATE SKIP LOCKED) RETURNING agent_id",
        contact_id,
        agent_id,
    )
    return [row["agent_id"] for row in rows]


async def prune_offers(connection: Connection, ended_before: timedelta, limit: int) -> None:
    """Deletes offers that are history: made and over so long ago, and so is the talk if one came of it."""
    await connection.execute(
        "DELETE FROM offers WHERE offer_id IN ("
        " SELECT o.offer_id FROM offers o JOIN contacts c USING (contact_id)"
        " WHERE o.create_time < clock_timestamp() - $1::interval AND o.state <> 'pending'"
        " AND (o.state <> 'accepted' OR c.end_time < clock_timestamp() - $1::interval)"
        " ORDER BY o.create_time LIMIT $2 FOR UPDATE OF o SKIP LOCKED)",
        ended_before,
        limit,
    )


# -- timeline


async def add_entries(connection: Connection, entries: Sequence[Entry]) -> list[int | None]:
    """Writes what happened, and returns the entries' numbers: None for what was written before."""
    rows = await connection.fetch(
        "WITH added AS ("
        " INSERT INTO timeline (fact_id, customer_id, kind, occur_time, cause, summary, note, order_id, contact_id,"
        " agent_id, journey_id) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[],"
        " $5::bigint[], $6::text[], $7::bytea[], $8::text[], $9::text[], $10::text[], $11::text[])"
        " ON CONFLICT (fact_id) DO NOTHING RETURNING fact_id, entry_id"
        ") SELECT added.entry_id FROM unnest($1::text[]) WITH ORDINALITY AS e(fact_id, nth)"
        " LEFT JOIN added USING (fact_id) ORDER BY e.nth",
        [entry.fact_id for entry in entries],
        [entry.customer_id for entry in entries],
        [entry.kind for entry in entries],
        [entry.occur_time for entry in entries],
        [entry.cause for entry in entries],
        [entry.summary for entry in entries],
        [entry.note for entry in entries],
        [entry.order_id for entry in entries],
        [entry.contact_id for entry in entries],
        [entry.agent_id for entry in entries],
        [entry.journey_id for entry in entries],
    )
    return [row["entry_id"] for row in rows]


async def is_known(connection: Connection, customer_id: str) -> bool:
    """Whether anything ever happened between us and the customer."""
    known: bool = await connection.fetchval("SELECT EXISTS (SELECT FROM timeline WHERE customer_id = $1)", customer_id)
    return known


# -- hotline


async def lock_hotline(connection: Connection, apart: timedelta) -> asyncpg.Record | None:
    """Locks what was last announced, with its `age`; None when that is too fresh, or another process is at it."""
    return await connection.fetchrow(
        "SELECT *, clock_timestamp() - publish_time AS age FROM hotline"
        " WHERE publish_time IS NULL OR publish_time <= clock_timestamp() - $1::interval FOR UPDATE SKIP LOCKED",
        apart,
    )


async def measure_hotline(connection: Connection, absent_after: timedelta) -> Measured:
    """The hotline as it is now."""
    row = await connection.fetchrow(
        "WITH present AS ("
        " SELECT a.channels, a.contact_id FROM agents a JOIN heartbeats h USING (agent_id)"
        " WHERE a.status = 'available' AND h.beat_time > clock_timestamp() - $1::interval"
        "), talks AS ("
        " SELECT end_time - answer_time AS length FROM contacts WHERE state = 'completed'"
        " ORDER BY end_time DESC LIMIT $2"
        ") SELECT (SELECT coalesce(array_agg(DISTINCT channel), '{}') FROM present, unnest(channels) AS channel)"
        " AS channels, (SELECT count(*) FROM contacts WHERE state = 'waiting') AS waiting,"
        " (SELECT count(*) FROM present) AS agents,"
        " (SELECT count(*) FROM present WHERE contact_id IS NULL) AS idle,"
        " (SELECT count(*) FROM talks) AS talks, (SELECT coalesce(avg(length), '0') FROM talks) AS mean_talk",
        absent_after,
        TALKS_MEASURED,
    )
    assert row is not None  # noqa: S101 a select without FROM has one row
    return Measured(
        [Channel(channel) for channel in row["channels"]],
        row["waiting"],
        row["agents"],
        row["idle"],
        row["talks"],
        row["mean_talk"],
    )


async def save_hotline(connection: Connection, status: HotlineStatus) -> asyncpg.Record:
    """Writes what is announced now, and returns it with its version."""
    row = await connection.fetchrow(
        "UPDATE hotline SET version = version + 1, open_channels = $1, expected_wait_seconds = $2,"
        " publish_time = clock_timestamp() RETURNING *",
        status.open_channels,
        None if status.expected_wait is None else int(status.expected_wait.total_seconds()),
    )
    assert row is not None  # noqa: S101 the row is always there
    return row


def hotline_status(row: asyncpg.Record) -> HotlineStatus:
    """The row, as a status."""
    seconds = row["expected_wait_seconds"]
    return HotlineStatus(
        tuple(Channel(channel) for channel in row["open_channels"]),
        None if seconds is None else timedelta(seconds=seconds),
    )


def contact_of(row: asyncpg.Record) -> Contact:
    """The row, as a contact."""
    return Contact(
        row["contact_id"],
        row["customer_id"],
        Channel(row["channel"]),
        ContactState(row["state"]),
        row["page"],
        row["press_time"],
        row["answer_time"],
        row["end_time"],
        row["agent_id"],
        row["agent_name"] or "",
        row["promise_missed"],
        row["journey_id"],
        row["version"],
    )


def offer_of(row: asyncpg.Record) -> Offer:
    """The row, as an offer."""
    return Offer(
        row["offer_id"],
        row["desk"],
        OfferState(row["offer_state"]),
        row["create_time"],
        row["expire_time"],
        contact_of(row),
    )
