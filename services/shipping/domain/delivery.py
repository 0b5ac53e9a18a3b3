"""When a parcel arrives: service levels, carriers, business days, and the promise made of them. Pure.

A parcel leaves on the first business day of the warehouse whose cut-off has not passed, and arrives so many business
days of its destination later. Business days are Monday to Friday without the public holidays of the country.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo

import holidays

from services.chassis.errors import NotNow

CURRENCY = "EUR"
CUT_OFF = time(15)


class ServiceLevel(StrEnum):
    """How fast."""

    STANDARD = "standard"
    EXPRESS = "express"
    OVERNIGHT = "overnight"


@dataclass(frozen=True, slots=True)
class Country:
    """A country we deliver to. All of it lies in one zone."""

    code: str
    name: str
    zone: str


@dataclass(frozen=True, slots=True)
class Service:
    """What a carrier does for us: business days from the day it leaves, and the price at home and abroad."""

    carrier: str
    fastest: int
    slowest: int
    home_price: Decimal
    abroad_price: Decimal

    @property
    def days(self) -> str:
        """In plain words."""
        if self.fastest != self.slowest:
            return f"{self.fastest} to {self.slowest} business days"
        return "1 business day" if self.slowest == 1 else f"{self.slowest} business days"


# Slowest first: the order in which they are shown.
SERVICES: Mapping[ServiceLevel, Service] = {
    ServiceLevel.STANDARD: Service("Landpost", 3, 5, Decimal("0.00"), Decimal("4.90")),
    ServiceLevel.EXPRESS: Service("Eilbote", 2, 2, Decimal("6.90"), Decimal("12.90")),
    ServiceLevel.OVERNIGHT: Service("Nachtflug", 1, 1, Decimal("14.90"), Decimal("29.90")),
}
COUNTRIES: Mapping[str, Country] = {
    country.code: country
    for country in (
        Country("AT", "Austria", "Europe/Vienna"),
        Country("CZ", "Czechia", "Europe/Prague"),
        Country("DE", "Germany", "Europe/Berlin"),
        Country("FI", "Finland", "Europe/Helsinki"),
        Country("HU", "Hungary", "Europe/Budapest"),
        Country("IE", "Ireland", "Europe/Dublin"),
        Country("PL", "Poland", "Europe/Warsaw"),
        Country("SK", "Slovakia", "Europe/Bratislava"),
    )
}
WAREHOUSE = COUNTRIES["AT"]
WAREHOUSE_ZONE = ZoneInfo(WAREHOUSE.zone)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


class DestinationNotServed(NotNow):
    """We do not deliver there."""

    reason = "DESTINATION_NOT_SERVED"

    def __init__(self, country: str) -> None:
        super().__init__(f"we do not deliver to {country} yet", country=country)


@dataclass(frozen=True, slots=True)
class DeliveryPromise:
    """The days between which a parcel arrives, in the customer's zone."""

    service_level: ServiceLevel
    earliest: date
    latest: date
    # The end of the latest day; what arrives at this instant is late.
    deadline: datetime
    time_zone: str

    def is_kept_by(self, delivery_time: datetime) -> bool:
        """Whether a parcel delivered then was there in time."""
        return delivery_time < self.deadline


@dataclass(frozen=True, slots=True)
class DeliveryQuote:
    """One way to have it delivered."""

    service_level: ServiceLevel
    carrier: str
    price: Decimal
    promise: DeliveryPromise
    # Order before this instant to keep that date.
    cut_off: datetime
    time_to_cut_off: timedelta
    reasons: tuple[str, ...]


def quote_delivery(now: datetime, country_code: str) -> tuple[DeliveryQuote, ...]:
    """Every way to have it delivered when ordered now, slowest first. Raises `DestinationNotServed`."""
    return tuple(quote(now, country_code, level) for level in SERVICES)


def quote(now: datetime, country_code: str, level: ServiceLevel) -> DeliveryQuote:
    """One way to have it delivered when ordered now. Raises `DestinationNotServed`."""
    country = COUNTRIES.get(country_code)
    if country is None:
        raise DestinationNotServed(country_code)
    service = SERVICES[level]
    leaves = leaving_day(now)
    cut_off = datetime.combine(leaves, CUT_OFF, WAREHOUSE_ZONE).astimezone(UTC)
    latest = business_days_after(leaves, service.slowest, country.code)
    promise = DeliveryPromise(
        level,
        business_days_after(leaves, service.fastest, country.code),
        latest,
        _start_of(latest + timedelta(days=1), country.zone),
        country.zone,
    )
    return DeliveryQuote(
        level,
        service.carrier,
        service.home_price if country == WAREHOUSE else service.abroad_price,
        promise,
        cut_off,
        cut_off - now,
        _reasons(now, leaves, country, service, latest),
    )


def leaving_day(now: datetime) -> date:
    """The day on which what is ordered now leaves the warehouse. At the cut-off it is too late for that day."""
    local = now.astimezone(WAREHOUSE_ZONE)
    day = local.date()
    if local.timetz().replace(tzinfo=None) >= CUT_OFF:
        day += timedelta(days=1)
    while not is_business_day(day, WAREHOUSE.code):
        day += timedelta(days=1)
    return day


def business_days_after(day: date, count: int, country_code: str) -> date:
    """The day that is so many business days of the country later."""
    while count:
        day += timedelta(days=1)
        count -= is_business_day(day, country_code)
    return day


def is_business_day(day: date, country_code: str) -> bool:
    """Monday to Friday and no public holiday."""
    return day.weekday() < 5 and day not in _holidays(country_code)


@cache
def _holidays(country_code: str) -> holidays.HolidayBase:
    # In one language on every machine; years are added as they are asked for.
    return holidays.country_holidays(country_code, language="en_US")


def _start_of(day: date, zone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


def _reasons(now: datetime, leaves: date, country: Country, service: Service, latest: date) -> tuple[str, ...]:
    today = now.astimezone(WAREHOUSE_ZONE).date()
    at = f"{CUT_OFF:%H:%M} Vienna time"
    if leaves == today:
        reasons = [f"Ordered before {at}, it leaves our house today."]
    elif is_business_day(today, WAREHOUSE.code):
        reasons = [f"Today's parcels left at {at}; this one leaves on {_named(leaves)}."]
    else:
        reasons = [f"Our house is closed today; it leaves on {_named(leaves)}."]
    reasons.append(f"{service.carrier} takes {service.days}.")
    on_the_way = [leaves + timedelta(days=number) for number in range(1, (latest - leaves).days + 1)]
    if any(day.weekday() >= 5 for day in on_the_way):
        reasons.append("Nothing is delivered on Saturdays and Sundays.")
    reasons += [
        f"Nothing is delivered on {_named(day)}: {_holidays(country.code)[day]} in {country.name}."
        for day in on_the_way
        if day.weekday() < 5 and day in _holidays(country.code)
    ]
    return tuple(reasons)


def _named(day: date) -> str:
    # Not by strftime, which follows the machine's language.
    return f"{WEEKDAYS[day.weekday()]} {day.day} {MONTHS[day.month - 1]}"
