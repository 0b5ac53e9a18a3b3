"""From the warehouse to whoever waited: inventory behind gRPC, its relay, Kafka and our consumer, every part real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from services.catalog.__main__ import SERVICE as CATALOG
from services.catalog.__main__ import Catalog
from services.chassis import kafka
from services.chassis.access import acting_as
from services.chassis.consumption import Consumption
from services.chassis.database import Database
from services.chassis.migrations import migrate
from services.chassis.relay import Relay
from services.chassis.service import Runtime
from services.inventory.__main__ import SERVICE as INVENTORY_SERVICE
from services.inventory.grpc_api import InventoryApi
from services.inventory.settings import Settings as InventorySettings
from services.inventory.usecases import reserving
from shop.inventory.v1 import inventory_pb2 as inventory
from tests.catalog.conftest import OPERATOR, SECONDS, SHIPPING, Shelf
from tests.catalog.waiting import Queue, impatient
from tests.chassis.grpc_rig import INVENTORY, Issuer, serving

# How long a unit is held for whoever waited: long enough to be seen, short enough to lapse in a test.
HOLD_SECONDS = 2


@pytest.fixture
async def stock(infrastructure: Stack) -> AsyncIterator[Database]:
    """Inventory's own database, with its facts on their way to Kafka and its lapsed holds tidied up."""
    url, bootstrap = infrastructure.database_url("inventory"), infrastructure.kafka_bootstrap
    await migrate(url, Path("services/inventory/sql"))
    await kafka.ensure_topics(bootstrap, INVENTORY_SERVICE.publishes)
    database = Database(url, "inventory", pool_size=4)
    await database.open()
    relay = Relay(database, bootstrap, watermark=INVENTORY_SERVICE.watermark)
    database.wake_relay = relay.wake

    async def tidy_up() -> None:
        while True:
            async with database.transaction() as tx:
                await reserving.expire_due(tx)
            await asyncio.sleep(0.1)

    async with running(relay.run(), tidy_up()):
        yield database
    await database.close()


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Within the block, works go on."""
    tasks = [asyncio.create_task(work) for work in works]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(states: Callable[[], Awaitable[list[str]]], expected: list[str]) -> None:
    async with asyncio.timeout(SECONDS):
        while await states() != expected:
            await asyncio.sleep(0.01)


async def test_a_unit_comes_in_lapses_goes_to_the_next_and_is_taken(
    infrastructure: Stack, stock: Database, shelf: Shelf, issuer: Issuer
) -> None:
    limits = InventorySettings.model_construct(waiting_hold_limit_seconds=HOLD_SECONDS)
    api = InventoryApi(stock, limits)
    sku = f"back-{uuid4().hex}"
    ann, ben = f"cus_{uuid4().hex}", f"cus_{uuid4().hex}"
    await shelf.feed({"id": sku})
    async with serving(issuer, (INVENTORY, api)) as rig:
        settings = shelf.settings.model_copy(update={"inventory_address": rig.target})
        app = Catalog(Runtime(settings, shelf.database, shelf.telemetry))
        queue = Queue(Shelf(app, shelf.database, shelf.inventory, settings, shelf.telemetry), impatient(shelf))
        hears = [line for line in CATALOG.hears if line.topic.startswith("shop.inventory.")]
        consumption = Consumption("catalog", shelf.database, infrastructure.kafka_bootstrap, hears, app)
        async with running(consumption.start(), app.back_in_stock.run()):
            for name in (ann, ben):
                await queue.subscribe(name, sku)
            with acting_as(OPERATOR):
                await api.ReceiveStock(
                    inventory.ReceiveStockRequest(request_id=uuid4().hex, sku=sku, location="vienna-1", quantity=1)
                )
            await until(lambda: queue.states(ann), ["held"])
            assert await queue.states(ben) == ["waiting"]
            await until(lambda: queue.states(ben), ["held"])
            assert await queue.states(ann) == ["lapsed"]
            line = inventory.ReservationLine(sku=sku, quantity=1)
            with acting_as(SHIPPING):
                await api.ReserveStock(
                    inventory.ReserveStockRequest(request_id=uuid4().hex, customer_id=ben, lines=[line])
                )
            await until(lambda: queue.states(ben), ["taken"])
            assert await queue.told() == [ann, ben]
            await consumption.stop()
        await app.close()
