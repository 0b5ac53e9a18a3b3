"""What inventory needs to know."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from services.chassis.settings import ServiceSettings
from services.inventory.domain.limits import HoldLimits
from services.inventory.domain.reservation import Purpose


class Settings(ServiceSettings):
    """The chassis' settings, and the limits of holds."""

    hold_seconds: int = Field(600, ge=1, description="how long units are held when the caller does not say")
    hold_limit_seconds: int = Field(3600, ge=1, description="how long a hold can live with all its extensions")
    waiting_hold_limit_seconds: int = Field(
        86_400, ge=1, description="how long units can be held for a customer who waited for them"
    )
    holds_per_customer: int = Field(20, ge=1, description="open holds one customer may have")
    holds_per_guest: int = Field(5, ge=1, description="open holds a customer without an account may have")
    holds_per_peer: int = Field(500, ge=1, description="open holds all callers from one address may have together")
    waiting_holds_per_customer: int = Field(20, ge=1, description="turns of one waiting customer open at once")
    units_per_line: int = Field(100, ge=1, description="units of one SKU one hold may take")

    def usual_hold_time(self, purpose: Purpose) -> timedelta:
        """How long units are held when the caller does not say. Who waited has all the time there is."""
        usual = self.hold_seconds if purpose is Purpose.CHECKOUT else self.waiting_hold_limit_seconds
        return timedelta(seconds=usual)

    def hold_limit(self, purpose: Purpose) -> timedelta:
        """How long a hold can live."""
        limit = self.hold_limit_seconds if purpose is Purpose.CHECKOUT else self.waiting_hold_limit_seconds
        return timedelta(seconds=limit)

    @property
    def limits(self) -> HoldLimits:
        return HoldLimits(
            self.holds_per_customer,
            self.holds_per_guest,
            self.holds_per_peer,
            self.waiting_holds_per_customer,
            self.units_per_line,
        )
