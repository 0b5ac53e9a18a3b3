"""The order in which people expect sizes: 41, 42, 42.5, 43; S, M, L, XL."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_LETTERS = re.compile(r"([0-9]{1,2}X|X{0,9})([SL])|(M)")
_TOKEN = re.compile(
    r"(?P<whole>[0-9]+) (?P<top>[0-9])/(?P<bottom>[2-9])|(?P<number>[0-9]+([.,][0-9]+)?)|(?P<text>[^0-9]+)"
)
# Between words, and between letter sizes as in S/M; not inside a fraction such as 42 2/3.
_BREAK = re.compile(r"(?<![0-9]) | (?![0-9])|(?<=[A-Z])/")
_MIDDLE = 50


@lru_cache(maxsize=4096)
def size_order(size: str) -> str:
    """A text that sorts, byte by byte, as the size does: numbers, then letter sizes, then everything else."""
    normal = " ".join(size.upper().replace("½", " 1/2").split())
    return " ".join(part for word in _BREAK.split(normal) for part in _parts(word) if part)


def _parts(word: str) -> list[str]:
    letters = _LETTERS.fullmatch(word)
    if letters:
        return [f"1{_MIDDLE + _letter_rank(letters):02}"]
    return [_part(token) for token in _TOKEN.finditer(word)]


def _letter_rank(letters: re.Match[str]) -> int:
    if letters[3]:
        return 0
    times = int(letters[1][:-1]) if letters[1][:1].isdigit() else len(letters[1])
    return (1 + min(times, 40)) * (-1 if letters[2] == "S" else 1)


def _part(token: re.Match[str]) -> str:
    if token["whole"]:
        return _number(Fraction(int(token["whole"])) + Fraction(int(token["top"]), int(token["bottom"])))
    if token["number"]:
        return _number(Fraction(token["number"].replace(",", ".")))
    text = token["text"].strip()
    return f"2{text}" if text else ""


def _number(value: Fraction) -> str:
    return f"0{float(min(value, Fraction(10**9))):014.3f}"
