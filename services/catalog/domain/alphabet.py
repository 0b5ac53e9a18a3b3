"""The order of names as a language sorts them, as texts that sort so byte by byte.

Our own few rules, since the PostgreSQL of the local stack is built without ICU. Case, accents that make no letter of
their own, and signs between words settle nothing.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from services.catalog.domain.words import fold

# What comes behind settles no order.
MOST_LETTERS = 60
# Letters of their own, each after the one it looks like and all that begin with that.
_OWN = {"cs": str.maketrans({"č": "c~", "ř": "r~", "š": "s~", "ž": "z~"})}

_BETWEEN = re.compile(r"(?:[^\w~]|_)+")


def sort_key(name: str, language: str) -> str:
    """A text that sorts, byte by byte, as the name does in that language (de, en, cs, or any)."""
    # Most languages sort alike, and a title is sorted for each of them.
    return _sort_key(name, language if language in _OWN else "")


@lru_cache(64)
def _sort_key(name: str, language: str) -> str:
    name = unicodedata.normalize("NFC", name).casefold().replace("~", " ")
    if language == "cs":
        # One letter, after h.
        name = name.replace("ch", "h~")
    folded = fold(name.translate(_OWN.get(language, {})))
    words = _BETWEEN.sub(" ", folded)
    return words.strip()[:MOST_LETTERS]
