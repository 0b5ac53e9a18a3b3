"""Languages as BCP 47 names them, and which texts serve whom."""

from __future__ import annotations

from collections.abc import Sequence


def canonical(locale: str) -> str:
    """A tag in its usual spelling: `DE-at` is `de-AT`, `zh-hant-tw` is `zh-Hant-TW`."""
    first, *rest = locale.split("-")
    return "-".join([first.lower(), *map(_subtag, rest)])


def fallbacks(locale: str, usual: str) -> Sequence[str]:
    """Whose texts serve a reader, best first: de-AT, then de, then those of the shop's usual language.

    An empty locale is the usual one. Where none of them has texts, any will do.
    """
    steps: dict[str, None] = {}
    for wanted in (canonical(locale), canonical(usual)):
        parts = wanted.split("-")
        steps |= dict.fromkeys("-".join(parts[:count]) for count in range(len(parts), 0, -1) if wanted)
    return list(steps)


def _subtag(subtag: str) -> str:
    if len(subtag) == 2:
        return subtag.upper()
    return subtag.title() if len(subtag) == 4 and subtag.isalpha() else subtag.lower()
