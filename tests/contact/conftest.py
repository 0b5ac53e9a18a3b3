"""Contact's application object on a real database, as often as a test wants replicas of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from deploy.local.stack import Stack
from services.chassis.access import Caller, acting_as
from services.chassis.database import Database
from services.chassis.migrations import migrate
from services.chassis.service import Runtime
from services.contact.__main__ import ContactCentre
from services.contact.settings import Settings
from shop.access.v1.access_pb2 import ROLE_AGENT, ROLE_CUSTOMER, ROLE_OPERATOR
from shop.contact.v1 import contact_pb2 as pb
from shop.contact.v1.contact_options_pb2 import CHANNEL_CHAT, CHANNEL_PHONE, CHANNEL_VIDEO, Channel

SQL = Path("services/contact/sql")
OPERATOR = Caller(ROLE_OPERATOR, "olga", "operator:olga")
KEY = Fernet.generate_key().decode()
TABLES = "agents, heartbeats, contacts, watches, offers, timeline, outbox, requests, inbox"
# Every column that says when; a test lets time pass by moving them back.
TIMES = {
    "contacts": ("press_time", "answer_time", "end_time"),
    "watches": ("watch_time",),
    "offers": ("create_time", "expire_time"),
    "heartbeats": ("beat_time",),
    "agents": ("last_complete_time",),
    "hotline": ("publish_time",),
    "timeline": ("occur_time",),
}


def request_id() -> str:
    return uuid4().hex


def settings(**given: Any) -> Settings:
    return Settings(
        database_url="postgresql://unused",
        kafka_bootstrap_servers="unused",
        grpc_port=1,
        metrics_port=1,
        token_issuer="unused",
        jwks_url="http://unused",
        service_token_file="unused",
        personal_data_keys=SecretStr(KEY),
        **given,
    )


class Replica:
    """One process of contact. Nothing runs in the background unless the test says so."""

    def __init__(self, database: Database, **given: Any) -> None:
        self.database = database
        self.app = ContactCentre(Runtime(settings(**given), database, cast(Any, None)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        """With its background work."""
        tasks = [asyncio.ensure_future(work()) for work in self.app.background]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def route(self) -> None:
        await self.app.router.step()

    # -- customers

    async def press(
        self, customer: str, channel: Channel.ValueType = CHANNEL_PHONE, request: str = "", page: str = "/shoes"
    ) -> pb.Contact:
        with acting_as(customer_caller(customer)):
            answer = await self.app.customers.PressHelp(
                pb.PressHelpRequest(
                    request_id=request or request_id(), customer_id=customer, channel=channel, page=page
                )
            )
        return answer.contact

    async def leave(self, contact: pb.Contact, customer: str = "") -> pb.Contact:
        customer = customer or contact.customer_id
        with acting_as(customer_caller(customer)):
            answer = await self.app.customers.LeaveContact(
                pb.LeaveContactRequest(request_id=request_id(), customer_id=customer, contact_id=contact.contact_id)
            )
        return answer.contact

    # -- agents

    async def agent(self, agent_id: str, *channels: Channel.ValueType) -> None:
        """An agent who is there and takes contacts."""
        with acting_as(OPERATOR):
            await self.app.desks.SaveAgent(
                pb.SaveAgentRequest(
                    request_id=request_id(),
                    agent_id=agent_id,
                    display_name=agent_id.title(),
                    channels=channels or (CHANNEL_PHONE, CHANNEL_CHAT, CHANNEL_VIDEO),
                )
            )
        await self.beat(agent_id)
        await self.status(agent_id, pb.AGENT_STATUS_AVAILABLE)

    async def beat(self, agent_id: str) -> pb.Agent:
        with acting_as(agent_caller(agent_id)):
            return (await self.app.desks.SendHeartbeat(pb.SendHeartbeatRequest())).agent

    async def status(self, agent_id: str, status: pb.AgentStatus.ValueType) -> pb.Agent:
        with acting_as(agent_caller(agent_id)):
            request = pb.SetAgentStatusRequest(request_id=request_id(), status=status)
            return (await self.app.desks.SetAgentStatus(request)).agent

    async def accept(self, agent_id: str, offer_id: str, request: str = "") -> pb.Contact:
        with acting_as(agent_caller(agent_id)):
            answer = await self.app.desks.AcceptOffer(
                pb.AcceptOfferRequest(request_id=request or request_id(), offer_id=offer_id)
            )
        return answer.contact

    async def decline(self, agent_id: str, offer_id: str) -> pb.Offer:
        with acting_as(agent_caller(agent_id)):
            request = pb.DeclineOfferRequest(request_id=request_id(), offer_id=offer_id)
            return (await self.app.desks.DeclineOffer(request)).offer

    async def complete(self, agent_id: str, contact_id: str) -> pb.Contact:
        with acting_as(agent_caller(agent_id)):
            request = pb.CompleteContactRequest(request_id=request_id(), contact_id=contact_id)
            return (await self.app.desks.CompleteContact(request)).contact

    async def note(self, agent_id: str, customer: str, text: str, contact_id: str = "", request: str = "") -> Any:
        with acting_as(agent_caller(agent_id)):
            answer = await self.app.desks.AddNote(
                pb.AddNoteRequest(
                    request_id=request or request_id(), customer_id=customer, contact_id=contact_id, text=text
                )
            )
        return answer.entry

    async def timeline(self, customer: str, size: int = 0, token: str = "") -> pb.ListTimelineResponse:
        return await self.app.desks.ListTimeline(
            pb.ListTimelineRequest(customer_id=customer, page_size=size, page_token=token)
        )


def customer_caller(customer: str) -> Caller:
    return Caller(ROLE_CUSTOMER, customer, f"customer:{customer}", customer_id=customer)


def agent_caller(agent_id: str) -> Caller:
    return Caller(ROLE_AGENT, agent_id, f"agent:{agent_id}", agent_id=agent_id)


@pytest.fixture(scope="session")
async def database_url(infrastructure: Stack) -> str:
    url = infrastructure.database_url("contact")
    await migrate(url, SQL)
    return url


@pytest.fixture(scope="session")
async def shared(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, "contact", pool_size=20)
    await opened.open()
    yield opened
    await opened.close()


async def clear(database: Database) -> None:
    await database.pool.execute(f"TRUNCATE {TABLES} CASCADE")
    await database.pool.execute(
        "UPDATE hotline SET version = 0, open_channels = '{}', expected_wait_seconds = NULL, publish_time = NULL"
    )


@pytest.fixture
async def database(shared: Database) -> Database:
    await clear(shared)
    return shared


@pytest.fixture
def replica(database: Database) -> Replica:
    return Replica(database)


@pytest.fixture
async def replicas(database: Database, database_url: str) -> AsyncIterator[Callable[..., Awaitable[Replica]]]:
    """Makes further replicas with pools of their own, running."""
    async with AsyncExitStack() as stack:

        async def start(**given: Any) -> Replica:
            own = Database(database_url, "contact", pool_size=6)
            await own.open()
            stack.push_async_callback(own.close)
            return await stack.enter_async_context(Replica(own, **given).running())

        yield start


@asynccontextmanager
async def watching(
    replica: Replica, contact: pb.Contact, customer: str = ""
) -> AsyncIterator[AsyncIterator[pb.Contact]]:
    customer = customer or contact.customer_id
    with acting_as(customer_caller(customer)):
        request = pb.WatchContactRequest(customer_id=customer, contact_id=contact.contact_id)
        responses = replica.app.customers.WatchContact(request)

        async def contacts() -> AsyncGenerator[pb.Contact]:
            async with aclosing(cast("AsyncGenerator[pb.WatchContactResponse]", responses)) as stream:
                async for response in stream:
                    yield response.contact

        async with aclosing(contacts()) as stream:
            yield stream


async def pass_time(database: Database, seconds: float, *, alive: tuple[str, ...] = ()) -> None:
    """As if so much time had passed; agents named `alive` have gone on sending heartbeats."""
    for table, columns in TIMES.items():
        moved = ", ".join(f"{column} = {column} - make_interval(secs => $1)" for column in columns)
        await database.pool.execute(f"UPDATE {table} SET {moved}", seconds)
    await database.pool.execute("UPDATE heartbeats SET beat_time = clock_timestamp() WHERE agent_id = ANY($1)", alive)


async def ringing(database: Database) -> list[tuple[str, str]]:
    """Who rings where: (customer, agent)."""
    rows = await database.pool.fetch(
        "SELECT c.customer_id, o.agent_id FROM offers o JOIN contacts c USING (contact_id)"
        " WHERE o.state = 'pending' ORDER BY c.press_time, o.agent_id"
    )
    return [(row["customer_id"], row["agent_id"]) for row in rows]


async def offer_at(database: Database, agent_id: str, customer: str = "%") -> str:
    """The id of what rings at a desk."""
    offer_id: str = await database.pool.fetchval(
        "SELECT o.offer_id FROM offers o JOIN contacts c USING (contact_id)"
        " WHERE o.agent_id = $1 AND o.state = 'pending' AND c.customer_id LIKE $2 ORDER BY c.press_time LIMIT 1",
        agent_id,
        customer,
    )
    assert offer_id is not None
    return offer_id


async def facts(database: Database, kind: str) -> int:
    """How many facts of a kind are announced or wait to be."""
    number: int = await database.pool.fetchval(
        "SELECT count(*) FROM outbox WHERE headers->>'ce_type' = $1", f"shop.contact.events.v1.{kind}"
    )
    return number


async def told(database: Database, customer: str) -> list[str]:
    """The kinds on a customer's timeline, oldest first."""
    rows = await database.pool.fetch(
        "SELECT kind FROM timeline WHERE customer_id = $1 ORDER BY occur_time, cause, entry_id", customer
    )
    return [row["kind"] for row in rows]
