"""What shipping needs to know."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, SecretStr, field_validator

from services.chassis.settings import ServiceSettings
from services.shipping.sealing import AddressSeal


class Settings(ServiceSettings):
    """The chassis' settings, whom shipping calls, the keys of addresses, and its patience."""

    inventory_address: str = Field(min_length=1, description="gRPC target of inventory")
    catalog_address: str = Field(min_length=1, description="gRPC target of catalog")
    personal_data_keys: SecretStr = Field(
        description="Fernet keys (32 bytes, url-safe base64) that encrypt addresses, comma separated, newest first"
    )
    checkout_grace_seconds: int = Field(
        900, ge=0, description="how long past its hold a checkout may still be ordered, if the goods are free"
    )
    checkout_keep_seconds: int = Field(
        86_400, ge=0, description="how long past its hold a checkout that nobody ordered is kept, with its address"
    )
    order_retry_seconds: float = Field(5, ge=0, description="how long a pending order waits before it is looked after")
    order_give_up_seconds: int = Field(
        600, ge=1, description="age at which a pending order is given up when inventory does not answer"
    )
    hotline_phone_number: str = Field(
        "+18005550199", pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164 number shown when contact said nothing yet"
    )

    @field_validator("personal_data_keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr) -> SecretStr:
        try:
            AddressSeal(keys.get_secret_value())
        except ValueError:
            # What was given is not repeated: it may be a key with a typing error.
            raise ValueError("each key must be 32 bytes in url-safe base64") from None
        return keys

    @property
    def checkout_grace(self) -> timedelta:
        return timedelta(seconds=self.checkout_grace_seconds)

    @property
    def checkout_keep(self) -> timedelta:
        return timedelta(seconds=self.checkout_keep_seconds)

    @property
    def order_retry(self) -> timedelta:
        return timedelta(seconds=self.order_retry_seconds)

    @property
    def order_give_up(self) -> timedelta:
        return timedelta(seconds=self.order_give_up_seconds)
