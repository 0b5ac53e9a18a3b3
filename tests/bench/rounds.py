"""Rounds: every contestant once in each, in turn, so that all see the same machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .figures import Measured, Run
from .shop import Shop

# Told the number of the round, -1 for the one that only warms up.
Contestant = Callable[[int], Run]


@dataclass(frozen=True, slots=True)
class Bench:
    """What a measurement needs."""

    shop: Shop
    rounds: int
    # How long a contestant has in each round, where it goes by time.
    seconds: float
    say: Callable[[str], None]
    # How many are searched among.
    products: int = 1_000_000
    # Of a file that is imported.
    rows: int = 100_000


def measure(bench: Bench, contestants: Mapping[str, Contestant]) -> list[Measured]:
    """All rounds; the first contestant of one round is the last of the next."""
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for number in range(-1, bench.rounds):
        order = list(contestants)
        for name in order if number % 2 else reversed(order):
            run = contestants[name](number)
            if number >= 0:
                runs[name].append(run)
                bench.say(f"  {number + 1}/{bench.rounds} {name}: {run.per_second:,.0f}/s")
    return [Measured(name, each) for name, each in runs.items()]
