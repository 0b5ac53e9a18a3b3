"""Words that were meant: how far a misspelt word is from one that exists."""

from __future__ import annotations

# Shorter words are not corrected: everything is near them.
LEAST_LETTERS = 3


def misspelt(word: str) -> list[str]:
    """The word, and the word without one of its letters each.

    Two words with one of these in common are at most two typing errors apart; all pairs that are one apart have one.
    """
    return list(dict.fromkeys([word, *(word[:at] + word[at + 1 :] for at in range(len(word)))]))


def forgiven(word: str) -> int:
    """How many typing errors a word of this length may have."""
    return 0 if len(word) < LEAST_LETTERS else 1 if len(word) < 6 else 2


def distance(typed: str, meant: str) -> int:
    """Typing errors between two words: a letter too many, too few, another, or two that changed places."""
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for at, letter in enumerate(typed, 1):
        last, before, row = before, row, [at]
        for place, other in enumerate(meant, 1):
            cost = min(before[place] + 1, row[place - 1] + 1, before[place - 1] + (letter != other))
            if at > 1 and place > 1 and letter == meant[place - 2] and typed[at - 2] == other:
                cost = min(cost, last[place - 2] + 1)
            row.append(cost)
    return row[-1]
