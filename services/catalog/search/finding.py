"""From what was asked to the products found: as it was written, else by article number, else as it was meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.catalog import queries
from services.catalog.domain.words import QueryWord, query_words
from services.catalog.search import listing
from services.catalog.search.asking import Question, Tokens, Wanted
from services.catalog.search.correcting import Correcting
from services.catalog.search.counting import Counted, Counting
from services.catalog.search.listing import Found, Place
from services.catalog.search.suggesting import Suggesting
from services.chassis.database import Database

# Longer is no article number.
MOST_LETTERS = 64


@dataclass(frozen=True, slots=True)
class Search:
    """What was found for a question."""

    question: Question
    found: Sequence[Found]
    # None where products were named by an article number, which `found` has all of.
    wanted: Wanted | None
    # The query that was searched for instead of the one that was asked; empty where it was that one.
    instead: str = ""


class Finding:
    """Searches in the window."""

    def __init__(self, database: Database, shop_currency: str) -> None:
        self._database = database
        self._tokens = Tokens(database, shop_currency)
        self._counting = Counting(database)
        self._correcting = Correcting(database, self._tokens)
        self.suggesting = Suggesting(database, self._tokens, self._counting)

    async def find(self, question: Question, instead: str, after: Place | None, size: int) -> Search:
        """The next products. `instead` is what was searched for to come to `after`, where not what was asked."""
        words = query_words(instead or question.query)
        search = await self._find(question, words, instead, after, size)
        if search.found or after is not None or not question.query:
            return search
        if named := await self._named(question.query):
            return Search(question, named, None)
        async for meant in self._correcting.meant(words):
            better = await self._find(question, meant, " ".join(word.written for word in meant), None, size)
            if better.found:
                return better
        return search

    async def count(self, search: Search) -> Counted:
        """How many there are of what was found, and the values to choose from."""
        if search.wanted is None:
            return Counted(len(search.found), False, {})
        return await self._counting.count(search.wanted)

    async def _find(
        self, question: Question, words: Sequence[QueryWord], instead: str, after: Place | None, size: int
    ) -> Search:
        wanted = await self._tokens.wanted(question, words)
        # A query without a word asks for something, and there is nothing like it.
        if question.query and not words:
            return Search(question, (), wanted, instead)
        found = await listing.page(self._database, wanted, question.order, question.languages, after, size)
        return Search(question, found, wanted, instead)

    async def _named(self, query: str) -> list[Found]:
        article = query.strip()
        if not article.isascii() or not article.isprintable() or " " in article or len(article) > MOST_LETTERS:
            return []
        return [Found(each, Place((), 0)) for each in await queries.named(self._database, article)]
