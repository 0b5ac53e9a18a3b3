"""Journeys, sampling, and what may stand on a span."""

from __future__ import annotations

import io
import json
import logging
import urllib.request
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis import logs, telemetry
from services.chassis.errors import NotNow
from services.chassis.grpc_calls import Rpc
from shop.inventory.v1 import inventory_pb2
from tests.chassis.grpc_rig import (
    INVENTORY,
    Issuer,
    Rig,
    issuing,
    methods_of,
    reserve,
    serving,
    settings_for,
    stand_in,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED, UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE}-b7ad6b7169203331-00"
JOURNEY = ("journey-id", "j-1")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


class Call:
    """One call and everything it left behind: what the handler saw, the answer's metadata, the spans."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.seen: dict[str, Any] = {}
        self.journey: str | None = None

    @property
    def span(self) -> Any:
        [span] = self.rig.spans()
        return span


async def call(issuer: Issuer, rpc: str, role: str, *metadata: tuple[str, str], ratio: float = 1.0) -> Call:
    seen: dict[str, Any] = {}

    async def look(request: Any) -> Any:
        seen.update(
            journey=telemetry.current_journey(),
            customer=telemetry.current_customer(),
            carried=telemetry.carrier(),
            trace=telemetry.current_trace(),
        )
        return inventory_pb2.ReserveStockResponse()

    servicer = stand_in(INVENTORY, ReserveStock=look, ListStockLevels=look, AdjustStock=look)
    async with serving(issuer, servicer, browsing_sample_ratio=ratio) as rig:
        stub = rig.inventory
        claimed = (*issuer.bearer(role, **({"service": "catalog"} if rpc == "ListStockLevels" else {})), *metadata)
        requests: dict[str, Any] = {
            "ReserveStock": (stub.ReserveStock, reserve()),
            "ListStockLevels": (stub.ListStockLevels, inventory_pb2.ListStockLevelsRequest()),
            "AdjustStock": (
                stub.AdjustStock,
                inventory_pb2.AdjustStockRequest(
                    request_id="request-1", sku="sku-1", location="main", delta=1, reason="found by Jane Doe"
                ),
            ),
        }
        method, request = requests[rpc]
        made = method(request, metadata=claimed)
        await made
        done = Call(rig)
        done.seen = seen
        done.journey = dict(await made.initial_metadata()).get("journey-id")
        rig.telemetry.flush()
        return done


class TestJourneys:
    async def test_a_change_without_a_journey_begins_one(self, issuer: Issuer) -> None:
        done = await call(issuer, "AdjustStock", "operator")
        assert done.journey is not None and len(done.journey) == 32
        assert done.seen["journey"] == done.journey
        assert done.span.attributes["journey.id"] == done.journey

    async def test_reading_without_a_journey_belongs_to_none(self, issuer: Issuer) -> None:
        done = await call(issuer, "ListStockLevels", "operator")
        assert done.journey is None
        assert done.seen["journey"] is None
        assert "journey.id" not in done.span.attributes

    @pytest.mark.parametrize("given", [JOURNEY, ("baggage", "journey.id=j-1")], ids=["metadata", "baggage"])
    async def test_a_browser_names_its_journey(self, issuer: Issuer, given: tuple[str, str]) -> None:
        done = await call(issuer, "ListStockLevels", "operator", given)
        assert (done.journey, done.seen["journey"]) == ("j-1", "j-1")
        assert done.span.attributes["journey.id"] == "j-1"

    @pytest.mark.parametrize("given", ["", "a b", "x" * 65, "j;1", "j%2F1"])
    async def test_a_malformed_journey_is_dropped(self, issuer: Issuer, given: str) -> None:
        for metadata in (("journey-id", given), ("baggage", f"journey.id={given}")):
            done = await call(issuer, "AdjustStock", "operator", metadata)
            assert done.journey is not None and len(done.journey) == 32

    async def test_nothing_else_of_a_browsers_baggage_is_taken(self, issuer: Issuer) -> None:
        given = ("baggage", "journey.id=j-1,customer.id=cus_other,name=Jane")
        done = await call(issuer, "AdjustStock", "operator", given)
        assert done.seen["customer"] is None
        assert done.seen["carried"]["baggage"] == "journey.id=j-1"
        assert "Jane" not in str(dict(done.span.attributes))

    async def test_a_service_is_believed_journey_and_customer(self, issuer: Issuer) -> None:
        given = ("baggage", "journey.id=j-1,customer.id=cus_7,name=Jane")
        done = await call(issuer, "ListStockLevels", "service", given, ("traceparent", SAMPLED))
        assert (done.seen["journey"], done.seen["customer"]) == ("j-1", "cus_7")
        assert "name" not in done.seen["carried"]["baggage"]
        assert done.span.attributes["customer.id"] == "cus_7"

    async def test_the_customer_a_service_asks_about_is_on_the_span(self, issuer: Issuer) -> None:
        done = await call(issuer, "ReserveStock", "service")
        assert done.span.attributes["customer.id"] == "cus_9"


class TestSampling:
    async def test_changes_are_always_recorded(self, issuer: Issuer) -> None:
        for metadata in ((), (("traceparent", UNSAMPLED),), (("traceparent", "nonsense"),)):
            done = await call(issuer, "AdjustStock", "operator", *metadata, ratio=0)
            assert done.span.parent is None  # What nobody recorded has no trace to continue.

    def test_reading_and_signs_of_life_are_no_changes(self) -> None:
        rpcs = [
            Rpc(method, Mock(), Mock(), Mock())
            for method in methods_of("shop.contact.v1.DeskService", "shop.shipping.v1.WarehouseService", INVENTORY)
        ]
        changes = {rpc.name.rpartition("/")[2] for rpc in rpcs if rpc.changes}
        assert changes >= {"AcceptOffer", "RecordScan", "ImportStock", "ReserveStock"}
        assert not changes & {"SendHeartbeat", "WatchOffers", "GetReservation"}

    async def test_a_browsers_trace_goes_on(self, issuer: Issuer) -> None:
        done = await call(issuer, "AdjustStock", "operator", ("traceparent", SAMPLED), ratio=0)
        assert f"{done.span.context.trace_id:032x}" == TRACE
        assert done.seen["carried"]["traceparent"].endswith("-01")

    async def test_a_browser_cannot_make_us_record(self, issuer: Issuer) -> None:
        done = await call(issuer, "ListStockLevels", "operator", ("traceparent", SAMPLED), ratio=0)
        assert done.rig.spans() == []
        assert done.seen["trace"] is None
        # And the services behind are told that nobody does.
        assert done.seen["carried"]["traceparent"].endswith("-00")

    async def test_unrecorded_browsing_still_has_its_journey(self, issuer: Issuer) -> None:
        done = await call(issuer, "ListStockLevels", "operator", JOURNEY, ratio=0)
        assert done.seen["journey"] == "j-1"
        assert done.seen["carried"]["traceparent"].endswith("-00")

    @pytest.mark.parametrize(("parent", "spans"), [(SAMPLED, 1), (UNSAMPLED, 0)])
    async def test_a_services_decision_is_kept(self, issuer: Issuer, parent: str, spans: int) -> None:
        ratio = 0.0 if spans else 1.0  # The other way round than what would be decided here.
        done = await call(issuer, "ListStockLevels", "service", ("traceparent", parent), ratio=ratio)
        assert len(done.rig.spans()) == spans


async def test_a_span_has_ids_and_numbers_only(issuer: Issuer) -> None:
    done = await call(issuer, "AdjustStock", "operator", JOURNEY)
    assert done.span.name == f"{INVENTORY}/AdjustStock"
    assert done.span.kind.name == "SERVER"
    assert dict(done.span.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{INVENTORY}/AdjustStock",
        "rpc.response.status_code": "OK",
        "shop.caller.role": "operator",
        "journey.id": "j-1",
    }
    assert not done.span.events and not done.span.links
    assert done.span.resource.attributes["service.name"] == "inventory"


class TestSpans:
    @pytest.fixture
    def exporter(self, issuer: Issuer) -> Iterator[InMemorySpanExporter]:
        exporter = InMemorySpanExporter()
        self.telemetry = telemetry.start("loyalty", settings_for(issuer), exporter=exporter, metrics_endpoint=False)
        yield exporter
        self.telemetry.stop()

    def spans(self, exporter: InMemorySpanExporter) -> dict[str, Any]:
        self.telemetry.flush()
        return {span.name: span for span in exporter.get_finished_spans()}

    def test_a_journey_goes_through_a_topic(self, exporter: InMemorySpanExporter) -> None:
        with telemetry.with_journey("j-1", "cus_1"), telemetry.span("place order"):
            stored = telemetry.carrier()
        assert telemetry.current_journey() is None
        with telemetry.attached(stored), telemetry.sending("shop.shipping.orders.v1", "OrderPlaced", "fact-1"):
            sent = telemetry.carrier()
        with (
            telemetry.with_journey("another"),
            telemetry.attached(sent),
            telemetry.processing("shop.shipping.orders.v1", "loyalty", 3, 42),
        ):
            assert telemetry.current_journey() == "j-1"
        spans = self.spans(exporter)
        placed, send = spans["place order"], spans["send shop.shipping.orders.v1"]
        process = spans["process shop.shipping.orders.v1"]
        assert {span.context.trace_id for span in spans.values()} == {placed.context.trace_id}
        assert (send.parent.span_id, process.parent.span_id) == (placed.context.span_id, send.context.span_id)
        assert (send.kind.name, process.kind.name) == ("PRODUCER", "CONSUMER")
        for span in spans.values():
            assert (span.attributes["journey.id"], span.attributes["customer.id"]) == ("j-1", "cus_1")
        assert process.attributes["messaging.destination.partition.id"] == "3"

    def test_a_refusal_is_no_error_and_an_error_shows_only_its_type(self, exporter: InMemorySpanExporter) -> None:
        with pytest.raises(NotNow), telemetry.span("refused"):
            raise NotNow("no", reason="OUT_OF_STOCK")
        with pytest.raises(KeyError), telemetry.span("failed"):
            raise KeyError("Jane Doe")
        spans = self.spans(exporter)
        assert spans["refused"].status.status_code.name == "UNSET"
        assert spans["refused"].attributes["shop.refusal.reason"] == "OUT_OF_STOCK"
        assert spans["failed"].status.status_code.name == "ERROR"
        assert "Jane" not in spans["failed"].to_json()


async def test_metrics_are_served(issuer: Issuer, unused_tcp_port: int) -> None:
    started = telemetry.start("inventory", settings_for(issuer, metrics_port=unused_tcp_port))
    try:
        record = started.durations(telemetry.SERVER_DURATION, {telemetry.RPC_METHOD: "s/M", telemetry.RPC_STATUS: "OK"})
        record(0.003)
        started.meter.create_counter(telemetry.SERVER_SHED).add(2)
        with urllib.request.urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        started.stop()
    assert (
        'rpc_server_call_duration_seconds_bucket{le="0.005",rpc_method="s/M",rpc_response_status_code="OK"} 1.0' in text
    )
    assert "shop_rpc_server_shed_total 2.0" in text
    assert "process_resident_memory_bytes" in text
    assert 'service_name="inventory"' in text


def test_log_lines_carry_the_ids(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    started = telemetry.start(
        "inventory", settings_for(issuer), exporter=InMemorySpanExporter(), metrics_endpoint=False
    )
    try:
        logs.configure("inventory", "INFO")
        with telemetry.with_journey("j-1"), telemetry.span("work") as span:
            logging.getLogger("somewhere").info("it went well", extra={"sku": "sku-1"})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        started.stop()
    [line] = [json.loads(line) for line in out.getvalue().splitlines()]
    assert line.pop("time").endswith("+00:00")
    found = span.get_span_context()
    assert line == {
        "message": "it went well",
        "level": "INFO",
        "logger": "somewhere",
        "service": "inventory",
        "sku": "sku-1",
        "journey_id": "j-1",
        "trace_id": f"{found.trace_id:032x}",
        "span_id": f"{found.span_id:016x}",
    }


def test_what_a_library_says_again_and_again_is_written_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    out, clock = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr(logs, "monotonic", lambda: clock[0])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("inventory", "INFO")
        for second in range(12):
            clock[0] = second
            logging.getLogger("aiokafka.client").error("nobody at %s", second)
            logging.getLogger("services.somewhere").error("ours is always written")
        logging.getLogger("aiokafka.client").error("something else")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    theirs = [(line["message"], line.get("left_out")) for line in lines if line["logger"] == "aiokafka.client"]
    assert theirs == [("nobody at 0", None), ("nobody at 10", 9), ("something else", None)]
    assert len(lines) - len(theirs) == 12
