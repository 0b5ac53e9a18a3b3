"""A rush on inventory: callers compete for one SKU and with crossing baskets, on two replicas, whatever is killed.

Each caller knows what it certainly has: from the answer that gave it until it gives it back. These units, added up over
all callers, must never be more than lie there, at no moment.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
from google.protobuf.message import Message

from deploy.local.stack import Stack
from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1 import inventory_pb2_grpc as rpc

from .load import CALL_SECONDS, OPTIONS, OVERLOADED, PASSES, TRIES, UNTYPED, GaveUp, Metadata, Refused, reason_of

LOCATIONS = ("linz-1", "vienna-1")
HOT_UNITS = 10
CROSSING_SKUS = 8
CROSSING_UNITS = 20
BASKET = 5
# What a caller may be told, and nothing else.
REASONS = {"OUT_OF_STOCK"}


@dataclass(slots=True)
class Tally:
    """What was tried and told."""

    attempts: int = 0
    accepted: int = 0
    committed: int = 0
    released: int = 0
    repeats: Counter[str] = field(default_factory=Counter)
    doubled: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    # Mistakes of the service, by name, with an example each.
    wrong: dict[str, str] = field(default_factory=dict)
    most_held: int = 0

    def lines(self) -> list[str]:
        """For people."""
        refusals = ", ".join(f"{count:,} {reason}" for reason, count in self.refusals.most_common()) or "none"
        repeats = ", ".join(f"{count:,} {code}" for code, count in self.repeats.most_common()) or "none"
        return [
            f"attempts {self.attempts:,}, accepted {self.accepted:,}, committed {self.committed:,},"
            f" given back {self.released:,}, asked twice at once {self.doubled:,}",
            f"refusals: {refusals}",
            f"calls repeated: {repeats}",
            f"most units of the hot SKU held at one moment: {self.most_held} of {HOT_UNITS}",
        ]


class Storm:
    """Callers, until told to stop."""

    def __init__(self, stack: Stack, addresses: Sequence[str], *, callers: int = 64, seed: int = 1) -> None:
        name = uuid4().hex[:8]
        self.tally = Tally()
        self.hot = f"hot-{name}"
        self.crossing = [f"cross-{name}-{number}" for number in range(CROSSING_SKUS)]
        # What lies there, in all.
        self.units = {self.hot: HOT_UNITS, **dict.fromkeys(self.crossing, CROSSING_UNITS)}
        # Reservation id -> what became of it, as told: held, committed or released.
        self.told: dict[str, pb.ReservationState.ValueType] = {}
        self._stack, self._addresses, self._callers = stack, addresses, callers
        self._random = random.Random(seed)
        self._certain: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._stopping = asyncio.Event()
        self._shipping = _bearer(stack.mint("service", service="shipping"))
        self._operator = _bearer(stack.mint("operator"))
        self._channels: list[grpc.aio.Channel] = []

    @asynccontextmanager
    async def blowing(self) -> AsyncIterator[Storm]:
        """Fills the shelves, lets the callers loose, and lets them finish what they are at."""
        # Many connections each, for one would take the calls one after the other.
        self._channels = [
            grpc.aio.insecure_channel(address, [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
            for address in self._addresses
        ]
        for sku, units in self.units.items():
            await self._receive(sku, units)
        tasks = [asyncio.create_task(self._call_again(basket)) for basket in (1, BASKET) for _ in range(self._callers)]
        try:
            yield self
            self._stopping.set()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Ends the connections."""
        for channel in self._channels:
            await channel.close()

    async def attempted(self, number: int, seconds: float) -> None:
        """Returns once so many attempts were made in all. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: self.tally.attempts >= number)

    # -- one caller

    async def _call_again(self, basket: int) -> None:
        while not self._stopping.is_set():
            skus = [self.hot] if basket == 1 else self._random.sample(self.crossing, basket)
            try:
                await self._one(skus)
            except Refused as refused:
                self.tally.refusals[refused.reason] += 1
                if refused.reason not in REASONS:
                    self.tally.wrong[f"refused with {refused.reason}"] = str(skus)
            except GaveUp as gave_up:
                self.tally.wrong["gave up"] = str(gave_up)
            if self.tally.attempts % 100 < 2:
                async with self._changed:
                    self._changed.notify_all()

    async def _one(self, skus: Sequence[str]) -> None:
        request = pb.ReserveStockRequest(
            request_id=uuid4().hex,
            customer_id=f"cus_{uuid4().hex}",
            lines=[pb.ReservationLine(sku=sku, quantity=1) for sku in skus],
        )
        held = (await self._twice_sometimes("ReserveStock", request)).reservation
        wanted = Counter(skus)
        self._take(held, wanted)
        fate = self._random.random()
        if fate < 0.4:
            await self._back(held, wanted, committed=False)
            return
        order_id = f"ord_{uuid4().hex}"
        commit = pb.CommitReservationRequest(
            request_id=uuid4().hex, reservation_id=held.reservation_id, order_id=order_id
        )
        committed = (await self._twice_sometimes("CommitReservation", commit)).reservation
        self.tally.committed += 1
        self.told[held.reservation_id] = pb.RESERVATION_STATE_COMMITTED
        if committed.allocations != held.allocations:
            self.tally.wrong["committed other units than were held"] = held.reservation_id
        await self._back(held, wanted, committed=True, order_id=order_id)

    def _take(self, held: pb.Reservation, wanted: Mapping[str, int]) -> None:
        """Notes what the caller certainly has from now on."""
        self.tally.accepted += 1
        if held.reservation_id in self.told:
            self.tally.wrong["one hold for two callers"] = held.reservation_id
        self.told[held.reservation_id] = pb.RESERVATION_STATE_HELD
        if Counter({part.sku: 0 for part in held.allocations}) | _units(held) != wanted:
            self.tally.wrong["held other than wanted"] = str(held)
        self._certain.update(wanted)
        self.tally.most_held = max(self.tally.most_held, self._certain[self.hot])
        for sku in wanted:
            if self._certain[sku] > self.units[sku]:
                self.tally.wrong["oversold"] = f"{self._certain[sku]} of {sku}, {self.units[sku]} are there"

    async def _back(
        self, held: pb.Reservation, wanted: Mapping[str, int], *, committed: bool, order_id: str = ""
    ) -> None:
        """Gives the units back; from the moment it is asked they are certain no more."""
        self._certain.subtract(wanted)
        self.told[held.reservation_id] = pb.RESERVATION_STATE_RELEASED
        if committed:
            await self._call("ReleaseOrder", pb.ReleaseOrderRequest(request_id=uuid4().hex, order_id=order_id))
        else:
            await self._call(
                "ReleaseReservation",
                pb.ReleaseReservationRequest(request_id=uuid4().hex, reservation_id=held.reservation_id),
            )
        self.tally.released += 1

    # -- calls

    async def _twice_sometimes(self, method: str, request: Message) -> Any:
        """Now and then the same request at once at both replicas: one answer."""
        self.tally.attempts += 1
        if self._random.random() > 0.05:
            return await self._call(method, request)
        self.tally.attempts += 1
        self.tally.doubled += 1
        answers = await asyncio.gather(
            *(self._call(method, request, channel) for channel in self._channels), return_exceptions=True
        )
        good = [each for each in answers if not isinstance(each, BaseException)]
        if not good:
            raise next(each for each in answers if isinstance(each, BaseException))
        if any(each != good[0] for each in good):
            self.tally.wrong["two answers to one request"] = f"{method}: {good}"
        # One of the two may have been refused before the units came back that the other got.
        return good[0]

    async def _receive(self, sku: str, units: int) -> None:
        for location, quantity in zip(LOCATIONS, (units // 2, units - units // 2), strict=True):
            request = pb.ReceiveStockRequest(request_id=uuid4().hex, sku=sku, location=location, quantity=quantity)
            await self._call("ReceiveStock", request, who=self._operator)

    async def _call(
        self,
        method: str,
        request: Message,
        channel: grpc.aio.Channel | None = None,
        who: Metadata | None = None,
    ) -> Any:
        """Repeats what passes by itself, with the same request, at whichever replica. Raises `Refused`, `GaveUp`."""
        for _ in range(TRIES):
            stub = rpc.InventoryServiceStub(channel or self._random.choice(self._channels))
            try:
                return await getattr(stub, method)(request, metadata=who or self._shipping, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                reason = reason_of(error)
                if error.code() in PASSES or reason == OVERLOADED:
                    self.tally.repeats[f"{error.code().name} {reason or ''}".strip()] += 1
                    await asyncio.sleep(self._random.uniform(0.1, 0.3))
                    channel = None
                elif reason is None or error.code() in UNTYPED:
                    self.tally.wrong[f"{method}: {error.code().name} without a type"] = str(error.details())
                    raise GaveUp(method) from error
                else:
                    raise Refused(reason) from error
        raise GaveUp(method)


async def judge(storm: Storm, database_url: str) -> list[str]:
    """What is wrong in the books afterwards: every accepted hold exists, as told; all units are where they were."""
    problems = [f"{what}: {example}" for what, example in storm.tally.wrong.items()]
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT reservation_id, state FROM reservations")
        states = {row["reservation_id"]: row["state"] for row in rows}
        for reservation_id, told in storm.told.items():
            expected = pb.ReservationState.Name(told).removeprefix("RESERVATION_STATE_").lower()
            if states.get(reservation_id) != expected:
                problems.append(f"{reservation_id} is {states.get(reservation_id)}, told {expected}")
        nobodys = {each for each, state in states.items() if state != "released"} - storm.told.keys()
        problems += [f"{each} is {states[each]} and was answered to nobody" for each in sorted(nobodys)]
        for sku, units in storm.units.items():
            row = await connection.fetchrow(
                "SELECT sum(on_hand) AS on_hand, sum(held) AS held, sum(committed) AS committed FROM stock"
                " WHERE sku = $1",
                sku,
            )
            if row is None or (row["on_hand"], row["held"], row["committed"]) != (units, 0, 0):
                problems.append(f"{sku}: {dict(row or {})}, expected {units} free")
    finally:
        await connection.close()
    return problems


async def drifts(storm: Storm) -> list[str]:
    """What the service's own audit finds."""
    found: list[str] = []
    request = pb.AuditStockRequest(page_size=5)
    while True:
        answer = await storm._call("AuditStock", request, who=storm._operator)
        found += map(str, answer.drifts)
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


def _units(held: pb.Reservation) -> Counter[str]:
    found: Counter[str] = Counter()
    for part in held.allocations:
        found[part.sku] += part.quantity
    return found


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
