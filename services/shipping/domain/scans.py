"""When a scanner can have seen a parcel. What lies outside is a mistake of a clock or of a number, and no delivery."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.chassis.errors import InvalidInput

# Scanners' clocks are not ours, and carriers send some scans late, of a parcel that came back late.
AHEAD = timedelta(minutes=5)
LATE = timedelta(days=60)
# A parcel may be handed over before our house says so.
BEFORE_DISPATCH = timedelta(days=1)


def check_scan_time(scan_time: datetime, now: datetime, dispatch_time: datetime | None) -> None:
    """`dispatch_time` is None while nobody knows the parcel. Raises `InvalidInput`."""
    if scan_time > now + AHEAD:
        raise InvalidInput([("scan_time", f"is in the future; it is {now.isoformat()}")])
    if scan_time < now - LATE:
        raise InvalidInput([("scan_time", f"is more than {LATE.days} days ago; it is {now.isoformat()}")])
    if dispatch_time is not None and scan_time < dispatch_time - BEFORE_DISPATCH:
        raise InvalidInput([("scan_time", f"is before the parcel left at {dispatch_time.isoformat()}")])
