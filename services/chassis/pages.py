"""Page tokens: where a list goes on, bound to the question it belongs to.

A token is the position of the last row seen, with a checksum over it and over the request it was given for. It holds
no secret and grants nothing: the checksum only tells a token of ours from a broken one or one of another question.
Anybody can make one, so nothing in it is believed but what a database can look for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from services.chassis.errors import InvalidInput

POSITION = ("page_token", "page_size", "resume_token")
INT64 = (-(2**63), 2**63 - 1)


def size(asked: int, *, usual: int, most: int) -> int:
    """The number of rows of a page: 0 means the usual, more than the most is cut (AIP-158)."""
    return min(asked or usual, most)


def token(request: Message, position: Sequence[str | int | datetime]) -> str:
    """The token that goes on after a position. Its parts are in the order of the list."""
    parts = [part.isoformat() if isinstance(part, datetime) else part for part in position]
    body = json.dumps(parts, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_checksum(request, body) + body).decode().rstrip("=")


def position(request: Message, kinds: Sequence[type], field: str = "page_token") -> list[Any] | None:
    """The position in a request's page token, or None for the first page. Each part is of its kind: a string without
    NUL, an integer of 64 bits, or a datetime in UTC. `field`: where the token stands, if it is no page's.

    Raises `InvalidInput` for a token that is broken, tampered with, or of another question.
    """
    given: str = getattr(request, field)
    if not given:
        return None
    try:
        raw = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
        body = raw[8:]
        if raw[:8] == _checksum(request, body):
            return [_part(part, kind) for part, kind in zip(json.loads(body), kinds, strict=True)]
    except (binascii.Error, ValueError, OverflowError, TypeError, RecursionError):
        pass
    raise wrong_token(field)


def wrong_token(field: str = "page_token") -> InvalidInput:
    """What a token is answered with that is not one of ours, or is of another question."""
    return InvalidInput(
        [(field, "is not a token of this list with these filters; start without one")],
        reason="INVALID_PAGE_TOKEN",
    )


def _part(part: object, kind: type) -> str | int | datetime:
    if kind is datetime and isinstance(part, str):
        time = datetime.fromisoformat(part)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    elif kind is str and isinstance(part, str):
        part.encode()  # raises where half a character stands alone
        if "\0" not in part:
            return part
    elif kind is int and type(part) is int and INT64[0] <= part <= INT64[1]:
        return part
    raise ValueError


def _checksum(request: Message, body: bytes) -> bytes:
    question = type(request)()
    question.CopyFrom(request)
    for name in POSITION:
        if name in question.DESCRIPTOR.fields_by_name:
            question.ClearField(name)
    digest = hashlib.sha256(question.DESCRIPTOR.full_name.encode() + question.SerializeToString(deterministic=True))
    digest.update(body)
    return digest.digest()[:8]
