"""Calls to other services: `await peer.call(stub.ReserveStock, request)`.

Every call has a deadline, our token, the trace and the journey. It is repeated only where the other side did not get
it (UNAVAILABLE), and given up at once while the other side is known to be away. What comes back is the answer or a
`Refusal` of the kind the other side raised.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from opentelemetry import propagate, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind

from services.chassis import telemetry as t
from services.chassis.errors import NotAllowed, NotAuthenticated, Unavailable
from services.chassis.grpc_calls import MAX_RESPONSE_BYTES, remaining_seconds
from services.chassis.grpc_errors import from_status
from services.chassis.settings import ServiceSettings
from services.chassis.tls import TlsChannel

logger = logging.getLogger(__name__)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_DEFAULT_SECONDS = 2.0
# Kept back of the time our own caller still waits, so that there is time left to tell it what happened.
_MARGIN_SECONDS = 0.05
_FAIR_SECONDS = 0.5
_TOKEN_CHECK_SECONDS = 5.0
# So many calls in a row without an answer, and for this long none is tried, but one to see whether it is back.
_CIRCUIT_FAILURES = 5
_CIRCUIT_SECONDS = 1.0
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",  # gRPC adds the jitter.
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2},
}
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    # A service that comes back is found within this time, not after the two minutes gRPC may wait.
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
]


class Peer:
    """Another service of the shop, as this one calls it. One for each, kept as long as the process.

    `name` says who it is in reasons and metrics; `target` is a gRPC target such as `dns:///inventory:50051`.
    """

    def __init__(self, name: str, target: str, settings: ServiceSettings, telemetry: t.Telemetry) -> None:
        self.name = name
        self.away = f"{name.upper()}_AWAY"
        self.channel = _channel(target, settings)
        self._telemetry = telemetry
        self._token = _Token(Path(settings.service_token_file))
        self._circuit = Circuit()
        telemetry.meter.create_observable_gauge(
            t.CIRCUIT_OPEN, [self._circuit_open], description="1 while another service is not even tried."
        )

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout: float | None = None,
    ) -> Response:
        """The answer to the request.

        Waits at most `timeout` seconds and never longer than our own caller waits; without either, 2 s. Raises the
        `Refusal` of the other side; `Unavailable` with the reason `<NAME>_AWAY` when there is no answer, in which case
        it may have taken effect: calls between services are idempotent. Raises `RemoteError` for mistakes.
        """
        seconds = _seconds_to_wait(timeout)
        if seconds <= 0:
            raise Unavailable("no time is left to ask", reason=self.away)
        self._circuit.check(self.name, self.away)
        name = _rpc_name(request.DESCRIPTOR)
        span, metadata = self._begin(name)
        began = perf_counter()
        status = "CANCELLED"
        try:
            response = await method(request, timeout=seconds, metadata=metadata)
            status = "OK"
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            # Somebody who had hardly any time to answer is not away.
            self._circuit.note(away=error.code() in _AWAY and (status == "UNAVAILABLE" or seconds >= _FAIR_SECONDS))
            raise self._meaning(error) from None
        else:
            self._circuit.note(away=False)
            return response
        finally:
            self._circuit.done()
            self._end(name, status, began, span)

    async def close(self) -> None:
        """Closes the connections; calls under way are cancelled."""
        await self.channel.close()

    def _begin(self, name: str) -> tuple[Span | None, grpc.aio.Metadata]:
        current = trace.get_current_span()
        span: Span | None = None
        if current.is_recording():
            span = self._telemetry.tracer.start_span(
                name, kind=SpanKind.CLIENT, attributes={t.RPC_SYSTEM: "grpc", t.RPC_METHOD: name}
            )
        carried: dict[str, str] = {}
        propagate.inject(carried, trace.set_span_in_context(span) if span is not None else None)
        return span, grpc.aio.Metadata(("authorization", f"Bearer {self._token.read()}"), *carried.items())

    def _end(self, name: str, status: str, began: float, span: Span | None) -> None:
        labels = {t.RPC_METHOD: name, t.RPC_STATUS: status}
        self._telemetry.durations(t.CLIENT_DURATION, labels, "Calls to other services.")(perf_counter() - began)
        if span is not None:
            span.set_attribute(t.RPC_STATUS, status)
            if status in t.FAILURE_STATUSES:
                t.failed(span, status)
            span.end()

    def _meaning(self, error: grpc.aio.AioRpcError) -> Exception:
        if error.code() in _AWAY:
            return Unavailable(f"{self.name} does not answer", reason=self.away)
        meaning = from_status(error)
        if isinstance(meaning, NotAuthenticated | NotAllowed):
            # It is our own token that was refused, which is no business of whoever called us.
            logger.error("our token is refused", extra={"peer": self.name, "reason": meaning.reason})
            return Unavailable(f"{self.name} does not answer", reason=self.away)
        return meaning

    def _circuit_open(self, _options: CallbackOptions) -> list[Observation]:
        return [Observation(int(self._circuit.open), {"peer": self.name})]


class Circuit:
    """Keeps calls from waiting for somebody who is known to be away."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_again = 0.0
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether calls are given up at once."""
        return self._failures >= _CIRCUIT_FAILURES

    def check(self, name: str, reason: str) -> None:
        """Lets a call through, or raises `Unavailable`."""
        if not self.open:
            return
        if self._probing or monotonic() < self._closed_again:
            raise Unavailable(f"{name} did not answer lately", reason=reason)
        self._probing = True

    def note(self, *, away: bool) -> None:
        """How a call went: without an answer, or with any."""
        self._failures = self._failures + 1 if away else 0
        if self.open:
            self._closed_again = monotonic() + _CIRCUIT_SECONDS

    def done(self) -> None:
        """A call is over, however it went."""
        self._probing = False


class _Token:
    """The token in a file, read again when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._changed = 0
        self._checked = float("-inf")

    def read(self) -> str:
        """The token. A file that cannot be read leaves the one there was; raises OSError when there was none."""
        if monotonic() - self._checked > _TOKEN_CHECK_SECONDS:
            try:
                changed = self._path.stat().st_mtime_ns
                if changed != self._changed:
                    self._token = self._path.read_text().strip()
                    self._changed = changed
                self._checked = monotonic()
            except OSError:
                if not self._token:
                    raise
        return self._token


def _channel(target: str, settings: ServiceSettings) -> grpc.aio.Channel:
    if settings.grpc_tls_ca_file is None:
        return grpc.aio.insecure_channel(target, _OPTIONS)
    # To stubs it is a channel: they ask it for methods, nothing else.
    return cast(grpc.aio.Channel, TlsChannel(target, settings.grpc_tls_ca_file, _OPTIONS))


def _seconds_to_wait(wanted: float | None) -> float:
    left = remaining_seconds()
    if left is None:
        return _DEFAULT_SECONDS if wanted is None else wanted
    left -= _MARGIN_SECONDS
    return left if wanted is None else min(wanted, left)


@cache
def _rpc_name(request: Descriptor) -> str:
    """The RPC that takes this request, as `package.Service/Method`. Each RPC has a request of its own."""
    for service in request.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is request:
                return f"{service.full_name}/{method.name}"
    raise ValueError(f"{request.full_name} is no request")
