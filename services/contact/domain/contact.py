"""Contacts: live attempts of customers to reach a human, and the promise made to them.

waiting ──answer──> talking ──complete, or the customer leaves──> completed
   └─the customer leaves──> abandoned

The promise is missed when nobody answers within 15 s of the press, also when the customer gives up before, unless that
is within 5 s. It is missed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.chassis.errors import NotFound, NotNow


class Channel(StrEnum):
    """A way to reach us."""

    PHONE = "phone"
    CHAT = "chat"
    VIDEO = "video"


class ContactState(StrEnum):
    """Where a contact stands."""

    WAITING = "waiting"
    TALKING = "talking"
    COMPLETED = "completed"
    ABANDONED = "abandoned"


class ContactNotFound(NotFound):
    """There is no such contact, or it is somebody else's."""

    reason = "CONTACT_NOT_FOUND"


class ContactNotTalking(NotNow):
    """The contact waits, or is over."""

    reason = "CONTACT_NOT_TALKING"


@dataclass(frozen=True, slots=True)
class Promise:
    """A human answers within a time; who leaves sooner than `abandon_within` is not counted."""

    answer_within: timedelta
    abandon_within: timedelta


@dataclass(frozen=True, slots=True)
class Pressed:
    """The customer asks for a human."""

    time: datetime


@dataclass(frozen=True, slots=True)
class Answered:
    """A human is on the line."""

    time: datetime


@dataclass(frozen=True, slots=True)
class AnswerPromiseMissed:
    """Nobody answered in time."""

    time: datetime
    version: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The talk is over, or the customer left."""

    time: datetime
    version: int


Happened = Pressed | Answered | AnswerPromiseMissed | Ended


@dataclass(slots=True)
class Contact:
    """One live attempt to reach a human. Its methods return what happened, in order."""

    contact_id: str
    customer_id: str
    channel: Channel
    state: ContactState
    page: str
    press_time: datetime
    answer_time: datetime | None = None
    end_time: datetime | None = None
    agent_id: str | None = None
    agent_name: str = ""
    promise_missed: bool = False
    journey_id: str | None = None
    version: int = 1

    def answer(self, agent_id: str, agent_name: str, now: datetime, promise: Promise) -> list[Happened]:
        """An agent is on the line, perhaps late. The contact must be waiting."""
        missed = self.miss(now, promise)
        self._move_to(ContactState.TALKING)
        self.agent_id, self.agent_name, self.answer_time = agent_id, agent_name, now
        return [*missed, Answered(now)]

    def miss(self, now: datetime, promise: Promise) -> list[Happened]:
        """Notes the miss if there is one and it was not noted yet, at whatever time that is done."""
        due = self.press_time + promise.answer_within
        if self.state is not ContactState.WAITING or now <= due:
            return []
        return self._missed(due)

    def leave(self, now: datetime, promise: Promise) -> list[Happened]:
        """The customer leaves. What has ended stays as it is."""
        match self.state:
            case ContactState.WAITING:
                missed: list[Happened] = []
                if now - self.press_time > promise.abandon_within:
                    missed = self._missed(min(now, self.press_time + promise.answer_within))
                return [*missed, self._end(ContactState.ABANDONED, now)]
            case ContactState.TALKING:
                return [self._end(ContactState.COMPLETED, now)]
            case _:
                return []

    def complete(self, agent_id: str, now: datetime) -> list[Happened]:
        """The agent says that the talk is over. Raises `ContactNotFound` to another agent, `ContactNotTalking`."""
        if self.agent_id != agent_id:
            raise ContactNotFound("there is no such contact at this desk", contact_id=self.contact_id)
        if self.state is not ContactState.TALKING:
            raise ContactNotTalking(f"the contact is {self.state}", contact_id=self.contact_id, state=self.state)
        return [self._end(ContactState.COMPLETED, now)]

    def _missed(self, time: datetime) -> list[Happened]:
        if self.promise_missed:
            return []
        self.promise_missed = True
        self.version += 1
        return [AnswerPromiseMissed(time, self.version)]

    def _end(self, state: ContactState, now: datetime) -> Ended:
        self._move_to(state)
        self.end_time = now
        return Ended(now, self.version)

    def _move_to(self, state: ContactState) -> None:
        self.state = state
        self.version += 1
