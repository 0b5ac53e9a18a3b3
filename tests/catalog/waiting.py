"""Customers who wait for what is sold out, and what a test does to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from google.protobuf.message import Message

from services.catalog.back_in_stock import BackInStock
from services.catalog.consumers import HEARS
from services.catalog.grpc_api import BackInStockApi
from services.chassis.access import Caller, acting_as
from shop.access.v1.access_pb2 import ROLE_CUSTOMER
from shop.catalog.events.v1.facts_pb2 import BackInStock as Told
from shop.catalog.v1 import back_in_stock_pb2 as pb
from shop.inventory.events.v1.facts_pb2 import ReservationExpired, StockLevelChanged, WaitingHoldUsed
from shop.inventory.v1 import inventory_pb2 as inventory
from tests.catalog.conftest import Shelf, heard


@contextmanager
def customer(name: str) -> Iterator[None]:
    """Within the block, this customer calls."""
    with acting_as(Caller(ROLE_CUSTOMER, name, f"customer:{name}", customer_id=name)):
        yield


@dataclass
class Queue:
    """Those who wait, in a shop whose inventory is in memory."""

    shelf: Shelf
    # Of a process that may begin again what another has in hand, at once.
    turns: BackInStock

    @property
    def api(self) -> BackInStockApi:
        api = dict(self.shelf.app.servicers)["shop.catalog.v1.BackInStockService"]
        assert isinstance(api, BackInStockApi)
        return api

    def another(self) -> BackInStock:
        """Another process."""
        return impatient(self.shelf)

    async def subscribe(self, name: str, sku: str = "one", request_id: str = "") -> pb.BackInStockSubscription:
        request = pb.SubscribeBackInStockRequest(request_id=request_id or uuid4().hex, customer_id=name, sku=sku)
        with customer(name):
            return (await self.api.SubscribeBackInStock(request)).subscription

    async def unsubscribe(self, name: str, sku: str = "one") -> None:
        request = pb.UnsubscribeBackInStockRequest(request_id=uuid4().hex, customer_id=name, sku=sku)
        with customer(name):
            await self.api.UnsubscribeBackInStock(request)

    async def states(self, name: str) -> list[str]:
        """Where the customer stands, newest first, in short."""
        with customer(name):
            answer = await self.api.ListBackInStock(pb.ListBackInStockRequest(customer_id=name))
        return [
            pb.BackInStockState.Name(each.state).removeprefix("BACK_IN_STOCK_STATE_").lower()
            for each in answer.subscriptions
        ]

    async def arrive(self, units: int = 1, sku: str = "one", location: str = "vienna-1") -> StockLevelChanged:
        """Units come in at inventory, and catalog hears so. Returns what it heard."""
        self.shelf.inventory.receive(sku, units, location)
        return await self.hear_level(sku, location)

    async def hear_level(self, sku: str = "one", location: str = "vienna-1") -> StockLevelChanged:
        """Catalog hears how things stand there."""
        fact = await self.level(sku, location)
        await self.shelf.hear(fact)
        return fact

    async def level(self, sku: str = "one", location: str = "vienna-1") -> StockLevelChanged:
        """What inventory says of a place now."""
        request = inventory.BatchGetAvailabilityRequest(skus=[sku])
        levels = (await self.shelf.inventory.BatchGetAvailability(request)).levels
        (found,) = (level for level in levels if level.location == location)
        return StockLevelChanged(
            sku=sku, location=location, version=found.version, free=found.free, received_total=found.received_total
        )

    async def cart(self, sku: str = "one", units: int = 1, name: str = "cus_cart") -> str:
        """Somebody, usually another, holds units in a checkout. Returns the reservation."""
        line = inventory.ReservationLine(sku=sku, quantity=units)
        request = inventory.ReserveStockRequest(request_id=uuid4().hex, customer_id=name, lines=[line])
        return (await self.shelf.inventory.ReserveStock(request)).reservation.reservation_id

    async def release(self, reservation_id: str) -> None:
        request = inventory.ReleaseReservationRequest(request_id=uuid4().hex, reservation_id=reservation_id)
        await self.shelf.inventory.ReleaseReservation(request)

    async def sweep(self) -> None:
        """Goes on until nothing is left to do."""
        while await self.turns.sweep():
            pass

    async def hears_fact(self, message: Message) -> None:
        """As consumption does, in a transaction with the inbox row."""
        (handler,) = (one.handlers[type(message)] for one in HEARS if type(message) in one.handlers)
        async with self.shelf.database.transaction() as tx:
            await handler(self.shelf.app, tx, heard(message))

    async def expires(self, name: str, sku: str = "one") -> ReservationExpired:
        """The time of what is held for a customer runs out, and inventory says so."""
        reservation_id = await self.reservation(name, sku)
        self.shelf.inventory.expire(reservation_id)
        fact = ReservationExpired(reservation_id=reservation_id, customer_id=name)
        await self.hears_fact(fact)
        return fact

    async def takes(self, name: str, sku: str = "one") -> WaitingHoldUsed:
        """The customer takes what is held for them into a checkout, and inventory says so."""
        reservation_id = await self.reservation(name, sku)
        await self.cart(sku, name=name)
        fact = WaitingHoldUsed(reservation_id=reservation_id, customer_id=name, skus=[sku], closed=True)
        await self.hears_fact(fact)
        return fact

    async def reservation(self, name: str, sku: str = "one") -> str:
        """What is held for a customer."""
        rows = await self.shelf.database.fetch(
            "SELECT reservation_id FROM subscriptions WHERE customer_id = $1 AND sku = $2 AND state = 'held'", name, sku
        )
        found: str = rows[0]["reservation_id"]
        return found

    async def told(self) -> list[str]:
        """Who was told that it is back, in order."""
        return [fact.customer_id for fact in await self.facts()]

    async def facts(self) -> list[Told]:
        rows = await self.shelf.database.fetch(
            "SELECT value FROM outbox WHERE headers ->> 'ce_type' = $1 ORDER BY id", Told.DESCRIPTOR.full_name
        )
        return [Told.FromString(row["value"]) for row in rows]

    def held(self) -> list[inventory.Reservation]:
        """What inventory holds for those who wait."""
        return [
            each
            for each in self.shelf.inventory.reservations()
            if each.purpose == inventory.HOLD_PURPOSE_WAITING_CUSTOMER
            and each.state == inventory.RESERVATION_STATE_HELD
        ]

    async def wait_out(self, name: str) -> None:
        """Nothing was heard of what is held for a customer for longer than it takes."""
        await self.shelf.database.pool.execute(
            "UPDATE subscriptions SET due_time = clock_timestamp() WHERE customer_id = $1 AND state = 'held'", name
        )


def impatient(shelf: Shelf) -> BackInStock:
    """A process that leaves nothing to others."""
    return BackInStock(shelf.database, shelf.app._inventory, timedelta(0))
