"""Lanes: the order in which messages are handled, and what happens when that fails.

A lane handles its messages one after the other; lanes run beside each other. A topic with handlers has a lane for each
partition, a topic with a batch handler one lane for all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

import grpc
from aiokafka import TopicPartition
from opentelemetry.metrics import Meter

from services.chassis.database import DATABASE_AWAY
from services.chassis.decoding import Letter
from services.chassis.errors import Conflict, Refusal, TooMuch, Unavailable
from services.chassis.handling import PARKED_BEHIND, Handling, KeyIsParked
from services.chassis.waiting import Pause

log = logging.getLogger(__name__)

# Facts in one transaction: enough that its own cost does not show, few enough to be repeated one by one.
TOGETHER = 100
BATCH_TOGETHER = 1_000
# More than a process can have handled and not committed. Were it less, only more restarts would be needed.
CAREFUL = 50
RACES = 5
# So often may the database fail a message while it answers others: then it is the message's fault.
DOUBTS = 5
NEVER_FINISHED = "NEVER_FINISHED"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a message is tried, and the shortest and longest wait in seconds between attempts and in outages."""

    attempts: int = 5
    between: tuple[float, float] = (0.1, 2.0)
    outage: tuple[float, float] = (0.2, 5.0)


class Counters:
    """What is measured of consumption."""

    def __init__(self, meter: Meter) -> None:
        self.handled = meter.create_counter("shop.consumer.handled", "1", "messages that are done with")
        self.failed = meter.create_counter("shop.consumer.failed", "1", "attempts that failed")
        self.dead = meter.create_counter("shop.consumer.dead_lettered", "1", "messages moved to a dead-letter topic")
        self.paused = meter.create_up_down_counter("shop.consumer.paused", "1", "lanes waiting for an outage to end")
        self.lag = meter.create_gauge("shop.consumer.lag", "1", "messages that are not yet done with")


class Lane:
    """Messages that are handled in order. `done` is told the offset after each that is settled in the database."""

    def __init__(
        self,
        handling: Handling,
        slots: asyncio.Semaphore,
        counters: Counters,
        done: Callable[[TopicPartition, int], None],
        patience: Patience,
    ) -> None:
        self.handling = handling
        # Held while the database works for this lane, and never while it waits.
        self._slots = slots
        self._counters = counters
        self._done = done
        self.patience = patience
        self._letters: deque[Letter] = deque()
        # By partition. Messages before this offset may have been tried by another process, which may have died of
        # them: they go alone, and are counted before they are tried. What comes later was never tried before.
        self._careful_until: dict[int, int] = {}
        # By partition, the offset of the first message that is not settled.
        self.reached: dict[int, int] = {}
        self._filled = asyncio.Event()
        self._closing = asyncio.Event()
        self._labels = {"topic": handling.topic}
        self._task = asyncio.create_task(self._run())

    @property
    def waiting(self) -> int:
        """How many messages wait here, with those in hand."""
        return len(self._letters)

    def put(self, letters: Sequence[Letter], end: int) -> None:
        """Adds messages of one partition behind the others. `end`: where the partition ended just now."""
        first = letters[0].record
        self.reached.setdefault(first.partition, first.offset)
        if first.partition not in self._careful_until:
            self._careful_until[first.partition] = min(first.offset + CAREFUL, end)
        self._letters.extend(letters)
        self._filled.set()

    async def close(self, seconds: float) -> None:
        """Finishes the transaction in hand, at most this long, and forgets the rest. Nothing is `done` afterwards."""
        self._closing.set()
        self._filled.set()
        await asyncio.wait([self._task], timeout=seconds)
        self._done = lambda partition, offset: None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def ended(self) -> bool:
        """Whether it stopped handling, by `close` or by a mistake of ours."""
        return self._task.done()

    async def _run(self) -> None:
        try:
            while not self._closing.is_set():
                if not self._letters:
                    self._filled.clear()
                    await self._filled.wait()
                    continue
                letters = self._next()
                if not letters:
                    await self._settle_alone(self._letters[0])
                elif not any(letter.message is not None for letter in letters) or await self._together(letters):
                    self._finished(letters)
                else:
                    for letter in letters:
                        await self._settle_alone(letter)
        except _Closed:
            pass
        except Exception:
            log.exception("a lane broke", extra=self._labels)

    def _next(self) -> list[Letter]:
        """The next messages that can be handled in one transaction; none when the first goes alone."""
        size = BATCH_TOGETHER if self.handling.batch is not None else TOGETHER
        return list(takewhile(self._is_easy, islice(self._letters, size)))

    def _is_easy(self, letter: Letter) -> bool:
        return letter.poison is None and letter.record.offset >= self._careful_until[letter.record.partition]

    async def _settle_alone(self, letter: Letter) -> None:
        if self._closing.is_set():
            raise _Closed
        if letter.poison is not None:
            await self._park(letter, letter.poison, 0)
        elif letter.message is not None:
            await self._alone(letter)
        self._finished([letter])

    def _finished(self, letters: Sequence[Letter]) -> None:
        for _ in letters:
            self._letters.popleft()
        self._counters.handled.add(len(letters), self._labels)
        lasts = {letter.record.partition: letter.record.offset for letter in letters}
        for partition, offset in lasts.items():
            self.reached[partition] = offset + 1
            self._done(TopicPartition(self.handling.topic, partition), offset + 1)

    async def _together(self, letters: Sequence[Letter]) -> bool:
        """Handles all in one transaction. False when they have to be handled one by one."""
        facts = [letter for letter in letters if letter.message is not None]
        attempt = _Attempt(self)
        while True:
            try:
                async with self._slots:
                    await self.handling.together(facts)
            except Exception as error:
                if not await attempt.passes_by(error, facts[0]):
                    return False
            else:
                return True

    async def _alone(self, letter: Letter) -> None:
        """Handles one message, in as many attempts as it gets, or moves it to the dead-letter topic."""
        attempt = _Attempt(self)
        pause = Pause(*self.patience.between)
        while True:
            tries = 0
            try:
                async with self._slots:
                    tries = await attempt.count(letter)
                    if tries <= self.patience.attempts:
                        await self.handling.together([letter], counted=True)
                        return
                await self._park(letter, NEVER_FINISHED, tries - 1)
            except KeyIsParked:
                if not await self._park(letter, PARKED_BEHIND, 0, behind=True):
                    continue
            except _Closed:
                raise
            except Exception as error:
                if await attempt.passes_by(error, letter):
                    continue
                self._counters.failed.add(1, self._labels)
                log.warning("handling failed", extra=_where(letter) | {"error": name_of(error), "attempt": tries})
                if tries < self.patience.attempts:
                    await self.sleep(pause.next())
                    continue
                await self._park(letter, name_of(error), tries)
            return

    async def _park(self, letter: Letter, reason: str, tries: int, *, behind: bool = False) -> bool:
        """As `Handling.park`, for as long as it takes."""
        attempt = _Attempt(self)
        pause = Pause(*self.patience.between)
        while True:
            try:
                async with self._slots:
                    parked = await self.handling.park(letter, reason, tries, behind=behind)
            except Exception as error:
                if not await attempt.passes_by(error, letter):
                    log.exception("parking failed", extra=_where(letter))
                    await self.sleep(pause.next())
            else:
                if parked:
                    self._counters.dead.add(1, self._labels | {"reason": reason})
                    log.error("moved to the dead letters", extra=_where(letter) | {"reason": reason})
                return parked

    async def sleep(self, seconds: float) -> None:
        """Waits, unless the lane is to close."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return
        raise _Closed

    async def outage(self, seconds: float) -> None:
        """Waits for an outage to pass."""
        self._counters.paused.add(1, self._labels)
        try:
            await self.sleep(seconds)
        finally:
            self._counters.paused.add(-1, self._labels)


class _Closed(Exception):
    """The lane is to close: what is in hand is left to whoever gets the partition next."""


class _Attempt:
    """An attempt to handle: counted before it begins, and not counted when an outage or a lost race ended it."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._counted = False
        # A count that could not be taken back since the database was away.
        self._owed = False
        self._races = 0
        self._doubts = 0
        self._pause = Pause(*lane.patience.outage)

    async def count(self, letter: Letter) -> int:
        tries = await self._lane.handling.count(letter)
        self._counted = True
        if self._owed:
            await self._lane.handling.uncount(letter)
            self._owed = False
            tries -= 1
        return tries

    async def passes_by(self, error: Exception, letter: Letter) -> bool:
        """Waits out what passes by itself. False when the error is one of the message or of ours."""
        if is_outage(error):
            if await self._is_doubtful(error):
                return False
            await self._uncount(letter)
            log.warning("waiting for an outage to pass", extra=_where(letter) | {"error": name_of(error)})
            await self._lane.outage(self._pause.next())
            return True
        if isinstance(error, Conflict) and self._races < RACES:
            self._races += 1
            await self._uncount(letter)
            return True
        return False

    async def _is_doubtful(self, error: Exception) -> bool:
        """Whether an outage of the database is rather a message it cannot digest, as a statement that never ends."""
        if name_of(error) != DATABASE_AWAY or not await self._lane.handling.is_database_there():
            self._doubts = 0
            return False
        self._doubts += 1
        return self._doubts > DOUBTS

    async def _uncount(self, letter: Letter) -> None:
        if self._counted:
            self._counted = False
            try:
                await self._lane.handling.uncount(letter)
            except Refusal:
                self._owed = True


def is_outage(error: BaseException) -> bool:
    """Whether a part we need is away or overloaded, which has nothing to do with the message."""
    if isinstance(error, Refusal):
        return isinstance(error, Unavailable) or (isinstance(error, TooMuch) and error.reason == "OVERLOADED")
    return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE


def name_of(error: BaseException) -> str:
    """What went wrong, without quoting data."""
    return error.reason if isinstance(error, Refusal) else type(error).__name__


def _where(letter: Letter) -> dict[str, object]:
    record = letter.record
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset, "fact_id": letter.id}
