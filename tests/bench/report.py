"""The report: a table for the terminal, and JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .figures import Measured, Row, figure

WIDTH = 110
CPU_PARTS = ("server", "postgres", "kafka", "client")


def as_json(rows: Sequence[Row], machine: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"machine": machine, "settings": settings, "rows": [row.as_json() for row in rows]}


def noise(elsewhere: Sequence[float], load_before: Sequence[float], load_after: Sequence[float]) -> dict[str, Any]:
    """How much of the machine others used during the runs."""
    return {
        "load_average_before": list(load_before),
        "load_average_after": list(load_after),
        "cpu_used_elsewhere_median": figure(median(elsewhere)) if elsewhere else None,
        "cpu_used_elsewhere_most": figure(max(elsewhere)) if elsewhere else None,
    }


def write(path: Path, report: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table, ours above the ruler: medians of the rounds."""
    yield f"{'':36}{'calls/s':>9}{'p50 ms':>9}{'p99 ms':>9}   CPU ms per call: " + " ".join(
        f"{part:>9}" for part in CPU_PARTS
    )
    for row in rows:
        yield f"\n{row.title}"
        yield from textwrap.wrap(row.note, WIDTH, initial_indent="    ", subsequent_indent="    ")
        for measured in row.contestants:
            yield f"  {measured.name:34}{_figures(measured)}".rstrip()
            if measured.failures:
                yield f"    FAILED: {measured.failures}"
        for ratio in row.ratios:
            verdict = {True: ": holds", False: ": DOES NOT HOLD YET", None: ""}[ratio.holds]
            yield f"  = {ratio.value:.3g} {ratio.what}" + (f" ({ratio.goal}{verdict})" if ratio.goal else "")


def _figures(measured: Measured) -> str:
    per_call = (measured.cpu_per_call(part) for part in CPU_PARTS)
    costs = " ".join(f"{'' if math.isnan(value) else format(value, '.3f'):>9}" for value in per_call)
    rate, p50, p99 = measured.per_second, measured.milliseconds(50), measured.milliseconds(99)
    return f"{rate:>9,.0f}{p50:>9.2f}{p99:>9.2f}   {'':17}{costs}"
