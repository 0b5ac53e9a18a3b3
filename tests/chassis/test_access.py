"""Who is who, and who may call what: every RPC times every role, and every way a token can be wrong."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from services.chassis import access
from services.chassis.access import NOT_THERE, AccessRule, Caller, TokenVerifier, current_caller
from services.chassis.errors import NotAllowed, NotAuthenticated, Unavailable
from shop.access.v1 import access_pb2
from shop.access.v1.access_pb2 import Role
from tests.chassis.grpc_rig import (
    INVENTORY,
    SHIPPING,
    Issuer,
    issuing,
    methods_of,
    new_key,
    refused,
    reserve,
    serving,
    settings_for,
    stand_in,
)

ROLES = ("visitor", "customer", "agent", "operator", "service", "stranger service", "invalid")


def shop_services() -> list[str]:
    """Every service in proto/shop."""
    names = (
        file.relative_to("proto").with_suffix("").parts for file in sorted(Path("proto/shop").glob("*/v1/*.proto"))
    )
    protos = [import_module(".".join(parts) + "_pb2").DESCRIPTOR for parts in names]
    return [service.full_name for proto in protos for service in proto.services_by_name.values()]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[Issuer]:
    """An issuer for one test, to be broken."""
    with issuing() as running:
        yield running


def policy_of(method: MethodDescriptor) -> access_pb2.Policy:
    return method.GetOptions().Extensions[access_pb2.policy]


def test_every_rpc_says_who_may_call() -> None:
    assert len(shop_services()) >= 8
    for method in methods_of(*shop_services()):
        policy = policy_of(method)
        assert policy.allow, method.full_name
        assert access_pb2.ROLE_UNSPECIFIED not in policy.allow, method.full_name
        # A service may call only where it is named, and is named only where it may call.
        assert (access_pb2.ROLE_SERVICE in policy.allow) == bool(policy.services), method.full_name
        # Where customers call about somebody, the somebody is checked.
        fields = method.input_type.fields_by_name
        if access_pb2.ROLE_CUSTOMER in policy.allow and "customer_id" in fields:
            assert policy.customer_field == "customer_id", method.full_name


async def test_every_rpc_times_every_role(issuer: Issuer) -> None:
    def metadata(role: str, method: MethodDescriptor) -> Any:
        if role == "service":
            return issuer.bearer("service", service=(list(policy_of(method).services) or ["nobody"])[0])
        if role == "stranger service":
            return issuer.bearer("service", service="stranger")
        if role == "invalid":
            return (("authorization", "Bearer " + issuer.token(role="operator", key=new_key("forger"))),)
        return issuer.bearer(role)

    checked = 0
    async with serving(issuer, *(stand_in(name) for name in shop_services())) as rig:
        for method in methods_of(*shop_services()):
            path = f"/{method.containing_service.full_name}/{method.name}"
            for role in ROLES:
                claimed = metadata(role, method)
                channel: Any = rig.channel
                try:
                    if method.server_streaming:
                        await channel.unary_stream(path)(b"", metadata=claimed).read()
                    else:
                        await channel.unary_unary(path)(b"", metadata=claimed)
                    got = "in"
                except Exception as error:
                    code = getattr(error, "code", None)
                    assert code is not None, error
                    # An empty request is mostly no valid one; that it was looked at means the caller was let in.
                    got = "in" if code().name == "INVALID_ARGUMENT" else code().name
                assert got == expected(method, role), (method.full_name, role)
                checked += 1
    assert checked == len(ROLES) * len(methods_of(*shop_services()))


def expected(method: MethodDescriptor, role: str) -> str:
    """What the policy declares, read here in a way of its own."""
    allowed = {Role.Name(value) for value in policy_of(method).allow}
    if role == "invalid":
        return "UNAUTHENTICATED"
    if role == "visitor":
        return "in" if "ROLE_VISITOR" in allowed else "UNAUTHENTICATED"
    if role == "stranger service":
        return "PERMISSION_DENIED"
    return "in" if f"ROLE_{role.upper()}" in allowed else "PERMISSION_DENIED"


def test_without_a_policy_nobody_may() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="test/no_policy.proto", package="test", syntax="proto3")
    file.message_type.add(name="Nothing")
    service = file.service.add(name="Bare")
    service.method.add(name="Do", input_type=".test.Nothing", output_type=".test.Nothing")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    rule = AccessRule(pool.FindServiceByName("test.Bare").methods[0])
    for role in Role.values():
        with pytest.raises(NotAllowed):
            rule.check_role(Caller(role, "x", "x", service="shipping"))


def test_a_policy_that_names_no_field_is_found_at_start() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="test/bad_policy.proto", package="test", syntax="proto3")
    file.message_type.add(name="Nothing2")
    service = file.service.add(name="Bad")
    method = service.method.add(name="Do", input_type=".test.Nothing2", output_type=".test.Nothing2")
    method.options.Extensions[access_pb2.policy].customer_field = "customer_id"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    with pytest.raises(ValueError, match="customer_field"):
        AccessRule(pool.FindServiceByName("test.Bad").methods[0])


class TestCustomers:
    """A customer names only itself."""

    async def ask(self, issuer: Issuer, role: str, customer_id: str) -> tuple[str, str]:
        seen: list[tuple[str, str]] = []
        method = next(m for m in methods_of(SHIPPING) if m.name == "ListOrders")

        async def ListOrders(request: Any) -> Any:
            seen.append((current_caller().key, request.customer_id))
            return GetMessageClass(method.output_type)()

        async with serving(issuer, stand_in(SHIPPING, ListOrders=ListOrders)) as rig:
            request = GetMessageClass(method.input_type)(customer_id=customer_id)
            call = rig.raw(f"{SHIPPING}/ListOrders", request.SerializeToString(), issuer.bearer(role))
            if role == "customer" and customer_id not in ("", "cus_1"):
                answer = await refused(call)
                assert not seen
                return answer.code, answer.message
            await call
        return seen[0]

    async def test_named_by_nobody_it_is_the_caller(self, issuer: Issuer) -> None:
        assert await self.ask(issuer, "customer", "") == ("customer:cus_1", "cus_1")

    async def test_itself(self, issuer: Issuer) -> None:
        assert await self.ask(issuer, "customer", "cus_1") == ("customer:cus_1", "cus_1")

    async def test_somebody_else_is_not_there(self, issuer: Issuer) -> None:
        assert await self.ask(issuer, "customer", "cus_2") == ("NOT_FOUND", NOT_THERE)

    async def test_an_agent_names_anybody(self, issuer: Issuer) -> None:
        assert await self.ask(issuer, "agent", "cus_2") == ("agent:agt_1", "cus_2")


class TestTokens:
    """Every way a token can be wrong is UNAUTHENTICATED, never a visitor."""

    def wrong(self, issuer: Issuer) -> dict[str, str]:
        head, body, signature = issuer.token(role="customer", customer_id="cus_1").split(".")
        unsigned = jwt.utils.base64url_encode(b'{"alg":"none","typ":"JWT","kid":"k1"}').decode()
        public = new_key("k1").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        as_secret = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT","kid":"k1"}').decode() + "." + body
        mac = jwt.utils.base64url_encode(hmac.digest(public, as_secret.encode(), "sha256")).decode()
        claims: dict[str, Any] = {"role": "customer", "customer_id": "cus_1"}
        return {
            "expired": issuer.token(exp=int(time.time()) - 60, **claims),
            "without expiry": issuer.token(exp=None, **claims),
            "for ever": issuer.token(exp=10**400, **claims),
            "of another issuer": issuer.token(iss="https://elsewhere", **claims),
            "without issuer": issuer.token(iss=None, **claims),
            "for another audience": issuer.token(aud="bank", **claims),
            "without audience": issuer.token(aud=None, **claims),
            "not valid yet": issuer.token(nbf=int(time.time()) + 600, **claims),
            "forged": issuer.token(key=new_key("forger"), **claims),
            "of an unknown key": issuer.token(kid="k9", **claims),
            "unsigned": f"{unsigned}.{body}.",
            "signed with the public key as secret": f"{as_secret}.{mac}",
            "changed": f"{head}.{body[:-2]}AA.{signature}",
            "no token": "nonsense",
            "empty": "",
            "too long": "x" * 9000,
            "without role": issuer.token(customer_id="cus_1"),
            "of an unknown role": issuer.token(role="emperor", sub="x"),
            "of a visitor": issuer.token(role="visitor"),
            "of roles": issuer.token(role=["customer"], customer_id="cus_1"),
            "of a customer without id": issuer.token(role="customer"),
            "of a customer with a strange id": issuer.token(role="customer", customer_id="cus 1\n"),
            "of an agent without id": issuer.token(role="agent", customer_id="cus_1"),
            "of a service without name": issuer.token(role="service"),
        }

    async def test_wrong_tokens(self, issuer: Issuer) -> None:
        verifier = TokenVerifier(settings_for(issuer))
        assert (await verifier.verify("Bearer " + issuer.token(role="agent", agent_id="agt_1"))).actor == "agent:agt_1"
        for name, token in self.wrong(issuer).items():
            for _ in range(2):  # What was refused is not remembered as good.
                try:
                    caller = await verifier.verify(f"Bearer {token}")
                except NotAuthenticated:
                    continue
                raise AssertionError(f"a token {name} was taken for {caller}")
        with pytest.raises(NotAuthenticated):
            await verifier.verify("Basic " + issuer.token(role="agent", agent_id="agt_1"))

    async def test_a_wrong_token_is_not_a_visitor(self, issuer: Issuer) -> None:
        async with serving(issuer, stand_in("shop.catalog.v1.CatalogService")) as rig:
            path = "shop.catalog.v1.CatalogService/ListProducts"
            assert await rig.raw(path, b"") == b""
            answer = await refused(rig.raw(path, b"", (("authorization", "Bearer nonsense"),)))
            assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "INVALID_TOKEN")
            expired = issuer.token(role="operator", exp=int(time.time()) - 60)
            answer = await refused(rig.raw(path, b"", (("authorization", f"Bearer {expired}"),)))
            assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")

    async def test_a_token_holds_until_it_expires(self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
        verifier = TokenVerifier(settings_for(issuer))
        bearer = "Bearer " + issuer.token(role="agent", agent_id="agt_1")
        caller = await verifier.verify(bearer)
        assert verifier.known(bearer) is caller
        later = time.time() + 700
        monkeypatch.setattr("services.chassis.access.time.time", lambda: later)
        assert verifier.known(bearer) is None

    async def test_the_memory_of_tokens_is_bounded(self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(access, "_KNOWN_TOKENS", 2)
        verifier = TokenVerifier(settings_for(issuer))
        bearers = ["Bearer " + issuer.token(role="agent", agent_id=f"agt_{n}") for n in range(3)]
        for bearer in bearers:
            await verifier.verify(bearer)
        assert [verifier.known(bearer) is not None for bearer in bearers] == [False, True, True]


class TestKeys:
    """The issuer's keys: cached, rotated, kept while it is away."""

    async def test_fetched_once_for_all_who_wait(self, fresh: Issuer) -> None:
        verifier = TokenVerifier(settings_for(fresh))
        bearers = ["Bearer " + fresh.token(role="agent", agent_id=f"agt_{n}") for n in range(5)]
        await asyncio.gather(*(verifier.verify(bearer) for bearer in bearers))
        assert fresh.asked == 1

    async def test_without_any_key_nobody_can_tell(self, fresh: Issuer) -> None:
        fresh.broken = True
        verifier = TokenVerifier(settings_for(fresh))
        with pytest.raises(Unavailable) as raised:
            await verifier.verify("Bearer " + fresh.token(role="agent", agent_id="agt_1"))
        assert raised.value.reason == "ISSUER_AWAY"

    async def test_an_issuer_away_locks_nobody_out(self, fresh: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(access, "_KEYS_OLD_SECONDS", -1.0)
        monkeypatch.setattr(access, "_REFETCH_SECONDS", 0.0)
        verifier = TokenVerifier(settings_for(fresh))
        await verifier.verify("Bearer " + fresh.token(role="agent", agent_id="agt_1"))
        fresh.broken = True
        assert (await verifier.verify("Bearer " + fresh.token(role="agent", agent_id="agt_2"))).agent_id == "agt_2"
        assert (await verifier.verify("Bearer " + fresh.token(role="agent", agent_id="agt_3"))).agent_id == "agt_3"

    async def test_a_new_key_is_found_but_made_up_ones_do_not_flood(
        self, fresh: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verifier = TokenVerifier(settings_for(fresh))
        await verifier.verify("Bearer " + fresh.token(role="agent", agent_id="agt_1"))
        for n in range(20):
            with pytest.raises(NotAuthenticated):
                await verifier.verify("Bearer " + fresh.token(kid=f"made-up-{n}", key=new_key("forger"), role="agent"))
        assert fresh.asked == 1
        fresh.published["k2"] = new_key("k2")
        # The time between two questions is over.
        monkeypatch.setattr(verifier.keys_of(fresh.url), "_not_before", 0.0)
        caller = await verifier.verify("Bearer " + fresh.token(kid="k2", role="agent", agent_id="agt_2"))
        assert (caller.agent_id, fresh.asked) == ("agt_2", 2)

    async def test_a_withdrawn_key_proves_nothing_any_more(
        self, fresh: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verifier = TokenVerifier(settings_for(fresh))
        old = "Bearer " + fresh.token(role="agent", agent_id="agt_1")
        await verifier.verify(old)
        fresh.published = {"k2": new_key("k2")}
        monkeypatch.setattr(verifier.keys_of(fresh.url), "_not_before", 0.0)
        await verifier.verify("Bearer " + fresh.token(kid="k2", role="agent", agent_id="agt_1"))
        with pytest.raises(NotAuthenticated):
            await verifier.verify(old)

    async def test_unavailable_reaches_the_caller(self, fresh: Issuer) -> None:
        fresh.broken = True
        async with serving(fresh) as rig:
            answer = await refused(rig.inventory.ReserveStock(reserve(), metadata=fresh.bearer("service")))
            assert (answer.code, answer.reason) == ("UNAVAILABLE", "ISSUER_AWAY")


async def test_outside_a_call_there_is_no_caller() -> None:
    with pytest.raises(LookupError):
        current_caller()
    with access.acting_as(access.VISITOR):
        assert current_caller() is access.VISITOR


async def test_a_service_that_is_not_named_is_refused(issuer: Issuer) -> None:
    async with serving(issuer, stand_in(INVENTORY)) as rig:
        answer = await refused(
            rig.inventory.ReserveStock(reserve(), metadata=issuer.bearer("service", service="loyalty"))
        )
        assert (answer.code, answer.reason) == ("PERMISSION_DENIED", "NOT_ALLOWED")
