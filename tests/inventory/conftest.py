"""Inventory's application object on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest
from google.protobuf.message import Message

from deploy.local.stack import Stack
from services.chassis.access import Caller, acting_as
from services.chassis.database import Database
from services.chassis.migrations import migrate
from services.inventory import audit as books
from services.inventory.grpc_api import InventoryApi
from services.inventory.settings import Settings
from shop.access.v1.access_pb2 import ROLE_OPERATOR, ROLE_SERVICE
from shop.inventory.v1 import inventory_pb2 as pb

SQL = Path("services/inventory/sql")
OPERATOR = Caller(ROLE_OPERATOR, "olga", "operator:olga")
SHIPPING = Caller(ROLE_SERVICE, "shipping", "service:shipping", service="shipping")
CATALOG = Caller(ROLE_SERVICE, "catalog", "service:catalog", service="catalog")
M = TypeVar("M", bound=Message)


def request_id() -> str:
    return uuid4().hex


@pytest.fixture(scope="session")
async def database(infrastructure: Stack) -> AsyncIterator[Database]:
    url = infrastructure.database_url("inventory")
    await migrate(url, SQL)
    opened = Database(url, "inventory", pool_size=20)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(
        database_url="postgresql://unused",
        kafka_bootstrap_servers="unused",
        grpc_port=1,
        metrics_port=1,
        token_issuer="unused",
        jwks_url="http://unused",
        service_token_file="unused",
        holds_per_customer=3,
        holds_per_guest=2,
        holds_per_peer=4,
        waiting_holds_per_customer=2,
    )


@pytest.fixture
async def api(database: Database, settings: Settings) -> AsyncIterator[InventoryApi]:
    await database.pool.execute(
        "TRUNCATE stock, ledger, reservations, reservation_lines, order_marks, imported_rows, location_ranks, outbox,"
        " requests, inbox CASCADE"
    )
    yield InventoryApi(database, settings)


@pytest.fixture(autouse=True)
def as_shipping() -> Iterator[None]:
    with acting_as(SHIPPING):
        yield


async def receive(api: InventoryApi, sku: str, quantity: int, location: str = "vienna-1") -> None:
    with acting_as(OPERATOR):
        await api.ReceiveStock(
            pb.ReceiveStockRequest(request_id=request_id(), sku=sku, location=location, quantity=quantity)
        )


def reserve_request(
    *lines: tuple[str, int], customer: str = "", seconds: int = 600, request: str = ""
) -> pb.ReserveStockRequest:
    wanted = pb.ReserveStockRequest(
        request_id=request or request_id(),
        customer_id=customer or f"cus_{uuid4().hex}",
        lines=[pb.ReservationLine(sku=sku, quantity=quantity) for sku, quantity in lines],
    )
    wanted.hold_time.FromSeconds(seconds)
    return wanted


async def level(api: InventoryApi, sku: str) -> pb.StockLevel:
    """The one level of a SKU that lies at one location."""
    answer = await api.BatchGetAvailability(pb.BatchGetAvailabilityRequest(skus=[sku]))
    assert len(answer.levels) == 1
    return answer.levels[0]


async def audit(database: Database) -> None:
    """No book disagrees with another."""
    _, drifts = await books.audit(database, "", "", 5000)
    assert not drifts


async def announced(database: Database, kind: type[M]) -> list[M]:
    """The facts of a kind that wait to be told, in order."""
    rows = await database.fetch(
        "SELECT value FROM outbox WHERE headers->>'ce_type' = $1 ORDER BY id", kind.DESCRIPTOR.full_name
    )
    return [kind.FromString(row["value"]) for row in rows]


def commit_request(reservation: pb.Reservation, order: str = "") -> pb.CommitReservationRequest:
    return pb.CommitReservationRequest(
        request_id=request_id(),
        reservation_id=reservation.reservation_id,
        order_id=order or f"ord_{uuid4().hex}",
    )


async def commit(api: InventoryApi, reservation: pb.Reservation, order: str = "") -> pb.Reservation:
    return (await api.CommitReservation(commit_request(reservation, order))).reservation


async def expire(database: Database, reservation_id: str) -> None:
    """Lets a hold's time run out now."""
    await database.pool.execute(
        "WITH r AS (UPDATE reservations SET expire_time = clock_timestamp() - interval '1 ms'"
        " WHERE reservation_id = $1)"
        " UPDATE reservation_lines SET held_until = clock_timestamp() - interval '1 ms'"
        " WHERE reservation_id = $1 AND held_until IS NOT NULL",
        reservation_id,
    )
