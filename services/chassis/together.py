"""Group commit: mutations that wait at the same moment are decided and written in one transaction.

A transaction costs as much for one caller as for many. Nobody waits to be joined: while a lane works, whoever comes
queues, and the next transaction takes all of them. Each caller has an answer or a refusal of their own, and request ids
mean what they mean in `requests.once`: a refusal leaves nothing behind, a repeat gets the stored answer.

When a shared transaction fails, or does not get its locks soon, each goes alone and the lane goes on: one caller's
trouble is not another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from services.chassis import requests
from services.chassis.database import Database, Transaction
from services.chassis.errors import Refusal, TooMuch, Unavailable

C = TypeVar("C")
R = TypeVar("R", bound=Message)
# So many callers share a transaction: more would make the first of them wait for the last.
MOST = 64
# A shared transaction does not wait for somebody's lock as long as a caller alone may.
PATIENCE = "SET LOCAL lock_timeout = '300ms'"


@dataclass(slots=True)
class _Waiting(Generic[C, R]):
    claim: requests.Claim
    command: C
    # What no other command of the same transaction may have too.
    apart: frozenset[str]
    answer: asyncio.Future[R]


@dataclass(slots=True)
class Together(Generic[C, R]):
    """One kind of mutation: `await together(request, command)` answers, or raises the refusal.

    `run` decides and writes many commands in one transaction, and returns, for each in its turn, the response or the
    refusal; what is refused must have left nothing behind. `apart` names what two commands of one transaction must not
    have in common.
    """

    database: Database
    response_type: type[R]
    run: Callable[[Transaction, Sequence[C]], Awaitable[Sequence[R | Refusal]]]
    apart: Callable[[C], Iterable[str]] = lambda _: ()
    lanes: int = 2
    _queue: list[_Waiting[C, R]] = field(default_factory=list)
    # Lanes that will look at the queue again.
    _busy: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, request: Message, command: C) -> R:
        """The answer, once it is committed. Raises refusals, among them `RequestIdReused` and `Conflict`."""
        claim = requests.Claim.of(request)
        apart = frozenset((str(claim.key), *self.apart(command)))
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(claim, command, apart, answer))
        if self._busy < self.lanes:
            self._busy += 1
            self._start(self._work())
        return await answer

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begins work in a context of its own: it is for all, not for the caller who happened to start it."""
        task = asyncio.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        while batch := self._take():
            try:
                await self._write(batch, patient=False)
            except (Unavailable, TooMuch) as refusal:
                # It would be the same for each alone.
                _fail(batch, refusal)
            except Exception:
                for each in batch:
                    self._start(self._alone(each))
        # In the step that found the queue empty: who comes next starts a lane.
        self._busy -= 1

    def _take(self) -> list[_Waiting[C, R]]:
        """Those whose turn it is, in the order they came; who shares something with one of them waits."""
        batch: list[_Waiting[C, R]] = []
        left: list[_Waiting[C, R]] = []
        taken: set[str] = set()
        for each in self._queue:
            if each.answer.done():
                continue  # Its caller has left.
            if len(batch) < MOST and taken.isdisjoint(each.apart):
                batch.append(each)
            else:
                left.append(each)
            taken |= each.apart
        self._queue[:] = left
        return batch

    async def _alone(self, waiting: _Waiting[C, R]) -> None:
        try:
            await self._write([waiting], patient=True)
        except Exception as error:
            _fail([waiting], error)

    async def _write(self, batch: Sequence[_Waiting[C, R]], *, patient: bool) -> None:
        async with self.database.transaction() as tx:
            if not patient:
                await tx.connection.execute(PATIENCE)
            stored = await requests.claim_all(tx, [each.claim for each in batch])
            new = [each for each in batch if each.claim.key not in stored]
            outcomes = await self.run(tx, [each.command for each in new]) if new else []
            done = [
                (each, outcome) for each, outcome in zip(new, outcomes, strict=True) if not isinstance(outcome, Refusal)
            ]
            await requests.answer_all(tx, [(each.claim, outcome) for each, outcome in done])
        for each, outcome in zip(new, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                _fail([each], outcome)
            elif not each.answer.done():
                each.answer.set_result(outcome)
        for each in batch:
            if each.claim.key in stored:
                self._repeat(each, stored[each.claim.key])

    def _repeat(self, waiting: _Waiting[C, R], stored: requests.Stored) -> None:
        try:
            response = self.response_type.FromString(waiting.claim.same(stored))
        except Refusal as refusal:
            _fail([waiting], refusal)
        else:
            if not waiting.answer.done():
                waiting.answer.set_result(response)


def _fail(batch: Sequence[_Waiting[C, R]], error: Exception) -> None:
    for each in batch:
        if not each.answer.done():
            each.answer.set_exception(error)
