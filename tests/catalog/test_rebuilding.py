"""The copy of stock rebuilt from the topic, while storefronts ask: what is gone is never shown as sure to be there."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from services.catalog import freshness, rebuilding
from services.catalog.rebuilding import Rebuilding
from services.chassis.access import acting_as
from services.chassis.database import Database
from services.chassis.errors import Refusal
from services.chassis.grpc_errors import RemoteError
from services.inventory.grpc_api import InventoryApi
from shop.catalog.v1 import catalog_pb2 as pb
from shop.inventory.v1 import inventory_pb2 as inventory
from tests.catalog.conftest import OPERATOR, SECONDS, Shelf
from tests.catalog.test_stock_heard import until_listed

NAMES = ("fine", "more", "fewer", "gone", "lost", "extra")


async def mirror(shelf: Shelf, infrastructure: Stack) -> None:
    """Inventory in memory says what the real one does, versions too."""
    real = Database(infrastructure.database_url("inventory"), "inventory", pool_size=2)
    await real.open()
    try:
        for row in await real.fetch("SELECT sku, location, on_hand, held, committed, version FROM stock"):
            level = shelf.inventory.put(row["sku"], 0, row["location"])
            level.on_hand, level.held, level.committed = row["on_hand"], row["held"], row["committed"]
            level.version = row["version"]
    finally:
        await real.close()


async def receive(told: InventoryApi, sku: str, quantity: int) -> None:
    with acting_as(OPERATOR):
        await told.ReceiveStock(
            inventory.ReceiveStockRequest(request_id=uuid4().hex, sku=sku, location="vienna-1", quantity=quantity)
        )


async def broken(told: InventoryApi, shelf: Shelf, infrastructure: Stack) -> dict[str, str]:
    """A copy with every kind of wrong, whose versions let no fact win. Returns the SKUs by what is wrong with them."""
    skus = {name: f"{name}-{uuid4().hex}" for name in NAMES}
    await shelf.feed(*({"id": sku, "item_group_id": name} for name, sku in skus.items()))
    for name in ("fine", "more", "fewer", "lost"):
        await receive(told, skus[name], 2)
    await until_listed(shelf, {name: [skus[name]] for name in ("fewer", "fine", "lost", "more")})
    await mirror(shelf, infrastructure)
    execute = shelf.database.pool.execute
    await execute("UPDATE stock_copy SET version = 1000000, heard_time = now() - interval '1 hour'")
    await execute("UPDATE stock_copy SET free = 1 WHERE sku = $1", skus["more"])
    await execute("UPDATE stock_copy SET free = 9 WHERE sku = $1", skus["fewer"])
    await execute("DELETE FROM stock_copy WHERE sku = $1", skus["lost"])
    # Sold long ago, and never there.
    for name in ("gone", "extra"):
        await execute(
            "INSERT INTO stock_copy (sku, location, version, free, heard_time)"
            " VALUES ($1, 'vienna-1', 1000000, 3, now() - interval '1 hour')",
            skus[name],
        )
    await execute("SELECT add_up_stock($1)", list(skus.values()))
    await execute("SELECT refresh_listed($1)", list(NAMES))
    return skus


def rebuild_of(shelf: Shelf, infrastructure: Stack) -> Rebuilding:
    return Rebuilding(shelf.database, infrastructure.kafka_bootstrap, shelf.app, shelf.app.reconciliation)


async def copied(shelf: Shelf, skus: dict[str, str]) -> dict[str, int]:
    rows = await shelf.database.fetch("SELECT sku, free FROM variants WHERE sku = ANY($1)", list(skus.values()))
    names = {sku: name for name, sku in skus.items()}
    return {names[row["sku"]]: row["free"] for row in rows}


async def test_lists_go_on_answering_and_offer_nothing_that_is_gone(
    told: InventoryApi, shelf: Shelf, infrastructure: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "READING_SECONDS", 0.0)
    monkeypatch.setattr(rebuilding, "TOGETHER", 1)
    skus = await broken(told, shelf, infrastructure)
    rebuild = rebuild_of(shelf, infrastructure)
    await rebuild.begin()
    rebuilt = asyncio.create_task(rebuild.run())
    answers = 0
    while not rebuilt.done():
        answer = await shelf.storefront.ListProducts(pb.ListProductsRequest())
        shown = {variant.sku for product in answer.products for variant in product.variants}
        assert not answer.HasField("unconfirmed_since")
        assert not shown & {skus["gone"], skus["extra"]}
        answers += 1
    assert await rebuilt >= 4
    assert answers > 1
    assert await copied(shelf, skus) == {"fine": 2, "more": 2, "fewer": 2, "gone": 0, "lost": 2, "extra": 0}
    shelf.inventory.asked.clear()
    async with asyncio.timeout(SECONDS):
        while (await shelf.storefront.ListProducts(pb.ListProductsRequest())).HasField("unconfirmed_since"):
            await asyncio.sleep(0.01)
    # Whoever hears goes on from there: the versions are inventory's again.
    await receive(told, skus["fine"], 1)
    async with asyncio.timeout(SECONDS):
        while (await copied(shelf, skus))["fine"] != 3:
            await asyncio.sleep(0.01)


async def test_without_inventory_answers_say_that_they_are_not_confirmed_until_it_is_run_again(
    told: InventoryApi, shelf: Shelf, infrastructure: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "READING_SECONDS", 0.0)
    skus = await broken(told, shelf, infrastructure)
    shelf.inventory.away = True
    with pytest.raises((Refusal, RemoteError)):
        await rebuild_of(shelf, infrastructure).run()
    await shelf.be_fresh()  # watermarks go on coming, and do not count
    answer = await shelf.storefront.ListProducts(pb.ListProductsRequest())
    assert answer.products
    assert answer.HasField("unconfirmed_since")
    shelf.inventory.away = False
    await rebuild_of(shelf, infrastructure).run()
    assert await copied(shelf, skus) == {"fine": 2, "more": 2, "fewer": 2, "gone": 0, "lost": 2, "extra": 0}
    answer = await shelf.storefront.ListProducts(pb.ListProductsRequest())
    assert not answer.HasField("unconfirmed_since")
