"""What inventory needs to know."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from services.chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """The chassis' settings, and the limits of holds."""

    hold_seconds: int = Field(600, ge=1, description="how long units are held when the caller does not say")
    hold_limit_seconds: int = Field(3600, ge=1, description="how long a hold can live with all its extensions")
    holds_per_customer: int = Field(20, ge=1, description="open holds one customer may have")

    @property
    def hold_time(self) -> timedelta:
        return timedelta(seconds=self.hold_seconds)

    @property
    def hold_limit(self) -> timedelta:
        return timedelta(seconds=self.hold_limit_seconds)
