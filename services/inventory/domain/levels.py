"""Levels: what lies at one location of one SKU, and the movements that change it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MovementKind(StrEnum):
    """Why a level changed."""

    RECEIVE = "receive"
    ADJUST = "adjust"
    COUNT = "count"
    RESERVE = "reserve"
    RELEASE = "release"
    EXPIRE = "expire"
    COMMIT = "commit"
    SHIP = "ship"
    RETURN = "return"
    TRANSFER = "transfer"
    WRITE_OFF = "write_off"
    SAFETY = "safety"


@dataclass(frozen=True, slots=True)
class Cause:
    """Who moves something, and why: for the ledger."""

    actor: str
    reason: str = ""
    reservation_id: str | None = None
    order_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Movement:
    """One row of the ledger."""

    sku: str
    location: str
    kind: MovementKind
    on_hand: int
    held: int
    committed: int
    safety: int
    version: int
    cause: Cause


@dataclass(slots=True)
class Level:
    """What lies at one location of one SKU."""

    sku: str
    location: str
    on_hand: int = 0
    held: int = 0
    committed: int = 0
    received_total: int = 0
    version: int = 0
    safety: int = 0

    @property
    def free(self) -> int:
        """Units that can be promised now."""
        return max(0, self.on_hand - self.held - self.committed - self.safety)

    @property
    def movable(self) -> int:
        """Units that nobody was promised, safety stock included."""
        return max(0, self.on_hand - self.held - self.committed)

    @property
    def missing(self) -> int:
        """Units that are promised, to orders or to checkouts, and not there."""
        return max(0, self.held + self.committed - self.on_hand)
