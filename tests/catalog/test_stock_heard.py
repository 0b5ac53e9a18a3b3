"""From inventory's transaction to the window, over its relay, Kafka and our consumer: every part real."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from deploy.local.stack import Stack
from services.chassis import kafka
from services.chassis.access import acting_as
from services.inventory.grpc_api import InventoryApi
from shop.catalog.v1 import catalog_pb2 as pb
from shop.inventory.v1 import inventory_pb2 as inventory
from tests.catalog.conftest import OPERATOR, SECONDS, SHIPPING, Shelf


async def until_listed(shelf: Shelf, expected: dict[str, list[str]]) -> None:
    async with asyncio.timeout(SECONDS):
        while await shelf.listed() != expected:
            await asyncio.sleep(0.01)


async def test_the_last_pair_leaves_the_window_and_comes_back(told: InventoryApi, shelf: Shelf) -> None:
    sku, other = f"last-{uuid4().hex}", f"other-{uuid4().hex}"
    await shelf.feed({"id": sku, "item_group_id": "p"}, {"id": other, "item_group_id": "p"})
    with acting_as(OPERATOR):
        await told.ReceiveStock(
            inventory.ReceiveStockRequest(request_id=uuid4().hex, sku=sku, location="vienna-1", quantity=1)
        )
    await until_listed(shelf, {"p": [sku]})
    line = inventory.ReservationLine(sku=sku, quantity=1)
    with acting_as(SHIPPING):
        held = await told.ReserveStock(
            inventory.ReserveStockRequest(request_id=uuid4().hex, customer_id=f"cus_{uuid4().hex}", lines=[line])
        )
    await until_listed(shelf, {})
    with acting_as(SHIPPING):
        await told.ReleaseReservation(
            inventory.ReleaseReservationRequest(request_id=uuid4().hex, reservation_id=held.reservation.reservation_id)
        )
    await until_listed(shelf, {"p": [sku]})
    product = (await shelf.storefront.GetProduct(pb.GetProductRequest(product_id="p"))).product
    assert [(variant.sku, variant.free) for variant in product.variants] == [(sku, 1)]


async def test_every_partition_is_heard_to_its_watermark(told: InventoryApi, shelf: Shelf) -> None:
    await shelf.database.pool.execute("DELETE FROM watermarks")
    began = await shelf.now()
    async with asyncio.timeout(SECONDS):
        while True:
            rows = await shelf.database.fetch("SELECT count(*) AS heard FROM watermarks WHERE as_of > $1", began)
            if rows[0]["heard"] == 6:
                return
            await asyncio.sleep(0.01)


async def test_the_number_of_partitions_is_known(told: InventoryApi, infrastructure: Stack) -> None:
    assert await kafka.partition_count(infrastructure.kafka_bootstrap, "shop.inventory.stock.v1") == 6
    assert await kafka.partition_count(infrastructure.kafka_bootstrap, f"none-{uuid4().hex}") is None
    assert await kafka.partition_count("127.0.0.1:1", "shop.inventory.stock.v1") is None
