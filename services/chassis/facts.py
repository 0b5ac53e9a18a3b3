"""Facts: what a service announces and hears, as CloudEvents 1.0 in Kafka's binary mode.

A fact on the wire has the aggregate's id as key, the bare protobuf message as value, and as headers `ce_specversion`,
`ce_id`, `ce_source` (the service), `ce_type` (full protobuf name), `ce_time` (RFC 3339, UTC), `content-type`, and the
trace context and baggage.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

from google.protobuf.message import Message

if TYPE_CHECKING:
    from services.chassis.database import Transaction

M = TypeVar("M", bound=Message)
CONTENT_TYPE = "application/protobuf"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic a service owns, and which facts stand on it."""

    name: str
    facts: tuple[type[Message], ...]
    # Compacted topics keep the latest fact of each key; the others keep everything this long.
    compacted: bool = False
    retention_days: int = 14
    partitions: int = 6


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, ready to be announced."""

    topic: Topic
    key: str
    message: Message
    id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class Heard(Generic[M]):
    """A fact as a consumer gets it."""

    id: str
    message: M
    topic: str
    partition: int
    offset: int
    key: str
    # When it happened, by `ce_time`.
    time: datetime
    source: str
    # From the baggage; None where the fact belongs to no journey.
    journey_id: str | None


# Handlers get the service's application object, the transaction that also holds the inbox row, and the fact. What they
# raise decides what happens: an outage pauses the partition, anything else counts as an attempt.
Handler = Callable[[Any, "Transaction", Heard[Any]], Awaitable[None]]
BatchHandler = Callable[[Any, "Transaction", Sequence[Heard[Any]]], Awaitable[None]]
# Takes the locks that the handlers of these facts will need.
LockAhead = Callable[[Any, "Transaction", Sequence[Message]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hears:
    """One line of a service's table of what it hears: a topic and what runs for each kind of fact.

    With `handlers`, each fact runs in a transaction together with its inbox row. With `batch`, all facts that arrived
    together run in one transaction and there is no inbox: the handler must be safe under repeats and reordering by the
    versions in the facts. Facts of a kind not named are skipped.

    Facts with `handlers` that arrived together share a transaction too. Where their handlers lock rows that facts of
    other partitions also lock, `lock_ahead` runs before them and takes those locks in one order for all, so that two
    such transactions never wait for each other. It is left out for a fact that is handled alone.
    """

    topic: str
    handlers: Mapping[type[Message], Handler] = field(default_factory=dict)
    lock_ahead: LockAhead | None = None
    batch: BatchHandler | None = None
    batch_facts: tuple[type[Message], ...] = ()
    # A topic without committed offsets is read from its beginning.
