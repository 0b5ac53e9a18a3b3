"""Contact over gRPC: from messages to commands, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime

from google.protobuf.duration_pb2 import Duration

from services.chassis import pages, requests
from services.chassis.access import NOT_THERE, current_caller
from services.chassis.database import Database, Transaction
from services.chassis.errors import NotAllowed, NotFound
from services.chassis.requests import once
from services.contact import messages, presence, queries, store, usecases
from services.contact.domain.contact import ContactState
from services.contact.domain.routing import AgentBusy, AgentNotFound
from services.contact.hotline import Hotline
from services.contact.notes import Notes
from services.contact.router import Router
from services.contact.settings import Settings
from services.contact.usecases import Touched
from services.contact.watches import Watches
from shop.contact.v1 import contact_pb2 as pb

LIVE = (ContactState.WAITING, ContactState.TALKING)


class HotlineApi:
    """shop.contact.v1.HotlineService; what each call promises and refuses stands in its proto."""

    def __init__(
        self, database: Database, settings: Settings, router: Router, watches: Watches, hotline: Hotline
    ) -> None:
        self._database = database
        self._settings = settings
        self._router = router
        self._watches = watches
        self._hotline = hotline

    async def GetHotlineStatus(self, request: pb.GetHotlineStatusRequest) -> pb.GetHotlineStatusResponse:
        return pb.GetHotlineStatusResponse(contact_options=await self._hotline.contact_options())

    async def PressHelp(self, request: pb.PressHelpRequest) -> pb.PressHelpResponse:
        options = await self._hotline.contact_options()
        channel = messages.CHANNEL_OF[request.channel]

        async def run(tx: Transaction) -> pb.PressHelpResponse:
            pressed = await usecases.press_help(tx, request.customer_id, channel, request.page, self._settings.promise)
            tx.after_commit(self._router.wake)
            return pb.PressHelpResponse(contact=messages.contact(pressed.contact), contact_options=options)

        return await once(self._database, request, pb.PressHelpResponse, run)

    async def WatchContact(self, request: pb.WatchContactRequest) -> AsyncIterator[pb.WatchContactResponse]:
        known = (await queries.contacts(self._database, [request.contact_id])).get(request.contact_id)
        if known is None or known.customer_id != request.customer_id:
            raise NotFound(NOT_THERE)
        async with aclosing(self._watches.contacts.follow(request.contact_id)) as changes:
            async for contact in changes:
                if contact is None:
                    raise NotFound(NOT_THERE)
                yield pb.WatchContactResponse(
                    contact=messages.contact(contact), contact_options=await self._hotline.contact_options()
                )
                if contact.state not in LIVE:
                    return

    async def LeaveContact(self, request: pb.LeaveContactRequest) -> pb.LeaveContactResponse:
        options = await self._hotline.contact_options()

        async def run(tx: Transaction) -> pb.LeaveContactResponse:
            left = await usecases.leave_contact(tx, request.customer_id, request.contact_id, self._settings.promise)
            tx.after_commit(lambda: _tell(self._watches, self._router, left))
            return pb.LeaveContactResponse(contact=messages.contact(left.contact), contact_options=options)

        return await once(self._database, request, pb.LeaveContactResponse, run)


class DeskApi:
    """shop.contact.v1.DeskService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database, settings: Settings, router: Router, watches: Watches, notes: Notes) -> None:
        self._database = database
        self._settings = settings
        self._absent_after = settings.rules.absent_after
        self._router = router
        self._watches = watches
        self._notes = notes

    async def SaveAgent(self, request: pb.SaveAgentRequest) -> pb.SaveAgentResponse:
        channels = {messages.CHANNEL_OF[channel] for channel in request.channels}

        async def run(tx: Transaction) -> pb.SaveAgentResponse:
            row = await usecases.save_agent(tx, request.agent_id, request.display_name, channels, self._absent_after)
            tx.after_commit(self._router.wake)
            return pb.SaveAgentResponse(agent=messages.agent(row))

        return await once(self._database, request, pb.SaveAgentResponse, run)

    async def SetAgentStatus(self, request: pb.SetAgentStatusRequest) -> pb.SetAgentStatusResponse:
        status = messages.STATUS_OF[request.status]

        async def run(tx: Transaction) -> pb.SetAgentStatusResponse:
            row = await usecases.set_status(tx, _agent_id(), status, self._absent_after)
            tx.after_commit(self._router.wake)
            return pb.SetAgentStatusResponse(agent=messages.agent(row))

        return await once(self._database, request, pb.SetAgentStatusResponse, run)

    async def SendHeartbeat(self, request: pb.SendHeartbeatRequest) -> pb.SendHeartbeatResponse:
        row = await presence.beat(self._database, _agent_id(), self._absent_after)
        if row is None:
            raise AgentNotFound("there is no such agent", agent_id=_agent_id())
        if row["came_back"]:
            self._router.wake()
        pause = Duration()
        pause.FromMilliseconds(int(self._settings.heartbeat_seconds * 1000))
        return pb.SendHeartbeatResponse(agent=messages.agent(row), next_heartbeat=pause)

    async def WatchOffers(self, request: pb.WatchOffersRequest) -> AsyncIterator[pb.WatchOffersResponse]:
        agent_id = _agent_id()
        if await queries.agent(self._database, agent_id, self._absent_after) is None:
            raise AgentNotFound("there is no such agent", agent_id=agent_id)
        shown: dict[str, store.Offer] = {}
        async with aclosing(self._watches.desks.follow(agent_id)) as changes:
            async for offers in changes:
                still_open = {offer.offer_id: offer for offer in offers}
                ended = [offer_id for offer_id in shown if offer_id not in still_open]
                for offer in await queries.offers(self._database, ended) if ended else []:
                    yield pb.WatchOffersResponse(offer=messages.offer(offer))
                for offer in offers:
                    if shown.get(offer.offer_id) != offer:
                        yield pb.WatchOffersResponse(offer=messages.offer(offer))
                shown = still_open

    async def AcceptOffer(self, request: pb.AcceptOfferRequest) -> pb.AcceptOfferResponse:
        async def run(tx: Transaction) -> pb.AcceptOfferResponse:
            taken = await usecases.accept_offer(tx, request.offer_id, _agent_id(), self._settings.promise)
            tx.after_commit(lambda: _tell(self._watches, self._router, taken))
            return pb.AcceptOfferResponse(contact=messages.contact(taken.contact))

        try:
            return await once(self._database, request, pb.AcceptOfferResponse, run)
        except AgentBusy:
            # The offer still rings at a desk that is taken: the routers give it to another one.
            self._router.wake()
            raise

    async def DeclineOffer(self, request: pb.DeclineOfferRequest) -> pb.DeclineOfferResponse:
        async def run(tx: Transaction) -> pb.DeclineOfferResponse:
            offer = await usecases.decline_offer(tx, request.offer_id, _agent_id())
            tx.after_commit(lambda: _tell(self._watches, self._router, Touched(offer.contact, {offer.agent_id})))
            return pb.DeclineOfferResponse(offer=messages.offer(offer))

        return await once(self._database, request, pb.DeclineOfferResponse, run)

    async def CompleteContact(self, request: pb.CompleteContactRequest) -> pb.CompleteContactResponse:
        async def run(tx: Transaction) -> pb.CompleteContactResponse:
            ended = await usecases.complete_contact(tx, request.contact_id, _agent_id(), self._settings.promise)
            tx.after_commit(lambda: _tell(self._watches, self._router, ended))
            return pb.CompleteContactResponse(contact=messages.contact(ended.contact))

        return await once(self._database, request, pb.CompleteContactResponse, run)

    async def AddNote(self, request: pb.AddNoteRequest) -> pb.AddNoteResponse:
        encrypted = self._notes.encrypt(request.text)
        async with self._database.transaction() as tx:
            stored = await requests.claim(tx, request)
            if stored is None:
                entry_id, entry = await usecases.add_note(
                    tx, request.customer_id, request.contact_id or None, _agent_id(), encrypted
                )
                response = pb.AddNoteResponse(entry=messages.note(entry_id, entry))
                await requests.answer(tx, request, response)
            else:
                response = pb.AddNoteResponse.FromString(stored)
        # The stored answer is without the words. A repeat brings the same ones, or it would have been refused.
        response.entry.summary = request.text
        return response

    async def ListTimeline(self, request: pb.ListTimelineRequest) -> pb.ListTimelineResponse:
        size = pages.size(request.page_size, usual=50, most=500)
        position = pages.position(request, (datetime, int, int))
        before = (position[0], position[1], position[2]) if position else None
        rows = await queries.timeline(self._database, request.customer_id, before, size)
        return pb.ListTimelineResponse(
            entries=[messages.timeline_entry(row, self._notes) for row in rows],
            next_page_token=pages.token(request, messages.position(rows[-1])) if len(rows) == size else "",
        )


def _agent_id() -> str:
    """Who calls. The access policy lets only agents in."""
    agent_id = current_caller().agent_id
    if agent_id is None:
        raise NotAllowed("only an agent may do this")
    return agent_id


def _tell(watches: Watches, router: Router, touched: Touched) -> None:
    watches.tell([touched.contact.contact_id], touched.agents)
    router.wake()
