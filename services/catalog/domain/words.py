"""Words of texts and of what people look for, in German, English and Czech alike.

A word of a text is found by its forms: as it is written without accents, and its stems. A query may be in any language,
so its words have the forms of all of them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import Stemmer

STEMMERS = {
    name: Stemmer.Stemmer(language) for name, language in (("de", "german"), ("en", "english"), ("cs", "czech"))
}
# A query's words beyond these do not narrow it any more.
MOST_WORDS = 8
# Longer words are no words; the index need not know their ends.
MOST_LETTERS = 40
# Every beginning of a word up to this length is kept; longer ones have few words each.
SHORT = 3

# Letters that are not a letter with an accent, to Unicode.
_LETTERS = str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
# A number with decimals, or letters with single hyphens, apostrophes and ampersands inside.
_WORD = re.compile(r"\d+[.,]\d+(?!\w)|[^\W_]+(?:[-'’&.][^\W_]+)*")  # noqa: RUF001
_JOINTS = re.compile(r"[-'’&.]")  # noqa: RUF001
_POSSESSIVE = re.compile(r"['’]s?$")  # noqa: RUF001

# Words that say nothing of what is looked for.
_ENGLISH = "a an and by for from in of on or the to with"
_GERMAN = "am auf aus bei das dem den der die ein eine einen einer für im in mit oder und von zu zum"
_CZECH = "a do i k ke na nebo od pro s se u v ve z ze"
_EMPTY = frozenset(f"{_ENGLISH} {_GERMAN} {_CZECH}".split())


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A word that is looked for: as it is written, in all its own forms, and with the forms of what means the same."""

    written: str
    exact: frozenset[str]
    own: frozenset[str]
    forms: frozenset[str]


def fold(text: str) -> str:
    """Without case and accents: `Červené` is `cervene`, `Größe` is `grosse`."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


@lru_cache(16)
def split(text: str) -> tuple[str, ...]:
    """The words of a text in small letters, with their accents. A word with a hyphen is one, `women's` is `women`."""
    text = text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()
    return tuple(word for word in map(_written, _WORD.findall(text)) if word)


def forms_of_text(text: str, locale: str) -> set[str]:
    """All forms of all words of a text. A word with a hyphen is found by its parts, too."""
    language = locale.partition("-")[0].lower()
    return set().union(*(_all_forms(word, language) for word in split(text)))


def query_words(text: str) -> list[QueryWord]:
    """What a query looks for, each word once; of empty words only where it has no others."""
    words = list(dict.fromkeys(split(text)))
    words = [word for word in words if word not in _EMPTY] or words
    return [query_word(word) for word in words[:MOST_WORDS]]


def query_word(word: str) -> QueryWord:
    """One word as `split` gives it."""
    joined = _joined(word)
    forms: set[str] = set()
    for language in STEMMERS:
        forms |= _forms(joined, language)
    exact = frozenset({fold(joined), fold(joined.translate(_UMLAUTS))})
    return QueryWord(word, exact, frozenset(forms), frozenset(forms))


def written(text: str) -> set[str]:
    """The words of a text as they are written, in small letters, but for numbers."""
    return {word for word in split(text) if not _is_number(word)}


def beginnings(text: str) -> set[str]:
    """The first letters of each word of a text, folded: one, two, ... at most `SHORT`."""
    return set().union(*map(_beginnings, split(text)))


# Texts repeat words, so what is known of a word is kept.


@lru_cache(50_000)
def _written(word: str) -> str:
    return _POSSESSIVE.sub("", word).replace(",", ".")[:MOST_LETTERS]


@lru_cache(50_000)
def _all_forms(word: str, language: str) -> frozenset[str]:
    parts = () if _is_number(word) else _JOINTS.split(word)
    return frozenset[str]().union(*(_forms(part, language) for part in (*parts, _joined(word)))) - {""}


@lru_cache(50_000)
def _beginnings(word: str) -> frozenset[str]:
    words = {fold(part) for part in (*_JOINTS.split(word), _joined(word))}
    return frozenset(each[:length] for each in words for length in range(1, min(SHORT, len(each)) + 1))


@lru_cache(50_000)
def _forms(word: str, language: str) -> frozenset[str]:
    spellings = {word, fold(word)}
    if language == "de":
        spellings.add(word.translate(_UMLAUTS))
    if language in STEMMERS and not word[:1].isdigit():
        spellings |= {STEMMERS[language].stemWord(spelling) for spelling in spellings}
    return frozenset(fold(spelling) for spelling in spellings)


def _joined(word: str) -> str:
    return word if _is_number(word) else _JOINTS.sub("", word)


def _is_number(word: str) -> bool:
    return word[:1].isdigit() and word.replace(".", "", 1).isdigit()
