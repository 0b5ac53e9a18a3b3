"""A fact carries its journey and, where somebody records, its trace: through outbox, relay and consumer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from deploy.local.stack import Stack
from services.chassis import telemetry
from services.chassis.database import Transaction
from services.chassis.facts import Fact, Heard, Hears, Topic
from services.chassis.kafka import ensure_topics
from tests.chassis.kafka_rig import Rig, record, record_batch, rig, until


@pytest.fixture
async def made(infrastructure: Stack) -> AsyncIterator[Rig]:
    async with rig(infrastructure) as made:
        yield made


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(telemetry._BaggageToSpan())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    textmap = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    monkeypatch.setattr(propagate, "propagator", textmap)
    return exporter


def parents(exporter: InMemorySpanExporter) -> dict[str, str | None]:
    finished = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in finished if span.context}
    return {span.name: names.get(span.parent.span_id) if span.parent else None for span in finished}


async def test_a_fact_and_what_follows_from_it_are_one_trace(made: Rig, spans: InMemorySpanExporter) -> None:
    topic = made.topic.name
    answers = Topic(f"{topic}.answers", (StringValue,), partitions=1)
    await ensure_topics(made.bootstrap, [answers])

    async def answer(app: Any, work: Transaction, heard: Heard[Any]) -> None:
        await record(app, work, heard)
        await work.append([Fact(answers, heard.key, heard.message)])

    made.relay()
    await made.listen(made.hears(answer), Hears(answers.name, {StringValue: record}))
    with telemetry.with_journey("journey-1", "customer-1"), telemetry.span("order"):
        await made.announce(made.fact("k", "1"))
    await made.handled(2)

    async def all_there() -> bool:
        return len(spans.get_finished_spans()) == 5

    await until(all_there)
    assert parents(spans) == {
        "order": None,
        f"send {topic}": "order",
        f"process {topic}": f"send {topic}",
        f"send {answers.name}": f"process {topic}",
        f"process {answers.name}": f"send {answers.name}",
    }
    for span in spans.get_finished_spans():
        assert span.attributes is not None
        assert span.attributes["journey.id"] == "journey-1"
        assert span.attributes["customer.id"] == "customer-1"
        assert span.kind is {"s": SpanKind.PRODUCER, "p": SpanKind.CONSUMER, "o": SpanKind.INTERNAL}[span.name[0]]
    rows = await made.database.fetch("SELECT journey_id FROM handled")
    assert {row["journey_id"] for row in rows} == {"journey-1"}


async def test_what_nobody_records_makes_no_span_and_keeps_its_journey(made: Rig, spans: InMemorySpanExporter) -> None:
    made.relay()
    await made.listen()
    with telemetry.with_journey("journey-2"), trace.use_span(telemetry.UNSAMPLED):
        await made.announce(made.fact("k", "1"))
    await made.handled(1)
    (row,) = await made.database.fetch("SELECT journey_id FROM handled")
    assert row["journey_id"] == "journey-2"
    assert spans.get_finished_spans() == ()


async def test_each_fact_of_a_batch_has_a_span_of_its_own_in_its_own_trace(
    made: Rig, spans: InMemorySpanExporter
) -> None:
    followed: list[str | None] = []

    async def batch(app: Any, work: Transaction, heard: Any) -> None:
        followed.append(telemetry.current_journey())
        await record_batch(app, work, heard)

    for n in range(3):
        with telemetry.with_journey(f"journey-{n}"), telemetry.span("order"):
            await made.announce(made.fact("k", str(n)))
    made.relay()
    await made.listen(Hears(made.topic.name, batch=batch, batch_facts=(StringValue,)))
    await made.handled(3)

    async def all_there() -> bool:
        return len(spans.get_finished_spans()) == 9

    await until(all_there)
    processing = [span for span in spans.get_finished_spans() if span.name.startswith("process")]
    assert len({span.context.trace_id for span in processing if span.context}) == 3
    assert {span.attributes["journey.id"] for span in processing if span.attributes} == {
        "journey-0",
        "journey-1",
        "journey-2",
    }
    assert set(followed) == {None}
    rows = await made.database.fetch("SELECT journey_id FROM handled ORDER BY id")
    assert [row["journey_id"] for row in rows] == ["journey-0", "journey-1", "journey-2"]
