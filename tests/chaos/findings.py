"""What the auditor found: counts of what it looked at, and each rule that does not hold with what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SHOWN = 10


@dataclass(slots=True)
class Findings:
    """Filled by the rules."""

    counts: dict[str, int] = field(default_factory=dict)
    # By rule.
    problems: dict[str, list[str]] = field(default_factory=dict)

    def count(self, what: str, number: int) -> None:
        """So many of these were looked at."""
        self.counts[what] = number

    def wrong(self, rule: str, what: Iterable[str]) -> None:
        """The rule does not hold for each of these; holds if there is none."""
        found = list(what)
        if found:
            self.problems.setdefault(rule, []).extend(found)

    def lines(self) -> Iterator[str]:
        """For people."""
        for what, number in self.counts.items():
            yield f"{number:>8,}  {what}"
        for rule, found in self.problems.items():
            yield f"DOES NOT HOLD: {rule} ({len(found)})"
            yield from (f"    {text}" for text in found[:SHOWN])
        if not self.problems:
            yield "every rule holds"
