"""Typed refusals: what a domain raises, and what a caller gets.

    Refusal                  something cannot be done; nothing has changed
    ├── InvalidInput         the request itself is wrong, field by field
    ├── NotFound             there is no such thing, or it is somebody else's
    ├── NotNow               the state of things does not allow it (OUT_OF_STOCK ...)
    ├── TooMuch              a limit of the caller or of the server is reached
    ├── Conflict             somebody else is at it: try again from the start
    ├── NotAllowed           the caller's role may not do this
    ├── NotAuthenticated     the token is not valid
    └── Unavailable          a part we need does not answer: try again later

Each carries a machine-readable `reason` in capitals and its numbers in `details`. The gRPC server turns them into
`google.rpc` details, the gRPC clients turn those back into these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class Refusal(Exception):
    """Something cannot be done; nothing has changed. `str()` is a sentence for people, free of personal data."""

    status: ClassVar[str] = "FAILED_PRECONDITION"
    reason: str = "REFUSED"

    def __init__(self, message: str, *, reason: str | None = None, **details: object) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        self.details = {name: str(value) for name, value in details.items()}


class InvalidInput(Refusal):
    """The request is wrong. `fields` names each wrong field with what is wrong about it."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"

    def __init__(self, fields: Sequence[tuple[str, str]], *, reason: str | None = None, **details: object) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in fields), reason=reason, **details)
        self.fields = tuple(fields)


class NotFound(Refusal):
    """There is no such thing, or it is not the caller's to see."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class NotNow(Refusal):
    """The state of things does not allow it."""

    status = "FAILED_PRECONDITION"


class TooMuch(Refusal):
    """A limit is reached."""

    status = "RESOURCE_EXHAUSTED"
    reason = "LIMIT_REACHED"


class Conflict(Refusal):
    """Somebody else is at it right now. Trying again from the start is safe."""

    status = "ABORTED"
    reason = "CONFLICT"


class NotAllowed(Refusal):
    """The caller is known and may not do this."""

    status = "PERMISSION_DENIED"
    reason = "NOT_ALLOWED"


class NotAuthenticated(Refusal):
    """The token is expired, forged or not for us."""

    status = "UNAUTHENTICATED"
    reason = "INVALID_TOKEN"


class Unavailable(Refusal):
    """A part we need does not answer. Trying again later is safe."""

    status = "UNAVAILABLE"
    reason = "UNAVAILABLE"
