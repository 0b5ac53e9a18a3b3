"""When a parcel arrives: reference cases worked out by hand with a calendar of 2026."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shipping.domain.delivery import (
    COUNTRIES,
    SERVICES,
    WAREHOUSE_ZONE,
    DestinationNotServed,
    ServiceLevel,
    business_days_after,
    is_business_day,
    leaving_day,
    quote,
    quote_delivery,
)

STANDARD, EXPRESS, OVERNIGHT = ServiceLevel.STANDARD, ServiceLevel.EXPRESS, ServiceLevel.OVERNIGHT


def vienna(text: str) -> datetime:
    # As the database says it: in UTC.
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Vienna")).astimezone(UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# ordered (Vienna time), country, level -> earliest, latest, deadline (UTC), cut-off (UTC)
CASES = [
    # An ordinary Monday.
    ("2026-02-02 09:00", "AT", STANDARD, "2026-02-05", "2026-02-09", "2026-02-09 23:00", "2026-02-02 14:00"),
    ("2026-02-02 09:00", "AT", EXPRESS, "2026-02-04", "2026-02-04", "2026-02-04 23:00", "2026-02-02 14:00"),
    ("2026-02-02 09:00", "AT", OVERNIGHT, "2026-02-03", "2026-02-03", "2026-02-03 23:00", "2026-02-02 14:00"),
    # The cut-off, to the second: at 15:00:00 it is too late.
    ("2026-02-02 14:59:59", "AT", OVERNIGHT, "2026-02-03", "2026-02-03", "2026-02-03 23:00", "2026-02-02 14:00"),
    ("2026-02-02 15:00:00", "AT", OVERNIGHT, "2026-02-04", "2026-02-04", "2026-02-04 23:00", "2026-02-03 14:00"),
    # A Friday before and after it, and a Sunday.
    ("2026-02-06 14:59:59", "DE", OVERNIGHT, "2026-02-09", "2026-02-09", "2026-02-09 23:00", "2026-02-06 14:00"),
    ("2026-02-06 15:00:00", "DE", OVERNIGHT, "2026-02-10", "2026-02-10", "2026-02-10 23:00", "2026-02-09 14:00"),
    ("2026-02-08 20:00", "DE", OVERNIGHT, "2026-02-10", "2026-02-10", "2026-02-10 23:00", "2026-02-09 14:00"),
    # Summer time begins on Sunday 29 March: the cut-off and the end of the day move by an hour.
    ("2026-03-27 14:59:59", "AT", OVERNIGHT, "2026-03-30", "2026-03-30", "2026-03-30 22:00", "2026-03-27 14:00"),
    ("2026-03-29 12:00", "AT", OVERNIGHT, "2026-03-31", "2026-03-31", "2026-03-31 22:00", "2026-03-30 13:00"),
    # Summer time ends on Sunday 25 October (and 26 October is Austria's national day: nothing leaves, nothing arrives).
    ("2026-10-23 14:59:59", "AT", OVERNIGHT, "2026-10-27", "2026-10-27", "2026-10-27 23:00", "2026-10-23 13:00"),
    ("2026-10-23 15:00:00", "DE", OVERNIGHT, "2026-10-28", "2026-10-28", "2026-10-28 23:00", "2026-10-27 14:00"),
    ("2026-10-22 10:00", "DE", EXPRESS, "2026-10-26", "2026-10-26", "2026-10-26 23:00", "2026-10-22 13:00"),
    # Good Friday is a holiday in Germany, Czechia and Slovakia but not in Austria; Easter Monday in all of them.
    ("2026-04-02 10:00", "AT", OVERNIGHT, "2026-04-03", "2026-04-03", "2026-04-03 22:00", "2026-04-02 13:00"),
    ("2026-04-02 10:00", "DE", OVERNIGHT, "2026-04-07", "2026-04-07", "2026-04-07 22:00", "2026-04-02 13:00"),
    ("2026-04-02 10:00", "SK", EXPRESS, "2026-04-08", "2026-04-08", "2026-04-08 22:00", "2026-04-02 13:00"),
    ("2026-04-03 10:00", "DE", OVERNIGHT, "2026-04-07", "2026-04-07", "2026-04-07 22:00", "2026-04-03 13:00"),
    ("2026-04-05 10:00", "AT", OVERNIGHT, "2026-04-08", "2026-04-08", "2026-04-08 22:00", "2026-04-07 13:00"),
    # Christmas: the 24th is a holiday in Czechia and Slovakia; 25 and 26 December everywhere; the 26th is a Saturday.
    ("2026-12-23 10:00", "AT", OVERNIGHT, "2026-12-24", "2026-12-24", "2026-12-24 23:00", "2026-12-23 14:00"),
    ("2026-12-23 10:00", "CZ", OVERNIGHT, "2026-12-28", "2026-12-28", "2026-12-28 23:00", "2026-12-23 14:00"),
    ("2026-12-24 16:00", "DE", OVERNIGHT, "2026-12-29", "2026-12-29", "2026-12-29 23:00", "2026-12-28 14:00"),
    ("2026-12-22 10:00", "SK", STANDARD, "2026-12-29", "2026-12-31", "2026-12-31 23:00", "2026-12-22 14:00"),
    # Other zones: the day of a Finn ends an hour earlier, that of an Irishman an hour later.
    ("2026-02-02 09:00", "FI", OVERNIGHT, "2026-02-03", "2026-02-03", "2026-02-03 22:00", "2026-02-02 14:00"),
    ("2026-07-06 09:00", "FI", OVERNIGHT, "2026-07-07", "2026-07-07", "2026-07-07 21:00", "2026-07-06 13:00"),
    ("2026-02-03 09:00", "IE", OVERNIGHT, "2026-02-04", "2026-02-04", "2026-02-05 00:00", "2026-02-03 14:00"),
    ("2026-07-06 09:00", "IE", OVERNIGHT, "2026-07-07", "2026-07-07", "2026-07-07 23:00", "2026-07-06 13:00"),
]


@pytest.mark.parametrize(("ordered", "country", "level", "earliest", "latest", "deadline", "cut_off"), CASES)
def test_reference_cases(
    ordered: str, country: str, level: ServiceLevel, earliest: str, latest: str, deadline: str, cut_off: str
) -> None:
    found = quote(vienna(ordered), country, level)
    assert (found.promise.earliest, found.promise.latest) == (date.fromisoformat(earliest), date.fromisoformat(latest))
    assert found.promise.deadline == utc(deadline)
    assert found.cut_off == utc(cut_off)
    assert found.time_to_cut_off == utc(cut_off) - vienna(ordered)


def test_slowest_first_with_prices() -> None:
    home, abroad = quote_delivery(vienna("2026-02-02 09:00"), "AT"), quote_delivery(vienna("2026-02-02 09:00"), "DE")
    assert [one.service_level for one in home] == [STANDARD, EXPRESS, OVERNIGHT]
    assert [one.price for one in home] == [Decimal("0.00"), Decimal("6.90"), Decimal("14.90")]
    assert [one.price for one in abroad] == [Decimal("4.90"), Decimal("12.90"), Decimal("29.90")]


def test_reasons_are_plain_words() -> None:
    assert quote(vienna("2026-04-02 10:00"), "DE", OVERNIGHT).reasons == (
        "Ordered before 15:00 Vienna time, it leaves our house today.",
        "Nachtflug takes 1 business day.",
        "Nothing is delivered on Saturdays and Sundays.",
        "Nothing is delivered on Friday 3 April: Good Friday in Germany.",
        "Nothing is delivered on Monday 6 April: Easter Monday in Germany.",
    )
    assert quote(vienna("2026-02-02 15:00"), "AT", STANDARD).reasons[:2] == (
        "Today's parcels left at 15:00 Vienna time; this one leaves on Tuesday 3 February.",
        "Landpost takes 3 to 5 business days.",
    )
    closed = quote(vienna("2026-02-07 15:00"), "AT", EXPRESS)
    assert closed.reasons[0] == "Our house is closed today; it leaves on Monday 9 February."


def test_a_country_we_do_not_serve() -> None:
    with pytest.raises(DestinationNotServed) as refused:
        quote_delivery(vienna("2026-02-02 09:00"), "US")
    assert (refused.value.reason, refused.value.details) == ("DESTINATION_NOT_SERVED", {"country": "US"})


def test_at_the_deadline_it_is_late() -> None:
    promise = quote(vienna("2026-02-02 09:00"), "AT", OVERNIGHT).promise
    assert promise.is_kept_by(promise.deadline - timedelta(microseconds=1))
    assert not promise.is_kept_by(promise.deadline)


@given(st.integers(0, 10 * 365 * 86400), st.sampled_from(sorted(COUNTRIES)))
def test_every_quote_holds_together(second: int, country: str) -> None:
    now = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    quotes = quote_delivery(now, country)
    leaves = leaving_day(now)
    assert is_business_day(leaves, "AT")
    assert leaves - now.astimezone(WAREHOUSE_ZONE).date() <= timedelta(days=6)
    for one in quotes:
        assert timedelta() < one.time_to_cut_off
        assert is_business_day(one.promise.latest, country)
        assert leaves < one.promise.earliest <= one.promise.latest
        assert one.promise.latest == business_days_after(leaves, SERVICES[one.service_level].slowest, country)
        zone = ZoneInfo(one.promise.time_zone)
        assert one.promise.deadline.astimezone(zone).date() == one.promise.latest + timedelta(days=1)
        assert (one.promise.deadline - timedelta(microseconds=1)).astimezone(zone).date() == one.promise.latest
    assert quotes[0].promise.deadline > quotes[1].promise.deadline > quotes[2].promise.deadline
    # Ordering a moment before the cut-off gives the same date, at the cut-off a later one.
    assert quote(quotes[2].cut_off - timedelta(microseconds=1), country, OVERNIGHT).promise == quotes[2].promise
    later = quote(quotes[2].cut_off, country, OVERNIGHT).promise
    assert later.deadline >= quotes[2].promise.deadline
