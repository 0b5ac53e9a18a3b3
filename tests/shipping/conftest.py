"""Shipping's application object on a real database, with inventory and catalog in memory (see tests/contracts)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from google.protobuf.message import Message

from deploy.local.stack import Stack
from services.chassis.access import Caller, acting_as
from services.chassis.database import Database
from services.chassis.latest import Latest
from services.chassis.migrations import migrate
from services.shipping.clients import Inventory
from services.shipping.grpc_api import ShippingApi, WarehouseApi
from services.shipping.sealing import AddressSeal
from services.shipping.usecases.ordering import Ordering
from shop.access.v1.access_pb2 import ROLE_AGENT, ROLE_CUSTOMER, ROLE_OPERATOR
from shop.contact.v1.contact_options_pb2 import ContactOptions
from shop.shipping.events.v1 import facts_pb2 as facts
from shop.shipping.v1 import shipping_pb2 as pb
from tests.fakes.catalog import FakeCatalog
from tests.fakes.inventory import FakeInventory

SQL = Path("services/shipping/sql")
TABLES = (
    "checkouts, checkout_lines, orders, shipments, shipment_items, promise_changes, scans, latest, outbox, requests,"
    " inbox"
)
CUSTOMER = Caller(ROLE_CUSTOMER, "cus_1", "customer:cus_1", customer_id="cus_1")
OTHER = Caller(ROLE_CUSTOMER, "cus_2", "customer:cus_2", customer_id="cus_2")
AGENT = Caller(ROLE_AGENT, "agt_1", "agent:agt_1", agent_id="agt_1")
OPERATOR = Caller(ROLE_OPERATOR, "olga", "operator:olga")
ADDRESS = pb.Address(name="Ada Lovelace", street="Ringstrasse 1", postal_code="4801", city="Traunkirchen", country="AT")
PHONE = "+18005550199"
GRACE = timedelta(minutes=15)


def new_id() -> str:
    return uuid4().hex


def ordering(database: Database, inventory: Inventory, *, retry: float = 0, give_up: float = 600) -> Ordering:
    """What places orders; by default the sweeper leaves nothing alone."""
    return Ordering(
        database, inventory, grace=GRACE, retry=timedelta(seconds=retry), give_up=timedelta(seconds=give_up)
    )


@dataclass
class Desk:
    """Shipping, and what tests do with it."""

    database: Database
    inventory: FakeInventory
    catalog: FakeCatalog
    hotline: Latest[ContactOptions]
    api: ShippingApi
    warehouse: WarehouseApi
    ordering: Ordering

    async def begin(self, *lines: tuple[str, int], customer: str = "cus_1", **fields: Any) -> pb.Checkout:
        return (await self.api.BeginCheckout(checkout_request(*lines, customer=customer, **fields))).checkout

    async def place(self, checkout: pb.Checkout, **fields: Any) -> pb.Order:
        return (await self.api.PlaceOrder(order_request(checkout, **fields))).order

    async def order(self, *lines: tuple[str, int], **fields: Any) -> pb.Order:
        """A placed order of these, or of one shoe."""
        return await self.place(await self.begin(*(lines or (("shoe", 1),)), **fields))

    async def get(self, order_id: str) -> pb.Order:
        return (await self.api.GetOrder(pb.GetOrderRequest(order_id=order_id))).order

    async def state(self, checkout: pb.Checkout) -> str:
        """The state of the one order of a checkout, as written down."""
        rows = await self.database.fetch("SELECT state FROM orders WHERE checkout_id = $1", checkout.checkout_id)
        assert len(rows) <= 1
        return rows[0]["state"] if rows else "none"

    async def cancel(self, order: pb.Order) -> pb.Order:
        request = pb.CancelOrderRequest(request_id=new_id(), customer_id="cus_1", order_id=order.order_id)
        return (await self.api.CancelOrder(request)).order

    async def dispatch(self, shipment: pb.Shipment, tracking: str = "") -> pb.Shipment:
        with acting_as(OPERATOR):
            answer = await self.warehouse.DispatchShipment(
                pb.DispatchShipmentRequest(
                    request_id=new_id(), shipment_id=shipment.shipment_id, tracking_reference=tracking or new_id()
                )
            )
        return answer.shipment

    async def scan(
        self, tracking: str, time: datetime, kind: pb.ScanKind.ValueType = pb.SCAN_KIND_DELIVERED, scan_id: str = ""
    ) -> pb.RecordScanResponse:
        request = pb.RecordScanRequest(scan_id=scan_id or new_id(), tracking_reference=tracking, kind=kind)
        request.scan_time.FromDatetime(time)
        with acting_as(OPERATOR):
            return await self.warehouse.RecordScan(request)

    async def told(self) -> list[Message]:
        """What was announced, in order."""
        rows = await self.database.fetch("SELECT headers ->> 'ce_type' AS kind, value FROM outbox ORDER BY id")
        found: list[Message] = []
        for row in rows:
            kind: Callable[[], Message] = getattr(facts, row["kind"].rsplit(".")[-1])
            message = kind()
            message.ParseFromString(row["value"])
            found.append(message)
        return found

    async def kinds(self) -> list[str]:
        """The kinds of what was announced, in order."""
        return [message.DESCRIPTOR.name for message in await self.told()]


def checkout_request(*lines: tuple[str, int], customer: str = "cus_1", **fields: Any) -> pb.BeginCheckoutRequest:
    return pb.BeginCheckoutRequest(
        **{
            "request_id": new_id(),
            "customer_id": customer,
            "lines": [pb.CheckoutLine(sku=sku, quantity=quantity) for sku, quantity in lines],
            "address": ADDRESS,
            **fields,
        }
    )


def order_request(checkout: pb.Checkout, **fields: Any) -> pb.PlaceOrderRequest:
    return pb.PlaceOrderRequest(
        **{
            "request_id": new_id(),
            "customer_id": checkout.customer_id,
            "checkout_id": checkout.checkout_id,
            "highlights_version": checkout.highlights_version,
            "payment_reference": f"pay-{new_id()}",
            **fields,
        }
    )


@contextmanager
def as_caller(caller: Caller) -> Iterator[None]:
    with acting_as(caller):
        yield


@pytest.fixture(scope="session")
async def shipping_database(infrastructure: Stack) -> AsyncIterator[Database]:
    url = infrastructure.database_url("shipping")
    await migrate(url, SQL)
    opened = Database(url, "shipping", pool_size=20)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def desk(shipping_database: Database) -> AsyncIterator[Desk]:
    """Empty but for ten shoes and five boots, some of the boots elsewhere."""
    await shipping_database.pool.execute(f"TRUNCATE {TABLES}")
    inventory, catalog = FakeInventory(), FakeCatalog()
    inventory.receive("shoe", 10)
    inventory.receive("boot", 3, "graz-1")
    inventory.receive("boot", 2, "vienna-1")
    catalog.sell("shoe", "A plain shoe", "60.90")
    catalog.sell("boot", "A sturdy boot", "129.50")
    hotline = Latest(shipping_database, "hotline", ContactOptions(phone_number=PHONE))
    placing = ordering(shipping_database, inventory)
    seal = AddressSeal(Fernet.generate_key().decode())
    api = ShippingApi(shipping_database, catalog, inventory, placing, seal, hotline)
    with acting_as(CUSTOMER):
        yield Desk(shipping_database, inventory, catalog, hotline, api, WarehouseApi(shipping_database), placing)


def amount(money: Any) -> str:
    """A Money as people write it."""
    return f"{money.units}.{money.nanos // 10_000_000:02} {money.currency_code}"


def names(found: Sequence[Message]) -> list[str]:
    return [message.DESCRIPTOR.name for message in found]
