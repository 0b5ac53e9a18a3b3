"""Telemetry: traces, journeys and metrics. Every span name, attribute name and metric name of the chassis is here.

A *journey* is what one person set out to do. Its id travels in the baggage through calls, outbox, Kafka and consumers,
and is copied to every span and log line, as is the opaque id of the customer: one query finds all of it, even where
traces are only linked. Spans carry ids and numbers; never personal data, never message keys or contents.

Until `start` was called everything here works and records nothing.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Meter
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import start_http_server as serve_metrics

from services.chassis.errors import Refusal
from services.chassis.settings import ServiceSettings

# --- names: baggage and attributes of every span
JOURNEY_ID = "journey.id"
CUSTOMER_ID = "customer.id"
# --- attributes of calls (OpenTelemetry conventions for RPC)
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"
CALLER_ROLE = "shop.caller.role"
CALLER_SERVICE = "shop.caller.service"
# The reason of a refusal, such as OUT_OF_STOCK. A refusal is an answer, not a failure of the span.
REFUSAL_REASON = "shop.refusal.reason"
# Statuses that say something is wrong with the server (OpenTelemetry's list); the others are answers.
FAILURE_STATUSES = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
# --- attributes of messages (OpenTelemetry conventions for messaging)
MESSAGING_SYSTEM = "messaging.system"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_OPERATION = "messaging.operation.name"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_PARTITION = "messaging.destination.partition.id"
MESSAGING_OFFSET = "messaging.kafka.offset"
MESSAGING_GROUP = "messaging.consumer.group.name"
MESSAGING_ID = "messaging.message.id"
FACT_TYPE = "shop.fact.type"
# --- metadata of calls
JOURNEY_METADATA = "journey-id"
# --- metrics
SERVER_DURATION = "rpc.server.call.duration"
SERVER_IN_FLIGHT = "shop.rpc.server.in_flight"
SERVER_SHED = "shop.rpc.server.shed"
SERVER_RATE_LIMITED = "shop.rpc.server.rate_limited"
CLIENT_DURATION = "rpc.client.call.duration"
CIRCUIT_OPEN = "shop.rpc.client.circuit_open"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_JOURNEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SPANS_SHOW_AFTER_MS = 500
_STOP_SECONDS = 5.0

_tracer: trace.Tracer = trace.NoOpTracer()
# What a call carries that nobody wants to see: it only tells the services behind it not to record either. One for the
# process is enough, since nothing is ever stored under its ids.
UNSAMPLED = NonRecordingSpan(
    SpanContext(random.getrandbits(128) | 1, random.getrandbits(64) | 1, is_remote=False, trace_flags=TraceFlags(0))
)


class Telemetry:
    """The telemetry of one service's process."""

    def __init__(
        self,
        service: str,
        tracer: trace.Tracer,
        meter: Meter,
        registry: CollectorRegistry,
        recording: bool,
        browsing_sample_ratio: float,
        closers: Sequence[Callable[[], object]],
        flush: Callable[[], object],
    ) -> None:
        self.service = service
        self.tracer = tracer
        # For counters and gauges; make instruments once, at start.
        self.meter = meter
        # Of calls that only read; those that change something are recorded always. 0 where nothing is recorded.
        self.browsing_sample_ratio = browsing_sample_ratio
        self.recording = recording
        self._registry = registry
        self._closers = closers
        self._flush = flush
        self._histograms: dict[str, Histogram] = {}

    def durations(self, name: str, labels: Mapping[str, str], description: str = "") -> Callable[[float], None]:
        """A recorder of seconds for one set of labels; keep it, its lookup costs more than its use.

        Goes to the Prometheus client directly: a recording of the SDK's histogram costs eight times as much, and this
        one is paid by every call.
        """
        if name not in self._histograms:
            self._histograms[name] = Histogram(
                _prometheus_name(name) + "_seconds",
                description or name,
                [_prometheus_name(label) for label in labels],
                buckets=BUCKETS,
                registry=self._registry,
            )
        bound = self._histograms[name].labels(*labels.values())
        observe: Callable[[float], None] = bound.observe
        return observe

    def flush(self) -> None:
        """Hands all finished spans to the exporter. Blocks."""
        self._flush()

    def stop(self) -> None:
        """Hands over the last spans and closes the metrics port. Blocks for 5 s at most, whatever is away."""

        def close() -> None:
            for closer in self._closers:
                closer()

        closing = threading.Thread(target=close, name="telemetry-stop", daemon=True)
        closing.start()
        closing.join(_STOP_SECONDS)


def start(
    service: str, settings: ServiceSettings, *, exporter: SpanExporter | None = None, metrics_endpoint: bool = True
) -> Telemetry:
    """Starts traces and metrics of this process. `exporter` stands in for the one the settings name (tests).

    Raises OSError when the metrics port is taken.
    """
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()]))
    resource = Resource.create({SERVICE_NAME: service})

    # Whether a trace begins is decided where a call comes in (grpc_calls); everything else follows its parent.
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(_BaggageToSpan())
    exporter = exporter or _exporter(settings)
    if exporter is not None:
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=_SPANS_SHOW_AFTER_MS, max_queue_size=16384)
        )

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    meters = MeterProvider(
        [PrometheusMetricReader(registry=registry, scope_info_enabled=False)],
        resource=resource,
        exemplar_filter=AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
    )
    closers: list[Callable[[], object]] = [provider.shutdown, meters.shutdown]
    if metrics_endpoint:
        server, thread = serve_metrics(settings.metrics_port, settings.metrics_host, registry)
        closers += [server.shutdown, server.server_close, thread.join]

    global _tracer
    _tracer = provider.get_tracer("shop")
    return Telemetry(
        service,
        _tracer,
        meters.get_meter("shop"),
        registry,
        exporter is not None,
        settings.browsing_sample_ratio if exporter is not None else 0.0,
        closers,
        provider.force_flush,
    )


# --- journeys and context


def new_journey() -> str:
    """The id of a journey that begins here."""
    return uuid4().hex


def is_journey(text: str) -> bool:
    """Whether this may be a journey id: 1 to 64 letters, digits, `_` or `-`."""
    return _JOURNEY.fullmatch(text) is not None


def current_journey(of: Context | None = None) -> str | None:
    """The journey this work belongs to, if any; or that of a context."""
    value = baggage.get_baggage(JOURNEY_ID, of)
    return str(value) if value is not None else None


def current_customer() -> str | None:
    """The opaque id of the customer this work is for, if it is known."""
    value = baggage.get_baggage(CUSTOMER_ID)
    return str(value) if value is not None else None


def current_trace() -> str | None:
    """The id of the trace that is being recorded, as 32 hex digits; None when nothing is recorded."""
    found = trace.get_current_span().get_span_context()
    return trace.format_trace_id(found.trace_id) if found.trace_flags.sampled else None


@contextmanager
def with_journey(journey_id: str | None, customer_id: str | None = None) -> Iterator[None]:
    """Within the block, work belongs to this journey and customer. None leaves what is there."""
    token = context.attach(journey_context(context.get_current(), journey_id, customer_id))
    try:
        yield
    finally:
        context.detach(token)


def journey_context(base: Context, journey_id: str | None, customer_id: str | None = None) -> Context:
    """The context with the ids in its baggage."""
    if journey_id:
        base = baggage.set_baggage(JOURNEY_ID, journey_id, base)
    if customer_id:
        base = baggage.set_baggage(CUSTOMER_ID, customer_id, base)
    return base


def carrier() -> dict[str, str]:
    """The current trace context and baggage as headers, to be stored or sent."""
    carried: dict[str, str] = {}
    propagate.inject(carried)
    return carried


def extracted(carried: Mapping[str, str]) -> Context:
    """What the headers carry, and nothing of the surrounding context."""
    return propagate.extract(carried, Context())


@contextmanager
def attached(carried: Mapping[str, str]) -> Iterator[None]:
    """Within the block, work continues what the headers carry. Nothing of the surrounding context is seen."""
    token = context.attach(extracted(carried))
    try:
        yield
    finally:
        context.detach(token)


# --- spans


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Link] = (),
) -> Iterator[trace.Span]:
    """A span around the block. A refusal is noted by its reason; anything else that is raised makes it an ERROR.

    What was raised is named by type only: messages of errors may quote data.
    """
    with _tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, links=links, record_exception=False, set_status_on_exception=False
    ) as started:
        try:
            yield started
        except BaseException as error:
            _note(started, error)
            raise


def sending(topic: str, fact_type: str = "", message_id: str = "") -> AbstractContextManager[trace.Span]:
    """The span of announcing one fact, by the current context: `send <topic>`, PRODUCER."""
    return span(f"send {topic}", _message(topic, "send", "send", fact_type, message_id), kind=SpanKind.PRODUCER)


def processing(
    topic: str, group: str, partition: int, offset: int, *, fact_type: str = "", message_id: str = ""
) -> AbstractContextManager[trace.Span]:
    """The span of handling one fact, by the current context (see `attached`): `process <topic>`, CONSUMER."""
    attributes = _processing(topic, group, partition, offset, fact_type, message_id)
    return span(f"process {topic}", attributes, kind=SpanKind.CONSUMER)


def begin_processing(
    carried: Context, topic: str, group: str, partition: int, offset: int, *, fact_type: str = "", message_id: str = ""
) -> trace.Span:
    """As `processing`, for one of many facts that are handled together: it is not made current. End it by `ending`."""
    attributes = _processing(topic, group, partition, offset, fact_type, message_id)
    return _tracer.start_span(
        f"process {topic}",
        carried,
        SpanKind.CONSUMER,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
    )


@contextmanager
def ending(spans: Sequence[trace.Span]) -> Iterator[None]:
    """The spans end with the block, and say what was raised in it. None of them, and no other, is current within it."""
    token = context.attach(Context())
    try:
        yield
    except BaseException as error:
        for each in spans:
            _note(each, error)
        raise
    finally:
        context.detach(token)
        for each in spans:
            each.end()


def _note(of: trace.Span, raised: BaseException) -> None:
    if isinstance(raised, Refusal):
        of.set_attribute(REFUSAL_REASON, raised.reason)
    elif isinstance(raised, Exception):
        failed(of, type(raised).__qualname__)
    else:
        # Cancelled from outside: nothing failed here.
        of.set_attribute(ERROR_TYPE, type(raised).__qualname__)


def failed(of: trace.Span, error_type: str) -> None:
    """Marks the span as a failure of ours."""
    of.set_attribute(ERROR_TYPE, error_type)
    of.set_status(Status(StatusCode.ERROR))


def _processing(
    topic: str, group: str, partition: int, offset: int, fact_type: str, message_id: str
) -> dict[str, AttributeValue]:
    attributes = _message(topic, "process", "process", fact_type, message_id)
    attributes |= {MESSAGING_GROUP: group, MESSAGING_PARTITION: str(partition), MESSAGING_OFFSET: offset}
    return attributes


def _message(
    topic: str, operation: str, operation_type: str, fact_type: str, message_id: str
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        MESSAGING_SYSTEM: "kafka",
        MESSAGING_DESTINATION: topic,
        MESSAGING_OPERATION: operation,
        MESSAGING_OPERATION_TYPE: operation_type,
    }
    if fact_type:
        attributes[FACT_TYPE] = fact_type
    if message_id:
        attributes[MESSAGING_ID] = message_id
    return attributes


class _BaggageToSpan(SpanProcessor):
    """Copies the ids of journey and customer to every span."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        for name in (JOURNEY_ID, CUSTOMER_ID):
            value = baggage.get_baggage(name, parent_context)
            if value is not None:
                span.set_attribute(name, str(value))

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing to do."""


def _exporter(settings: ServiceSettings) -> SpanExporter | None:
    # Imported only where used: each brings a transport and costs memory and start-up time.
    match settings.otel_traces_exporter:
        case "zipkin":
            from opentelemetry.exporter.zipkin.json import ZipkinExporter

            return ZipkinExporter(timeout=2)
        case "otlp":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter(timeout=2)
    return None


def _prometheus_name(name: str) -> str:
    return name.replace(".", "_")
