"""Loyalty's application object on a real database, and the facts it hears."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.message import Message

from deploy.local.stack import Stack
from services.chassis.access import Caller, acting_as
from services.chassis.database import Database
from services.chassis.facts import Heard
from services.chassis.latest import Latest
from services.chassis.migrations import migrate
from services.chassis.values import to_money, to_timestamp
from services.loyalty.consumers import HEARS
from services.loyalty.grpc_api import LoyaltyApi
from shop.access.v1.access_pb2 import ROLE_OPERATOR
from shop.contact.v1.contact_options_pb2 import ContactOptions
from shop.loyalty.v1 import loyalty_pb2 as pb
from shop.shipping.events.v1 import facts_pb2 as shipping
from shop.shipping.v1 import shipping_pb2

SQL = Path("services/loyalty/sql")
OPERATOR = Caller(ROLE_OPERATOR, "olga", "operator:olga")
NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
SEED = (
    "INSERT INTO upgrade_policies (version, active_from, minimum_tier, countries, minimum_days_since_last, currency,"
    " unit_cost, monthly_budget, daily_budget, actor)"
    " VALUES (1, '2020-01-01T00:00:00Z', 'REGULAR', '{AT,DE,CZ,SK}', 14, 'EUR', 9.90, 20000.00, 2000.00, 'migration')"
)
HANDLERS = {kind: (heard.topic, run) for heard in HEARS for kind, run in heard.handlers.items()}


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"


class Shop:
    """Loyalty in one process: its calls, and the facts that reach it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.hotline = Latest(database, "hotline", ContactOptions(phone_number="+18005550199"))
        self.api = LoyaltyApi(database, self.hotline)

    async def hear(self, message: Message, fact_id: str = "") -> None:
        """Handles a fact as the consumption does, each in a transaction of its own."""
        topic, run = HANDLERS[type(message)]
        heard: Heard[Any] = Heard(fact_id or new_id("fact"), message, topic, 0, 0, "", NOON, "/shop/shipping", None)
        async with self.database.transaction() as tx:
            await run(self, tx, heard)

    async def adjust(self, customer_id: str, points: int) -> pb.Standing:
        request = pb.AdjustPointsRequest(
            request_id=uuid4().hex, customer_id=customer_id, points=points, reason="brought along"
        )
        return (await self.api.AdjustPoints(request)).standing

    async def regular(self, points: int = 400) -> str:
        """A customer with enough points to be a regular."""
        customer_id = new_id("cus")
        await self.adjust(customer_id, points)
        return customer_id

    async def decision(self, order_id: str) -> pb.UpgradeDecision:
        return (await self.api.ExplainUpgrade(pb.ExplainUpgradeRequest(order_id=order_id))).decision

    async def standing(self, customer_id: str) -> pb.Standing:
        return (await self.api.GetStanding(pb.GetStandingRequest(customer_id=customer_id))).standing

    async def announced(self, kind: type[Message]) -> list[Any]:
        """The facts of a kind that wait in the outbox, in their order."""
        rows = await self.database.fetch(
            "SELECT value FROM outbox WHERE headers->>'ce_type' = $1 ORDER BY id", kind.DESCRIPTOR.full_name
        )
        return [kind.FromString(row["value"]) for row in rows]

    async def budget(self, period: str = "month") -> tuple[Decimal, Decimal]:
        """Reserved and spent, over all periods of this length."""
        rows = await self.database.fetch(
            "SELECT coalesce(sum(reserved), 0) AS reserved, coalesce(sum(spent), 0) AS spent FROM budgets"
            " WHERE period = $1",
            period,
        )
        return rows[0]["reserved"], rows[0]["spent"]

    async def audit(self) -> None:
        """Balances are the sums of the ledger, and budgets the sums of the decisions."""
        drift = await self.database.fetch(
            "SELECT customer_id FROM standings s WHERE points <> ("
            " SELECT coalesce(sum(points), 0) FROM points_ledger l WHERE l.customer_id = s.customer_id)"
        )
        assert not drift
        drift = await self.database.fetch(
            "SELECT b.*, u.* FROM budgets b LEFT JOIN LATERAL ("
            " SELECT coalesce(sum(cost) FILTER (WHERE state = 'reserved'), 0) AS r,"
            " coalesce(sum(cost) FILTER (WHERE state = 'spent'), 0) AS s FROM upgrades"
            " WHERE currency = b.currency"
            " AND date_trunc(b.period, order_time AT TIME ZONE 'UTC')::date = b.first_day) u ON true"
            " WHERE (b.reserved, b.spent) IS DISTINCT FROM (u.r, u.s)"
        )
        assert not drift


@pytest.fixture(scope="session")
async def database(infrastructure: Stack) -> AsyncIterator[Database]:
    url = infrastructure.database_url("loyalty")
    await migrate(url, SQL)
    opened = Database(url, "loyalty", pool_size=20)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def shop(database: Database) -> Shop:
    await database.pool.execute(
        "TRUNCATE standings, points_ledger, upgrade_policies, budgets, upgrades, latest, outbox, requests, inbox"
        " RESTART IDENTITY CASCADE"
    )
    await database.pool.execute(SEED)
    return Shop(database)


@pytest.fixture(autouse=True)
def as_operator() -> Iterator[None]:
    with acting_as(OPERATOR):
        yield


def order_placed(
    customer_id: str,
    *,
    goods: str = "80.00",
    currency: str = "EUR",
    country: str = "AT",
    level: shipping_pb2.ServiceLevel.ValueType = shipping_pb2.SERVICE_LEVEL_STANDARD,
    order_time: datetime = NOON,
    order_id: str = "",
) -> shipping.OrderPlaced:
    return shipping.OrderPlaced(
        order_id=order_id or new_id("ord"),
        version=2,
        customer_id=customer_id,
        items=[
            shipping.OrderedItem(
                sku="SHOE-42", quantity=1, location="vienna-1", unit_price=to_money(Decimal(goods), currency)
            )
        ],
        goods_total=to_money(Decimal(goods), currency),
        total=to_money(Decimal(goods), currency),
        country=country,
        promise=shipping_pb2.DeliveryPromise(service_level=level),
        order_time=to_timestamp(order_time),
    )


def delivered(
    customer_id: str,
    goods: str = "80.00",
    *,
    currency: str = "EUR",
    shipment_id: str = "",
    delivery_time: datetime | None = None,
) -> shipping.ShipmentDelivered:
    return shipping.ShipmentDelivered(
        order_id=new_id("ord"),
        version=5,
        customer_id=customer_id,
        shipment_id=shipment_id or new_id("shp"),
        goods_total=to_money(Decimal(goods), currency),
        delivery_time=to_timestamp(delivery_time or datetime.now(UTC)),
    )


def upgraded(order: shipping.OrderPlaced) -> shipping.ShipmentUpgraded:
    return shipping.ShipmentUpgraded(order_id=order.order_id, customer_id=order.customer_id, version=3)


def not_applied(order: shipping.OrderPlaced) -> shipping.UpgradeNotApplied:
    return shipping.UpgradeNotApplied(
        order_id=order.order_id, customer_id=order.customer_id, version=3, reason="ALREADY_DISPATCHED"
    )


def cancelled(order: shipping.OrderPlaced) -> shipping.OrderCancelled:
    return shipping.OrderCancelled(order_id=order.order_id, customer_id=order.customer_id, version=4)
