"""TLS between services: certificates and authorities are renewed while everything runs."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis import settings as chassis_settings
from services.chassis import tls
from services.chassis.errors import Unavailable
from services.chassis.grpc_client import Peer
from shop.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from tests.chassis.certificates import Authority, Mounted
from tests.chassis.grpc_rig import INVENTORY, Issuer, Rig, issuing, reserve, serving, settings_for, stand_in

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path, issuer: Issuer) -> Path:
    file = tmp_path / "token"
    file.write_text(issuer.token(role="service", service="shipping"))
    return file


@pytest.fixture
def authority() -> Authority:
    return Authority()


Ask = Callable[[], "asyncio.Future[object]"]


@asynccontextmanager
async def asking(rig: Rig, token_file: Path, ca_file: str | None, target: str = "") -> AsyncIterator[Ask]:
    """A client that trusts what is in the file; what it yields makes one call."""
    trusting = settings_for(rig.issuer, token_file, grpc_tls_ca_file=ca_file)
    peer = Peer("inventory", target or rig.target, trusting, rig.telemetry)
    stub: inventory_pb2_grpc.InventoryServiceAsyncStub = inventory_pb2_grpc.InventoryServiceStub(peer.channel)
    try:
        yield lambda: asyncio.ensure_future(peer.call(stub.ReserveStock, reserve()))
    finally:
        await peer.close()


async def shown(rig: Rig, authority: Authority) -> bytes:
    """The certificate that a new connection is shown."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])

    def connect() -> bytes:
        plain = socket.create_connection((HERE, rig.server.port))
        with context.wrap_socket(plain, server_hostname=HERE) as wrapped:
            return wrapped.getpeercert(binary_form=True) or b""

    return await asyncio.to_thread(connect)


def encoded(files: dict[str, bytes]) -> bytes:
    return x509.load_pem_x509_certificate(files["tls.crt"]).public_bytes(Encoding.DER)


async def test_with_certificates_calls_are_encrypted(
    issuer: Issuer, token_file: Path, tmp_path: Path, authority: Authority
) -> None:
    secret = Mounted(tmp_path / "tls", authority.issue(HERE))
    async with serving(issuer, **secret.server) as rig:
        async with asking(rig, token_file, secret.file("ca.crt")) as ask:
            await ask()
        async with asking(rig, token_file, None) as in_plaintext:
            with pytest.raises(Unavailable):
                await in_plaintext()


async def test_a_renewed_certificate_is_shown_without_a_restart(
    issuer: Issuer, token_file: Path, tmp_path: Path, authority: Authority
) -> None:
    first, second = authority.issue(HERE), authority.issue(HERE)
    secret = Mounted(tmp_path / "tls", first)
    async with serving(issuer, **secret.server) as rig, asking(rig, token_file, secret.file("ca.crt")) as ask:
        await ask()
        assert await shown(rig, authority) == encoded(first)
        secret.replace(second)
        assert await shown(rig, authority) == encoded(second)
        await ask()  # over the connection from before


@pytest.mark.parametrize("broken", ["another's key", "half a certificate", "no key at all", "nothing"])
async def test_a_broken_renewal_leaves_the_certificate_there_was_and_is_said_once(
    issuer: Issuer, tmp_path: Path, authority: Authority, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = authority.issue(HERE), authority.issue(HERE)
    contents = {
        "another's key": {**second, "tls.key": first["tls.key"]},
        "half a certificate": {**second, "tls.crt": second["tls.crt"][:200]},
        "no key at all": {"tls.crt": second["tls.crt"]},
        "nothing": {**second, "tls.key": b"", "tls.crt": b""},
    }[broken]
    secret = Mounted(tmp_path / "tls", first)
    async with serving(issuer, **secret.server) as rig:
        secret.replace(contents)
        with caplog.at_level(logging.ERROR, "services.chassis.tls"):
            assert [await shown(rig, authority) for _ in range(2)] == [encoded(first)] * 2
        assert [record.getMessage() for record in caplog.records] == [
            "a renewed certificate is broken, the one before goes on"
        ]
        assert second["tls.key"].decode().splitlines()[1] not in str(caplog.records[0].__dict__)
        secret.replace(second)
        assert await shown(rig, authority) == encoded(second)


async def test_a_server_does_not_start_with_a_broken_certificate(
    issuer: Issuer, tmp_path: Path, authority: Authority
) -> None:
    secret = Mounted(tmp_path / "tls", {**authority.issue(HERE), "tls.key": authority.issue(HERE)["tls.key"]})
    with pytest.raises(ValueError, match=r"tls\.key: the key is not the certificate's"):
        async with serving(issuer, **secret.server):
            pass


def test_half_a_setting_is_refused_rather_than_served_in_plaintext(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRPC_TLS_CERT_FILE", "/some/where")
    with pytest.raises(SystemExit):
        chassis_settings.load(chassis_settings.ServiceSettings)
    assert "GRPC_TLS_CERT_FILE and GRPC_TLS_KEY_FILE go together" in capsys.readouterr().err


async def test_a_renewed_authority_is_trusted_without_a_restart(
    issuer: Issuer, token_file: Path, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "CHECK_SECONDS", -1.0)
    later = Authority("later")
    secret = Mounted(tmp_path / "tls", later.issue(HERE))
    trusted = Mounted(tmp_path / "trusted", {"ca.crt": authority.pem})
    async with serving(issuer, **secret.server) as rig, asking(rig, token_file, trusted.file("ca.crt")) as ask:
        with pytest.raises(Unavailable):
            await ask()
        trusted.replace({"ca.crt": authority.pem + later.pem})  # both, as long as some are signed by the one before
        await ask()
        trusted.replace({"ca.crt": b"-----BEGIN CERT"})
        await ask()
        trusted.replace({"ca.crt": authority.pem})
        with pytest.raises(Unavailable):
            await ask()


async def test_calls_under_way_survive_a_renewed_authority(
    issuer: Issuer, token_file: Path, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "CHECK_SECONDS", -1.0)
    begun, go_on = asyncio.Event(), asyncio.Event()
    handled: list[str] = []

    async def ReserveStock(request: inventory_pb2.ReserveStockRequest) -> inventory_pb2.ReserveStockResponse:
        handled.append(request.request_id)
        if len(handled) == 1:
            begun.set()
            await go_on.wait()
        return inventory_pb2.ReserveStockResponse()

    secret = Mounted(tmp_path / "tls", authority.issue(HERE))
    servicer = stand_in(INVENTORY, ReserveStock=ReserveStock)
    async with serving(issuer, servicer, **secret.server) as rig, asking(rig, token_file, secret.file("ca.crt")) as ask:
        under_way = ask()
        await begun.wait()
        secret.replace({**authority.issue(HERE), "ca.crt": authority.pem + Authority("later").pem})
        await ask()  # goes over a new connection
        go_on.set()
        await under_way
        assert len(handled) == 2


class Names(asyncio.DatagramProtocol):
    """A name server that knows every name: it is this machine."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, asker: tuple[str, int]) -> None:
        end = data.index(0, 12) + 5  # the name, its kind and its class
        answers = 1 if data[end - 4 : end - 2] == b"\0\1" else 0
        address = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(HERE)
        header = data[:2] + struct.pack(">HHHHH", 0x8180, 1, answers, 0, 0)
        self.transport.sendto(header + data[12:end] + address * answers, asker)


async def test_a_client_checks_the_name_it_was_told_to_call(
    issuer: Issuer, token_file: Path, tmp_path: Path, authority: Authority
) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Names, (HERE, 0))
    names = transport.get_extra_info("sockname")[1]
    secret = Mounted(tmp_path / "tls", authority.issue("inventory-headless", "inventory-headless.shop.svc"))
    async with serving(issuer, **secret.server) as rig:
        for name, is_right in {
            "inventory-headless": True,
            "inventory-headless.shop.svc": True,
            "catalog-headless": False,
        }.items():
            target = f"dns://{HERE}:{names}/{name}:{rig.server.port}"
            async with asking(rig, token_file, secret.file("ca.crt"), target) as ask:
                if is_right:
                    await ask()
                else:
                    with pytest.raises(Unavailable):
                        await ask()
    transport.close()


async def test_health_is_answered_in_plaintext_on_a_port_of_its_own_and_nothing_else(
    issuer: Issuer, tmp_path: Path, authority: Authority
) -> None:
    secret = Mounted(tmp_path / "tls", authority.issue(HERE))
    async with (
        serving(issuer, grpc_health_port=0, **secret.server) as rig,
        grpc.aio.insecure_channel(f"{HERE}:{rig.server.health_port}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        status = health_pb2.HealthCheckResponse

        async def says(name: str) -> Any:
            return (await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status

        assert (await says(""), await says("liveness")) == (status.SERVING, status.SERVING)
        await rig.server.set_serving(False)
        assert (await says(""), await says("liveness")) == (status.NOT_SERVING, status.SERVING)
        stub: inventory_pb2_grpc.InventoryServiceAsyncStub = inventory_pb2_grpc.InventoryServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ReserveStock(reserve(), metadata=issuer.bearer("service"), timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
