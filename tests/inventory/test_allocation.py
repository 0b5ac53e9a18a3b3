"""Which units come from where: the fewest locations, then the rank, and always the same."""

from __future__ import annotations

import random
from itertools import combinations

from services.inventory.domain.allocation import Allocation, allocate
from services.inventory.domain.levels import Level


def shelves(**locations: dict[str, int]) -> list[Level]:
    return [
        Level(sku, location, on_hand=units) for location, stock in locations.items() for sku, units in stock.items()
    ]


def taken(allocations: list[Allocation]) -> list[tuple[str, str, int]]:
    return [(part.sku, part.location, part.quantity) for part in allocations]


def test_two_locations_that_have_all_go_before_three() -> None:
    # The fullest shelf (x) leads to three parcels; y and z together have all of it.
    levels = shelves(x={"a": 5, "b": 5}, y={"a": 4, "c": 4}, z={"b": 4, "d": 4})
    found = allocate({"a": 4, "b": 4, "c": 4, "d": 4}, levels)
    assert taken(found) == [("a", "y", 4), ("b", "z", 4), ("c", "y", 4), ("d", "z", 4)]


def test_of_equal_sets_the_rank_decides_and_then_the_name() -> None:
    levels = shelves(x={"a": 1}, y={"a": 1}, z={"a": 1})
    assert taken(allocate({"a": 1}, levels)) == [("a", "x", 1)]
    assert taken(allocate({"a": 1}, levels, ["z", "y"])) == [("a", "z", 1)]
    assert taken(allocate({"a": 2}, levels, ["z"])) == [("a", "x", 1), ("a", "z", 1)]


def test_the_rank_never_costs_a_parcel() -> None:
    levels = shelves(far={"a": 1, "b": 1}, near={"a": 1}, next={"b": 1})
    assert {part.location for part in allocate({"a": 1, "b": 1}, levels, ["near", "next"])} == {"far"}


def test_it_is_a_real_minimum_and_always_the_same() -> None:
    dice = random.Random(5)
    for _ in range(300):
        places = [f"l{number}" for number in range(dice.randint(1, 7))]
        levels = [
            Level(sku, place, on_hand=dice.randint(0, 4)) for place in places for sku in "abc" if dice.random() < 0.7
        ]
        there = {sku: sum(level.free for level in levels if level.sku == sku) for sku in "abc"}
        wanted = {sku: dice.randint(1, units) for sku, units in there.items() if units}
        if not wanted:
            continue
        ranks = dice.sample(places, dice.randint(0, len(places)))
        found = allocate(wanted, levels, ranks)
        assert {sku: sum(part.quantity for part in found if part.sku == sku) for sku in wanted} == wanted
        assert all(part.quantity <= _free(levels, part.sku, part.location) for part in found)
        fewest = next(
            size
            for size in range(1, len(places) + 1)
            for chosen in combinations(places, size)
            if all(sum(_free(levels, sku, place) for place in chosen) >= units for sku, units in wanted.items())
        )
        assert len({part.location for part in found}) == fewest
        assert allocate(dict(reversed(wanted.items())), dice.sample(levels, len(levels)), ranks) == found


def _free(levels: list[Level], sku: str, location: str) -> int:
    return sum(level.free for level in levels if (level.sku, level.location) == (sku, location))


def test_the_search_is_bounded() -> None:
    # Forty locations with one unit each: no set is looked at for ever, and all units are found.
    levels = shelves(**{f"l{number:02}": {"a": 1} for number in range(40)})
    assert sum(part.quantity for part in allocate({"a": 20}, levels)) == 20
