"""The plan of the router, without any I/O."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.contact.domain.contact import Channel
from services.contact.domain.routing import Desk, NewOffer, Rules, Rung, Waiting, plan

RULES = Rules()
ALL = frozenset(Channel)


def waits(contact_id: str, seconds: float = 0, **rung: Rung) -> Waiting:
    return Waiting(contact_id, Channel.PHONE, timedelta(seconds=seconds), rung)


def rang(seconds_ago: float, times: int = 1, pending: bool = False) -> Rung:
    return Rung(times, timedelta(seconds=seconds_ago), pending)


def desk(agent_id: str, ringing: int = 0) -> Desk:
    return Desk(agent_id, ALL, ringing)


def test_one_desk_each_in_order_of_waiting_and_of_rank() -> None:
    assert plan([waits("first", 3), waits("second", 2)], [desk("a"), desk("b"), desk("c")], RULES) == [
        NewOffer("first", "a"),
        NewOffer("second", "b"),
    ]


def test_the_second_offer_goes_to_somebody_else_if_there_is_anybody() -> None:
    assert plan([waits("x", 5, a=rang(5))], [desk("a"), desk("b")], RULES) == [NewOffer("x", "b")]
    assert plan([waits("x", 5, a=rang(5))], [desk("a")], RULES) == [NewOffer("x", "a")]
    assert plan([waits("x", 9, a=rang(6, times=2), b=rang(6))], [desk("a"), desk("b")], RULES) == [NewOffer("x", "b")]


def test_a_desk_that_let_it_ring_or_declined_is_left_alone_for_the_life_of_an_offer() -> None:
    assert plan([waits("x", 2, a=rang(4.9))], [desk("a")], RULES) == []
    assert plan([waits("x", 60, a=rang(4.9))], [desk("a")], RULES) == []


def test_what_rings_at_one_desk_rings_at_no_other_before_10_s_and_at_all_after() -> None:
    x = {"a": rang(4, pending=True)}
    assert plan([waits("x", 9.9, **x)], [desk("a", 1), desk("b"), desk("c")], RULES) == []
    assert plan([waits("x", 10, **x)], [desk("a", 1), desk("b"), desk("c")], RULES) == [
        NewOffer("x", "b"),
        NewOffer("x", "c"),
    ]


def test_all_desks_includes_those_that_ring_for_somebody_else_up_to_a_limit() -> None:
    assert plan([waits("x", 10)], [desk("a", 2), desk("b", 3)], RULES) == [NewOffer("x", "a")]


def test_before_everybody_has_a_desk_nobody_rings_everywhere() -> None:
    offers = plan([waits("x", 30), waits("y", 1)], [desk("a"), desk("b")], RULES)
    assert offers == [NewOffer("x", "a"), NewOffer("y", "b"), NewOffer("x", "b")]


agents = st.sampled_from("abcdef")
rungs = st.builds(
    Rung, st.integers(1, 3), st.integers(0, 12).map(lambda seconds: timedelta(seconds=seconds)), st.booleans()
)
queue = st.lists(
    st.builds(
        Waiting,
        st.uuids().map(str),
        st.sampled_from(Channel),
        st.integers(0, 40).map(lambda seconds: timedelta(seconds=seconds)),
        st.dictionaries(agents, rungs, max_size=3),
    ),
    max_size=8,
).map(lambda contacts: sorted(contacts, key=lambda contact: -contact.waited))
desks_open = st.lists(
    st.builds(Desk, agents, st.frozensets(st.sampled_from(Channel), min_size=1), st.integers(0, 3)),
    max_size=6,
    unique_by=lambda desk: desk.agent_id,
)


@given(queue, desks_open)
def test_whatever_the_queue(waiting: list[Waiting], desks: list[Desk]) -> None:
    offers = plan(waiting, desks, RULES)
    assert len(offers) == len(set(offers)), "nothing rings twice at one desk"
    by_id = {contact.contact_id: contact for contact in waiting}
    seats = {desk.agent_id: desk for desk in desks}
    for offer in offers:
        contact, at = by_id[offer.contact_id], seats[offer.agent_id]
        assert contact.channel in at.channels
        before = contact.rung.get(offer.agent_id)
        assert before is None or (not before.pending and before.ago >= RULES.offer_life)
        others = [one for one in offers if one.contact_id == offer.contact_id]
        if contact.waited < RULES.ring_all_after:
            assert len(others) == 1
            assert not contact.rings
            assert at.ringing == 0
    for at in desks:
        rings = at.ringing + sum(offer.agent_id == at.agent_id for offer in offers)
        assert rings <= max(RULES.rings_at_once, at.ringing)
    # Nobody is left out while a free desk could have rung.
    used = {offer.agent_id for offer in offers}
    for contact in waiting:
        if contact.rings or any(offer.contact_id == contact.contact_id for offer in offers):
            continue
        for at in desks:
            lately = at.agent_id in contact.rung and contact.rung[at.agent_id].ago < RULES.offer_life
            assert at.ringing or at.agent_id in used or contact.channel not in at.channels or lately
