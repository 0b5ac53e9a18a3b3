"""Stored answers: whose they are."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local.stack import Stack
from services.chassis.access import VISITOR, set_caller
from services.chassis.database import Transaction
from services.chassis.requests import once
from shop.inventory.v1 import inventory_pb2 as pb
from tests.chassis.kafka_rig import Rig, rig


@pytest.fixture
async def made(infrastructure: Stack) -> AsyncIterator[Rig]:
    async with rig(infrastructure) as made:
        set_caller(VISITOR)
        yield made


@pytest.mark.parametrize(
    ("request_", "named", "kept"),
    [
        (pb.ReserveStockRequest(request_id="r", customer_id="cus_1"), None, "cus_1"),
        (pb.ReleaseReservationRequest(request_id="r"), "cus_2", "cus_2"),
        (pb.ReleaseReservationRequest(request_id="r"), None, None),
    ],
)
async def test_an_answer_is_kept_with_the_customer_it_is_about(
    made: Rig, request_: pb.ReserveStockRequest | pb.ReleaseReservationRequest, named: str | None, kept: str | None
) -> None:
    async def run(tx: Transaction) -> pb.ReserveStockResponse:
        return pb.ReserveStockResponse()

    await once(made.database, request_, pb.ReserveStockResponse, run, customer_id=named)
    (row,) = await made.database.fetch("SELECT customer_id FROM requests")
    assert row["customer_id"] == kept
