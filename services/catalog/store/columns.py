"""Columns of many rows, each sent as one text.

As an array, every single value would be looked at on its way to see whether it is an array itself; a text PostgreSQL
splits for next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

# Nothing that is kept has a control character.
SEPARATOR = "\x1f"


def column(values: Iterable[str]) -> str:
    """The parameter for `split`. Begins with a value too many, so that one empty value is told from none."""
    return SEPARATOR.join(("", *values))


def split(number: int, kind: str = "text") -> str:
    """The array, in SQL, of the parameter of that number. Where it is not of texts, an empty value is NULL."""
    if kind == "text":
        return f"(string_to_array(${number}, chr(31)))[2:]"
    return f"(string_to_array(${number}, chr(31), ''))[2:]::{kind}[]"
