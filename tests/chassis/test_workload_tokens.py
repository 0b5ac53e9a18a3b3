"""Where the platform signs the services' tokens: only it names services, and it names nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.chassis.access import TokenVerifier
from services.chassis.errors import NotAuthenticated
from tests.chassis.grpc_rig import Issuer, issuing, new_key, settings_for


@pytest.fixture(scope="module")
def people() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture(scope="module")
def platform() -> Iterator[Issuer]:
    with issuing() as running:
        running.published = {"platform": new_key("platform")}
        yield running


@pytest.fixture
def verifier(people: Issuer, platform: Issuer) -> TokenVerifier:
    settings = settings_for(people, workload_issuer=platform.name, workload_jwks_url=f"{platform.name}/jwks.json")
    return TokenVerifier(settings)


def bearer(issuer: Issuer, role: str | None, **claims: Any) -> str:
    return f"Bearer {issuer.token(kid=next(iter(issuer.published)), role=role, **claims)}"


async def test_the_platform_names_services_by_their_account(verifier: TokenVerifier, platform: Issuer) -> None:
    caller = await verifier.verify(bearer(platform, None, sub="system:serviceaccount:shop:shipping-account"))
    assert caller.key == "service:shipping"


@pytest.mark.parametrize(
    "sub", ["system:serviceaccount:other:shipping-account", "shipping", "", "system:serviceaccount:shop:-account"]
)
async def test_the_platform_names_no_other_account(verifier: TokenVerifier, platform: Issuer, sub: str) -> None:
    with pytest.raises(NotAuthenticated):
        await verifier.verify(bearer(platform, None, sub=sub))


async def test_the_platform_cannot_name_a_person(verifier: TokenVerifier, platform: Issuer) -> None:
    token = bearer(platform, "operator", sub="system:serviceaccount:shop:shipping-account")
    assert (await verifier.verify(token)).key == "service:shipping"
    with pytest.raises(NotAuthenticated):
        await verifier.verify(bearer(platform, "customer", customer_id="cus_1", sub="olga"))


async def test_the_people_s_issuer_cannot_name_a_service(verifier: TokenVerifier, people: Issuer) -> None:
    assert (await verifier.verify(bearer(people, "customer", customer_id="cus_1"))).key == "customer:cus_1"
    with pytest.raises(NotAuthenticated):
        await verifier.verify(bearer(people, "service", service="shipping"))


async def test_a_key_of_one_issuer_proves_nothing_for_the_other(
    verifier: TokenVerifier, people: Issuer, platform: Issuer
) -> None:
    token = bearer(people, None, iss=platform.name, sub="system:serviceaccount:shop:shipping-account")
    with pytest.raises(NotAuthenticated):
        await verifier.verify(token)
