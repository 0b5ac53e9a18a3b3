"""Numbers: what one run came to, and what several rounds of runs say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed (nearest rank); NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(1, math.ceil(percent / 100 * len(ordered))) - 1]


@dataclass(frozen=True, slots=True)
class Run:
    """One contestant in one round."""

    # Wall clock.
    seconds: float
    # Of each call that succeeded.
    micros: Sequence[int]
    # CPU seconds spent meanwhile, by part: "server", "postgres", ...
    cpu: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Calls that succeeded."""
        return len(self.micros)

    @property
    def per_second(self) -> float:
        return self.calls / self.seconds

    def milliseconds(self, percent: float) -> float:
        """A percentile of the latencies."""
        return percentile(self.micros, percent) / 1000

    def cpu_per_call(self, part: str) -> float:
        """CPU milliseconds a call cost this part; NaN when it was not measured."""
        return self.cpu[part] * 1000 / self.calls if self.calls and part in self.cpu else math.nan


@dataclass(frozen=True, slots=True)
class Measured:
    """One contestant in all rounds; every figure is the median of the rounds'."""

    name: str
    runs: Sequence[Run]

    @property
    def per_second(self) -> float:
        return median(run.per_second for run in self.runs)

    def milliseconds(self, percent: float) -> float:
        return median(run.milliseconds(percent) for run in self.runs)

    def cpu_per_call(self, part: str) -> float:
        return median(run.cpu_per_call(part) for run in self.runs)

    @property
    def parts(self) -> list[str]:
        """The parts whose CPU was measured."""
        return sorted({part for run in self.runs for part in run.cpu})

    @property
    def failures(self) -> dict[str, int]:
        """How many calls failed over all rounds, by status."""
        found: dict[str, int] = {}
        for run in self.runs:
            for status, count in run.failures.items():
                found[status] = found.get(status, 0) + count
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "calls_per_second": figure(self.per_second),
            "p50_ms": figure(self.milliseconds(50)),
            "p99_ms": figure(self.milliseconds(99)),
            "cpu_ms_per_call": {part: figure(self.cpu_per_call(part)) for part in self.parts},
            "failures": self.failures,
            "rounds": [
                {
                    "calls": run.calls,
                    "seconds": figure(run.seconds),
                    "p50_ms": figure(run.milliseconds(50)),
                    "p99_ms": figure(run.milliseconds(99)),
                    "cpu_seconds": {part: figure(seconds) for part, seconds in run.cpu.items()},
                }
                for run in self.runs
            ],
        }


@dataclass(frozen=True, slots=True)
class Ratio:
    """What a comparison came to, and what it is meant to be."""

    what: str
    value: float
    # The bound, and on which side of it the value should be.
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool | None:
        """None where nothing is asked for."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"


def paired(ours: Measured, ruler: Measured, figure_of: Callable[[Run], float]) -> float:
    """The median of the rounds' ratios ours / ruler: both of a round saw the same machine."""
    return median(figure_of(a) / figure_of(b) for a, b in zip(ours.runs, ruler.runs, strict=True))


def by_rate(run: Run) -> float:
    return run.per_second


def by_server_cpu(run: Run) -> float:
    return run.cpu_per_call("server")


def by_server_and_database_cpu(run: Run) -> float:
    return run.cpu_per_call("server") + run.cpu_per_call("postgres")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: ours, what it is measured against, and what that says."""

    title: str
    contestants: Sequence[Measured]
    ratios: Sequence[Ratio] = ()
    # What the reader should know about this line.
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "contestants": [each.as_json() for each in self.contestants],
            "ratios": [
                {"what": ratio.what, "value": figure(ratio.value), "goal": ratio.goal, "holds": ratio.holds}
                for ratio in self.ratios
            ],
            "note": self.note,
        }


def figure(value: float) -> float | None:
    """Four significant digits; None for NaN, which JSON has not."""
    return None if math.isnan(value) else float(f"{value:.4g}")
