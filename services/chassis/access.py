"""Who calls, and whether they may.

A caller is known by a token of the issuer (JWT; issuer, audience, algorithms and keys are pinned). No token is a
visitor; a token that is not valid in every respect is refused and never taken for a visitor. What an RPC allows is the
option `shop.access.v1.policy` in its proto, read once when the RPC is registered; what is not allowed there is refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jwt
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from services.chassis.errors import NotAllowed, NotAuthenticated, NotFound, Unavailable
from services.chassis.settings import ServiceSettings
from shop.access.v1 import access_pb2
from shop.access.v1.access_pb2 import (
    ROLE_AGENT,
    ROLE_CUSTOMER,
    ROLE_OPERATOR,
    ROLE_SERVICE,
    ROLE_VISITOR,
    Role,
)

logger = logging.getLogger(__name__)

# What a customer is told about something that is not there, and about something that is somebody else's.
NOT_THERE = "there is no such thing, or it is not yours"

_ALGORITHMS = ["RS256", "ES256"]
_LEEWAY_SECONDS = 10
_KNOWN_TOKENS = 10_000
_MAX_TOKEN_LENGTH = 8192
_FETCH_SECONDS = 3
# An unknown key id makes us ask the issuer again, but not more often than this: anybody can make up key ids.
_REFETCH_SECONDS = 10.0
_RETRY_SECONDS = 1.0
# Keys are asked for again after this time, so that one the issuer withdrew is not believed for ever.
_KEYS_OLD_SECONDS = 600.0
_ID = re.compile(r"[A-Za-z0-9_.:@|-]{1,128}")
_OPAQUE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# The claim that names a caller, by the `role` claim.
_CLAIMS: Mapping[str, tuple[Role.ValueType, str, re.Pattern[str]]] = {
    "customer": (ROLE_CUSTOMER, "customer_id", _OPAQUE_ID),
    "agent": (ROLE_AGENT, "agent_id", _OPAQUE_ID),
    "operator": (ROLE_OPERATOR, "sub", _ID),
    "service": (ROLE_SERVICE, "service", _OPAQUE_ID),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `id` is what the token names: the customer, the agent, the operator or the service."""

    role: Role.ValueType
    id: str
    # "customer:cus_1": unique among all callers. Visitors share "visitor".
    key: str
    customer_id: str | None = None
    agent_id: str | None = None
    service: str | None = None

    @property
    def actor(self) -> str:
        """How the caller is named in ledgers and notes."""
        return self.key


VISITOR = Caller(ROLE_VISITOR, "", "visitor")
_caller: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Who called. Raises LookupError outside a call."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """Makes the rest of this task work for the caller. Each call has a task of its own."""
    _caller.set(caller)


def is_opaque_id(text: str) -> bool:
    """Whether this may be the opaque id of a customer or an agent."""
    return _OPAQUE_ID.fullmatch(text) is not None


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Within the block, work is done for this caller."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def caller_of(claims: Mapping[str, Any]) -> Caller:
    """The caller a verified token names. Raises `NotAuthenticated` when it names nobody we know how to treat."""
    role_claim = claims.get("role")
    known = _CLAIMS.get(role_claim) if isinstance(role_claim, str) else None
    if known is None:
        raise NotAuthenticated("the token names no role")
    role, claim, pattern = known
    name = claims.get(claim)
    if not isinstance(name, str) or pattern.fullmatch(name) is None:
        raise NotAuthenticated(f"the token has no valid claim {claim}")
    return Caller(
        role,
        name,
        f"{role_claim}:{name}",
        customer_id=name if role == ROLE_CUSTOMER else None,
        agent_id=name if role == ROLE_AGENT else None,
        service=name if role == ROLE_SERVICE else None,
    )


def service_of(claims: Mapping[str, Any], pattern: str) -> Caller:
    """The service that a workload token names: its subject is the pattern with the service's name in it."""
    before, _, after = pattern.partition("{service}")
    found = re.fullmatch(f"{re.escape(before)}([a-z]+){re.escape(after)}", str(claims.get("sub")))
    if found is None:
        raise NotAuthenticated("the token names no service of ours")
    return caller_of({"role": "service", "service": found[1]})


class TokenVerifier:
    """Turns the `authorization` of a call into a caller.

    People's tokens come from one issuer. Services' tokens may come from the platform they run on instead (Kubernetes
    signs projected service account tokens): then only that issuer can name a service, and it can name nobody else.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._audience = settings.token_audience
        # Verified tokens, oldest first, with the time until which they hold.
        self._callers: dict[str, tuple[float, Caller]] = {}
        self._issuers = {settings.token_issuer: (_Keys(settings.jwks_url, self._callers.clear), caller_of)}
        if settings.workload_issuer and settings.workload_jwks_url:
            pattern = settings.workload_subject
            self._issuers[settings.token_issuer] = (self._issuers[settings.token_issuer][0], _person_of)
            self._issuers[settings.workload_issuer] = (
                _Keys(settings.workload_jwks_url, self._callers.clear),
                lambda claims: service_of(claims, pattern),
            )

    def keys_of(self, issuer: str) -> _Keys:
        """The keys of an issuer that is believed."""
        return self._issuers[issuer][0]

    def known(self, authorization: str) -> Caller | None:
        """The caller of a token that was verified before and still holds; costs next to nothing."""
        found = self._callers.get(authorization)
        if found is not None and time.time() < found[0]:
            return found[1]
        return None

    async def verify(self, authorization: str) -> Caller:
        """The caller of `Bearer <token>`.

        Raises `NotAuthenticated` for a token that is not valid, and `Unavailable` when the issuer's keys were never
        had and cannot be fetched.
        """
        found = self.known(authorization)
        if found is not None:
            return found
        self._callers.pop(authorization, None)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_LENGTH:
            raise NotAuthenticated("the authorization is no bearer token")
        try:
            # Which keys to try is all that is believed before the signature is checked.
            issuer = str(jwt.decode(token, options={"verify_signature": False}).get("iss", ""))
            if issuer not in self._issuers:
                raise NotAuthenticated("the token is not valid")
            keys, caller_from = self._issuers[issuer]
            claims = jwt.decode(
                token,
                await keys.key(str(jwt.get_unverified_header(token).get("kid", ""))),
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
            holds_until = float(claims["exp"]) + _LEEWAY_SECONDS
        except jwt.ExpiredSignatureError:
            raise NotAuthenticated("the token has expired", reason="TOKEN_EXPIRED") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            # What exactly is wrong helps only those who forge.
            raise NotAuthenticated("the token is not valid") from None
        caller = caller_from(claims)
        if len(self._callers) >= _KNOWN_TOKENS:
            del self._callers[next(iter(self._callers))]
        self._callers[authorization] = (holds_until, caller)
        return caller


def _person_of(claims: Mapping[str, Any]) -> Caller:
    caller = caller_of(claims)
    if caller.role == ROLE_SERVICE:
        raise NotAuthenticated("services are named by their platform")
    return caller


class _Keys:
    """The public keys of one issuer."""

    def __init__(self, url: str, withdrawn: Callable[[], object]) -> None:
        self._jwks_url = url
        # Told when a key is no longer there: what it proved is not believed any more.
        self._withdrawn = withdrawn
        self._keys: dict[str, jwt.PyJWK] = {}
        self._not_before = 0.0
        self._fetched = 0.0
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, key_id: str) -> jwt.PyJWK:
        """The key of this id. Raises `NotAuthenticated` when there is none, `Unavailable` when none can be had."""
        age = time.monotonic() - self._fetched
        if key_id not in self._keys:
            await asyncio.shield(self._fetch())
        elif age > _KEYS_OLD_SECONDS:
            self._fetch()
        if not self._keys:
            raise Unavailable("the keys that prove tokens cannot be had", reason="ISSUER_AWAY")
        try:
            return self._keys[key_id]
        except KeyError:
            raise NotAuthenticated("the token is not valid") from None

    def _fetch(self) -> asyncio.Task[None]:
        """The fetching of the keys that is under way, or a new one."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_keys())
        return self._fetching

    async def _fetch_keys(self) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            keys = await asyncio.to_thread(_read_keys, self._jwks_url)
        except (OSError, ValueError, jwt.PyJWTError) as error:
            # The keys we have are kept: an issuer that is away does not lock everybody out.
            self._not_before = time.monotonic() + _RETRY_SECONDS
            logger.warning("the issuer's keys cannot be fetched", extra={"error": type(error).__name__})
            return
        if any(name not in keys for name in self._keys):
            self._withdrawn()
        self._keys = keys
        self._fetched = time.monotonic()
        self._not_before = self._fetched + _REFETCH_SECONDS


def _read_keys(url: str) -> dict[str, jwt.PyJWK]:
    with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - settings allow http(s) only
        found = jwt.PyJWKSet.from_dict(json.load(answer))
    return {key.key_id: key for key in found.keys if key.key_id is not None}


class AccessRule:
    """What one RPC allows. Default deny: an RPC without a policy is refused to everybody."""

    def __init__(self, method: MethodDescriptor) -> None:
        policy = method.GetOptions().Extensions[access_pb2.policy]
        self._allow = frozenset(policy.allow)
        self._services = frozenset(policy.services)
        self.customer_field: str = policy.customer_field
        self.rows_field: str = policy.rows_field
        if self.customer_field and not _is_text(method.input_type, self.customer_field):
            raise ValueError(f"{method.full_name}: the policy's customer_field is no text field of the request")

    def check_role(self, caller: Caller) -> None:
        """Raises `NotAllowed`, or `NotAuthenticated` for a visitor where a token might help."""
        if caller.role in self._allow and (caller.role != ROLE_SERVICE or caller.service in self._services):
            return
        if caller.role == ROLE_VISITOR and self._allow:
            raise NotAuthenticated("this needs a token", reason="TOKEN_REQUIRED")
        raise NotAllowed("this role may not do this")

    def check_customer(self, caller: Caller, request: Message) -> None:
        """Makes sure a customer names only itself; fills in who calls where nobody is named. Raises `NotFound`."""
        if self.customer_field and caller.role == ROLE_CUSTOMER:
            named = getattr(request, self.customer_field)
            if not named:
                setattr(request, self.customer_field, caller.customer_id)
            elif named != caller.customer_id:
                raise NotFound(NOT_THERE)


def _is_text(message: Descriptor, field: str) -> bool:
    found = message.fields_by_name.get(field)
    return found is not None and found.type == FieldDescriptor.TYPE_STRING and not found.is_repeated
