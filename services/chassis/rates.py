"""How often one caller may call: a token bucket each, in the memory of this process.

Who has a token is counted by who they are, everybody else by where they come from; so are tokens that are not valid.
Services are not counted among each other. With several replicas a caller has the limit at each of them.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

from opentelemetry.metrics import Meter

from services.chassis.access import VISITOR, Caller, TokenVerifier
from services.chassis.errors import NotAuthenticated
from services.chassis.grpc_errors import RateLimited
from services.chassis.peers import Origin
from services.chassis.settings import ServiceSettings
from services.chassis.telemetry import SERVER_RATE_LIMITED
from shop.access.v1.access_pb2 import ROLE_SERVICE

# Who was quiet may make the calls of so many seconds at once.
_BURST_SECONDS = 10.0
# Callers remembered; those who were quiet for longest are forgotten, most of whom have a full bucket anyway.
_KNOWN_CALLERS = 20_000


class Rate:
    """The buckets of all callers of one kind."""

    def __init__(self, per_second: float) -> None:
        """0 calls a second is no limit."""
        self.per_second = per_second
        self._seconds_each = 1 / per_second if per_second else 0.0
        self._burst = max(_BURST_SECONDS, self._seconds_each)
        # Until when each caller's calls so far would take at the limit's pace; longest quiet first.
        self._until: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str) -> bool:
        """Counts a call. False when it is one too many; then it is not counted."""
        now = monotonic()
        until = max(self._until.get(key, now), now) + self._seconds_each
        if until > now + self._burst:
            return False
        self._until[key] = until
        self._until.move_to_end(key)
        if len(self._until) > _KNOWN_CALLERS:
            self._until.popitem(last=False)
        return True

    def is_spent(self, key: str) -> bool:
        """Whether the next call would be one too many."""
        now = monotonic()
        return self._until.get(key, now) + self._seconds_each > now + self._burst


class Gate:
    """Tells who calls, unless they call too often."""

    def __init__(self, settings: ServiceSettings, verifier: TokenVerifier, meter: Meter) -> None:
        self._verifier = verifier
        self._callers = Rate(settings.grpc_caller_rate)
        self._visitors = Rate(settings.grpc_visitor_rate)
        self._refused = meter.create_counter(SERVER_RATE_LIMITED, description="Calls of callers who called too often.")

    async def caller(self, authorization: str | None, origin: Origin) -> Caller:
        """Who calls from there with this `authorization`. Raises `RateLimited`, and what the verifier raises."""
        if authorization is None:
            self._take(self._visitors, origin.address, "visitor")
            return VISITOR
        caller = self._verifier.known(authorization) or await self._verify(authorization, origin)
        if caller.role != ROLE_SERVICE:
            self._take(self._callers, caller.key, "caller")
        return caller

    async def _verify(self, authorization: str, origin: Origin) -> Caller:
        # To find out that a token is not valid is dear: whoever sent too many is not given another try.
        if self._visitors.per_second and self._visitors.is_spent(origin.address):
            self._refuse(self._visitors, "token")
        try:
            return await self._verifier.verify(authorization)
        except NotAuthenticated:
            self._take(self._visitors, origin.address, "token")
            raise

    def _take(self, rate: Rate, key: str, kind: str) -> None:
        if rate.per_second and not rate.take(key):
            self._refuse(rate, kind)

    def _refuse(self, rate: Rate, kind: str) -> None:
        self._refused.add(1, {"kind": kind})
        raise RateLimited(rate.per_second)
