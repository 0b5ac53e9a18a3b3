"""The rulers are honest: they return the same bytes and write the same rows. Nothing here looks at a clock."""

from __future__ import annotations

import math
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.chassis.access import Caller, acting_as
from services.chassis.database import Database
from services.chassis.migrations import migrate
from services.inventory.grpc_api import InventoryApi
from services.inventory.settings import Settings
from shop.access.v1.access_pb2 import ROLE_OPERATOR, ROLE_SERVICE
from shop.inventory.v1 import inventory_pb2 as pb
from tests.bench.figures import Measured, Ratio, Run, paired, percentile
from tests.bench.load import Load, Target, answers, framed, send, unframed
from tests.bench.recording import recorder
from tests.bench.replay import Replay, replay
from tests.bench.rulers.calls import BareServer
from tests.bench.rulers.messages import RoundTrips
from tests.bench.rulers.process import Ruler
from tests.bench.rulers.transactions import BareTransactions

SHIPPING = Caller(ROLE_SERVICE, "shipping", "service:shipping", service="shipping")
OPERATOR = Caller(ROLE_OPERATOR, "olga", "operator:olga")
PLACES = [(f"sku-{number}", "vienna-1") for number in range(6)]


@pytest.fixture(scope="module")
async def database_url(infrastructure: Stack) -> AsyncIterator[str]:
    """A database of inventory's with some stock, that nobody else uses."""
    server = infrastructure.database_server_url
    url = urlunsplit(urlsplit(server)._replace(path="/bench_test"))
    admin = await asyncpg.connect(server)
    try:
        await admin.execute("CREATE DATABASE bench_test")
        await migrate(url, Path("services/inventory/sql"))
        yield url
        await admin.execute("DROP DATABASE bench_test WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture(scope="module")
async def api(database_url: str) -> AsyncIterator[InventoryApi]:
    database = Database(database_url, "inventory", pool_size=2)
    await database.open()
    settings = Settings(
        database_url=database_url,
        kafka_bootstrap_servers="unused",
        grpc_port=1,
        metrics_port=1,
        token_issuer="unused",
        jwks_url="http://unused",
        service_token_file="unused",
    )
    filled = InventoryApi(database, settings)
    with acting_as(OPERATOR):
        for sku, location in PLACES:
            receipt = pb.ReceiveStockRequest(request_id=uuid4().hex, sku=sku, location=location, quantity=100)
            await filled.ReceiveStock(receipt)
    yield filled
    await database.close()


async def reserve(api: InventoryApi, *skus: str) -> pb.Reservation:
    request = pb.ReserveStockRequest(
        request_id=uuid4().hex,
        customer_id=f"cus_{uuid4().hex}",
        lines=[pb.ReservationLine(sku=sku, quantity=1) for sku in skus],
    )
    with acting_as(SHIPPING):
        return (await api.ReserveStock(request)).reservation


async def test_the_bare_transaction_writes_the_rows_of_a_real_reserve(database_url: str, api: InventoryApi) -> None:
    async with recorder(database_url) as noted:
        await reserve(api, "sku-0", "sku-1", "sku-2")
        real = await noted.recording()

    assert real.counts() == {
        ("requests", "insert"): 1,
        ("stock", "update"): 3,
        ("ledger", "insert"): 3,
        ("reservations", "insert"): 1,
        ("reservation_lines", "insert"): 3,
        ("outbox", "insert"): 3,
    }
    async with recorder(database_url) as noted:
        await run_bare(database_url, replay(real, PLACES), 1)
        bare = await noted.recording()
    assert bare.counts() == real.counts()
    assert len(bare.transactions) == len(real.transactions) == 1


async def test_a_bare_transaction_can_be_run_again_and_again(database_url: str, api: InventoryApi) -> None:
    async with recorder(database_url) as noted:
        reservation = await reserve(api, "sku-0", "sku-1", "sku-2")
        reserving = await noted.recording()
    async with recorder(database_url) as noted:
        with acting_as(SHIPPING):
            await api.CommitReservation(
                pb.CommitReservationRequest(
                    request_id=uuid4().hex,
                    reservation_id=reservation.reservation_id,
                    order_id=f"order_{uuid4().hex}",
                )
            )
        committing = await noted.recording()

    given = BareTransactions(
        database_url, replay(committing, PLACES), 4, before=((database_url, replay(reserving, PLACES)),)
    )
    with Ruler("transactions", given) as ruler:
        ruler.ask("prepare", first=100, calls=30)
        run = ruler.run("run", first=100, callers=8, calls=30)
    assert run.calls == 30
    connection = await asyncpg.connect(database_url)
    # What was committed are the very rows that "prepare" wrote.
    assert await connection.fetchval("SELECT count(*) FROM reservations WHERE state = 'committed'") == 31
    await connection.close()


async def run_bare(url: str, bare: Replay, times: int) -> None:
    connection = await asyncpg.connect(url)
    for number in range(times):
        await bare.run(connection, number)
    await connection.close()


async def test_the_bare_server_returns_the_very_bytes(infrastructure: Stack) -> None:
    if shutil.which("go") is None:
        pytest.skip("the load client needs Go")
    method, body = "shop.catalog.v1.CatalogService/ListProducts", bytes(range(256)) * 100
    with Ruler("calls", BareServer({method: body})) as ruler:
        target = Target(ruler.ready["address"], method, {"authorization": "Bearer x"})
        assert answers(target, [b"", b"\x08\x18"], Load(callers=2, connections=1)) == [body, body]
        run = send(target, [b""] * 50, Load(callers=4))
        assert (run.calls, run.failures) == (50, {})


async def test_a_message_goes_round(infrastructure: Stack) -> None:
    with Ruler("messages", RoundTrips(infrastructure.kafka_bootstrap, 100)) as ruler:
        assert ruler.run("run", calls=10).calls == 10


def test_messages_survive_their_frames() -> None:
    assert unframed(framed([b"", b"abc", pb.StockLevel(sku="x")])) == [b"", b"abc", b"\n\x01x"]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([5], 50, 5), ([1, 2, 3, 4], 50, 2), ([4, 1, 3, 2], 99, 4), (range(1, 101), 99, 99), (range(1, 101), 100, 100)],
)
def test_percentiles_are_by_nearest_rank(values: list[int], percent: float, expected: int) -> None:
    assert percentile(values, percent) == expected


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


def test_rounds_are_compared_in_pairs_and_summed_up_by_medians() -> None:
    # The second round is half as fast for both: the ratio does not see it.
    ours = Measured("ours", [Run(1, [100] * 50, {"server": 0.5}), Run(1, [200] * 25), Run(2, [100] * 100)])
    ruler = Measured("ruler", [Run(1, [50] * 100, {"server": 0.5}), Run(1, [50] * 50), Run(2, [50] * 200)])
    assert paired(ours, ruler, lambda run: run.per_second) == 0.5
    assert ours.per_second == 50
    assert ours.milliseconds(50) == 0.1
    assert ours.runs[0].cpu_per_call("server") == 10
    assert math.isnan(ours.runs[1].cpu_per_call("server"))


@pytest.mark.parametrize(
    ("ratio", "holds"),
    [
        (Ratio("cpu", 1.3, at_most=1.3), True),
        (Ratio("cpu", 1.31, at_most=1.3), False),
        (Ratio("rate", 0.6, at_least=0.6), True),
        (Ratio("rate", 0.59, at_least=0.6), False),
        (Ratio("latency", 5), None),
    ],
)
def test_a_ratio_knows_whether_it_holds(ratio: Ratio, holds: bool | None) -> None:
    assert ratio.holds is holds
