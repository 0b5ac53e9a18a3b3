"""What catalog needs to know."""

from __future__ import annotations

from pydantic import Field, field_validator

from services.catalog.domain.currencies import DECIMALS
from services.chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """The chassis' settings, how old the copy of stock may be, and the number that stands on every page."""

    inventory_address: str = Field(min_length=1, description="gRPC target of inventory, such as host:port")
    staleness_bound_seconds: float = Field(2, gt=0, description="past this age of its stock copy, inventory is asked")
    confirm_deadline_seconds: float = Field(0.5, gt=0, description="how long a page waits for inventory's answer")
    reconcile_seconds: float = Field(60, gt=0, description="time between full comparisons with inventory")
    back_in_stock_limit: int = Field(50, ge=1, description="for how many variants one customer may wait at once")
    back_in_stock_retry_seconds: float = Field(
        5, gt=0, description="when a turn that stopped half-way, or whose inventory is away, is gone on with"
    )
    shop_locale: str = Field(
        "en",
        pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$",
        description="BCP 47 tag of the language where none is asked for, or where that has no texts",
    )
    shop_currency: str = Field("EUR", description="ISO 4217 code of the currency that is meant where none is asked for")
    hotline_phone_number: str = Field(
        "+18005550199", pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164 number shown when contact said nothing yet"
    )

    @field_validator("shop_currency")
    @classmethod
    def _is_a_currency(cls, code: str) -> str:
        if code not in DECIMALS:
            raise ValueError("must be a currency of ISO 4217")
        return code
