"""Somebody who waits for a variant to come back, and whose turn it is.

    waiting ──units came in, or the one before gave up──> turn ──held at inventory──> held ──into a checkout──> taken
       ^                                                   │                           └──time ran out──> lapsed
       └────────── somebody else bought the unit ──────────┘
    turn, held ──unsubscribed──> leaving ──given back at inventory──> (deleted)         waiting ──> (deleted)

Whoever ends a turn without taking the unit passes it on to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.chassis.errors import NotFound, NotNow, TooMuch


class State(StrEnum):
    """Where a subscription stands."""

    WAITING = "waiting"
    # A unit is to be held for them.
    TURN = "turn"
    HELD = "held"
    TAKEN = "taken"
    LAPSED = "lapsed"
    # What is held, or may be, is to be given back.
    LEAVING = "leaving"


OPEN = (State.WAITING, State.TURN, State.HELD)


class UnknownVariant(NotFound):
    """Nobody can wait for what is not sold here."""


class InStock(NotNow):
    """Nobody need wait: it can be ordered."""

    reason = "IN_STOCK"


class Discontinued(NotNow):
    """It is no longer sold."""

    reason = "DISCONTINUED"


class TooManySubscriptions(TooMuch):
    """A customer waits for as many variants as allowed."""

    reason = "TOO_MANY_SUBSCRIPTIONS"


@dataclass(frozen=True, slots=True)
class BackInStock:
    """A unit is held for a customer who waited."""

    subscription_id: str
    version: int
    customer_id: str
    sku: str
    product_id: str
    reservation_id: str
    hold_expire_time: datetime
    time: datetime


@dataclass(slots=True)
class Subscription:
    """One customer who waits for one variant."""

    subscription_id: str
    customer_id: str
    sku: str
    product_id: str
    state: State
    place: int
    turn: int
    version: int
    create_time: datetime
    reservation_id: str | None = None
    hold_expire_time: datetime | None = None
    end_time: datetime | None = None
    journey_id: str | None = None

    @property
    def hold_request_id(self) -> str:
        """What the hold of this turn is asked with: a repeat is the same hold."""
        return f"wait:{self.subscription_id}:{self.turn}"

    def begin_turn(self) -> None:
        """A unit is there for them."""
        self._move(State.WAITING, State.TURN)
        self.turn += 1

    def hold(self, reservation_id: str, expire_time: datetime, now: datetime) -> BackInStock:
        """It is held at inventory, so they are told."""
        self._move(State.TURN, State.HELD)
        self.reservation_id = reservation_id
        self.hold_expire_time = expire_time
        return BackInStock(
            self.subscription_id,
            self.version,
            self.customer_id,
            self.sku,
            self.product_id,
            reservation_id,
            expire_time,
            now,
        )

    def wait_on(self) -> None:
        """There was no unit for them after all. They keep their place."""
        self._move(State.TURN, State.WAITING)

    def take(self, now: datetime) -> None:
        """Their unit went into a checkout of theirs, perhaps before they were told."""
        self._move(State.HELD if self.state is State.HELD else State.TURN, State.TAKEN)
        self.end_time = now

    def lapse(self, now: datetime) -> None:
        """They let their time run out."""
        self._move(State.HELD, State.LAPSED)
        self.end_time = now

    def leave(self) -> bool:
        """They want it no more. Whether something is held for them, or may be, and must be given back first."""
        if self.state in (State.WAITING, State.TAKEN, State.LAPSED):
            return False
        if self.state is not State.LEAVING:
            self.state = State.LEAVING
            self.version += 1
        return True

    def _move(self, expected: State, to: State) -> None:
        if self.state is not expected:
            raise AssertionError(f"a subscription that is {self.state} cannot become {to}")
        self.state = to
        self.version += 1
