"""How often one caller may call, and where a call comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from services.chassis import rates
from services.chassis.peers import UNKNOWN, Peers, calling_from, current_peer
from services.chassis.rates import Rate
from services.chassis.settings import ServiceSettings
from shop.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from tests.chassis.grpc_rig import INVENTORY, Issuer, Rig, issuing, refused, reserve, serving, settings_for, stand_in

CATALOG = "shop.catalog.v1.CatalogService"
# With this rate a bucket holds three calls, and the next comes after more time than a test takes.
THREE = 0.3


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(rates, "monotonic", lambda: now[0])
    return now


def browse(rig: Rig, address: str = "192.0.2.1", *metadata: tuple[str, str]) -> Any:
    """A visitor's call through a proxy on this machine."""
    stub = catalog_pb2_grpc.CatalogServiceStub(rig.channel)
    forwarded = (("x-forwarded-for", address), *metadata)
    return stub.ListProducts(catalog_pb2.ListProductsRequest(), metadata=forwarded)


def stock(rig: Rig, role: str, **claims: str) -> Any:
    return rig.raw(f"{INVENTORY}/ListStockLevels", b"", rig.issuer.bearer(role, **claims))


def test_ten_seconds_worth_at_once_then_the_limits_pace(clock: list[float]) -> None:
    rate = Rate(4)
    assert sum(rate.take("a") for _ in range(100)) == 40
    assert rate.is_spent("a")
    assert not rate.is_spent("b")
    clock[0] += 1
    assert sum(rate.take("a") for _ in range(100)) == 4
    clock[0] += 3600
    assert sum(rate.take("a") for _ in range(100)) == 40
    assert sum(rate.take("b") for _ in range(100)) == 40


def test_a_slow_limit_lets_one_call_through(clock: list[float]) -> None:
    rate = Rate(0.01)
    assert rate.take("a")
    assert not rate.take("a")
    clock[0] += 101
    assert rate.take("a")


def test_memory_is_bounded_and_keeps_those_who_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_KNOWN_CALLERS", 10)
    rate = Rate(THREE)
    for number in range(1000):
        rate.take("busy")
        rate.take(f"passing-{number}")
    assert len(rate._until) == 10
    assert not rate.take("busy")


async def test_each_person_has_a_limit_and_services_and_health_have_none(issuer: Issuer) -> None:
    async with serving(issuer, grpc_caller_rate=THREE, grpc_visitor_rate=THREE) as rig:
        for _ in range(3):
            await stock(rig, "operator")
        answer = await refused(stock(rig, "operator"))
        assert (answer.code, answer.reason, answer.retry_seconds) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", 1)
        assert answer.details == {"limit_per_second": "0.3"}
        await stock(rig, "operator", sub="op_2")
        # Who may not call at all is counted, too.
        for _ in range(3):
            assert (await refused(stock(rig, "customer"))).code == "PERMISSION_DENIED"
        assert (await refused(stock(rig, "customer"))).reason == "RATE_LIMITED"
        for _ in range(8):
            await rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service"))
        health: Any = health_pb2_grpc.HealthStub(rig.channel)
        for _ in range(8):
            await health.Check(health_pb2.HealthCheckRequest())


async def test_nobody_is_limited_where_limits_are_off(issuer: Issuer) -> None:
    async with serving(issuer, stand_in(INVENTORY), stand_in(CATALOG), grpc_caller_rate=0, grpc_visitor_rate=0) as rig:
        for _ in range(30):
            await stock(rig, "operator")
            await browse(rig)
            assert (await refused(browse(rig, "192.0.2.1", ("authorization", "Bearer x")))).code == "UNAUTHENTICATED"


async def test_visitors_are_counted_by_where_they_come_from(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(issuer, stand_in(CATALOG), grpc_visitor_rate=THREE) as rig:
        for _ in range(3):
            await browse(rig, "192.0.2.1")
        assert (await refused(browse(rig, "192.0.2.1"))).reason == "RATE_LIMITED"
        await browse(rig, "192.0.2.2")
        spans = [span.to_json() for span in rig.spans()]
        assert len(spans) == 4
        assert "192.0.2" not in "".join(spans) + caplog.text


async def test_forged_tokens_count_where_they_come_from_and_are_then_not_looked_at(issuer: Issuer) -> None:
    async with serving(issuer, stand_in(CATALOG), grpc_visitor_rate=THREE) as rig:
        for number in range(3):
            answer = await refused(browse(rig, "192.0.2.1", ("authorization", f"Bearer forged-{number}")))
            assert answer.code == "UNAUTHENTICATED"
        for authorization in ("Bearer forged-4", issuer.bearer("customer")[0][1]):
            answer = await refused(browse(rig, "192.0.2.1", ("authorization", authorization)))
            assert answer.reason == "RATE_LIMITED"
        assert (await refused(browse(rig, "192.0.2.1"))).reason == "RATE_LIMITED"
        # The same person from elsewhere, and once known from here, too.
        await browse(rig, "192.0.2.2", *issuer.bearer("customer"))
        await browse(rig, "192.0.2.1", *issuer.bearer("customer"))


async def test_nobody_else_is_believed_where_a_call_comes_from(issuer: Issuer) -> None:
    async with serving(issuer, stand_in(CATALOG), grpc_visitor_rate=THREE, grpc_trusted_proxies="10.0.0.0/8") as rig:
        for number in range(3):
            await browse(rig, f"192.0.2.{number}")
        assert (await refused(browse(rig, "192.0.2.9"))).reason == "RATE_LIMITED"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("ipv4:192.0.2.7:4711", None, "192.0.2.7"),
        ("ipv4:192.0.2.7:4711", "198.51.100.1", "192.0.2.7"),
        ("ipv4:127.0.0.1:4711", None, "127.0.0.1"),
        ("ipv4:127.0.0.1:4711", "198.51.100.1", "198.51.100.1"),
        # What the caller wrote itself stands before what the proxies saw.
        ("ipv4:127.0.0.1:4711", "203.0.113.1, 198.51.100.1", "198.51.100.1"),
        ("ipv4:127.0.0.1:4711", "203.0.113.1,198.51.100.1,10.1.2.3", "198.51.100.1"),
        ("ipv4:127.0.0.1:4711", "nonsense", "127.0.0.1"),
        ("ipv4:127.0.0.1:4711", "198.51.100.1,nonsense,10.1.2.3", "10.1.2.3"),
        ("ipv6:[::1]:4711", "::ffff:198.51.100.1", "198.51.100.1"),
        ("ipv6:%5B::1%5D:4711", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::1]:4711", None, "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:4711", None, "fe80::/64"),
        ("unix:/run/socket", "198.51.100.1", UNKNOWN),
        ("", None, UNKNOWN),
    ],
)
def test_where_a_call_comes_from(peer: str, forwarded: str | None, address: str) -> None:
    assert Peers("127.0.0.0/8, ::1/128,10.0.0.0/8", "secret").address(peer, forwarded) == address


async def test_a_handler_learns_an_opaque_name(issuer: Issuer) -> None:
    seen: list[str | None] = []

    async def ListProducts(request: Any) -> Any:
        seen.append(current_peer())
        return catalog_pb2.ListProductsResponse()

    servicer = stand_in(CATALOG, ListProducts=ListProducts)
    for secret in ("one", "one", "another"):
        async with serving(issuer, servicer, peer_secret=secret) as rig:
            await browse(rig, "192.0.2.1")
            await browse(rig, "192.0.2.2")
    assert all(name is not None and len(name) == 32 and "192" not in name for name in seen)
    assert seen[:2] == seen[2:4]
    assert len(set(seen)) == 4
    assert current_peer() is None
    with calling_from("p1"):
        assert current_peer() == "p1"


def test_a_wrong_network_is_found_at_start(issuer: Issuer) -> None:
    whole = settings_for(issuer).model_dump() | {"grpc_port": 1}
    with pytest.raises(ValidationError, match="grpc_trusted_proxies"):
        ServiceSettings.model_validate(whole | {"grpc_trusted_proxies": "10.0.0.1/8"})
