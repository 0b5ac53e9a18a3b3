"""The countries there are, by ISO 3166-1 alpha-2: the table that comes with the time zones (package tzdata)."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def known_countries() -> frozenset[str]:
    """The codes of all countries."""
    table = (resources.files("tzdata") / "zoneinfo" / "iso3166.tab").read_text(encoding="utf-8")
    return frozenset(line.partition("\t")[0] for line in table.splitlines() if line and not line.startswith("#"))
