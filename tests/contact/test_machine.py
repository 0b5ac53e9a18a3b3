"""Whatever customers, agents, routers and the clock do, in whatever order: the rules hold on the real tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from services.chassis.database import Database
from services.chassis.errors import Conflict, Refusal
from shop.contact.v1 import contact_pb2 as pb
from tests.contact.conftest import Replica, clear, facts, pass_time

CUSTOMERS = ("cus_1", "cus_2", "cus_3")
AGENTS = ("ada", "bea")

customers = st.sampled_from(CUSTOMERS)
agents = st.sampled_from(AGENTS)
# With the agents whose desks were alive meanwhile; mostly both.
times = st.tuples(st.sampled_from([1, 5, 11, 16]), st.sampled_from([set(AGENTS), set(AGENTS), {"ada"}, set()]))
actions = st.one_of(
    *(st.tuples(st.just(name), customers) for name in ("press", "press", "press", "press", "leave")),
    *(st.tuples(st.just(name), agents) for name in ("accept", "accept", "accept", "accept", "decline", "complete")),
    *(st.tuples(st.just(name), agents) for name in ("away", "back", "back", "back")),
    *(st.tuples(st.just("pass"), times) for _ in range(3)),
)


@dataclass(frozen=True)
class Step:
    """What happens, and whether a router looks afterwards, as it does when none of them is down."""

    action: tuple[str, Any]
    routed: bool


steps = st.lists(st.builds(Step, actions, st.sampled_from([True, True, True, False])), min_size=15, max_size=30)

# Each finds rows where a rule is broken.
RULES = {
    "a contact has one assignment": (
        "SELECT contact_id FROM offers WHERE state = 'accepted' GROUP BY contact_id HAVING count(*) > 1"
    ),
    "a contact was taken if and only if it was answered, and by whom": (
        "SELECT c.contact_id FROM contacts c LEFT JOIN offers o ON o.contact_id = c.contact_id AND o.state = 'accepted'"
        " WHERE (c.answer_time IS NULL) <> (o.offer_id IS NULL) OR c.agent_id IS DISTINCT FROM o.agent_id"
    ),
    "an agent talks to whom it is said to talk to": (
        "SELECT a.agent_id FROM agents a LEFT JOIN contacts c ON c.agent_id = a.agent_id AND c.state = 'talking'"
        " WHERE a.contact_id IS DISTINCT FROM c.contact_id"
    ),
    "nothing rings for a contact that does not wait": (
        "SELECT o.offer_id FROM offers o JOIN contacts c USING (contact_id)"
        " WHERE o.state = 'pending' AND c.state <> 'waiting'"
    ),
    "the end has its time": (
        "SELECT contact_id FROM contacts WHERE (end_time IS NULL) <> (state IN ('waiting', 'talking'))"
    ),
    "answered in time is no miss, late is": (
        "SELECT contact_id FROM contacts WHERE answer_time IS NOT NULL"
        " AND promise_missed <> (answer_time - press_time > interval '15 s')"
    ),
    "who gave up after 5 s was missed, who did sooner was not": (
        "SELECT contact_id FROM contacts WHERE state = 'abandoned'"
        " AND promise_missed <> (end_time - press_time > interval '5 s')"
    ),
    "the timeline has each press, answer, miss and end once": (
        "SELECT c.contact_id FROM contacts c WHERE (SELECT array_agg(kind ORDER BY kind) FROM timeline t"
        " WHERE t.contact_id = c.contact_id) IS DISTINCT FROM array_remove(ARRAY["
        " CASE WHEN promise_missed THEN 'answer_promise_missed' END,"
        " CASE WHEN answer_time IS NOT NULL THEN 'contact_answered' END,"
        " CASE WHEN end_time IS NOT NULL THEN 'contact_ended' END, 'contact_pressed'], NULL)"
    ),
}
# What holds once a router has looked.
AFTER_ROUTING = {
    "nothing rings at a desk where somebody talks": (
        "SELECT o.offer_id FROM offers o JOIN agents a USING (agent_id)"
        " WHERE o.state = 'pending' AND a.contact_id IS NOT NULL"
    ),
    "an offer that rings is alive, at a desk that is there": (
        "SELECT o.offer_id FROM offers o JOIN agents a USING (agent_id) JOIN heartbeats h USING (agent_id)"
        " WHERE o.state = 'pending' AND (a.status <> 'available' OR o.expire_time <= now() - interval '1 s'"
        " OR h.beat_time <= now() - interval '7 s')"
    ),
    "nobody waits unheard while a desk is idle and was not rung in the last 5 s": (
        "SELECT c.contact_id FROM contacts c, agents a JOIN heartbeats h USING (agent_id)"
        " WHERE c.state = 'waiting' AND a.status = 'available' AND a.contact_id IS NULL"
        " AND h.beat_time > now() - interval '5 s'"
        " AND NOT EXISTS (SELECT FROM offers o WHERE o.contact_id = c.contact_id AND o.state = 'pending')"
        " AND NOT EXISTS (SELECT FROM offers o WHERE o.agent_id = a.agent_id AND (o.state = 'pending'"
        " OR o.contact_id = c.contact_id AND o.create_time > now() - interval '5.5 s'))"
    ),
    "a wait longer than promised is noted": (
        "SELECT contact_id FROM contacts WHERE state = 'waiting' AND NOT promise_missed"
        " AND press_time < now() - interval '15.5 s'"
    ),
}


async def play(replica: Replica, story: list[Step]) -> set[tuple[str, bool]]:
    """Plays a story and returns what its contacts came to: state, and whether the promise was missed."""
    database = replica.database
    await clear(database)
    for agent_id in AGENTS:
        await replica.agent(agent_id)
    for step in story:
        try:
            await act(replica, *step.action)
        except Refusal as refusal:  # it changes nothing, and that is checked
            assert not isinstance(refusal, Conflict), "nobody waits for each other in a circle"
        await check(database, RULES)
        if step.routed:
            await asyncio.gather(replica.route(), Replica(database).route())
            await check(database, RULES | AFTER_ROUTING)
    contacts = await database.fetch("SELECT state, promise_missed, end_time FROM contacts")
    assert await facts(database, "AnswerPromiseMissed") == sum(row["promise_missed"] for row in contacts)
    assert await facts(database, "InteractionRecorded") == sum(row["end_time"] is not None for row in contacts)
    return {(row["state"], row["promise_missed"]) for row in contacts}


async def act(replica: Replica, name: str, about: Any) -> None:
    database = replica.database
    match name:
        case "press":
            await replica.press(about)
        case "leave":
            rows = await database.fetch("SELECT contact_id FROM contacts WHERE customer_id = $1", about)
            for row in rows:
                await replica.leave(pb.Contact(contact_id=row["contact_id"], customer_id=about))
        case "accept" | "decline":
            # Also offers that ended long ago: a desk may be behind.
            rows = await database.fetch(
                "SELECT offer_id FROM offers WHERE agent_id = $1 ORDER BY create_time DESC LIMIT 2", about
            )
            answer: Callable[[str, str], Coroutine[Any, Any, Any]] = getattr(replica, name)
            results = await asyncio.gather(*(answer(about, row["offer_id"]) for row in rows), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    assert isinstance(result, Refusal), result
                    assert not isinstance(result, Conflict), result
        case "complete":
            contact_id = await database.pool.fetchval("SELECT contact_id FROM agents WHERE agent_id = $1", about)
            await replica.complete(about, contact_id or "con_none")
        case "away":
            await replica.status(about, pb.AGENT_STATUS_AWAY)
        case "back":
            await replica.beat(about)
            await replica.status(about, pb.AGENT_STATUS_AVAILABLE)
        case "pass":
            seconds, alive = about
            await pass_time(database, seconds, alive=tuple(alive))


async def check(database: Database, rules: dict[str, str]) -> None:
    broken = " UNION ALL ".join(f"SELECT $r${rule}$r$ AS rule, * FROM ({rows})" for rule, rows in rules.items())
    assert [row["rule"] for row in await database.fetch(broken)] == []


def test_the_rules_hold_whatever_happens(database_url: str) -> None:
    came_to: set[tuple[str, bool]] = set()
    with asyncio.Runner() as runner:
        database = Database(database_url, "contact", pool_size=6)
        runner.run(database.open())
        replica = Replica(database)

        # Without shrinking: it takes minutes, and a story this short is read as it is.
        @examples(
            phases=[Phase.generate],
            max_examples=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(steps)
        def plays(story: list[Step]) -> None:
            came_to.update(runner.run(play(replica, story)))

        try:
            plays()
        finally:
            runner.run(database.close())
    states = ("waiting", "talking", "completed", "abandoned")
    assert came_to == {(state, missed) for state in states for missed in (False, True)}, "the stories were poor"
