"""What contact needs to know."""

from __future__ import annotations

from datetime import timedelta

from cryptography.fernet import Fernet
from pydantic import Field, SecretStr, field_validator

from services.chassis.settings import ServiceSettings
from services.contact.domain.contact import Promise
from services.contact.domain.routing import Rules


class Settings(ServiceSettings):
    """The chassis' settings, the times of the promise, and the keys of the notes."""

    personal_data_keys: SecretStr = Field(
        description="Fernet keys, comma separated: the first encrypts notes, the others still decrypt"
    )
    hotline_phone_number: str = Field(
        "+18005550199", pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164 number of the hotline"
    )
    hotline_seconds: float = Field(1, gt=0, description="shortest time between two announcements of the hotline")
    hotline_keepalive_seconds: float = Field(30, gt=0, description="longest time between two announcements")
    heartbeat_seconds: float = Field(2, gt=0, description="how often a desk says that it is alive")
    presence_seconds: float = Field(6, gt=0, description="without a heartbeat for this long an agent is absent")
    offer_seconds: float = Field(5, gt=0, description="how long a contact rings at one desk")
    ring_all_seconds: float = Field(10, gt=0, description="from this long after the press all desks ring")
    promise_seconds: float = Field(15, gt=0, description="the promise: a human answers within this time")
    abandon_seconds: float = Field(5, gt=0, description="who leaves within this time is not counted as missed")
    reconnect_seconds: float = Field(
        60, gt=0, description="a waiting customer whose stream broke keeps the rank for this long, then has left"
    )
    note_seconds: float = Field(2, gt=0, description="how often a process notes which contacts are watched")
    sweep_seconds: float = Field(1, gt=0, le=1, description="longest time between two looks at the queue")

    @field_validator("personal_data_keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr) -> SecretStr:
        for key in keys.get_secret_value().split(","):
            Fernet(key.strip())
        return keys

    @property
    def promise(self) -> Promise:
        return Promise(timedelta(seconds=self.promise_seconds), timedelta(seconds=self.abandon_seconds))

    @property
    def rules(self) -> Rules:
        return Rules(
            offer_life=timedelta(seconds=self.offer_seconds),
            ring_all_after=timedelta(seconds=self.ring_all_seconds),
            absent_after=timedelta(seconds=self.presence_seconds),
        )

    @property
    def unwatched_for(self) -> timedelta:
        # A note may be one pause old when the stream breaks, and that of the next stream may come one pause later.
        return timedelta(seconds=self.reconnect_seconds + 2 * self.note_seconds)

    @property
    def hotline_apart(self) -> timedelta:
        # A little less than the pause of those who announce, so that each second has its turn.
        return timedelta(seconds=self.hotline_seconds * 0.9)

    @property
    def hotline_keepalive(self) -> timedelta:
        return timedelta(seconds=self.hotline_keepalive_seconds)
