"""From a Kafka message to a fact: what is valid, what is skipped, and what is poison and why.

Nothing here raises: whatever bytes a message has, the answer is one of the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import ConsumerRecord
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message

from services.chassis.facts import CONTENT_TYPE, Heard

# Longer than any id of ours, and short enough for an index.
MAX_ID = 200
# Of a key, which is indexed together with its topic where it is parked.
MAX_KEY_BYTES = 1_000
# What goes on to the handler: the journey, and the trace.
CARRIED = ("traceparent", "tracestate", "baggage")


@dataclass(frozen=True, slots=True)
class Letter:
    """One message as it came. Either a fact to handle (`message`), or `poison`, or neither: then it is skipped."""

    record: ConsumerRecord[bytes | None, bytes | None]
    # The id of the fact; of what has none, its place.
    id: str
    message: Message | None = None
    # Why it can never be handled, in capitals.
    poison: str | None = None
    key: str = ""
    type: str = ""
    source: str = ""
    time: datetime | None = None

    @property
    def carried(self) -> dict[str, str]:
        """Trace context and baggage."""
        return {name: (value or b"").decode("latin-1") for name, value in self.record.headers if name in CARRIED}

    @property
    def headers(self) -> dict[str, str]:
        """The headers; their text is the bytes read as latin-1. One without a value, which Kafka allows, is empty."""
        return {name: (value or b"").decode("latin-1") for name, value in self.record.headers}

    @property
    def parked_key(self) -> bytes | None:
        """The key behind which later messages wait. None when there is none, or all of that key are poison anyway."""
        key: bytes | None = self.record.key
        return key if key is not None and len(key) <= MAX_KEY_BYTES else None

    def heard(self, journey_id: str | None) -> Heard[Any]:
        """The fact as its handler gets it."""
        assert self.message is not None  # noqa: S101
        assert self.time is not None  # noqa: S101
        record = self.record
        return Heard(
            self.id, self.message, record.topic, record.partition, record.offset, self.key, self.time, self.source,
            journey_id,
        )  # fmt: skip


class _Poison(Exception):
    """Carries the reason."""


def decode(record: ConsumerRecord[bytes | None, bytes | None], kinds: Mapping[str, type[Message]]) -> Letter:
    """Reads a message. `kinds`: the facts that are handled, by their full protobuf names."""
    headers: dict[str, bytes | None] = dict(record.headers)
    place = f"@{record.partition}-{record.offset}-{record.timestamp}"
    try:
        fact_id = _text(headers, "ce_id") if "ce_id" in headers else place
    except _Poison as reason:
        return Letter(record, place, poison=str(reason))
    try:
        key = _key(record.key)
        if record.value is None:
            # A tombstone: its key is gone from a compacted topic. Nobody handles that yet.
            return Letter(record, place)
        if _text(headers, "ce_specversion") != "1.0":
            raise _Poison("UNKNOWN_SPECVERSION")
        _text(headers, "ce_id")
        if _text(headers, "content-type") != CONTENT_TYPE:
            raise _Poison("UNKNOWN_CONTENT_TYPE")
        name = _text(headers, "ce_type")
        kind = kinds.get(name)
        if kind is None:
            if not _is_known(name):
                raise _Poison("UNKNOWN_TYPE")
            return Letter(record, fact_id, type=name)
        source, time = _text(headers, "ce_source"), _time(_text(headers, "ce_time"))
        return Letter(record, fact_id, _parse(kind, record.value), None, key, name, source, time)
    except _Poison as reason:
        return Letter(record, fact_id, poison=str(reason))


def _key(key: bytes | None) -> str:
    if key is None:
        raise _Poison("NO_KEY")
    if len(key) > MAX_KEY_BYTES:
        raise _Poison("KEY_TOO_LONG")
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise _Poison("KEY_NOT_TEXT") from None


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    value = headers.get(name)
    if value is None:
        raise _Poison(f"NO_{name.upper().replace('-', '_')}")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(text) > MAX_ID or not text.isprintable():
        raise _Poison(f"WRONG_{name.upper().replace('-', '_')}")
    return text


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and last days of the calendar have no time in UTC everywhere
        pass
    raise _Poison("WRONG_CE_TIME")


def _parse(kind: type[Message], value: bytes) -> Message:
    try:
        return kind.FromString(value)
    except DecodeError:
        raise _Poison("UNDECODABLE") from None


def _is_known(name: str) -> bool:
    """Whether this process knows the message type: then it is a fact that nobody here wants."""
    try:
        descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        return False
    return True
