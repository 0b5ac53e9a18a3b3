"""A server on a loopback port, an issuer of real tokens, and stand-in servicers made from the protos."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from jwt.algorithms import RSAAlgorithm
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis import telemetry
from services.chassis.access import TokenVerifier
from services.chassis.grpc_server import GrpcServer, Servicer
from services.chassis.settings import ServiceSettings
from shop.catalog.v1 import (  # noqa: F401 - fills the descriptor pool
    back_in_stock_pb2,
    catalog_pb2,
    records_pb2,
    referrals_pb2,
)
from shop.contact.v1 import contact_pb2  # noqa: F401
from shop.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from shop.loyalty.v1 import loyalty_pb2  # noqa: F401
from shop.shipping.v1 import shipping_pb2, shipping_pb2_grpc  # noqa: F401

INVENTORY = "shop.inventory.v1.InventoryService"
SHIPPING = "shop.shipping.v1.ShippingService"
AUDIENCE = "shop"


@cache
def new_key(name: str) -> rsa.RSAPrivateKey:
    """A signing key; the same for the same name."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Issuer:
    """An OIDC issuer as far as we need one: it serves its public keys and signs tokens."""

    url: str = ""
    # What it publishes, by key id.
    published: dict[str, rsa.RSAPrivateKey] = field(default_factory=lambda: {"k1": new_key("k1")})
    asked: int = 0
    # Answers nothing but errors while set.
    broken: bool = False

    @property
    def name(self) -> str:
        return self.url

    def jwks(self) -> bytes:
        keys = [
            {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "RS256", "use": "sig"}
            for kid, key in self.published.items()
        ]
        return json.dumps({"keys": keys}).encode()

    def token(self, *, kid: str = "k1", key: rsa.RSAPrivateKey | None = None, **claims: Any) -> str:
        """A token with these claims; a claim that is None is left out."""
        now = int(time.time())
        whole = {"iss": self.url, "aud": AUDIENCE, "sub": "someone", "iat": now, "exp": now + 600, **claims}
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(whole, key or new_key(kid), algorithm="RS256", headers={"kid": kid})

    def bearer(self, role: str | None, **claims: Any) -> tuple[tuple[str, str], ...]:
        """Call metadata for a role; a visitor has none."""
        if role is None or role == "visitor":
            return ()
        named = {
            "customer": {"customer_id": "cus_1"},
            "agent": {"agent_id": "agt_1"},
            "operator": {"sub": "op_1"},
            "service": {"service": "shipping"},
        }[role]
        return (("authorization", f"Bearer {self.token(role=role, **{**named, **claims})}"),)


@contextmanager
def issuing() -> Iterator[Issuer]:
    """A running issuer."""
    issuer = Issuer()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            self.send_response(500 if issuer.broken else 200)
            self.end_headers()
            if not issuer.broken:
                self.wfile.write(issuer.jwks())

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def settings_for(issuer: Issuer, token_file: Path | None = None, **changed: Any) -> ServiceSettings:
    """Settings of a service on loopback."""
    settings = ServiceSettings.model_validate(
        {
            "database_url": "postgresql://nowhere",
            "kafka_bootstrap_servers": "nowhere:1",
            "grpc_port": 1,
            "metrics_port": 1,
            "token_issuer": issuer.url,
            "jwks_url": f"{issuer.url}/jwks",
            "service_token_file": str(token_file or "none"),
            "drain_seconds": 0,
            "browsing_sample_ratio": 1.0,
        }
    )
    return settings.model_copy(update={"grpc_port": 0, **changed})


def methods_of(*services: str) -> list[MethodDescriptor]:
    """The methods of services, by full name."""
    return [m for name in services for m in descriptor_pool.Default().FindServiceByName(name).methods]


def stand_in(service: str, **methods: Any) -> Servicer:
    """A servicer that answers every call with an empty response, but for the methods given."""

    def empty(method: MethodDescriptor) -> Any:
        response = GetMessageClass(method.output_type)

        async def answer(request: Any) -> Any:
            return response()

        async def stream(request: Any) -> AsyncIterator[Any]:
            yield response()

        return stream if method.server_streaming else answer

    return service, SimpleNamespace(**{m.name: empty(m) for m in methods_of(service)} | methods)


@dataclass
class Rig:
    """A running server, and what a test needs to call it and look at what it did."""

    issuer: Issuer
    settings: ServiceSettings
    telemetry: telemetry.Telemetry
    server: GrpcServer
    exporter: InMemorySpanExporter
    channel: grpc.aio.Channel

    @property
    def inventory(self) -> inventory_pb2_grpc.InventoryServiceAsyncStub:
        return inventory_pb2_grpc.InventoryServiceStub(self.channel)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def spans(self) -> list[ReadableSpan]:
        """What was recorded so far."""
        self.telemetry.flush()
        return list(self.exporter.get_finished_spans())

    async def raw(self, method: str, request: bytes, metadata: Any = (), timeout: float | None = 5) -> bytes:
        """Calls with bytes as they are."""
        call: Any = self.channel.unary_unary(f"/{method}")
        answer: bytes = await call(request, metadata=metadata, timeout=timeout)
        return answer


@asynccontextmanager
async def serving(issuer: Issuer, *servicers: Servicer, **changed: Any) -> AsyncIterator[Rig]:
    """A server with these servicers (inventory's stand-in if none), and a channel to it."""
    settings = settings_for(issuer, **changed)
    exporter = InMemorySpanExporter()
    started = telemetry.start("inventory", settings, exporter=exporter, metrics_endpoint=False)
    server = GrpcServer(settings, started, TokenVerifier(settings), servicers or (stand_in(INVENTORY),))
    await server.start()
    await server.set_serving(True)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Rig(issuer, settings, started, server, exporter, channel)
    finally:
        with suppress(Exception):
            await server.stop()
        started.stop()


@dataclass(frozen=True)
class Answer:
    """How a call was refused."""

    code: str
    reason: str
    details: dict[str, str]
    fields: dict[str, str]
    message: str
    retry_seconds: int | None


def answer_of(error: grpc.aio.AioRpcError) -> Answer:
    """The google.rpc details of a failed call."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    hinted = False
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for detail in status.details:
                detail.Unpack(info)
                detail.Unpack(bad)
                hinted |= detail.Unpack(retry)
            assert info.domain == "shop"
    fields = {violation.field: violation.description for violation in bad.field_violations}
    return Answer(
        error.code().name,
        info.reason,
        dict(info.metadata),
        fields,
        error.details() or "",
        retry.retry_delay.seconds if hinted else None,
    )


async def refused(call: Any) -> Answer:
    """How the call is refused; fails when it is not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return answer_of(error)
    raise AssertionError("the call was answered")


def reserve(**changed: Any) -> inventory_pb2.ReserveStockRequest:
    """A good request."""
    line = inventory_pb2.ReservationLine(sku="sku-1", quantity=1)
    whole: dict[str, Any] = {"request_id": "request-1", "customer_id": "cus_9", "lines": [line], **changed}
    return inventory_pb2.ReserveStockRequest(**whole)
