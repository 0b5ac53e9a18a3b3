"""How well the search finds what people mean: judged queries over the demo's goods."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from deploy.demo_data import generate

JUDGED = Path(__file__).parent / "judged.tsv"
LOOKED_AT = 10
# Feed columns by what a judgement calls them.
COLUMNS = {"category": "product_type"}

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """A query, and what a variant of a product must be to be what was meant (grade 2), or near it (grade 1)."""

    query: str
    locale: str
    wanted: Mapping[str, str]
    good: Mapping[str, str]

    def grade(self, variants: Iterable[Row]) -> int:
        """Of a product with these variants in stock."""
        variants = list(variants)
        if any(_is(variant, self.wanted) for variant in variants):
            return 2
        return int(bool(self.good) and any(_is(variant, self.good) for variant in variants))


@dataclass(frozen=True, slots=True)
class Relevance:
    """What some queries came to."""

    queries: int
    # The mean of one through the rank of the first product that was meant; 0 where none of ten was.
    mrr: float
    # The share of queries with a product that was meant among the first five.
    success_at_5: float
    # How near the first ten are to the best order there is, grades counted.
    ndcg_at_10: float
    failed: Sequence[str]


def judged() -> list[Judged]:
    """All judged queries."""
    with JUDGED.open(encoding="utf-8", newline="") as file:
        return [
            Judged(row["query"], row["locale"], _conditions(row["wanted"]), _conditions(row["good"] or ""))
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def in_stock() -> dict[str, list[Row]]:
    """The demo's variants that are in stock, by product."""
    pieces: dict[str, int] = defaultdict(int)
    for row in read("stock.tsv"):
        pieces[row["sku"]] += int(row["quantity"])
    found: dict[str, list[Row]] = defaultdict(list)
    for row in read("products.tsv"):
        if pieces[row["id"]]:
            found[row["item_group_id"]].append(row)
    return found


def read(name: str) -> list[dict[str, str]]:
    """A file of the demo's data."""
    with (generate.HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


async def measure(queries: Iterable[Judged], search: Callable[[str, str], Awaitable[Sequence[str]]]) -> Relevance:
    """Asks each query; `search` takes it and a locale, and returns product ids, best first."""
    goods = in_stock()
    ranks: list[float] = []
    gains: list[float] = []
    failed: list[str] = []
    for each in queries:
        grades = [each.grade(goods[product_id]) for product_id in (await search(each.query, each.locale))[:LOOKED_AT]]
        rank = next((place for place, grade in enumerate(grades, 1) if grade == 2), 0)
        ranks.append(1 / rank if rank else 0)
        gains.append(_gain(grades) / _gain(sorted((each.grade(rows) for rows in goods.values()), reverse=True)))
        if not 1 <= rank <= 5:
            failed.append(each.query)
    return Relevance(len(ranks), mean(ranks), 1 - len(failed) / len(ranks), mean(gains), failed)


def _gain(grades: Sequence[int]) -> float:
    return sum((2**grade - 1) / (place + 1) ** 0.5 for place, grade in enumerate(grades[:LOOKED_AT])) or 1


def _conditions(text: str) -> Mapping[str, str]:
    return {name: value.replace("_", " ") for name, value in (each.split("=") for each in text.split())}


def _is(variant: Row, conditions: Mapping[str, str]) -> bool:
    return all(_has(variant[COLUMNS.get(name, name)], name, value) for name, value in conditions.items())


def _has(found: str, name: str, value: str) -> bool:
    """Of a text a part is enough; unisex is for everybody."""
    return found in (value, "unisex") if name in ("gender", "size") else value.lower() in found.lower()
