"""The local issuer's tokens stand up to whoever checks them the way a service does."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import jwt
import pytest

from deploy.local.stack import Stack
from deploy.local.tokens import Issuer


def verified(stack: Stack, token: str) -> dict[str, object]:
    keys = jwt.PyJWKClient(stack.issuer.url + "/jwks.json")
    key = keys.get_signing_key_from_jwt(token)
    claims: dict[str, object] = jwt.decode(token, key, algorithms=["RS256"], audience="shop", issuer=stack.issuer.url)
    return claims


@pytest.mark.parametrize(
    ("role", "claims", "subject"),
    [
        ("customer", {"customer_id": "c-1"}, "c-1"),
        ("agent", {"agent_id": "a-1"}, "a-1"),
        ("service", {"service": "shipping"}, "shipping"),
        ("operator", {}, "operator"),
    ],
)
def test_a_token_verifies_against_the_served_keys(
    infrastructure: Stack, role: str, claims: dict[str, str], subject: str
) -> None:
    found = verified(infrastructure, infrastructure.mint(role, **claims))
    assert found["role"] == role
    assert found["sub"] == subject
    assert {name: found[name] for name in claims} == claims


def test_an_expired_token_is_refused(infrastructure: Stack) -> None:
    with pytest.raises(jwt.ExpiredSignatureError):
        verified(infrastructure, infrastructure.mint("operator", exp=1))


def test_another_issuers_token_is_refused(infrastructure: Stack, tmp_path: Path) -> None:
    forged = Issuer(infrastructure.issuer.url, tmp_path / "other.pem").mint("operator")
    with pytest.raises(jwt.PyJWKClientError):
        verified(infrastructure, forged)


def test_discovery_leads_to_the_keys(infrastructure: Stack) -> None:
    with urllib.request.urlopen(infrastructure.issuer.url + "/.well-known/openid-configuration") as answer:
        found = json.load(answer)
    assert found["issuer"] == infrastructure.issuer.url
    with urllib.request.urlopen(found["jwks_uri"]) as answer:
        assert json.load(answer) == infrastructure.issuer.jwks()


def test_the_key_is_for_its_owner_only(infrastructure: Stack) -> None:
    for name in ("issuer.pem", "secrets.json"):
        assert (infrastructure.state / name).stat().st_mode & 0o077 == 0


def test_nobody_has_an_unknown_role(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'king' is no role"):
        Issuer("http://issuer", tmp_path / "key.pem").mint("king")
