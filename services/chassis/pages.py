"""Page tokens: where a list goes on, bound to the question it belongs to.

A token is the position of the last row seen, with a checksum over it and over the request it was given for. It holds
no secret and grants nothing: the checksum only tells a token of ours from a broken one or one of another question.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from google.protobuf.message import Message

from services.chassis.errors import InvalidInput

POSITION = ("page_token", "page_size")


def size(asked: int, *, usual: int, most: int) -> int:
    """The number of rows of a page: 0 means the usual, more than the most is cut (AIP-158)."""
    return min(asked or usual, most)


def token(request: Message, position: Sequence[str | int]) -> str:
    """The token that goes on after a position. Its parts are strings and integers, in the order of the list."""
    body = json.dumps(list(position), separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_checksum(request, body) + body).decode().rstrip("=")


def position(request: Message, kinds: Sequence[type]) -> list[str | int] | None:
    """The position in a request's page token, or None for the first page.

    Raises `InvalidInput` for a token that is broken, tampered with, or of another question.
    """
    given: str = request.page_token  # type: ignore[attr-defined]
    if not given:
        return None
    try:
        raw = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
        body = raw[8:]
        parts = json.loads(body) if raw[:8] == _checksum(request, body) else None
    except (binascii.Error, ValueError):
        parts = None
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds):
        raise InvalidInput([("page_token", "is not a token of this list with these filters; start without one")])
    return parts


def _checksum(request: Message, body: bytes) -> bytes:
    question = type(request)()
    question.CopyFrom(request)
    for name in POSITION:
        question.ClearField(name)
    digest = hashlib.sha256(question.DESCRIPTOR.full_name.encode() + question.SerializeToString(deterministic=True))
    digest.update(body)
    return digest.digest()[:8]
