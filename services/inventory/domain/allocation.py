"""Allocation: which units come from where.

From the fewest locations that together have the whole basket, then from those ranked first for the destination. The
same question gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from services.inventory.domain.levels import Level

# So many sets of locations are looked at for the fewest; a shop with more to choose from takes the fullest first.
MOST_SETS = 5000


@dataclass(frozen=True, slots=True)
class Allocation:
    """Units of one SKU from one location."""

    sku: str
    location: str
    quantity: int


def allocate(wanted: Mapping[str, int], levels: Iterable[Level], ranks: Sequence[str] = ()) -> list[Allocation]:
    """The units to take, in (sku, location) order. The caller has checked that enough is free.

    `ranks`: the locations, first choice first; those not named come last, by name.
    """
    shelves: dict[str, dict[str, int]] = {}
    for level in levels:
        if level.free and level.sku in wanted:
            shelves.setdefault(level.location, {})[level.sku] = level.free
    place = {location: number for number, location in enumerate(ranks)}
    by_rank = sorted(shelves, key=lambda location: (place.get(location, len(place)), location))
    chosen = _fewest(wanted, shelves, by_rank)
    allocations = []
    for sku in sorted(wanted):
        left = wanted[sku]
        whole = [location for location in chosen if shelves[location].get(sku, 0) >= left]
        # The fullest shelf first splits the fewest SKUs; equal ones by rank, since sorting keeps their order.
        for location in whole[:1] or sorted(chosen, key=lambda each: -shelves[each].get(sku, 0)):
            taken = min(left, shelves[location].get(sku, 0))
            if taken:
                allocations.append(Allocation(sku, location, taken))
                left -= taken
    return sorted(allocations, key=lambda part: (part.sku, part.location))


def _fewest(
    wanted: Mapping[str, int], shelves: Mapping[str, Mapping[str, int]], by_rank: Sequence[str]
) -> Sequence[str]:
    """The smallest set of locations that has everything; of several, the one whose ranks come first."""
    looked_at = 0
    for size in range(1, len(by_rank)):
        for locations in combinations(by_rank, size):
            if all(sum(shelves[each].get(sku, 0) for each in locations) >= wanted[sku] for sku in wanted):
                return locations
            looked_at += 1
            if looked_at == MOST_SETS:
                return _fullest(wanted, shelves, by_rank)
    return by_rank


def _fullest(
    wanted: Mapping[str, int], shelves: Mapping[str, Mapping[str, int]], by_rank: Sequence[str]
) -> Sequence[str]:
    """Each time the location that has most of what is left; equal ones by rank."""
    left, rest, chosen = dict(wanted), list(by_rank), []
    while any(left.values()):
        best = max(rest, key=lambda each: sum(min(left[sku], units) for sku, units in shelves[each].items()))
        rest.remove(best)
        chosen.append(best)
        left = {sku: max(0, units - shelves[best].get(sku, 0)) for sku, units in left.items()}
    return chosen
