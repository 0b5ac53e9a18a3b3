"""Answers of the storefront, kept for a moment as the bytes they were sent as.

What many ask for is made once. An answer is kept only where it is the same for everybody who may ask and was right by
our copy of stock, and it goes

- at once when the change feed names one of its products, or when the contact options changed;
- after `KEPT_SECONDS` in any case: so much later may a product appear in a list that was not in it;
- before it could be older than the bound on staleness: the age of what it was made of counts, with its own.

Callers who ask for the same at the same moment wait for one making. It runs in a context of its own: it knows neither
who asks nor how long they wait, so that no answer can depend on that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from google.protobuf.message import Message

from services.catalog.freshness import Freshness
from services.chassis.latest import Latest
from shop.contact.v1.contact_options_pb2 import ContactOptions

KEPT_SECONDS = 0.5
# Of all answers to one method, with their questions.
KEPT_BYTES = 32 * 1024 * 1024
# About what keeping an answer takes beside its bytes.
OVERHEAD_BYTES = 500


@dataclass(slots=True)
class Answer:
    """An answer that is kept."""

    body: bytes
    options: ContactOptions
    ends: float
    product_ids: Collection[str]


@dataclass(slots=True)
class Flight:
    """An answer that is being made, and what changed since that began; None when it may have been anything."""

    making: asyncio.Task[bytes] | None = None
    changed: set[str] | None = field(default_factory=set)


class KeptAnswers:
    """The kept answers to one method: what `services.chassis.grpc_calls.Keeper` asks for."""

    def __init__(
        self,
        freshness: Freshness,
        hotline: Latest[ContactOptions],
        product_ids: Callable[[Any], Iterable[str]],
    ) -> None:
        """`product_ids`: the products that an answer shows."""
        self._freshness = freshness
        self._hotline = hotline
        self._product_ids = product_ids
        # By the bytes of the question; what was asked for last stands last.
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()
        self._showing: dict[str, set[bytes]] = {}
        self._flights: dict[bytes, Flight] = {}
        self._bytes = 0
        # How many were given out as they were kept, and how many were made.
        self.given = 0
        self.made = 0

    def get(self, question: bytes) -> bytes | None:
        """The kept answer to a question, if it still holds."""
        answer = self._answers.get(question)
        if answer is None:
            return None
        if monotonic() >= answer.ends or answer.options is not self._hotline.shown:
            self._drop(question)
            return None
        self._answers.move_to_end(question)
        self.given += 1
        return answer.body

    async def make(self, question: bytes, make: Callable[[], Awaitable[Message]]) -> bytes:
        """The answer, made now by `make` or by a caller who asked for the same just before; raises what that raises."""
        flight = self._flights.get(question)
        if flight is None:
            flight = self._flights[question] = Flight()
            flight.making = asyncio.create_task(self._make(question, make, flight), context=Context())
            flight.making.add_done_callback(lambda done: self._landed(question, done))
        assert flight.making is not None  # noqa: S101
        # A caller who goes away must not take the answer from the others.
        return await asyncio.shield(flight.making)

    def forget(self, product_ids: Collection[str] | None) -> None:
        """These products changed; None: it may have been any."""
        for flight in self._flights.values():
            if product_ids is None:
                flight.changed = None
            elif flight.changed is not None:
                flight.changed.update(product_ids)
        if product_ids is None:
            self._answers.clear()
            self._showing.clear()
            self._bytes = 0
            return
        for product_id in product_ids:
            for question in tuple(self._showing.get(product_id, ())):
                self._drop(question)

    async def _make(self, question: bytes, make: Callable[[], Awaitable[Message]], flight: Flight) -> bytes:
        self.made += 1
        began = monotonic()
        await self._freshness.stale_since()
        # Before anything is read: what the answer is made of is no older.
        as_of = self._freshness.as_of
        response: Any = await make()
        body: bytes = response.SerializeToString()
        options = self._hotline.shown
        ends = min(began + KEPT_SECONDS, as_of + self._freshness.bound_seconds)
        product_ids = frozenset(self._product_ids(response))
        if (
            flight.changed is not None
            and not flight.changed & product_ids
            and not response.HasField("unconfirmed_since")
            and response.contact_options == options
            and monotonic() < ends
        ):
            self._keep(question, Answer(body, options, ends, product_ids))
        return body

    def _keep(self, question: bytes, answer: Answer) -> None:
        if question in self._answers:
            self._drop(question)
        self._answers[question] = answer
        self._bytes += _size(question, answer)
        for product_id in answer.product_ids:
            self._showing.setdefault(product_id, set()).add(question)
        while self._bytes > KEPT_BYTES:
            self._drop(next(iter(self._answers)))

    def _drop(self, question: bytes) -> None:
        answer = self._answers.pop(question)
        self._bytes -= _size(question, answer)
        for product_id in answer.product_ids:
            questions = self._showing[product_id]
            questions.discard(question)
            if not questions:
                del self._showing[product_id]

    def _landed(self, question: bytes, making: asyncio.Task[bytes]) -> None:
        del self._flights[question]
        if not making.cancelled():
            making.exception()  # Looked at, also when every caller has gone.


def _size(question: bytes, answer: Answer) -> int:
    return len(question) + len(answer.body) + OVERHEAD_BYTES + 100 * len(answer.product_ids)
