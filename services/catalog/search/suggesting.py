"""What somebody who types may be looking for, and the tree of categories: all of it in stock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from services.catalog.domain.feed import product_type
from services.catalog.domain.words import SHORT, fold, query_words, split
from services.catalog.queries import Audience
from services.catalog.search import listing
from services.catalog.search.asking import Order, Question, Tokens, Wanted, Word
from services.catalog.search.counting import Counting, Value
from services.chassis.database import Database

MOST_WORDS = 200
# Brands and categories take a part of the list only, as products are what is bought.
MOST_OF_KIND = 3

BEGINNING = f"""
SELECT token FROM search_tokens WHERE kind = 'title' AND value >= $1 AND value < $2 ORDER BY value LIMIT {MOST_WORDS}
"""


class Kind(Enum):
    BRAND = "brand"
    CATEGORY = "category"
    PRODUCT = "product"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What may be meant. A product has its id only, until its title is read."""

    kind: Kind
    text: str
    products: int = 1
    product_id: str = ""


class Suggesting:
    """Suggestions, from what the whole window has."""

    def __init__(self, database: Database, tokens: Tokens, counting: Counting) -> None:
        self._database = database
        self._tokens = tokens
        self._counting = counting

    async def suggest(self, typed: str, currency: str, most: int) -> list[Suggestion]:
        """Brands and categories that begin so, then products whose title has the words, the last one begun."""
        wanted = await self._tokens.wanted(Question(Audience((), currency)))
        if not wanted.currency or not split(typed):
            return []
        whole = await self._counting.whole(wanted.currency)
        folded = " ".join(fold(typed).split())
        named = [
            Suggestion(kind, _shown(kind, each), each.products)
            for kind in (Kind.BRAND, Kind.CATEGORY)
            for each in _beginning(whole.get(kind.value, ()), kind, folded)[:MOST_OF_KIND]
        ][:most]
        found = await self._products(wanted, typed, most - len(named)) if len(named) < most else []
        return named + [Suggestion(Kind.PRODUCT, "", product_id=product_id) for product_id in found]

    async def categories(self, parent: str, currency: str) -> list[Value]:
        """All with something in stock, in the order of their paths. `parent` as `domain.feed.category` writes it."""
        tokens = await self._tokens.of([("currency", currency)])
        if not tokens:
            return []
        whole = await self._counting.whole(tokens["currency", currency])
        below = [each for each in whole.get("category", ()) if each.value.startswith(parent) and each.value != parent]
        return [Value(product_type(each.value), each.products) for each in sorted(below, key=lambda each: each.value)]

    async def _products(self, wanted: Wanted, typed: str, most: int) -> list[str]:
        *whole, begun = split(typed)
        if not typed[-1:].isalnum():
            whole, begun = [*whole, begun], ""
        words = list((await self._tokens.wanted(Question(Audience((), "")), query_words(" ".join(whole)))).words)
        if begun:
            begun_tokens = await self._begun(fold(begun).replace("-", ""))
            words.append(Word(begun_tokens, begun_tokens, begun_tokens, (), ()))
        asked = Wanted(wanted.currency, wanted.foreign, tuple(words))
        found = await listing.page(self._database, asked, Order.RELEVANCE, (), None, most)
        return [each.product_id for each in found]

    async def _begun(self, start: str) -> tuple[int, ...]:
        if len(start) <= SHORT:
            return tuple((await self._tokens.of([("begun", start)])).values())
        rows = await self._database.fetch(BEGINNING, start, start + "\U0010ffff")
        return tuple(row["token"] for row in rows)


def _beginning(values: Sequence[Value], kind: Kind, typed: str) -> list[Value]:
    """Those with a word from which on they begin so; the whole name first, then where most products are."""
    found = []
    for each in values:
        name = fold(_shown(kind, each).rpartition(" > ")[2])
        at = 0 if name.startswith(typed) else name.find(" " + typed)
        if at >= 0:
            found.append((at > 0, -each.products, each.value, each))
    return [each for *_, each in sorted(found, key=lambda one: one[:3])]


def _shown(kind: Kind, each: Value) -> str:
    return product_type(each.value) if kind is Kind.CATEGORY else each.value
