"""Whom catalog asks while somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime

from services.catalog.store.stock import Level
from services.chassis.errors import Unavailable
from services.chassis.grpc_calls import remaining_seconds
from services.chassis.grpc_client import Peer
from services.chassis.values import to_datetime
from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1 import inventory_pb2_grpc as rpc

CALLS = ("inventory",)

# What inventory answers at once, and in one page.
MOST_SKUS = 500
PAGE_SIZE = 1000
PAGE_SECONDS = 5.0
# Kept back of the time our own caller still waits, so that there is time left to answer without inventory.
MARGIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class LevelPage:
    """Stock levels as they were at a time of inventory's clock."""

    levels: Sequence[Level]
    next_token: str
    read_time: datetime


@dataclass(frozen=True, slots=True)
class Hold:
    """A unit set aside for somebody who waited, as it stands now."""

    reservation_id: str
    expire_time: datetime
    held: bool
    # It went into a checkout of theirs.
    used: bool


class InventoryClient:
    """Inventory, as catalog asks it."""

    def __init__(self, peer: Peer, deadline_seconds: float) -> None:
        self._peer = peer
        self._stub: rpc.InventoryServiceAsyncStub = rpc.InventoryServiceStub(peer.channel)
        self._deadline = deadline_seconds
        self._flights: dict[tuple[str, ...], asyncio.Task[dict[str, int]]] = {}

    async def free_now(self, skus: Sequence[str]) -> dict[str, int]:
        """Free units of each SKU over all locations; a SKU that has none may be missing.

        Callers that ask for the same at the same moment share one call, and each waits no longer than its own caller
        does. Raises `Unavailable` when inventory does not answer in time, and what it refuses with.
        """
        wanted = tuple(sorted(set(skus)))
        flight = self._flights.get(wanted)
        if flight is None:
            # In a context of its own: it is not part of whoever asks first, neither of their time nor of their trace.
            flight = asyncio.create_task(self._free_now(wanted), context=Context())
            self._flights[wanted] = flight
            flight.add_done_callback(lambda done: self._landed(wanted, done))
        left = remaining_seconds()
        try:
            # A caller who goes away must not take the answer from the others.
            return await asyncio.wait_for(asyncio.shield(flight), None if left is None else left - MARGIN_SECONDS)
        except TimeoutError:
            raise Unavailable("inventory does not answer in time", reason=self._peer.away) from None

    async def levels_after(self, token: str) -> LevelPage:
        """A page of all levels. Raises `Unavailable` when inventory does not answer."""
        answer = await self._peer.call(
            self._stub.ListStockLevels,
            pb.ListStockLevelsRequest(page_size=PAGE_SIZE, page_token=token),
            timeout=PAGE_SECONDS,
        )
        return LevelPage(_levels(answer.levels), answer.next_page_token, to_datetime(answer.read_time))

    async def levels_of(self, skus: Sequence[str]) -> LevelPage:
        """All levels of at most 500 SKUs. Raises `Unavailable` when inventory does not answer."""
        answer = await self._peer.call(
            self._stub.BatchGetAvailability, pb.BatchGetAvailabilityRequest(skus=skus), timeout=PAGE_SECONDS
        )
        return LevelPage(_levels(answer.levels), "", to_datetime(answer.read_time))

    async def hold(self, request_id: str, customer_id: str, sku: str) -> Hold:
        """Sets one unit aside for a customer who waited, as long as inventory usually does. The same request id is the
        same hold. Raises OUT_OF_STOCK, TOO_MANY_HOLDS, and `Unavailable`."""
        answer = await self._peer.call(
            self._stub.ReserveStock,
            pb.ReserveStockRequest(
                request_id=request_id,
                customer_id=customer_id,
                lines=[pb.ReservationLine(sku=sku, quantity=1)],
                purpose=pb.HOLD_PURPOSE_WAITING_CUSTOMER,
            ),
        )
        # That may be the answer that was given before: how the hold stands now is another question.
        return await self.hold_now(answer.reservation.reservation_id)

    async def hold_now(self, reservation_id: str) -> Hold:
        """A hold as it stands. Raises `NotFound`, and `Unavailable`."""
        answer = await self._peer.call(
            self._stub.GetReservation, pb.GetReservationRequest(reservation_id=reservation_id)
        )
        return _hold(answer.reservation)

    async def give_back(self, reservation_id: str) -> Hold:
        """Ends a hold, if it has not ended. Raises `NotFound`, RESERVATION_CLOSED, and `Unavailable`."""
        answer = await self._peer.call(
            self._stub.ReleaseReservation,
            pb.ReleaseReservationRequest(request_id=f"release:{reservation_id}", reservation_id=reservation_id),
        )
        return _hold(answer.reservation)

    async def close(self) -> None:
        """Closes the connections."""
        await self._peer.close()

    async def _free_now(self, skus: Sequence[str]) -> dict[str, int]:
        # One call but for the largest pages.
        parts = [skus[start : start + MOST_SKUS] for start in range(0, len(skus), MOST_SKUS)]
        free: dict[str, int] = {}
        for answer in await asyncio.gather(*(self._ask(part) for part in parts)):
            for level in answer.levels:
                free[level.sku] = free.get(level.sku, 0) + level.free
        return free

    async def _ask(self, skus: Sequence[str]) -> pb.BatchGetAvailabilityResponse:
        return await self._peer.call(
            self._stub.BatchGetAvailability, pb.BatchGetAvailabilityRequest(skus=skus), timeout=self._deadline
        )

    def _landed(self, wanted: tuple[str, ...], flight: asyncio.Task[dict[str, int]]) -> None:
        del self._flights[wanted]
        if not flight.cancelled():
            flight.exception()  # Looked at, also when every caller has gone.


def _levels(levels: Iterable[pb.StockLevel]) -> list[Level]:
    return [Level(level.sku, level.location, level.version, level.free, level.received_total) for level in levels]


def _hold(reservation: pb.Reservation) -> Hold:
    return Hold(
        reservation.reservation_id,
        to_datetime(reservation.expire_time),
        reservation.state == pb.RESERVATION_STATE_HELD,
        bool(reservation.used_by_reservation_id) or reservation.state == pb.RESERVATION_STATE_COMMITTED,
    )
