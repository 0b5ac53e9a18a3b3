"""The contact and its promise, without any I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contact.domain.contact import (
    Answered,
    AnswerPromiseMissed,
    Channel,
    Contact,
    ContactNotFound,
    ContactNotTalking,
    ContactState,
    Ended,
    Happened,
    Promise,
)
from services.contact.domain.timeline import in_words

PROMISE = Promise(timedelta(seconds=15), timedelta(seconds=5))
PRESS = datetime(2026, 3, 1, 12, tzinfo=UTC)


def waiting() -> Contact:
    return Contact("con_1", "cus_1", Channel.PHONE, ContactState.WAITING, "/shoes", PRESS)


def after(seconds: float) -> datetime:
    return PRESS + timedelta(seconds=seconds)


@pytest.mark.parametrize(("seconds", "missed"), [(0.1, False), (15, False), (15.001, True), (40, True)])
def test_the_promise_is_a_human_within_15_s(seconds: float, missed: bool) -> None:
    contact = waiting()
    happened = contact.answer("ada", "Ada", after(seconds), PROMISE)
    assert contact.promise_missed is missed
    assert [type(one) for one in happened] == ([AnswerPromiseMissed, Answered] if missed else [Answered])


@pytest.mark.parametrize(("seconds", "missed_at"), [(0, None), (5, None), (5.001, 5.001), (9, 9), (15, 15), (60, 15)])
def test_who_gives_up_after_5_s_was_missed_too(seconds: float, missed_at: float | None) -> None:
    contact = waiting()
    happened = contact.leave(after(seconds), PROMISE)
    assert contact.state is ContactState.ABANDONED
    assert [one.time for one in happened if isinstance(one, AnswerPromiseMissed)] == (
        [] if missed_at is None else [after(missed_at)]
    )
    assert isinstance(happened[-1], Ended)


def test_a_miss_is_noted_once_with_the_time_it_happened() -> None:
    contact = waiting()
    assert contact.miss(after(15), PROMISE) == []
    assert contact.miss(after(70), PROMISE) == [AnswerPromiseMissed(after(15), 2)]
    assert contact.miss(after(80), PROMISE) == []
    assert [type(one) for one in contact.answer("ada", "Ada", after(90), PROMISE)] == [Answered]


def test_only_who_talks_completes_and_only_a_talk() -> None:
    contact = waiting()
    contact.answer("ada", "Ada", after(3), PROMISE)
    with pytest.raises(ContactNotFound):
        contact.complete("mallory", after(4))
    assert contact.complete("ada", after(11 * 3600)) == [Ended(after(11 * 3600), 3)]
    with pytest.raises(ContactNotTalking) as refusal:
        contact.complete("ada", after(11 * 3600))
    assert refusal.value.details["state"] == "completed"


@given(st.lists(st.tuples(st.sampled_from(["answer", "leave", "complete", "miss"]), st.floats(0, 8)), max_size=12))
def test_whatever_comes_in_whatever_order(steps: list[tuple[str, float]]) -> None:
    contact = waiting()
    now = PRESS
    happened: list[Happened] = []
    for step, seconds in steps:
        now += timedelta(seconds=seconds)
        match step:
            case "answer" if contact.state is ContactState.WAITING:
                happened += contact.answer("ada", "Ada", now, PROMISE)
            case "leave":
                happened += contact.leave(now, PROMISE)
            case "complete" if contact.state is ContactState.TALKING:
                happened += contact.complete("ada", now)
            case "miss":
                happened += contact.miss(now, PROMISE)
    kinds = [type(one) for one in happened]
    assert all(kinds.count(kind) <= 1 for kind in (Answered, AnswerPromiseMissed, Ended))
    versions = [one.version for one in happened if isinstance(one, AnswerPromiseMissed | Ended)]
    assert versions == sorted(set(versions))
    assert contact.promise_missed is (AnswerPromiseMissed in kinds)
    assert (contact.end_time is not None) is (Ended in kinds)
    if contact.answer_time is not None:
        assert contact.promise_missed is (contact.answer_time - PRESS > PROMISE.answer_within)
    elif contact.end_time is not None:
        assert contact.promise_missed is (contact.end_time - PRESS > PROMISE.abandon_within)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (3, "3 s"), (243, "4 min 3 s"), (36_300, "10 h 5 min"), (-1, "0 s")]
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words
