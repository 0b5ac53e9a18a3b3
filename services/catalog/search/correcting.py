"""What was meant, where nothing is found for a query as it was written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from services.catalog.domain.spelling import distance, forgiven, misspelt
from services.catalog.domain.thesaurus import near, understood
from services.catalog.domain.words import QueryWord, fold, query_word
from services.catalog.search.asking import Tokens
from services.chassis.database import Database

# Words looked at for each misspelt one. One that is near very many is hardly a word at all.
CANDIDATES = 200
# A query of which many words lead nowhere is not searched in all its parts.
MOST_DROPPED = 4

NEAR = f"""
SELECT value FROM search_tokens
WHERE kind = 'written' AND misspelt && $1::text[] ORDER BY abs(length(value) - $2) LIMIT {CANDIDATES}
"""
# Where the best of these words stands in the window: in how many titles of a sample, and whether anywhere.
STANDING = """
SELECT n, (SELECT count(*) FROM (SELECT FROM search_rows r WHERE r.tokens && ARRAY[title] LIMIT 1000) r) AS products
FROM unnest($1::int[], $2::int[]) AS asked(n, title)
"""


@dataclass(frozen=True, slots=True)
class _Candidate:
    word: QueryWord
    errors: int
    other_start: bool


class Correcting:
    """Looks for queries that were meant."""

    def __init__(self, database: Database, tokens: Tokens) -> None:
        self._database = database
        self._tokens = tokens

    async def meant(self, words: Sequence[QueryWord]) -> AsyncIterator[Sequence[QueryWord]]:
        """Queries to try instead, likeliest first: misspelt words corrected, then without one that leads nowhere."""
        corrected = []
        for word in words:
            better = word if await self._exists(word) else await self._nearest(word)
            if better is not None:
                corrected.append(better)
        corrected = list({word.written: word for word in corrected}.values())
        if not corrected:
            return
        if [word.written for word in corrected] != [word.written for word in words]:
            yield corrected
        if len(corrected) > 1:
            # What is said last matters least, as a rule; what says a kind of goods in German and English stands last.
            for dropped in range(min(len(corrected), MOST_DROPPED)):
                yield corrected[:dropped] + corrected[dropped + 1 :]

    async def _exists(self, word: QueryWord) -> bool:
        """Whether something in the window has it."""
        titles = [
            token
            for each in understood(word)
            for token in (
                await self._tokens.of((k, form) for form in each.forms for k in ("title", "fact", "text"))
            ).values()
        ]
        if not titles:
            return False
        rows = await self._database.fetch(
            "SELECT EXISTS (SELECT FROM search_rows r WHERE r.tokens && $1::int[]) AS found", titles
        )
        return bool(rows[0]["found"])

    async def _nearest(self, word: QueryWord) -> QueryWord | None:
        """The word that was meant: fewest errors, then the same beginning, then what most titles have."""
        typed = fold(word.written)
        if not forgiven(typed):
            return None
        rows = await self._database.fetch(NEAR, misspelt(typed), len(typed))
        found = []
        for value in {row["value"] for row in rows} | near(typed):
            meant = fold(value)
            errors = distance(typed, meant)
            if errors <= forgiven(typed):
                found.append(_Candidate(query_word(value), errors, meant[:1] != typed[:1]))
        found.sort(key=lambda each: (each.errors, each.other_start, each.word.written))
        standing = await self._standing(found[:20])
        best = [each for each in found[:20] if standing.get(each.word.written)]
        best.sort(key=lambda each: (each.errors, each.other_start, -standing[each.word.written], each.word.written))
        return best[0].word if best else None

    async def _standing(self, candidates: Sequence[_Candidate]) -> dict[str, int]:
        """In how many products each word stands, titles counting most."""
        found: dict[str, int] = {}
        words = [understood(each.word) for each in candidates]
        for weight, kind in ((1000, "title"), (1000, "fact"), (1, "text")):
            tokens = await self._tokens.of((kind, form) for each in words for word in each for form in word.forms)
            asked = [
                (n, tokens[kind, form])
                for n, each in enumerate(words)
                for form in {form for word in each for form in word.forms}
                if (kind, form) in tokens
            ]
            if asked:
                rows = await self._database.fetch(STANDING, [n for n, _ in asked], [token for _, token in asked])
                for row in rows:
                    written = candidates[row["n"]].word.written
                    found[written] = found.get(written, 0) + weight * row["products"]
        return found
