"""The tables as those see them who route: which offers are over, who waits, which desks are free.

All statements take whole sets, and none waits for a lock that somebody else than another router holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from services.chassis.database import Connection
from services.contact.domain.contact import Channel
from services.contact.domain.routing import Desk, NewOffer, Rules, Rung, Waiting

# Any number, the same for every process of contact: one routes at a time.
TURN = 5_309_101
# A router that froze in its turn is put out by the server after this time.
FROZEN_MS = "2000"


@dataclass(frozen=True, slots=True)
class Customer:
    """Whom a contact is with, and on which journey."""

    customer_id: str
    journey_id: str | None


async def take_turn(connection: Connection) -> None:
    """Waits until no other process routes. The turn ends with the transaction."""
    await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {FROZEN_MS}")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", TURN)


async def end_offers(connection: Connection, rules: Rules) -> list[str]:
    """Ends the offers that ring in vain, and returns whose desks they rang at.

    Their time is over, or the agent is gone; or the agent or the contact is not to be had any more.
    """
    rows = await connection.fetch(
        "WITH vain AS ("
        " SELECT o.offer_id, o.expire_time <= clock_timestamp() OR h.beat_time <= clock_timestamp() - $1::interval"
        " AS unanswered FROM offers o JOIN agents a USING (agent_id) JOIN heartbeats h USING (agent_id)"
        " JOIN contacts c ON c.contact_id = o.contact_id"
        " WHERE o.state = 'pending' AND (o.expire_time <= clock_timestamp()"
        " OR h.beat_time <= clock_timestamp() - $1::interval"
        " OR a.status <> 'available' OR a.contact_id IS NOT NULL OR c.state <> 'waiting')"
        " FOR UPDATE OF o SKIP LOCKED"
        ") UPDATE offers o SET state = CASE WHEN vain.unanswered THEN 'timed_out' ELSE 'rescinded' END,"
        " version = o.version + 1 FROM vain WHERE o.offer_id = vain.offer_id RETURNING o.agent_id",
        rules.absent_after,
    )
    return [row["agent_id"] for row in rows]


async def open_desks(connection: Connection, rules: Rules) -> list[Desk]:
    """The agents who are present, available and not talking, longest since their last completed contact first."""
    rows = await connection.fetch(
        "SELECT a.agent_id, a.channels, coalesce(r.ringing, 0) AS ringing"
        " FROM agents a JOIN heartbeats h USING (agent_id) LEFT JOIN ("
        " SELECT agent_id, count(*) AS ringing FROM offers WHERE state = 'pending' GROUP BY agent_id"
        ") r USING (agent_id)"
        " WHERE a.status = 'available' AND a.contact_id IS NULL"
        " AND h.beat_time > clock_timestamp() - $1::interval"
        " ORDER BY a.last_complete_time NULLS FIRST, a.agent_id",
        rules.absent_after,
    )
    return [
        Desk(row["agent_id"], frozenset(Channel(channel) for channel in row["channels"]), row["ringing"])
        for row in rows
    ]


async def lock_queue(
    connection: Connection, desks: Sequence[Desk], rules: Rules
) -> tuple[list[Waiting], dict[str, Customer]]:
    """Locks the contacts that may ring somewhere now, longest waiting first; those locked elsewhere are left out.

    Of each channel no more than there are desks for it, so that a long queue costs no more than the desks it can use;
    and one more for each offer that ended lately, since who lately let a contact ring or declined it is not rung by it,
    and that must keep no desk from those behind.
    """
    places = {channel: sum(channel in desk.channels for desk in desks) for channel in Channel}
    rows = await connection.fetch(
        "SELECT c.* FROM unnest($1::text[], $2::bigint[]) AS p(channel, places), LATERAL ("
        " SELECT c.contact_id, c.channel, c.customer_id, c.journey_id, c.press_time,"
        " clock_timestamp() - c.press_time AS waited FROM contacts c"
        " WHERE c.channel = p.channel AND c.state = 'waiting'"
        " AND (c.press_time <= clock_timestamp() - $3::interval OR NOT EXISTS ("
        "  SELECT FROM offers o WHERE o.contact_id = c.contact_id AND o.state = 'pending'))"
        " ORDER BY c.press_time, c.contact_id LIMIT p.places + ("
        "  SELECT count(*) FROM offers o JOIN contacts w USING (contact_id) WHERE w.state = 'waiting'"
        "  AND o.state <> 'pending' AND o.create_time > clock_timestamp() - $4::interval) FOR UPDATE SKIP LOCKED"
        ") c ORDER BY c.press_time, c.contact_id",
        [channel for channel, number in places.items() if number],
        [number for number in places.values() if number],
        rules.ring_all_after,
        rules.offer_life,
    )
    if not rows:
        return [], {}
    # What was offered before that does not matter any more: by then the contact rings everywhere.
    lately = max(rules.ring_all_after, rules.offer_life)
    rung: dict[str, dict[str, Rung]] = {}
    for row in await connection.fetch(
        "SELECT contact_id, agent_id, count(*) AS times, clock_timestamp() - max(create_time) AS ago,"
        " bool_or(state = 'pending') AS pending FROM offers"
        " WHERE contact_id = ANY($1) AND create_time > clock_timestamp() - $2::interval GROUP BY contact_id, agent_id",
        [row["contact_id"] for row in rows],
        lately,
    ):
        rung.setdefault(row["contact_id"], {})[row["agent_id"]] = Rung(row["times"], row["ago"], row["pending"])
    waiting = [
        Waiting(row["contact_id"], Channel(row["channel"]), row["waited"], rung.get(row["contact_id"], {}))
        for row in rows
    ]
    return waiting, {row["contact_id"]: Customer(row["customer_id"], row["journey_id"]) for row in rows}


async def add_offers(connection: Connection, offers: Sequence[NewOffer], rules: Rules) -> list[NewOffer]:
    """Lets contacts ring at desks, and returns those that do.

    An agent who in this moment takes a contact or goes away is left out: that wakes the routers again.
    """
    rows = await connection.fetch(
        "WITH free AS ("
        " SELECT agent_id FROM agents WHERE agent_id = ANY($3) AND status = 'available' AND contact_id IS NULL"
        " FOR NO KEY UPDATE SKIP LOCKED"
        ") INSERT INTO offers (offer_id, contact_id, agent_id, state, create_time, expire_time)"
        " SELECT n.offer_id, n.contact_id, n.agent_id, 'pending', t.now, t.now + $4::interval"
        " FROM unnest($1::text[], $2::text[], $3::text[]) AS n(offer_id, contact_id, agent_id)"
        " JOIN free USING (agent_id), clock_timestamp() AS t(now)"
        " ON CONFLICT DO NOTHING RETURNING contact_id, agent_id",
        [f"off_{uuid4().hex}" for _ in offers],
        [offer.contact_id for offer in offers],
        [offer.agent_id for offer in offers],
        rules.offer_life,
    )
    return [NewOffer(row["contact_id"], row["agent_id"]) for row in rows]


async def seconds_to_next(connection: Connection, rules: Rules, answer_within: timedelta) -> float | None:
    """How long until time itself gives the routers something to do; None when nobody waits. May be negative."""
    seconds: float | None = await connection.fetchval(
        "SELECT extract(epoch FROM least("
        " (SELECT min(expire_time) FROM offers WHERE state = 'pending'),"
        " (SELECT min(press_time) + $1::interval FROM contacts WHERE state = 'waiting'"
        "  AND press_time > clock_timestamp() - $1::interval),"
        " (SELECT min(press_time) + $2::interval FROM contacts WHERE state = 'waiting' AND NOT promise_missed)"
        ") - clock_timestamp())::float8",
        rules.ring_all_after,
        answer_within,
    )
    return seconds
