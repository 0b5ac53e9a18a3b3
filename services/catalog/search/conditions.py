"""Which rows answer: conditions on `search_rows r`, each with its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from services.catalog.search.asking import OF_VARIANT, Wanted


class Nearness(IntEnum):
    """How well a row answers the words; each holds for all that a higher one holds for."""

    # Some word stands in the description only.
    TEXT = 0
    # All words stand in the title or among the values.
    FACTS = 1
    # All in the title, in these or other words.
    TITLE = 2
    # All in the title, in one form or another.
    OWN = 3
    # All in the title, and as they are written.
    EXACT = 4


class Arguments:
    """The arguments of a statement, as it comes to need them."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def add(self, value: object, kind: str) -> str:
        """The place of a value in the statement."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def rows(wanted: Wanted, arguments: Arguments, nearness: Nearness = Nearness.TEXT) -> list[str] | None:
    """Rows that answer at least so well. None: none do."""
    if wanted.impossible:
        return None
    found = []
    for word in wanted.words:
        tokens: Sequence[int] = (
            word.exact
            if nearness is Nearness.EXACT
            else word.own
            if nearness is Nearness.OWN
            else word.title
            if nearness is Nearness.TITLE
            else word.title + word.fact
            if nearness is Nearness.FACTS
            else word.title + word.fact + word.text
        )
        if not tokens:
            return None
        found.append(f"r.tokens && {arguments.add(tokens, 'int[]')}")
    found += [f"r.tokens && {arguments.add(tokens, 'int[]')}" for _, tokens in wanted.values]
    # By an index only where it narrows: most are sold in the shop's own currency.
    column = "tokens" if wanted.foreign else "currencies"
    found.append(f"r.{column} @> {arguments.add([wanted.currency], 'int[]')}")
    if narrows_offers(wanted):
        found.append(f"EXISTS (SELECT FROM unnest(r.offers) o WHERE {offers(wanted, arguments)})")
    return found


def narrows_offers(wanted: Wanted) -> bool:
    """Whether not every variant of a product that answers is one that was asked for."""
    prices = wanted.minimum is not None or wanted.maximum is not None
    return prices or any(attribute in OF_VARIANT for attribute, _ in wanted.values)


def offers(wanted: Wanted, arguments: Arguments) -> str:
    """What one offer `o` must be."""
    found = [f"o.currency = {arguments.add(wanted.currency, 'int')}"]
    found += [
        f"o.{attribute} = ANY({arguments.add(tokens, 'int[]')})"
        for attribute, tokens in wanted.values
        if attribute in OF_VARIANT
    ]
    if wanted.minimum is not None:
        found.append(f"o.amount >= {arguments.add(wanted.minimum, 'numeric')}")
    if wanted.maximum is not None:
        found.append(f"o.amount <= {arguments.add(wanted.maximum, 'numeric')}")
    return " AND ".join(found)


def nearness(wanted: Wanted, arguments: Arguments) -> str:
    """How well a row that answers does so, as a number."""
    steps = []
    for step, columns in (
        (Nearness.EXACT, [("title", "exact")]),
        (Nearness.OWN, [("title", "own")]),
        (Nearness.TITLE, [("title", "title")]),
        (Nearness.FACTS, [("title", "title"), ("facts", "fact")]),
    ):
        each = []
        for word in wanted.words:
            somewhere = [
                f"r.{column} && {arguments.add(tokens, 'int[]')}"
                for column, kind in columns
                if (tokens := getattr(word, kind))
            ]
            each.append(f"({' OR '.join(somewhere) or 'false'})")
        steps.append(f"WHEN {' AND '.join(each)} THEN {int(step)}")
    return f"CASE {' '.join(steps)} ELSE {int(Nearness.TEXT)} END" if wanted.words else "0"
