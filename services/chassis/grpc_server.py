"""The gRPC server of a service: what it serves, what it sheds, and how it goes away without hurting anybody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.metrics import CallbackOptions, Observation

from services.chassis.access import TokenVerifier
from services.chassis.admission import Admission
from services.chassis.grpc_calls import (
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    Rpc,
    stream_handler,
    unary_handler,
)
from services.chassis.peers import Peers
from services.chassis.rates import Gate
from services.chassis.settings import ServiceSettings
from services.chassis.telemetry import SERVER_IN_FLIGHT, SERVER_SHED, Telemetry
from services.chassis.tls import server_credentials

logger = logging.getLogger(__name__)

# A service's full protobuf name and the object whose methods answer: `async def X(self, request) -> response`, and for
# a server stream an async generator `async def X(self, request) -> AsyncIterator[response]`. It may keep answers that
# are the same for everybody: `keepers: Mapping[str, Keeper]`, by the method's name.
Servicer = tuple[str, object]

# The health name that says only that the process answers; "" says whether calls should be sent here.
LIVENESS = "liveness"
# How long what was answered already may take to reach the client when the server stops.
_LAST_BYTES_SECONDS = 2.0
_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.so_reuseport", 0),  # A taken port is an error, not a second server.
    # Far above the limit that is answered with a reason; what is larger still is cut off by gRPC without one.
    ("grpc.max_receive_message_length", 8 * MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
    # Room for the longest token that is looked at, and all else a call carries.
    ("grpc.max_metadata_size", 16 * 1024),
    # Clients ping every 10 s to notice a dead connection; without these they would be sent away for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Clients look up addresses anew only when they reconnect: this is how they find new replicas.
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 300_000),
)


class GrpcServer:
    """Serves the given servicers, health and reflection. Not serving until `set_serving(True)`."""

    def __init__(
        self, settings: ServiceSettings, telemetry: Telemetry, verifier: TokenVerifier, servicers: Sequence[Servicer]
    ) -> None:
        """Registers all methods. Raises when a servicer lacks one, or a policy or a rule in a proto is wrong."""
        self._settings = settings
        # The ports it listens on once started.
        self.port = settings.grpc_port
        self.health_port = settings.grpc_health_port
        shed = telemetry.meter.create_counter(SERVER_SHED, description="Calls refused because there were too many.")
        self._admission = Admission(settings.grpc_max_concurrent, settings.grpc_max_streams, lambda: shed.add(1))
        telemetry.meter.create_observable_gauge(
            SERVER_IN_FLIGHT, [self._in_flight], description="Calls and streams being handled."
        )
        self._names = [name for name, _ in servicers]
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_OPTIONS)
        gate = Gate(settings, verifier, telemetry.meter)
        peers = Peers(settings.grpc_trusted_proxies, settings.peer_secret)
        for name, servicer in servicers:
            self._register(_descriptor(name), servicer, lambda method: Rpc(method, telemetry, gate, peers))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._probed: grpc.aio.Server | None = None
        reflection.enable_server_reflection([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)

    async def start(self) -> None:
        """Listens. Raises OSError when the address cannot be had."""
        await self.set_serving(False)
        # A process that answers at all is alive, whatever it waits for: restarting it would help nobody.
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        self.port = self._listen(self._server, self._settings.grpc_port, "GRPC_PORT", self._credentials())
        await self._server.start()
        if self._settings.grpc_health_port is not None:
            # On the same loop as the calls: a process that hangs must not pass for one that answers.
            self._probed = grpc.aio.server(options=_OPTIONS)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probed)
            self.health_port = self._listen(self._probed, self._settings.grpc_health_port, "GRPC_HEALTH_PORT", None)
            await self._probed.start()

    async def set_serving(self, serving: bool) -> None:
        """Says whether calls should be sent here, for the server and for each service."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Goes away: says so, waits until nobody is sent here any more, finishes what was begun.

        Takes the drain time, then at most the default deadline for calls that are still being handled. Streams are
        ended with UNAVAILABLE, so that their clients go on elsewhere.
        """
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.drain_seconds)
        # grpc.aio's own grace does not wait for every handler, so calls are counted here.
        if not await self._admission.drain(self._settings.grpc_default_deadline_seconds):
            logger.warning("calls are cut off", extra={"calls": self._admission.calls})
        await self._server.stop(_LAST_BYTES_SECONDS)
        if self._probed is not None:
            await self._probed.stop(None)

    def _register(
        self, service: ServiceDescriptor, servicer: object, described: Callable[[MethodDescriptor], Rpc]
    ) -> None:
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in service.methods:
            answer = getattr(servicer, method.name)
            if method.client_streaming:
                raise ValueError(f"{method.full_name}: browsers cannot stream; split it into calls")
            rpc = described(method)
            # No (de)serialisers: bytes that are no message must be answered by us, gRPC's answer has no reason.
            deadline = self._settings.grpc_default_deadline_seconds
            if method.server_streaming:
                # On the wire the same as a handler of one message, but who calls is looked at before it has come.
                stream: Any = stream_handler(rpc, answer, self._admission, deadline)
                handlers[method.name] = grpc.stream_stream_rpc_method_handler(stream)
            else:
                keeper = getattr(servicer, "keepers", {}).get(method.name)
                if keeper is not None and (rpc.changes or rpc.rule.customer_field):
                    raise ValueError(f"{method.full_name}: its answers are not the same for everybody")
                unary: Any = unary_handler(rpc, answer, self._admission, deadline, keeper)
                handlers[method.name] = grpc.unary_unary_rpc_method_handler(unary)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    def _listen(
        self, server: grpc.aio.Server, port: int, setting: str, credentials: grpc.ServerCredentials | None
    ) -> int:
        address = f"{self._settings.grpc_host}:{port}"
        try:
            if credentials is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, credentials)
        except RuntimeError:
            raise OSError(f"cannot listen on {address} (GRPC_HOST, {setting})") from None

    def _credentials(self) -> grpc.ServerCredentials | None:
        certificate, key = self._settings.grpc_tls_cert_file, self._settings.grpc_tls_key_file
        if not certificate or not key:
            return None
        return server_credentials(certificate, key)

    def _in_flight(self, _options: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self._admission.calls, {"kind": "unary"})
        yield Observation(len(self._admission.streams), {"kind": "stream"})


def _descriptor(name: str) -> ServiceDescriptor:
    return descriptor_pool.Default().FindServiceByName(name)
