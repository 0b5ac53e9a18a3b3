"""Tokens of the small local issuer: the same claims that a real OIDC issuer would be set up to give."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

AUDIENCE = "shop"
ALGORITHM = "RS256"
ROLES = ("customer", "agent", "operator", "service")
PERSON_SECONDS = 12 * 3600
SERVICE_SECONDS = 30 * 86_400


@dataclass(frozen=True)
class Issuer:
    url: str
    key_file: Path

    def mint(self, role: str, seconds: int | None = None, **claims: Any) -> str:
        """A signed token of that role. Claims given win over the usual ones (to play an expired or foreign token).

        A customer's `customer_id`, an agent's `agent_id` and a service's `service` become the subject too,
        unless `sub` is given. Raises ValueError for a role nobody has.
        """
        if role not in ROLES:
            raise ValueError(f"{role!r} is no role; it is one of {', '.join(ROLES)}")
        now = int(time.time())
        who = claims.get("customer_id") or claims.get("agent_id") or claims.get("service") or role
        lasts = seconds or (SERVICE_SECONDS if role == "service" else PERSON_SECONDS)
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": str(who), "iat": now, "exp": now + lasts, "role": role}
        return jwt.encode({**usual, **claims}, self._key, ALGORITHM, headers={"kid": self._key_id})

    def jwks(self) -> dict[str, Any]:
        """The public half, as the issuer serves it."""
        public = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [{**public, "kid": self._key_id, "use": "sig", "alg": ALGORITHM}]}

    @cached_property
    def _key(self) -> rsa.RSAPrivateKey:
        if not self.key_file.exists():
            made = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            draft = self.key_file.with_suffix(f".{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_bytes(made)
            draft.replace(self.key_file)
        key = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key

    @cached_property
    def _key_id(self) -> str:
        digest = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)["n"]
        return str(digest)[:16]
