"""Between protobuf's well-known values and Python's."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from services.chassis.errors import InvalidInput

NANOS = Decimal(1_000_000_000)


def to_timestamp(instant: datetime) -> Timestamp:
    """The instant, to the microsecond. Takes aware datetimes only."""
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp


def to_datetime(stamp: Timestamp, field: str = "timestamp") -> datetime:
    """The instant as an aware datetime in UTC, to the microsecond.

    Raises `InvalidInput` naming the field: anybody can send seconds and nanos that are no instant.
    """
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput([(field, "is no instant between the years 1 and 9999")]) from None


def to_money(amount: Decimal, currency: str) -> Money:
    """The amount in an ISO 4217 currency. Units and nanos bear the same sign."""
    units = int(amount)
    return Money(currency_code=currency, units=units, nanos=int((amount - units) * NANOS))


def from_money(money: Money, field: str = "amount") -> Decimal:
    """The amount; exact.

    Raises `InvalidInput` naming the field: anybody can send units and nanos that are no amount, as of different signs.
    """
    if abs(money.nanos) >= NANOS or money.units * money.nanos < 0:
        raise InvalidInput([(field, "has nanos that do not go with its units: less than one unit, of the same sign")])
    return Decimal(money.units) + Decimal(money.nanos) / NANOS
