"""A question as it was asked, and the tokens it is looked up by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum

import asyncpg

from services.catalog.domain.thesaurus import understood
from services.catalog.domain.words import QueryWord
from services.catalog.queries import Audience
from services.chassis.database import Database

# In the order in which they are counted and shown. Those of a product, then those of a variant.
OF_PRODUCT = ("category", "brand")
OF_VARIANT = ("size", "size_system", "color", "width", "material", "gender", "age_group")
ATTRIBUTES = (*OF_PRODUCT, *OF_VARIANT)

# Tokens remembered in this process; one never changes its meaning.
REMEMBERED = 50_000
TOKENS = """
SELECT t.kind, t.value, t.token FROM search_tokens t
JOIN unnest($1::text[], $2::text[]) AS asked(kind, value) ON asked.kind = t.kind AND asked.value = t.value
"""


class Order(Enum):
    RELEVANCE = "relevance"
    POPULARITY = "popularity"
    NEWEST = "newest"
    NAME = "name"
    PRICE_ASCENDING = "price"
    PRICE_DESCENDING = "price down"


@dataclass(frozen=True, slots=True)
class Word:
    """The tokens of a word that is looked for, by where it may stand: the nearer the field, the better."""

    exact: tuple[int, ...]
    own: tuple[int, ...]
    title: tuple[int, ...]
    fact: tuple[int, ...]
    text: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row must have. Of each attribute one of the values, all those of variants in one variant."""

    # The currency's token; 0 where nothing is sold in it.
    currency: int
    # Whether it is another than most is sold in, so that rows are found by it.
    foreign: bool
    words: tuple[Word, ...] = ()
    values: tuple[tuple[str, tuple[int, ...]], ...] = ()
    minimum: Decimal | None = None
    maximum: Decimal | None = None

    def without(self, attribute: str) -> Wanted:
        return replace(self, values=tuple(each for each in self.values if each[0] != attribute))

    @property
    def everything(self) -> bool:
        """Whether it narrows nothing."""
        return not (self.words or self.values or self.minimum is not None or self.maximum is not None)

    @property
    def impossible(self) -> bool:
        """Whether it asks for something that no row ever had."""
        nowhere = any(not (word.title or word.fact or word.text) for word in self.words)
        return not self.currency or nowhere or any(not tokens for _, tokens in self.values)


@dataclass(frozen=True, slots=True)
class Question:
    """What a shopper asks for."""

    audience: Audience
    query: str = ""
    # Attribute to the values of which one must be had.
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    order: Order = Order.POPULARITY

    @property
    def languages(self) -> Sequence[str]:
        """Those of who asks, best first."""
        return list(dict.fromkeys(locale.partition("-")[0] for locale in self.audience.locales))

    @property
    def asks_for_variants(self) -> bool:
        """Whether a product that answers may have variants that do not."""
        prices = self.minimum is not None or self.maximum is not None
        return prices or any(name in OF_VARIANT for name, _ in self.filters)

    def fits(self, variant: asyncpg.Record) -> bool:
        """Whether a variant, a row with its values and its price, has what was asked of variants."""
        price = variant["price"]
        if (self.minimum is not None and price < self.minimum) or (self.maximum is not None and price > self.maximum):
            return False
        return all(variant[name] in values for name, values in self.filters if name in OF_VARIANT)

    def fits_product(self, brand: str, category: str) -> bool:
        """Whether a product has what was asked of products."""
        filters = dict(self.filters)
        brands, categories = filters.get("brand", (brand,)), filters.get("category", ("",))
        return brand in brands and category.startswith(categories)


class Tokens:
    """Words and values to the numbers they have in the index."""

    def __init__(self, database: Database, shop_currency: str) -> None:
        self._database = database
        self._shop_currency = shop_currency
        self._known: dict[tuple[str, str], int] = {}

    async def wanted(self, question: Question, query: Sequence[QueryWord] = ()) -> Wanted:
        """The question, with a query in words, in tokens. What has no token was never in the window."""
        words = [each for word in query for each in understood(word)]
        asked = {("currency", question.audience.currency)}
        asked |= {(attribute, value) for attribute, values in question.filters for value in values}
        asked |= {(kind, form) for word in words for form in word.forms for kind in ("title", "fact", "text")}
        found = await self.of(asked)
        return Wanted(
            currency=found.get(("currency", question.audience.currency), 0),
            foreign=question.audience.currency != self._shop_currency,
            words=tuple(
                Word(
                    _tokens(found, "title", word.exact),
                    _tokens(found, "title", word.own),
                    _tokens(found, "title", word.forms),
                    _tokens(found, "fact", word.forms),
                    _tokens(found, "text", word.forms),
                )
                for word in words
            ),
            values=tuple((attribute, _tokens(found, attribute, values)) for attribute, values in question.filters),
            minimum=question.minimum,
            maximum=question.maximum,
        )

    async def of(self, keys: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        """The tokens of (kind, value), of those that have one."""
        keys = set(keys)
        asked: Sequence[tuple[str, str]] = sorted(keys - self._known.keys())
        if asked:
            rows = await self._database.fetch(TOKENS, [kind for kind, _ in asked], [value for _, value in asked])
            if len(self._known) > REMEMBERED:
                self._known.clear()
                return await self.of(keys)
            self._known.update(((row["kind"], row["value"]), row["token"]) for row in rows)
        return {key: self._known[key] for key in keys if key in self._known}


def _tokens(found: Mapping[tuple[str, str], int], kind: str, values: Iterable[str]) -> tuple[int, ...]:
    return tuple(sorted(found[kind, value] for value in values if (kind, value) in found))
