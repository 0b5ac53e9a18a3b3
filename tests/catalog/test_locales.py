"""Whose texts serve a reader."""

from __future__ import annotations

import pytest

from services.catalog.domain.locales import canonical, fallbacks


@pytest.mark.parametrize(
    ("written", "usual"), [("DE-at", "de-AT"), ("zh-HANT-tw", "zh-Hant-TW"), ("EN", "en"), ("sl-NEDIS", "sl-nedis")]
)
def test_a_language_has_one_spelling(written: str, usual: str) -> None:
    assert canonical(written) == usual


@pytest.mark.parametrize(
    ("asked", "shop", "served"),
    [
        ("de-AT", "en", ["de-AT", "de", "en"]),
        ("zh-Hant-TW", "en-GB", ["zh-Hant-TW", "zh-Hant", "zh", "en-GB", "en"]),
        ("en-US", "en", ["en-US", "en"]),
        ("", "cs", ["cs"]),
    ],
)
def test_texts_fall_back_step_by_step(asked: str, shop: str, served: list[str]) -> None:
    assert list(fallbacks(asked, shop)) == served
