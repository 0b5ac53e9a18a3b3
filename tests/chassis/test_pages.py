"""Page tokens: bound to their question, and nothing but ours is believed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis import pages
from services.chassis.errors import InvalidInput
from shop.inventory.v1 import inventory_pb2 as pb


def question(**fields: object) -> pb.ListLedgerEntriesRequest:
    return pb.ListLedgerEntriesRequest(sku="a", **fields)  # type: ignore[arg-type]


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**63 - 1),
    st.datetimes(timezones=st.just(UTC)),
)
def test_a_position_comes_back(text: str, number: int, time: datetime) -> None:
    token = pages.token(question(), (text, number, time))
    # The size of the page may change from page to page.
    assert pages.position(question(page_token=token, page_size=7), (str, int, datetime)) == [text, number, time]


def test_no_token_is_the_first_page() -> None:
    assert pages.position(question(), (int,)) is None


@pytest.mark.parametrize("token", ["x", "????", "AAAA", "é", "A" * 500, pages.token(question(), ("text",))])
def test_what_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        pages.position(question(page_token=token), (int,))
    assert refused.value.fields[0][0] == "page_token"


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (2**63, int),
        (-(2**63) - 1, int),
        (True, int),
        ("a\0b", str),
        ("\ud800", str),
        ("yesterday", datetime),
        ("2026-01-01T00:00:00", datetime),
        ("0001-01-01T00:00:00+14:00", datetime),
        (1, datetime),
    ],
)
def test_a_forged_position_no_database_could_look_for_is_refused(part: str | int, kind: type) -> None:
    # The checksum has no key: whoever reads this can make a token.
    token = pages.token(question(), (part,))
    with pytest.raises(InvalidInput):
        pages.position(question(page_token=token), (kind,))


def test_a_token_of_another_question_is_refused() -> None:
    token = pages.token(question(), (1,))
    with pytest.raises(InvalidInput):
        pages.position(pb.ListLedgerEntriesRequest(sku="b", page_token=token), (int,))
    with pytest.raises(InvalidInput):
        pages.position(pb.ListStockLevelsRequest(page_token=token), (int,))


@given(st.binary(max_size=60), st.integers(0, 59))
def test_a_tampered_token_is_refused(noise: bytes, at: int) -> None:
    token = pages.token(question(), (12345,))
    at %= len(token)
    tampered = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
    with pytest.raises(InvalidInput):
        pages.position(question(page_token=tampered), (int,))


def test_sizes() -> None:
    assert [pages.size(asked, usual=24, most=100) for asked in (0, 1, 100, 10**9)] == [24, 1, 100, 100]
