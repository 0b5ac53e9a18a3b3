"""Calls between services: what goes along, what comes back, and what happens when nobody answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.chassis import grpc_client, telemetry
from services.chassis.access import current_caller
from services.chassis.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotNow,
    Refusal,
    TooMuch,
    Unavailable,
)
from services.chassis.grpc_calls import remaining_seconds
from services.chassis.grpc_client import Circuit, Peer
from services.chassis.grpc_errors import RemoteError, from_status
from shop.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from shop.shipping.v1 import shipping_pb2, shipping_pb2_grpc
from tests.chassis.grpc_rig import (
    INVENTORY,
    SHIPPING,
    Issuer,
    Rig,
    issuing,
    refused,
    reserve,
    serving,
    settings_for,
    stand_in,
)


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture
def token_file(issuer: Issuer, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(issuer.token(role="service", service="shipping") + "\n")
    return path


@asynccontextmanager
async def peer_of(rig: Rig, token_file: Path, target: str = "") -> AsyncIterator[Peer]:
    settings = settings_for(rig.issuer, token_file)
    peer = Peer("inventory", target or rig.target, settings, rig.telemetry)
    try:
        yield peer
    finally:
        await peer.close()


def stub_of(peer: Peer) -> inventory_pb2_grpc.InventoryServiceAsyncStub:
    return inventory_pb2_grpc.InventoryServiceStub(peer.channel)


REFUSALS: list[Refusal] = [
    InvalidInput([("lines[0].sku", "unknown")], reason="UNKNOWN_SKU", sku="sku-1"),
    NotFound("no such reservation"),
    NotNow("not enough is free", reason="OUT_OF_STOCK", sku="sku-1", wanted=5, free=3),
    TooMuch("too many holds", reason="TOO_MANY_HOLDS", open=9, limit=8),
    Conflict("somebody else is at it", reason="BUSY"),
]


@pytest.mark.parametrize("original", REFUSALS, ids=lambda refusal: type(refusal).__name__)
async def test_a_refusal_arrives_as_it_was_raised(issuer: Issuer, token_file: Path, original: Refusal) -> None:
    async def ReserveStock(request: Any) -> Any:
        raise original

    async with (
        serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig,
        peer_of(rig, token_file) as peer,
    ):
        with pytest.raises(Refusal) as raised:
            await peer.call(stub_of(peer).ReserveStock, reserve())
        found = raised.value
        assert type(found) is type(original)
        assert (str(found), found.reason, found.details) == (str(original), original.reason, original.details)
        if isinstance(found, InvalidInput) and isinstance(original, InvalidInput):
            assert found.fields == original.fields


@pytest.mark.parametrize("original", [NotAllowed("no"), NotAuthenticated("who?"), Unavailable("away", reason="X_AWAY")])
async def test_the_other_kinds_can_be_told_from_a_status(issuer: Issuer, original: Refusal) -> None:
    async def ReserveStock(request: Any) -> Any:
        raise original

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service"))
        found = from_status(raised.value)
        assert type(found) is type(original)
        assert isinstance(found, Refusal) and found.reason == original.reason


async def test_our_own_token_refused_is_no_refusal_of_our_caller(issuer: Issuer, token_file: Path) -> None:
    token_file.write_text(issuer.token(role="service", service="stranger"))
    async with serving(issuer) as rig, peer_of(rig, token_file) as peer:
        with pytest.raises(Unavailable) as raised:
            await peer.call(stub_of(peer).ReserveStock, reserve())
        assert raised.value.reason == "INVENTORY_AWAY"


async def test_a_mistake_is_no_refusal(issuer: Issuer, token_file: Path) -> None:
    async def ReserveStock(request: Any) -> Any:
        raise KeyError("x")

    async with (
        serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig,
        peer_of(rig, token_file) as peer,
    ):
        with pytest.raises(RemoteError, match="INTERNAL"):
            await peer.call(stub_of(peer).ReserveStock, reserve())


async def test_who_is_away_is_named_and_not_waited_for_again(
    issuer: Issuer, token_file: Path, unused_tcp_port: int
) -> None:
    async with serving(issuer) as rig, peer_of(rig, token_file, f"127.0.0.1:{unused_tcp_port}") as peer:
        for _ in range(8):
            with pytest.raises(Unavailable) as raised:
                await peer.call(stub_of(peer).ReserveStock, reserve())
            assert raised.value.reason == "INVENTORY_AWAY"
        assert "lately" in str(raised.value)


async def test_unavailable_is_tried_again(issuer: Issuer, token_file: Path) -> None:
    tried = 0

    async def ReserveStock(request: Any) -> Any:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise Unavailable("in a moment")
        return inventory_pb2.ReserveStockResponse()

    async with (
        serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig,
        peer_of(rig, token_file) as peer,
    ):
        await peer.call(stub_of(peer).ReserveStock, reserve())
        assert tried == 3


async def test_nothing_else_is_tried_again(issuer: Issuer, token_file: Path) -> None:
    tried = 0

    async def ReserveStock(request: Any) -> Any:
        nonlocal tried
        tried += 1
        raise Conflict("busy")

    async with (
        serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig,
        peer_of(rig, token_file) as peer,
    ):
        with pytest.raises(Conflict):
            await peer.call(stub_of(peer).ReserveStock, reserve())
        assert tried == 1


async def test_trace_journey_and_deadline_go_along(issuer: Issuer, token_file: Path) -> None:
    """Shipping, called by a customer, calls inventory: one trace, one journey, and a shorter deadline."""
    seen: dict[str, Any] = {}

    async def ReserveStock(request: Any) -> Any:
        seen.update(
            caller=current_caller().key,
            journey=telemetry.current_journey(),
            customer=telemetry.current_customer(),
            left=remaining_seconds(),
        )
        return inventory_pb2.ReserveStockResponse()

    peers: list[Peer] = []

    async def CancelOrder(request: Any) -> Any:
        left = remaining_seconds()
        assert left is not None
        seen["own"] = left
        await peers[0].call(stub_of(peers[0]).ReserveStock, reserve(customer_id="cus_1"))
        return shipping_pb2.CancelOrderResponse()

    servicers = stand_in(INVENTORY, ReserveStock=ReserveStock), stand_in(SHIPPING, CancelOrder=CancelOrder)
    async with serving(issuer, *servicers) as rig, peer_of(rig, token_file) as peer:
        peers.append(peer)
        stub = shipping_pb2_grpc.ShippingServiceStub(rig.channel)
        request = shipping_pb2.CancelOrderRequest(request_id="request-1", order_id="ord_1")
        metadata = (*issuer.bearer("customer"), ("journey-id", "j-1"))
        await stub.CancelOrder(request, metadata=metadata, timeout=5)
        spans = {(span.name.partition("/")[2], span.kind.name): span for span in rig.spans()}
    assert (seen["caller"], seen["journey"], seen["customer"]) == ("service:shipping", "j-1", "cus_1")
    # gRPC rounds up what it sends; without any, the server's default of 10 s would show.
    assert 0 < seen["left"] < seen["own"] < 6
    outer, client = spans["CancelOrder", "SERVER"], spans["ReserveStock", "CLIENT"]
    inner = spans["ReserveStock", "SERVER"]
    assert client.parent is not None and outer.context is not None and client.context is not None
    assert inner.parent is not None
    assert (client.parent.span_id, inner.parent.span_id) == (outer.context.span_id, client.context.span_id)
    assert all(dict(span.attributes or {})["journey.id"] == "j-1" for span in spans.values())


async def test_no_time_left_asks_nobody(issuer: Issuer, token_file: Path) -> None:
    peers: list[Peer] = []

    async def ReserveStock(request: Any) -> Any:
        await peers[0].call(stub_of(peers[0]).ListStockLevels, inventory_pb2.ListStockLevelsRequest())

    async with (
        serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock), grpc_default_deadline_seconds=0.04) as rig,
        peer_of(rig, token_file) as peer,
    ):
        peers.append(peer)
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "INVENTORY_AWAY")


async def test_no_answer_in_time_is_unavailable(issuer: Issuer, token_file: Path) -> None:
    async def ReserveStock(request: Any) -> Any:
        await asyncio.Event().wait()

    async with (
        serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig,
        peer_of(rig, token_file) as peer,
    ):
        with pytest.raises(Unavailable) as raised:
            await peer.call(stub_of(peer).ReserveStock, reserve(), timeout=0.05)
        assert raised.value.reason == "INVENTORY_AWAY"


async def test_a_rotated_token_is_read_again(issuer: Issuer, token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_client, "_TOKEN_CHECK_SECONDS", -1.0)
    async with serving(issuer) as rig, peer_of(rig, token_file) as peer:
        await peer.call(stub_of(peer).ReserveStock, reserve())
        token_file.write_text(issuer.token(role="service", service="stranger"))
        os.utime(token_file, ns=(1, 1))
        with pytest.raises(Unavailable):
            await peer.call(stub_of(peer).ReserveStock, reserve())
        token_file.unlink()  # In the middle of being replaced: the one there was still counts.
        with pytest.raises(Unavailable):
            await peer.call(stub_of(peer).ReserveStock, reserve())


class TestCircuit:
    def test_opens_probes_and_closes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr(grpc_client, "monotonic", lambda: now)
        circuit = Circuit()

        def attempt(away: bool) -> None:
            circuit.check("inventory", "INVENTORY_AWAY")
            circuit.note(away=away)
            circuit.done()

        for _ in range(4):
            attempt(away=True)
        attempt(away=False)  # One answer forgives all.
        for _ in range(5):
            attempt(away=True)
        with pytest.raises(Unavailable):
            attempt(away=False)
        now += 1.5
        circuit.check("inventory", "INVENTORY_AWAY")  # The probe;
        with pytest.raises(Unavailable):
            circuit.check("inventory", "INVENTORY_AWAY")  # while it is out, nobody else goes.
        circuit.note(away=True)
        circuit.done()
        with pytest.raises(Unavailable):
            attempt(away=False)
        now += 1.5
        attempt(away=False)
        attempt(away=False)
        assert not circuit.open
