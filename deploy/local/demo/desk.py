"""A small desk: one agent, present as long as the desk is open, who takes the first customer that rings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

from shop.contact.v1 import contact_options_pb2 as options
from shop.contact.v1 import contact_pb2 as pb
from shop.contact.v1 import contact_pb2_grpc as rpc

from .clients import SECONDS, Tools, new_id


class Desk:
    """An agent's desk. Open it with `async with`; while open, it says every 2 s that it is alive."""

    def __init__(self, tools: Tools, agent_id: str, name: str, journey_id: str) -> None:
        self._stub: rpc.DeskServiceAsyncStub = rpc.DeskServiceStub(tools.channel("contact"))
        self._operator = tools.metadata("operator")
        self._agent = tools.metadata("agent", agent_id=agent_id)
        # What the agent does for the customer belongs to the customer's journey.
        self._serving = tools.metadata("agent", journey_id, agent_id=agent_id)
        self._agent_id, self._name = agent_id, name
        self._alive: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Desk:
        await self._stub.SaveAgent(
            pb.SaveAgentRequest(
                request_id=new_id("req"),
                agent_id=self._agent_id,
                display_name=self._name,
                channels=[options.CHANNEL_PHONE, options.CHANNEL_CHAT, options.CHANNEL_VIDEO],
            ),
            metadata=self._operator,
            timeout=SECONDS,
        )
        await self._set(pb.AGENT_STATUS_AVAILABLE)
        await self._beat()
        self._alive = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alive:
            self._alive.cancel()
            await asyncio.gather(self._alive, return_exceptions=True)
        await self._set(pb.AGENT_STATUS_OFF)

    @asynccontextmanager
    async def offers(self) -> AsyncIterator[AsyncIterator[pb.Offer]]:
        """What rings at this desk, as long as the block runs."""
        call = self._stub.WatchOffers(pb.WatchOffersRequest(), metadata=self._agent)

        async def ringing() -> AsyncIterator[pb.Offer]:
            async for answer in call:
                yield answer.offer

        try:
            yield ringing()
        finally:
            call.cancel()

    async def take_next(self, customer_id: str) -> pb.Contact:
        """Accepts the offer of this customer."""
        async with self.offers() as ringing:
            async for offer in ringing:
                if offer.state == pb.OFFER_STATE_PENDING and offer.contact.customer_id == customer_id:
                    answer = await self._stub.AcceptOffer(
                        pb.AcceptOfferRequest(request_id=new_id("req"), offer_id=offer.offer_id),
                        metadata=self._serving,
                        timeout=SECONDS,
                    )
                    return answer.contact
        raise ConnectionError("the desk's stream ended before the customer rang")

    async def timeline(self, customer_id: str) -> list[pb.TimelineEntry]:
        """Everything that happened, oldest first."""
        answer = await self._stub.ListTimeline(
            pb.ListTimelineRequest(customer_id=customer_id, page_size=100), metadata=self._serving, timeout=SECONDS
        )
        return list(reversed(answer.entries))

    async def note(self, contact: pb.Contact, text: str) -> None:
        """Writes down what was said."""
        await self._stub.AddNote(
            pb.AddNoteRequest(
                request_id=new_id("req"), customer_id=contact.customer_id, contact_id=contact.contact_id, text=text
            ),
            metadata=self._serving,
            timeout=SECONDS,
        )

    async def complete(self, contact: pb.Contact) -> None:
        """The talk is over."""
        await self._stub.CompleteContact(
            pb.CompleteContactRequest(request_id=new_id("req"), contact_id=contact.contact_id),
            metadata=self._serving,
            timeout=SECONDS,
        )

    async def _set(self, status: pb.AgentStatus.ValueType) -> None:
        await self._stub.SetAgentStatus(
            pb.SetAgentStatusRequest(request_id=new_id("req"), status=status), metadata=self._agent, timeout=SECONDS
        )

    async def _beat(self) -> float:
        answer = await self._stub.SendHeartbeat(pb.SendHeartbeatRequest(), metadata=self._agent, timeout=SECONDS)
        return answer.next_heartbeat.ToTimedelta().total_seconds()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(await self._beat())
