"""What shipping relies on when it asks catalog, asked of the fake and of the real service alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.stack import Stack
from services.catalog.grpc_api import CatalogAdminApi, Shop
from services.chassis.access import acting_as, caller_of
from services.chassis.database import Database
from services.chassis.migrations import migrate
from services.chassis.values import from_money
from shop.catalog.v1 import records_pb2 as pb
from tests.fakes.catalog import FakeCatalog

Sell = Callable[..., Awaitable[None]]


@pytest.fixture(scope="module")
async def database(infrastructure: Stack) -> AsyncIterator[Database]:
    url = infrastructure.database_url("catalog")
    await migrate(url, Path("services/catalog/sql"))
    opened = Database(url, "catalog", pool_size=2)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(params=["fake", "real"])
def catalog(request: pytest.FixtureRequest, database: Database) -> tuple[FakeCatalog | CatalogAdminApi, Sell]:
    """A catalog, and what puts something on sale there."""
    fake, real = FakeCatalog(), CatalogAdminApi(database, Shop("en", "EUR"))

    async def sell_at_fake(sku: str, title: str, price: str, currency: str = "EUR") -> None:
        fake.sell(sku, title, price, currency)

    async def sell_at_real(sku: str, title: str, price: str, currency: str = "EUR") -> None:
        row = pb.FeedRow(line=2, fields={"id": sku, "title": title, "price": f"{price} {currency}"})
        with acting_as(caller_of({"role": "operator", "sub": "olga"})):
            answer = await real.ImportProducts(pb.ImportProductsRequest(rows=[row]))
        assert not answer.problems

    return (fake, sell_at_fake) if request.param == "fake" else (real, sell_at_real)


async def test_tells_names_and_prices_and_leaves_out_what_is_not_sold(
    catalog: tuple[FakeCatalog | CatalogAdminApi, Sell],
) -> None:
    calls, sell = catalog
    shoe, boot, unknown = (uuid4().hex for _ in range(3))
    await sell(shoe, "A plain shoe", "60.90")
    await sell(boot, "A sturdy boot", "129.50")
    answer = await calls.BatchGetVariants(pb.BatchGetVariantsRequest(skus=[shoe, unknown, boot]))
    assert {(one.sku, one.title, from_money(one.price), one.price.currency_code) for one in answer.variants} == {
        (shoe, "A plain shoe", Decimal("60.90"), "EUR"),
        (boot, "A sturdy boot", Decimal("129.50"), "EUR"),
    }


async def test_a_new_price_counts_at_once(catalog: tuple[FakeCatalog | CatalogAdminApi, Sell]) -> None:
    calls, sell = catalog
    sku = uuid4().hex
    await sell(sku, "A plain shoe", "60.90")
    await sell(sku, "A plain shoe", "55.00")
    answer = await calls.BatchGetVariants(pb.BatchGetVariantsRequest(skus=[sku]))
    assert [from_money(one.price) for one in answer.variants] == [Decimal("55.00")]


async def test_what_is_not_sold_in_a_currency_has_no_price_in_it(
    catalog: tuple[FakeCatalog | CatalogAdminApi, Sell],
) -> None:
    calls, sell = catalog
    euros, crowns = uuid4().hex, uuid4().hex
    await sell(euros, "A plain shoe", "60.90")
    await sell(crowns, "A sturdy boot", "2500", "CZK")
    for currency, priced in (("", euros), ("EUR", euros), ("CZK", crowns)):
        answer = await calls.BatchGetVariants(pb.BatchGetVariantsRequest(skus=[euros, crowns], currency_code=currency))
        assert {one.title for one in answer.variants} == {"A plain shoe", "A sturdy boot"}
        assert [one.sku for one in answer.variants if one.HasField("price")] == [priced]
