"""What loyalty needs to know."""

from __future__ import annotations

from pydantic import Field

from services.chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """The chassis' settings, and the number that stands in every answer of the storefront."""

    hotline_phone_number: str = Field(
        "+18005550199", pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164 number shown when contact said nothing yet"
    )
    review_seconds: float = Field(60, gt=0, description="time between two looks for standings that time has changed")
