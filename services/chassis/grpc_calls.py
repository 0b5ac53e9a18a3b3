"""What happens to each call that comes in: one wrapper around each handler, put together when it is registered.

admission -> caller, rate -> role -> decoding -> customer -> trace -> validation -> deadline -> handler -> status

A stream's message is read between role and decoding; a call's was read by gRPC before.

Nothing is looked up twice and nothing is done for spans that nobody will see: this is paid by every call. An answer
that the servicer has kept (`Keeper`) is given out right after the role: its question was validated when it was made.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from time import monotonic, perf_counter
from typing import Any, NamedTuple, NoReturn, Protocol
from uuid import uuid4

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry import baggage, context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.chassis import telemetry as t
from services.chassis.access import AccessRule, Caller, is_opaque_id, set_caller
from services.chassis.admission import Admission, going_away
from services.chassis.errors import InvalidInput, Refusal, TooMuch, Unavailable
from services.chassis.grpc_errors import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    abort,
    abort_deadline,
    abort_internal,
)
from services.chassis.peers import FORWARDED, Origin, Peers, set_origin
from services.chassis.rates import Gate
from services.chassis.validation import checker, refuse_nul
from shop.access.v1.access_pb2 import ROLE_SERVICE

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1024 * 1024
MAX_RESPONSE_BYTES = 4 * 1024 * 1024

ServerContext = grpc.aio.ServicerContext[bytes, bytes]
Unary = Callable[[Any], Awaitable[Message]]
Stream = Callable[[Any], AsyncIterator[Message]]


class Keeper(Protocol):
    """Keeps answers of one RPC. They are the same for every caller whom the policy allows."""

    def get(self, question: bytes) -> bytes | None:
        """The answer to a question as it came, if one is kept that still holds."""

    async def make(self, question: bytes, make: Callable[[], Awaitable[Message]]) -> bytes:
        """The answer of `make`, which may be shared by all who ask for the same at once. Raises what that raises."""


# What changes something worth following has a `request_id`, or one of these names: it is safe to repeat as it stands.
# Such calls are always traced and begin a journey. All others read, or are signs of life: they are traced by ratio.
_CHANGING = ("Import", "Record")
_QUIET: Context = trace.set_span_in_context(t.UNSAMPLED, Context())
_traceparent = TraceContextTextMapPropagator()
_baggage = W3CBaggagePropagator()
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def remaining_seconds() -> float | None:
    """How long the client of the current call still waits; None outside a call, and in a stream. May be negative."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - monotonic()


class Admitted(NamedTuple):
    """Who calls from where, and what the call carries of traces and journeys."""

    caller: Caller
    origin: Origin
    # Whether the call has a span, and what that continues.
    recorded: bool
    parent: SpanContext | None
    baggage: Any
    journey: Any


class Rpc:
    """One RPC of this server, with all that can be known before the first call."""

    def __init__(self, method: MethodDescriptor, telemetry: t.Telemetry, gate: Gate, peers: Peers) -> None:
        self.name = f"{method.containing_service.full_name}/{method.name}"
        self.rule = AccessRule(method)
        request = GetMessageClass(method.input_type)
        self.parse = request.FromString
        self._rules = checker(request)
        fields = method.input_type.fields_by_name
        self.changes = "request_id" in fields or method.name.startswith(_CHANGING)
        # Whom the call is about, if the request says so.
        self._customer_field = self.rule.customer_field or ("customer_id" if "customer_id" in fields else "")
        self._telemetry = telemetry
        self._gate = gate
        self._peers = peers
        self._recorders: dict[str, Callable[[float], None]] = {}
        self._attributes = {t.RPC_SYSTEM: "grpc", t.RPC_METHOD: self.name}

    async def admit(self, server: ServerContext) -> Admitted:
        """A caller who may call, whatever is asked. Raises refusals."""
        authorization = traceparent = carried = journey = forwarded = None
        for key, value in server.invocation_metadata() or ():
            if key == "authorization":
                authorization = value
            elif key == "traceparent":
                traceparent = value
            elif key == "baggage":
                carried = value
            elif key == t.JOURNEY_METADATA:
                journey = value
            elif key == FORWARDED:
                forwarded = str(value) if forwarded is None else f"{forwarded},{value!s}"
        origin = Origin(self._peers, server.peer(), forwarded)
        caller = await self._gate.caller(None if authorization is None else str(authorization), origin)
        self.rule.check_role(caller)
        trusted = caller.role == ROLE_SERVICE
        parent = _parent(traceparent) if trusted else None
        if self.changes:
            recorded = self._telemetry.recording
        elif trusted and traceparent is not None:
            recorded = self._telemetry.recording and parent is not None
        else:
            ratio = self._telemetry.browsing_sample_ratio
            recorded = ratio > 0 and random.random() < ratio  # noqa: S311 - a sample, not a secret
        if recorded and not trusted:
            parent = _parent(traceparent)
        return Admitted(caller, origin, recorded, parent, carried, journey)

    def kept(self, admitted: Admitted, raw: bytes, keeper: Keeper) -> bytes | None:
        """A kept answer, for a call that has no span and belongs to no journey: there is nothing else to do."""
        if admitted.recorded or admitted.journey is not None or admitted.baggage is not None:
            return None
        return keeper.get(raw)

    async def begin(self, admitted: Admitted, raw: bytes, server: ServerContext) -> tuple[Any, Span | None]:
        """The request of a caller who may ask for it, and the span if one is recorded. Raises refusals."""
        caller = admitted.caller
        if len(raw) > MAX_REQUEST_BYTES:
            raise TooMuch("the request is too large", reason="REQUEST_TOO_LARGE", limit_bytes=MAX_REQUEST_BYTES)
        try:
            request = self.parse(raw)
        except DecodeError:
            raise InvalidInput([("", "no valid message of its type")], reason="MALFORMED_REQUEST") from None
        self.rule.check_customer(caller, request)
        set_caller(caller)
        set_origin(admitted.origin)

        journey_id, span = self._join(admitted, request)
        if journey_id is not None and caller.role != ROLE_SERVICE:
            await server.send_initial_metadata(((t.JOURNEY_METADATA, journey_id),))
        return request, span

    def check(self, raw: bytes, request: Message) -> None:
        """Raises `InvalidInput` with each field that is wrong."""
        refuse_nul(raw, request, self.rule.rows_field)
        if self._rules is not None:
            self._rules(request)

    def _join(self, admitted: Admitted, request: Message) -> tuple[str | None, Span | None]:
        """Makes the task part of the trace and the journey the call belongs to.

        A service of ours is believed what it carries. Of anybody else's only a well-formed journey id and trace id are
        taken, not the baggage and not the wish to be recorded.
        """
        caller, recorded, parent = admitted.caller, admitted.recorded, admitted.parent
        journey_id, customer_id = self._ids(admitted, request)
        if not recorded and parent is None and journey_id is None and customer_id is None:
            context.attach(_QUIET)
            return None, None
        joined = t.journey_context(Context(), journey_id, customer_id)
        if not recorded:
            passed_on = trace.NonRecordingSpan(parent) if parent is not None else t.UNSAMPLED
            context.attach(trace.set_span_in_context(passed_on, joined))
            return journey_id, None
        if parent is not None:
            joined = trace.set_span_in_context(trace.NonRecordingSpan(parent), joined)
        attributes = {**self._attributes, t.CALLER_ROLE: caller.key.partition(":")[0]}
        if caller.service is not None:
            attributes[t.CALLER_SERVICE] = caller.service
        span = self._telemetry.tracer.start_span(self.name, joined, SpanKind.SERVER, attributes)
        context.attach(trace.set_span_in_context(span, joined))
        return journey_id, span

    def _ids(self, admitted: Admitted, request: Message) -> tuple[str | None, str | None]:
        """The ids of journey and customer. A change without a journey begins one."""
        caller, *_, carried, journey = admitted
        trusted = caller.role == ROLE_SERVICE
        journey_id = journey if isinstance(journey, str) and t.is_journey(journey) else None
        customer_id = caller.customer_id
        if customer_id is None and self._customer_field:
            named = getattr(request, self._customer_field)
            customer_id = named if is_opaque_id(named) else None
        if isinstance(carried, str) and ((trusted and customer_id is None) or journey_id is None):
            found = _baggage.extract({"baggage": carried}, Context())
            if journey_id is None:
                value = baggage.get_baggage(t.JOURNEY_ID, found)
                journey_id = value if isinstance(value, str) and t.is_journey(value) else None
            if trusted and customer_id is None:
                value = baggage.get_baggage(t.CUSTOMER_ID, found)
                customer_id = value if isinstance(value, str) and is_opaque_id(value) else None
        if journey_id is None and self.changes:
            journey_id = t.new_journey()
        return journey_id, customer_id

    def end(self, status: str, began: float, span: Span | None) -> None:
        """Notes how the call went."""
        record = self._recorders.get(status)
        if record is None:
            labels = {t.RPC_METHOD: self.name, t.RPC_STATUS: status}
            record = self._recorders[status] = self._telemetry.durations(t.SERVER_DURATION, labels, "Calls answered.")
        record(perf_counter() - began)
        if span is not None:
            span.set_attribute(t.RPC_STATUS, status)
            if status in t.FAILURE_STATUSES:
                t.failed(span, status)
            span.end()

    async def refuse(self, server: ServerContext, refusal: Refusal, span: Span | None) -> NoReturn:
        """Ends the call with the refusal: an answer, not a failure."""
        if span is not None:
            span.set_attribute(t.REFUSAL_REASON, refusal.reason)
        await abort(server, refusal)

    async def fail(self, server: ServerContext) -> NoReturn:
        """Ends the call with INTERNAL. What is being handled is logged; the caller gets the id to ask for."""
        failure = t.current_trace() or uuid4().hex
        logger.exception("a call failed unforeseen", extra={"rpc": self.name, "failure_id": failure})
        await abort_internal(server, failure)


def unary_handler(
    rpc: Rpc, method: Unary, admission: Admission, default_deadline_seconds: float, keeper: Keeper | None = None
) -> Callable[[bytes, ServerContext], Awaitable[bytes]]:
    """The handler of a unary RPC, as grpc.aio wants it, from and to bytes."""

    async def answer(raw: bytes, request: Any) -> bytes:
        if keeper is None:
            return _encode(await method(request))
        return _sendable(keeper.get(raw) or await keeper.make(raw, lambda: method(request)))

    async def handle(raw: bytes, server: ServerContext) -> bytes:
        began = perf_counter()
        status = INTERNAL
        entered = False
        span = scope = None
        try:
            admission.enter()
            entered = True
            admitted = await rpc.admit(server)
            if keeper is not None and (kept := rpc.kept(admitted, raw, keeper)) is not None:
                status = "OK"
                return kept
            request, span = await rpc.begin(admitted, raw, server)
            rpc.check(raw, request)
            left: float | None = server.time_remaining()
            if left is not None:
                # gRPC itself cancels this task when the client's deadline is over.
                _deadline.set(monotonic() + left)
                encoded = await answer(raw, request)
            else:
                _deadline.set(monotonic() + default_deadline_seconds)
                async with asyncio.timeout(default_deadline_seconds) as scope:
                    encoded = await answer(raw, request)
            status = "OK"
        except Refusal as refusal:
            status = refusal.status
            await rpc.refuse(server, refusal, span)
        except asyncio.CancelledError:
            status = _why_cancelled(server)
            if status == INTERNAL:
                await rpc.fail(server)
            raise
        except Exception:
            if scope is not None and scope.expired():
                status = DEADLINE_EXCEEDED
                await abort_deadline(server)
            await rpc.fail(server)
        else:
            return encoded
        finally:
            rpc.end(status, began, span)
            if entered:
                admission.leave()

    return handle


def stream_handler(
    rpc: Rpc, method: Stream, admission: Admission, request_seconds: float
) -> Callable[[Any, ServerContext], Awaitable[None]]:
    """The handler of a server-streaming RPC. A stream has no deadline of ours; it ends when the server drains.

    The request is read here, not by gRPC, which would wait for it for ever: it must come within `request_seconds`.
    """

    async def handle(_: Any, server: ServerContext) -> None:
        began = perf_counter()
        status = INTERNAL
        span = scope = reading = None
        try:
            scope = admission.enter_stream()
            async with scope:
                admitted = await rpc.admit(server)
                async with asyncio.timeout(request_seconds) as reading:
                    raw: Any = await server.read()
                if raw is grpc.aio.EOF:
                    raise InvalidInput([("", "there is no message")], reason="MALFORMED_REQUEST")
                request, span = await rpc.begin(admitted, raw, server)
                rpc.check(raw, request)
                await _write_all(method(request), server)
            status = "OK"
        except Refusal as refusal:
            status = refusal.status
            await rpc.refuse(server, refusal, span)
        except asyncio.CancelledError:
            status = _why_cancelled(server)
            if status == INTERNAL:
                await rpc.fail(server)
            raise
        except Exception:
            if reading is not None and reading.expired():
                status = DEADLINE_EXCEEDED
                await abort_deadline(server)
            if scope is not None and scope.expired():
                status = Unavailable.status
                await rpc.refuse(server, going_away(), span)
            await rpc.fail(server)
        finally:
            rpc.end(status, began, span)
            if scope is not None:
                admission.leave_stream(scope)

    return handle


def _encode(response: Message) -> bytes:
    return _sendable(response.SerializeToString())


def _sendable(encoded: bytes) -> bytes:
    if len(encoded) > MAX_RESPONSE_BYTES:
        problem = "the answer is too large to be sent; where it is a page, ask for a smaller one"
        raise TooMuch(problem, reason="RESPONSE_TOO_LARGE", limit_bytes=MAX_RESPONSE_BYTES, bytes=len(encoded))
    return encoded


async def _write_all(responses: AsyncIterator[Message], server: ServerContext) -> None:
    try:
        async for response in responses:
            await server.write(_encode(response))
    finally:
        # A generator that is left in the middle runs its `finally` now, not when it is collected.
        close = getattr(responses, "aclose", None)
        if close is not None:
            await close()


def _why_cancelled(server: ServerContext) -> str:
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return INTERNAL  # Nobody cancelled the call: something inside it was, by mistake.
    left: float | None = server.time_remaining()
    return "CANCELLED" if left is None or left > 0.001 else DEADLINE_EXCEEDED


def _parent(traceparent: Any) -> SpanContext | None:
    """The sampled span a traceparent names; None for one that is malformed, or that nobody recorded.

    What is not recorded has no trace to continue: a change behind it begins one of its own.
    """
    if traceparent is None:
        return None
    found = trace.get_current_span(_traceparent.extract({"traceparent": str(traceparent)}, Context()))
    named = found.get_span_context()
    return named if named.is_valid and named.trace_flags.sampled else None
