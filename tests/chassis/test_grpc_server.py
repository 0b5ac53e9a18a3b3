"""What the server promises about every call, seen from the wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BytesValue, DoubleValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.chassis.access import current_caller
from services.chassis.errors import InvalidInput, NotFound, NotNow, Unavailable
from services.chassis.grpc_calls import remaining_seconds
from services.chassis.validation import refuse_nul
from shop.contact.v1 import contact_pb2, contact_pb2_grpc
from shop.inventory.v1 import inventory_pb2
from tests.chassis.grpc_rig import INVENTORY, Issuer, Rig, answer_of, issuing, refused, reserve, serving, stand_in

DESK = "shop.contact.v1.DeskService"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


async def test_answers_with_what_the_handler_returns(issuer: Issuer) -> None:
    async def ReserveStock(request: inventory_pb2.ReserveStockRequest) -> inventory_pb2.ReserveStockResponse:
        assert current_caller().key == "service:shipping"
        reservation = inventory_pb2.Reservation(reservation_id="r1", customer_id=request.customer_id)
        return inventory_pb2.ReserveStockResponse(reservation=reservation)

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        answer = await rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service"))
        assert answer.reservation.customer_id == "cus_9"


async def test_refusals_carry_reason_and_numbers(issuer: Issuer) -> None:
    async def ReserveStock(request: Any) -> Any:
        raise NotNow("not enough of it is free", reason="OUT_OF_STOCK", sku="sku-1", wanted=5, free=3)

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "OUT_OF_STOCK")
        assert answer.details == {"sku": "sku-1", "wanted": "5", "free": "3"}
        [span] = rig.spans()
        # An answer like any other: no error of ours.
        assert span.status.status_code.name == "UNSET"
        assert span.attributes is not None
        assert span.attributes["shop.refusal.reason"] == "OUT_OF_STOCK"
        assert span.attributes["rpc.response.status_code"] == "FAILED_PRECONDITION"
        assert not span.events


async def test_what_is_away_hints_when_to_try_again(issuer: Issuer) -> None:
    async def ReserveStock(request: Any) -> Any:
        raise Unavailable("the database does not answer", reason="DATABASE_AWAY")

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason, answer.retry_seconds) == ("UNAVAILABLE", "DATABASE_AWAY", 1)


async def test_wrong_fields_are_named(issuer: Issuer) -> None:
    async with serving(issuer) as rig:
        bad = reserve(
            lines=[
                inventory_pb2.ReservationLine(sku="a", quantity=1),
                inventory_pb2.ReservationLine(sku="a b", quantity=0),
            ],
            request_id="",
        )
        answer = await refused(rig.inventory.ReserveStock(bad, metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_INPUT")
        assert set(answer.fields) == {"request_id", "lines[1].sku", "lines[1].quantity"}


async def test_text_with_a_nul_is_refused_and_named(issuer: Issuer) -> None:
    async with serving(issuer) as rig:
        bad = reserve(
            customer_id="cus\0_9",
            lines=[
                inventory_pb2.ReservationLine(sku="a", quantity=1),
                inventory_pb2.ReservationLine(sku="b\0", quantity=1),
            ],
        )
        answer = await refused(rig.inventory.ReserveStock(bad, metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_INPUT")
        assert set(answer.fields) == {"customer_id", "lines[1].sku"}


def test_nul_is_found_in_maps_and_allowed_where_it_is_no_text() -> None:
    bad = Struct()
    bad.update({"a": {"b": ["x", "y\0"]}, "c\0": 0.0})
    with pytest.raises(InvalidInput) as refusal:
        refuse_nul(bad.SerializeToString(), bad)
    assert {field for field, _ in refusal.value.fields} == {
        "fields",
        "fields.struct_value.fields.list_value.values[1].string_value",
    }
    for good in (BytesValue(value=b"\0"), DoubleValue(value=1.0)):
        assert b"\0" in good.SerializeToString()
        refuse_nul(good.SerializeToString(), good)


def test_rows_that_are_checked_one_by_one_may_have_a_nul() -> None:
    rows = [inventory_pb2.StockRow(line=2, sku="a\0")]
    good = inventory_pb2.ImportStockRequest(document_id="file:0001", rows=rows)
    refuse_nul(good.SerializeToString(), good, "rows")
    bad = inventory_pb2.ImportStockRequest(document_id="file:\0", rows=rows)
    with pytest.raises(InvalidInput) as refusal:
        refuse_nul(bad.SerializeToString(), bad, "rows")
    assert [field for field, _ in refusal.value.fields] == ["document_id"]


async def test_ten_thousand_wrong_lines_still_get_an_answer(issuer: Issuer) -> None:
    async with serving(issuer) as rig:
        bad = reserve(lines=[inventory_pb2.ReservationLine(sku="a b", quantity=-1)] * 10_000)
        answer = await refused(rig.inventory.ReserveStock(bad, metadata=issuer.bearer("service")))
        assert answer.code == "INVALID_ARGUMENT"
        assert 0 < len(answer.fields) <= 20


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe"], ids=["no message", "wrong UTF-8"])
async def test_bytes_that_are_no_message(issuer: Issuer, raw: bytes) -> None:
    async with serving(issuer) as rig:
        answer = await refused(rig.raw(f"{INVENTORY}/ReserveStock", raw, issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")


async def test_an_empty_message_is_a_message(issuer: Issuer) -> None:
    async with serving(issuer) as rig:
        assert await rig.raw(f"{INVENTORY}/ListStockLevels", b"", issuer.bearer("operator")) == b""


async def test_an_unknown_enum_value_is_named(issuer: Issuer) -> None:
    async with serving(issuer, stand_in(DESK)) as rig:
        stub = contact_pb2_grpc.DeskServiceStub(rig.channel)
        request = contact_pb2.SetAgentStatusRequest(request_id="request-1")
        request.status = 999  # type: ignore[assignment]
        answer = await refused(stub.SetAgentStatus(request, metadata=issuer.bearer("agent")))
        assert answer.code == "INVALID_ARGUMENT"
        assert "status" in answer.fields


async def test_a_request_that_is_too_large(issuer: Issuer) -> None:
    async with serving(issuer) as rig:
        raw = reserve(customer_id="x" * 1_100_000).SerializeToString()
        for times in (1, 7):
            answer = await refused(rig.raw(f"{INVENTORY}/ReserveStock", raw * times, issuer.bearer("service")))
            assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
            assert answer.details["limit_bytes"] == str(1024 * 1024)
        # Beyond eight times the limit gRPC itself cuts it off: the same status, without a reason.
        answer = await refused(rig.raw(f"{INVENTORY}/ReserveStock", raw * 8, issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "")


async def test_headers_that_are_too_large_are_refused_by_grpc(issuer: Issuer) -> None:
    async with serving(issuer) as rig:
        answer = await refused(rig.raw(f"{INVENTORY}/ReserveStock", b"", (("x", "y" * 40_000),)))
        assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "")


async def test_a_response_that_is_too_large_is_told_as_such(issuer: Issuer) -> None:
    async def ReserveStock(request: Any) -> Any:
        reservation = inventory_pb2.Reservation(customer_id="x" * 4_200_000)
        return inventory_pb2.ReserveStockResponse(reservation=reservation)

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "RESPONSE_TOO_LARGE")
        assert answer.details["limit_bytes"] == str(4 * 1024 * 1024)
        assert "smaller" in answer.message


async def test_what_nobody_foresaw_shows_nothing(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    async def ReserveStock(request: Any) -> Any:
        raise KeyError("somebody's name")

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("INTERNAL", "INTERNAL")
        assert "name" not in answer.message
        [span] = rig.spans()
        assert span.context is not None
        assert answer.details == {"trace_id": f"{span.context.trace_id:032x}"}
        assert span.status.status_code.name == "ERROR"
        assert not span.events  # What was raised may quote data.
    [logged] = [record for record in caplog.records if record.name == "services.chassis.grpc_calls"]
    assert logged.exc_info is not None
    assert logged.__dict__["failure_id"] == answer.details["trace_id"]


async def test_a_handler_that_was_cancelled_inside_is_a_failure(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    async def ReserveStock(request: Any) -> Any:
        raise asyncio.CancelledError

    caplog.set_level(logging.CRITICAL)
    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service"), timeout=20))
        assert answer.code == "INTERNAL"


async def test_a_call_without_deadline_gets_one(issuer: Issuer) -> None:
    left: list[float | None] = []

    async def ReserveStock(request: Any) -> Any:
        left.append(remaining_seconds())
        await asyncio.Event().wait()

    async with serving(
        issuer, stand_in(INVENTORY, ReserveStock=ReserveStock), grpc_default_deadline_seconds=0.05
    ) as rig:
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        assert left[0] is not None and left[0] <= 0.05
        [span] = rig.spans()
        assert span.status.status_code.name == "ERROR"


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_client_that_stops_waiting_stops_the_handler(issuer: Issuer, how: str) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def ReserveStock(request: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        call = rig.inventory.ReserveStock(
            reserve(), metadata=issuer.bearer("service"), timeout=0.3 if how == "deadline" else None
        )
        await begun.wait()
        if how == "cancel":
            call.cancel()
        await stopped.wait()
        await rig.server.stop()
        [span] = rig.spans()
        assert span.attributes is not None
        expected = {"deadline": ("DEADLINE_EXCEEDED", "ERROR"), "cancel": ("CANCELLED", "UNSET")}[how]
        assert (span.attributes["rpc.response.status_code"], span.status.status_code.name) == expected


async def _held_call(rig: Rig, begun: asyncio.Event) -> grpc.aio.UnaryUnaryCall[Any, Any]:
    call = rig.inventory.ReserveStock(reserve(), metadata=rig.issuer.bearer("service"))
    await begun.wait()
    return call


async def test_too_many_calls_are_shed_but_never_health(issuer: Issuer) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def ReserveStock(request: Any) -> Any:
        begun.set()
        await go.wait()
        return inventory_pb2.ReserveStockResponse()

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock), grpc_max_concurrent=1) as rig:
        held = await _held_call(rig, begun)
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason, answer.retry_seconds) == ("RESOURCE_EXHAUSTED", "OVERLOADED", 1)
        health: Any = health_pb2_grpc.HealthStub(rig.channel)
        checked = await health.Check(health_pb2.HealthCheckRequest())
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        go.set()
        assert await held == inventory_pb2.ReserveStockResponse()
        # And there is room again.
        assert await rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")) is not None


async def _endless(begun: asyncio.Event, ended: asyncio.Event) -> AsyncIterator[contact_pb2.WatchOffersResponse]:
    try:
        begun.set()
        yield contact_pb2.WatchOffersResponse()
        await asyncio.Event().wait()
    finally:
        ended.set()


async def test_streams_have_a_limit_of_their_own(issuer: Issuer) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    def WatchOffers(request: Any) -> AsyncIterator[Any]:
        return _endless(begun, ended)

    async with serving(issuer, stand_in(DESK, WatchOffers=WatchOffers), grpc_max_streams=1) as rig:
        stub = contact_pb2_grpc.DeskServiceStub(rig.channel)
        first = stub.WatchOffers(contact_pb2.WatchOffersRequest(), metadata=issuer.bearer("agent"))
        assert await first.read() == contact_pb2.WatchOffersResponse()
        second = stub.WatchOffers(contact_pb2.WatchOffersRequest(), metadata=issuer.bearer("agent"))
        answer = await refused(second.read())
        assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        # Calls are not in their way, and a client that leaves makes room.
        beat = contact_pb2.SendHeartbeatRequest()
        await stub.SendHeartbeat(beat, metadata=issuer.bearer("agent"))
        first.cancel()
        await ended.wait()


async def test_going_away_finishes_calls_and_sends_streams_elsewhere(issuer: Issuer) -> None:
    begun, go, watching, ended = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def ReserveStock(request: Any) -> Any:
        begun.set()
        await go.wait()
        return inventory_pb2.ReserveStockResponse(reservation=inventory_pb2.Reservation(reservation_id="r1"))

    def WatchOffers(request: Any) -> AsyncIterator[Any]:
        return _endless(watching, ended)

    desk = stand_in(DESK, WatchOffers=WatchOffers)
    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock), desk) as rig:
        health: Any = health_pb2_grpc.HealthStub(rig.channel)
        told = health.Watch(health_pb2.HealthCheckRequest(service=INVENTORY))
        assert (await told.read()).status == health_pb2.HealthCheckResponse.SERVING
        stream = contact_pb2_grpc.DeskServiceStub(rig.channel).WatchOffers(
            contact_pb2.WatchOffersRequest(), metadata=issuer.bearer("agent")
        )
        await stream.read()
        held = await _held_call(rig, begun)

        stopping = asyncio.create_task(rig.server.stop())
        assert (await told.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = await refused(stream.read())
        assert (answer.code, answer.reason, answer.retry_seconds) == ("UNAVAILABLE", "DRAINING", 1)
        assert ended.is_set()
        # The stream's end says that draining has begun: nothing new is taken in.
        answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service")))
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "DRAINING")
        assert not stopping.done()
        go.set()
        assert (await held).reservation.reservation_id == "r1"
        await stopping


async def test_a_stream_refuses_as_a_call_does(issuer: Issuer) -> None:
    async def WatchOffers(request: Any) -> AsyncIterator[Any]:
        yield contact_pb2.WatchOffersResponse()
        raise NotFound("no such agent", reason="NO_AGENT")

    async with serving(issuer, stand_in(DESK, WatchOffers=WatchOffers)) as rig:
        stub = contact_pb2_grpc.DeskServiceStub(rig.channel)
        stream = stub.WatchOffers(contact_pb2.WatchOffersRequest(), metadata=issuer.bearer("agent"))
        await stream.read()
        answer = await refused(stream.read())
        assert (answer.code, answer.reason) == ("NOT_FOUND", "NO_AGENT")
        answer = await refused(stub.WatchOffers(contact_pb2.WatchOffersRequest()).read())
        assert answer.code == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("role", "closed", "code", "reason"),
    [
        ("agent", True, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
        ("agent", False, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        ("visitor", False, "UNAUTHENTICATED", "TOKEN_REQUIRED"),
        ("customer", False, "PERMISSION_DENIED", "NOT_ALLOWED"),
    ],
)
async def test_a_stream_without_its_message_is_ended(
    issuer: Issuer, role: str, closed: bool, code: str, reason: str
) -> None:
    seconds = 0.2 if reason == "DEADLINE_EXCEEDED" else 3600
    async with asyncio.timeout(20), serving(issuer, stand_in(DESK), grpc_default_deadline_seconds=seconds) as rig:
        watch: Any = rig.channel.stream_stream(f"/{DESK}/WatchOffers")
        call = watch(metadata=issuer.bearer(role))
        if closed:
            await call.done_writing()
        answer = await refused(call.read())
        assert (answer.code, answer.reason) == (code, reason)
        assert not rig.server._admission.streams


async def test_a_stream_that_fails_shows_nothing(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    async def WatchOffers(request: Any) -> AsyncIterator[Any]:
        yield contact_pb2.WatchOffersResponse()
        raise KeyError("somebody's name")

    caplog.set_level(logging.CRITICAL)
    async with serving(issuer, stand_in(DESK, WatchOffers=WatchOffers)) as rig:
        stub = contact_pb2_grpc.DeskServiceStub(rig.channel)
        stream = stub.WatchOffers(contact_pb2.WatchOffersRequest(), metadata=issuer.bearer("agent"))
        await stream.read()
        assert (await refused(stream.read())).code == "INTERNAL"


async def test_health_and_reflection_need_no_token(issuer: Issuer) -> None:
    async with serving(issuer) as rig:
        health: Any = health_pb2_grpc.HealthStub(rig.channel)
        await rig.server.set_serving(False)
        checked = await health.Check(health_pb2.HealthCheckRequest(service=INVENTORY))
        assert checked.status == health_pb2.HealthCheckResponse.NOT_SERVING
        channel: Any = rig.channel
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)

        async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        answers = [answer async for answer in reflection.ServerReflectionInfo(ask())]
        assert INVENTORY in {service.name for service in answers[0].list_services_response.service}


async def test_a_taken_port_is_an_error(issuer: Issuer) -> None:
    async with serving(issuer) as rig:
        with pytest.raises(OSError, match="GRPC_PORT"):
            async with serving(issuer, grpc_port=rig.server.port):
                pass


async def test_a_missing_method_is_found_at_start(issuer: Issuer) -> None:
    with pytest.raises(AttributeError, match="ReceiveStock"):
        async with serving(issuer, (INVENTORY, object())):
            pass


async def test_invalid_input_of_a_handler_names_its_fields(issuer: Issuer) -> None:
    async def ReserveStock(request: Any) -> Any:
        raise InvalidInput([("lines[1].sku", "stands there twice")])

    async with serving(issuer, stand_in(INVENTORY, ReserveStock=ReserveStock)) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service"))
        assert answer_of(raised.value).fields == {"lines[1].sku": "stands there twice"}
