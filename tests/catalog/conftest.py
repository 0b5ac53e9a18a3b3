"""Catalog's application object on a real database and real gRPC, with inventory in memory behind a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.message import Message

from deploy.local.stack import Stack
from services.catalog.__main__ import SERVICE as CATALOG
from services.catalog.__main__ import Catalog
from services.catalog.consumers import STOCK, on_order_placed, on_stock
from services.catalog.grpc_api import CatalogAdminApi, CatalogApi
from services.catalog.settings import Settings
from services.catalog.store.refreshing import refresh
from services.chassis import kafka
from services.chassis.access import Caller, acting_as, caller_of
from services.chassis.consumption import Consumption
from services.chassis.database import Database
from services.chassis.facts import Heard
from services.chassis.migrations import migrate
from services.chassis.relay import Relay
from services.chassis.service import Runtime
from services.chassis.telemetry import Telemetry
from services.chassis.values import to_timestamp
from services.inventory.__main__ import SERVICE as INVENTORY_SERVICE
from services.inventory.grpc_api import InventoryApi
from services.inventory.settings import Settings as InventorySettings
from shop.access.v1.access_pb2 import ROLE_OPERATOR, ROLE_SERVICE
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import records_pb2 as records
from shop.inventory.events.v1.facts_pb2 import StockLevelChanged, StockWatermark
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.shipping.events.v1.facts_pb2 import OrderedItem, OrderPlaced
from tests.chassis.grpc_rig import INVENTORY, Issuer, issuing, serving, stand_in
from tests.fakes.inventory import FakeInventory

OPERATOR = Caller(ROLE_OPERATOR, "olga", "operator:olga")
SHIPPING = Caller(ROLE_SERVICE, "shipping", "service:shipping", service="shipping")
SECONDS = 40.0
SQL = Path("services/catalog/sql")
PARTITIONS = range(3)
TABLES = (
    "products, product_texts, variants, variant_texts, prices, current_prices, product_history, product_changes, "
    "product_words, product_popularity, search_tokens, search_rows, search_prices, search_counts, "
    "stock_copy, received, subscriptions, forgotten, referrals, watermarks, inventory_clock, rebuilding, "
    "latest, outbox, inbox, requests, attempts"
)

SHOE = {"title": "Shoe", "price": "100.00 EUR"}
OPERATOR = caller_of({"role": "operator", "sub": "olga"})


def heard(message: Message, partition: int = 0) -> Heard[Any]:
    return Heard(uuid4().hex, message, STOCK, partition, 0, "key", datetime.now(UTC), "/shop/inventory", None)


def level_changed(
    sku: str, free: int, version: int = 1, location: str = "vienna-1", received_total: int = 0
) -> StockLevelChanged:
    return StockLevelChanged(sku=sku, location=location, free=free, version=version, received_total=received_total)


def wanted(**filters: str) -> list[pb.Filter]:
    """One filter for each attribute."""
    return [pb.Filter(attribute=attribute, values=[value]) for attribute, value in filters.items()]


@dataclass
class Shelf:
    """Catalog, and what a test does to it."""

    app: Catalog
    database: Database
    inventory: FakeInventory
    settings: Settings
    telemetry: Telemetry
    line: int = field(default=1)

    @property
    def storefront(self) -> CatalogApi:
        api = dict(self.app.servicers)["shop.catalog.v1.CatalogService"]
        assert isinstance(api, CatalogApi)
        return api

    @property
    def admin(self) -> CatalogAdminApi:
        api = dict(self.app.servicers)["shop.catalog.v1.CatalogAdminService"]
        assert isinstance(api, CatalogAdminApi)
        return api

    async def feed(self, *rows: dict[str, str], locale: str = "") -> records.ImportProductsResponse:
        """Imports rows; what a row does not say is made up, but for a translation."""
        wanted = []
        for row in rows:
            self.line += 1
            wanted.append(records.FeedRow(line=self.line, fields=row if locale else {**SHOE, **row}))
        with acting_as(OPERATOR):
            return await self.admin.ImportProducts(records.ImportProductsRequest(rows=wanted, locale=locale))

    async def hear(self, *messages: StockLevelChanged | StockWatermark, partition: int = 0) -> None:
        """Handles facts that arrived together."""
        async with self.database.transaction() as tx:
            await on_stock(self.app, tx, [heard(message, partition) for message in messages])

    async def be_fresh(self, age: float = 0) -> None:
        """All partitions were heard up to so many seconds ago."""
        as_of = to_timestamp(await self.now() - timedelta(seconds=age))
        for partition in PARTITIONS:
            await self.hear(StockWatermark(as_of=as_of), partition=partition)

    async def be_stale(self) -> datetime:
        """One partition was not heard for an hour. Returns up to when it was."""
        as_of = await self.now() - timedelta(hours=1)
        await self.database.pool.execute("DELETE FROM watermarks")
        await self.be_fresh()
        await self.database.pool.execute("UPDATE watermarks SET as_of = $1 WHERE partition_number = 1", as_of)
        return as_of

    async def now(self) -> datetime:
        instant: datetime = await self.database.pool.fetchval("SELECT clock_timestamp()")
        return instant

    async def stock(self, **free: int) -> None:
        """Inventory has so much of each SKU, and catalog heard so."""
        levels = [self.inventory.put(sku, units) for sku, units in free.items()]
        await self.hear(*(level_changed(level.sku, level.free, level.version) for level in levels))

    async def stock_at(self, rows: Sequence[dict[str, str]]) -> None:
        """Inventory has what a stock file says, and catalog heard so."""
        await self.hear(*(level_changed(row["sku"], int(row["quantity"]), 1, row["location"]) for row in rows))

    async def refresh(self, product_id: str) -> None:
        """Brings the window up to records that the test has changed."""
        async with self.database.transaction() as tx:
            await refresh(tx, [product_id])

    async def ordered(self, sku: str, units: int, *, ago: timedelta = timedelta(0)) -> None:
        """Somebody ordered so many units."""
        time = to_timestamp(await self.now() - ago)
        order = OrderPlaced(items=[OrderedItem(sku=sku, quantity=units)], order_time=time)
        async with self.database.transaction() as tx:
            await on_order_placed(self.app, tx, heard(order))

    async def listed(self, **filters: str) -> dict[str, list[str]]:
        """The whole list: SKUs by product id."""
        found: dict[str, list[str]] = {}
        request = pb.ListProductsRequest(filters=wanted(**filters))
        while True:
            answer = await self.storefront.ListProducts(request)
            for product in answer.products:
                assert product.product_id not in found
                found[product.product_id] = [variant.sku for variant in product.variants]
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    def asked(self) -> list[tuple[str, ...]]:
        """The SKUs of each question to inventory about some."""
        questions = [one for one in self.inventory.asked if isinstance(one, inventory.BatchGetAvailabilityRequest)]
        return [tuple(question.skus) for question in questions]

    async def until_compared(self) -> None:
        """Returns once inventory was asked for all its levels."""
        while not any(isinstance(one, inventory.ListStockLevelsRequest) for one in self.inventory.asked):
            await asyncio.sleep(0.01)

    async def facts(self) -> Sequence[tuple[str, str]]:
        """What was announced, as (kind, product id), in order."""
        rows = await self.database.fetch(
            "SELECT headers ->> 'ce_type' AS kind, convert_from(key, 'UTF8') AS key FROM outbox ORDER BY id"
        )
        return [(row["kind"].rsplit(".")[-1], row["key"]) for row in rows]


@pytest.fixture(scope="session")
async def database(infrastructure: Stack) -> AsyncIterator[Database]:
    url = infrastructure.database_url("catalog")
    await migrate(url, SQL)
    opened = Database(url, "catalog", pool_size=10)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture
async def shelf(infrastructure: Stack, database: Database, issuer: Issuer, tmp_path: Path) -> AsyncIterator[Shelf]:
    await database.pool.execute(f"TRUNCATE {TABLES}")
    token_file = tmp_path / "token"
    token_file.write_text(issuer.token(role="service", service="catalog"))
    fake = FakeInventory()
    calls = (
        "BatchGetAvailability",
        "ListStockLevels",
        "ReserveStock",
        "GetReservation",
        "ReleaseReservation",
    )
    methods = {name: getattr(fake, name) for name in calls}
    async with serving(issuer, stand_in(INVENTORY, **methods)) as rig:
        settings = Settings(
            database_url="postgresql://unused",
            kafka_bootstrap_servers=infrastructure.kafka_bootstrap,
            grpc_port=1,
            metrics_port=1,
            token_issuer="unused",
            jwks_url="http://unused",
            service_token_file=str(token_file),
            inventory_address=rig.target,
            staleness_bound_seconds=60,
        )
        app = Catalog(Runtime(settings, database, rig.telemetry))
        shelf = Shelf(app, database, fake, settings, rig.telemetry)
        await shelf.be_fresh()
        yield shelf
        fake.answering.set()
        await app.close()


@pytest.fixture
async def told(infrastructure: Stack, shelf: Shelf) -> AsyncIterator[InventoryApi]:
    """The real inventory, whose facts catalog hears."""
    url, bootstrap = infrastructure.database_url("inventory"), infrastructure.kafka_bootstrap
    await migrate(url, Path("services/inventory/sql"))
    await kafka.ensure_topics(bootstrap, [topic for topic in INVENTORY_SERVICE.publishes if topic.compacted])
    database = Database(url, "inventory", pool_size=4)
    await database.open()
    relay = Relay(database, bootstrap, watermark=INVENTORY_SERVICE.watermark)
    database.wake_relay = relay.wake
    relaying = asyncio.create_task(relay.run())
    stock = [heard for heard in CATALOG.hears if heard.batch]
    consumption = Consumption("catalog", shelf.database, bootstrap, stock, shelf.app)
    consuming = asyncio.create_task(consumption.start())
    yield InventoryApi(database, InventorySettings.model_construct(hold_seconds=600, hold_limit_seconds=3600))
    await consumption.stop()
    consuming.cancel()
    relaying.cancel()
    await asyncio.gather(consuming, relaying, return_exceptions=True)
    await database.close()
