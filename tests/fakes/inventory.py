"""Inventory in memory, for tests of those who call it. Passes tests/contracts/test_inventory_client.py, as the real
one does; where it is asked for more than that suite asks, it must not be trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import uuid4

from google.protobuf.message import Message

from services.chassis.errors import NotFound, NotNow, Unavailable
from services.chassis.requests import RequestIdReused
from services.chassis.values import to_datetime, to_timestamp
from services.inventory.domain.allocation import allocate
from services.inventory.domain.levels import Level
from shop.inventory.v1 import inventory_pb2 as pb

R = TypeVar("R", bound=Message)
USUAL_HOLD = timedelta(minutes=10)


class FakeInventory:
    """Stock, holds and orders' marks. Its calls are those of InventoryService that other services make."""

    def __init__(self) -> None:
        # While True nobody gets an answer, and nothing takes effect.
        self.away = False
        # What its clock says beyond ours.
        self.clock_ahead = timedelta(0)
        # While it is not set, answers are made and wait.
        self.answering = asyncio.Event()
        self.answering.set()
        # Every request that came, in order.
        self.asked: list[Message] = []
        self._levels: dict[tuple[str, str], Level] = {}
        self._reservations: dict[str, pb.Reservation] = {}
        self._committed: dict[str, str] = {}
        self._released: set[str] = set()
        self._answers: dict[tuple[str, str], tuple[bytes, Message]] = {}

    # --- what tests do to it

    def receive(self, sku: str, quantity: int, location: str = "vienna-1") -> None:
        """Units come in."""
        level = self._levels.setdefault((sku, location), Level(sku, location))
        level.on_hand += quantity
        level.received_total += max(0, quantity)
        level.version += 1

    def put(self, sku: str, quantity: int, location: str = "vienna-1") -> Level:
        """So many units are free there now. Returns the level."""
        level = self._levels.setdefault((sku, location), Level(sku, location))
        self.receive(sku, quantity - level.free, location)
        return level

    def free(self, sku: str) -> int:
        """Units of a SKU that can be promised now."""
        return sum(level.free for level in self._now() if level.sku == sku)

    def expire(self, reservation_id: str) -> None:
        """Lets a hold's time run out now."""
        self._reservations[reservation_id].expire_time.CopyFrom(to_timestamp(datetime.now(UTC)))
        self._now()

    def reservations(self) -> list[pb.Reservation]:
        """All there ever were, as they stand."""
        self._now()
        return list(self._reservations.values())

    def committed(self, order_id: str) -> bool:
        """Whether units are promised to the order."""
        return order_id in self._committed and order_id not in self._released

    # --- the calls

    async def ReserveStock(self, request: pb.ReserveStockRequest) -> pb.ReserveStockResponse:
        def run() -> pb.ReserveStockResponse:
            wanted = {line.sku: line.quantity for line in request.lines}
            purpose = request.purpose or pb.HOLD_PURPOSE_CHECKOUT
            turns = self._turns(request) if purpose == pb.HOLD_PURPOSE_CHECKOUT else []
            own = [part for turn in turns for part in turn.allocations if part.sku in wanted]
            free = {sku: self.free(sku) + sum(part.quantity for part in own if part.sku == sku) for sku in wanted}
            held = {sku: min(quantity, free[sku]) for sku, quantity in wanted.items() if free[sku]}
            if not request.partial or not held:
                for sku, quantity in wanted.items():
                    self._check_free(sku, quantity, free[sku])
            reservation_id = f"res_{uuid4().hex}"
            for turn in turns:
                self._use_up(turn, wanted, reservation_id)
            allocations = allocate(held, self._levels.values())
            hold_time = request.hold_time.ToTimedelta() if request.HasField("hold_time") else USUAL_HOLD
            now = datetime.now(UTC)
            reservation = pb.Reservation(
                reservation_id=reservation_id,
                customer_id=request.customer_id,
                purpose=purpose,
                state=pb.RESERVATION_STATE_HELD,
                allocations=[
                    pb.Allocation(sku=part.sku, location=part.location, quantity=part.quantity) for part in allocations
                ],
                create_time=to_timestamp(now),
                expire_time=to_timestamp(now + hold_time),
            )
            self._reservations[reservation.reservation_id] = reservation
            self._move(reservation, held=1)
            return pb.ReserveStockResponse(
                reservation=reservation,
                missing=[
                    pb.MissingUnits(sku=sku, wanted=quantity, held=held.get(sku, 0))
                    for sku, quantity in wanted.items()
                    if held.get(sku, 0) < quantity
                ],
                used_reservation_ids=[turn.reservation_id for turn in turns],
            )

        return await self._once(request, run)

    async def GetReservation(self, request: pb.GetReservationRequest) -> pb.GetReservationResponse:
        self._come_in(request)
        return await self._late(pb.GetReservationResponse(reservation=self._found(request.reservation_id)))

    async def CommitReservation(self, request: pb.CommitReservationRequest) -> pb.CommitReservationResponse:
        def run() -> pb.CommitReservationResponse:
            if request.order_id in self._released:
                raise NotNow("the order gave its stock up", reason="ORDER_RELEASED")
            reservation = self._found(request.reservation_id)
            if reservation.state == pb.RESERVATION_STATE_RELEASED:
                raise NotNow("the reservation is released", reason="RESERVATION_CLOSED")
            if self._committed.get(request.order_id, request.reservation_id) != request.reservation_id:
                raise NotNow("the order has another reservation", reason="RESERVATION_CLOSED")
            if reservation.state == pb.RESERVATION_STATE_COMMITTED and reservation.order_id != request.order_id:
                raise NotNow("the reservation belongs to another order", reason="RESERVATION_CLOSED")
            if reservation.state == pb.RESERVATION_STATE_EXPIRED:
                self._place_again(reservation)
                self._move(reservation, committed=1)
            elif reservation.state == pb.RESERVATION_STATE_HELD:
                self._move(reservation, held=-1, committed=1)
            reservation.state = pb.RESERVATION_STATE_COMMITTED
            reservation.order_id = request.order_id
            self._committed[request.order_id] = request.reservation_id
            return pb.CommitReservationResponse(reservation=reservation)

        return await self._once(request, run)

    async def ExtendReservation(self, request: pb.ExtendReservationRequest) -> pb.ExtendReservationResponse:
        def run() -> pb.ExtendReservationResponse:
            reservation = self._found(request.reservation_id)
            if reservation.state == pb.RESERVATION_STATE_EXPIRED:
                raise NotNow("the hold ran out", reason="RESERVATION_EXPIRED")
            if reservation.state != pb.RESERVATION_STATE_HELD:
                raise NotNow("the reservation is closed", reason="RESERVATION_CLOSED")
            until = datetime.now(UTC) + request.hold_time.ToTimedelta()
            reservation.expire_time.CopyFrom(to_timestamp(max(until, to_datetime(reservation.expire_time))))
            return pb.ExtendReservationResponse(reservation=reservation)

        return await self._once(request, run)

    async def ReleaseReservation(self, request: pb.ReleaseReservationRequest) -> pb.ReleaseReservationResponse:
        def run() -> pb.ReleaseReservationResponse:
            reservation = self._found(request.reservation_id)
            if reservation.state == pb.RESERVATION_STATE_COMMITTED:
                raise NotNow("the reservation belongs to an order", reason="RESERVATION_CLOSED")
            if reservation.state == pb.RESERVATION_STATE_HELD:
                self._move(reservation, held=-1)
                reservation.state = pb.RESERVATION_STATE_RELEASED
            return pb.ReleaseReservationResponse(reservation=reservation)

        return await self._once(request, run)

    async def ReleaseOrder(self, request: pb.ReleaseOrderRequest) -> pb.ReleaseOrderResponse:
        def run() -> pb.ReleaseOrderResponse:
            held = self.committed(request.order_id)
            self._released.add(request.order_id)
            if not held:
                return pb.ReleaseOrderResponse()
            reservation = self._found(self._committed[request.order_id])
            self._move(reservation, committed=-1)
            reservation.state = pb.RESERVATION_STATE_RELEASED
            return pb.ReleaseOrderResponse(released=reservation.allocations)

        return await self._once(request, run)

    async def BatchGetAvailability(self, request: pb.BatchGetAvailabilityRequest) -> pb.BatchGetAvailabilityResponse:
        self._come_in(request)
        levels = [_level(level) for level in self._now() if level.sku in request.skus]
        return await self._late(
            pb.BatchGetAvailabilityResponse(levels=levels, read_time=to_timestamp(datetime.now(UTC) + self.clock_ahead))
        )

    async def ListStockLevels(self, request: pb.ListStockLevelsRequest) -> pb.ListStockLevelsResponse:
        self._come_in(request)
        size = request.page_size or 500
        after = tuple(request.page_token.split("@")) if request.page_token else ("", "")
        page = [level for level in self._now() if (level.sku, level.location) > after][:size]
        return await self._late(
            pb.ListStockLevelsResponse(
                levels=[_level(level) for level in page],
                next_page_token=f"{page[-1].sku}@{page[-1].location}" if len(page) == size else "",
                read_time=to_timestamp(datetime.now(UTC) + self.clock_ahead),
            )
        )

    # --- how

    def _come_in(self, request: Message) -> None:
        self.asked.append(request)
        if self.away:
            raise Unavailable("inventory does not answer", reason="INVENTORY_AWAY")

    async def _late(self, answer: R) -> R:
        await self.answering.wait()
        return answer

    async def _once(self, request: Message, run: Callable[[], R]) -> R:
        self._come_in(request)
        self._now()
        asked = type(request)()
        asked.CopyFrom(request)
        if isinstance(asked, pb.ReserveStockRequest):
            asked.ClearField("peer")
        body = asked.SerializeToString(deterministic=True)
        key = (request.DESCRIPTOR.full_name, request.request_id)  # type: ignore[attr-defined]
        if key in self._answers:
            before, answer = self._answers[key]
            if before != body:
                raise RequestIdReused([("request_id", "was used before with another request")])
        else:
            answer = run()
            kept = type(answer)()
            kept.CopyFrom(answer)
            self._answers[key] = (body, kept)
        copy = type(answer)()
        copy.CopyFrom(answer)
        await self.answering.wait()
        return copy  # type: ignore[return-value]

    def _turns(self, request: pb.ReserveStockRequest) -> list[pb.Reservation]:
        """What is held for this customer because they waited for it."""
        skus = {line.sku for line in request.lines}
        return [
            each
            for each in self._reservations.values()
            if each.customer_id == request.customer_id
            and each.purpose == pb.HOLD_PURPOSE_WAITING_CUSTOMER
            and each.state == pb.RESERVATION_STATE_HELD
            and any(part.sku in skus for part in each.allocations)
        ]

    def _use_up(self, turn: pb.Reservation, skus: Iterable[str], used_by: str) -> None:
        rest = [part for part in turn.allocations if part.sku not in skus]
        self._move(turn, held=-1)
        turn.used_by_reservation_id = used_by
        if rest:
            del turn.allocations[:]
            turn.allocations.extend(rest)
            self._move(turn, held=1)
        else:
            turn.state = pb.RESERVATION_STATE_RELEASED

    def _place_again(self, reservation: pb.Reservation) -> None:
        """A hold that ran out: the same units if they are free, else others."""
        wanted: dict[str, int] = {}
        for part in reservation.allocations:
            wanted[part.sku] = wanted.get(part.sku, 0) + part.quantity
        for sku, quantity in wanted.items():
            self._check_free(sku, quantity, self.free(sku))
        if any(self._levels[part.sku, part.location].free < part.quantity for part in reservation.allocations):
            del reservation.allocations[:]
            for found in allocate(wanted, self._levels.values()):
                reservation.allocations.add(sku=found.sku, location=found.location, quantity=found.quantity)

    def _now(self) -> list[Level]:
        """The levels, after the holds that are due have run out."""
        now = datetime.now(UTC)
        for reservation in self._reservations.values():
            if reservation.state == pb.RESERVATION_STATE_HELD and to_datetime(reservation.expire_time) <= now:
                self._move(reservation, held=-1)
                reservation.state = pb.RESERVATION_STATE_EXPIRED
        return [self._levels[place] for place in sorted(self._levels)]

    def _found(self, reservation_id: str) -> pb.Reservation:
        self._now()
        if reservation_id not in self._reservations:
            raise NotFound("there is no such reservation", reason="RESERVATION_NOT_FOUND")
        return self._reservations[reservation_id]

    def _move(self, reservation: pb.Reservation, *, held: int = 0, committed: int = 0) -> None:
        for part in reservation.allocations:
            level = self._levels[part.sku, part.location]
            level.held += held * part.quantity
            level.committed += committed * part.quantity
            level.version += 1

    def _check_free(self, sku: str, wanted: int, free: int) -> None:
        if free < wanted:
            raise NotNow(f"{wanted} of {sku} wanted", reason="OUT_OF_STOCK", sku=sku, wanted=wanted, free=free)


def _level(level: Level) -> pb.StockLevel:
    return pb.StockLevel(
        sku=level.sku,
        location=level.location,
        free=level.free,
        on_hand=level.on_hand,
        held=level.held,
        committed=level.committed,
        version=level.version,
        received_total=level.received_total,
    )
