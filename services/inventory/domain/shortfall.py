"""Shortfalls: what a count below the promises means for whom."""

from __future__ import annotations

from dataclasses import dataclass

from services.inventory.domain.reservation import Purpose


@dataclass(frozen=True, slots=True)
class HurtPromise:
    """A reservation that cannot be kept as things stand; the newest are hurt, older ones are kept."""

    reservation_id: str
    # None while it is held only.
    order_id: str | None
    customer_id: str
    purpose: Purpose
    # Units of the short place it counts on, and how many of these are missing.
    quantity: int
    missing: int
