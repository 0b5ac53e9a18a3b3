"""One timeline per customer: everything, once, in order; notes readable by agents and by nobody else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.message import Message
from google.type.date_pb2 import Date
from google.type.money_pb2 import Money

from services.chassis.database import Database
from services.chassis.errors import InvalidInput, NotFound
from services.chassis.facts import Heard
from services.chassis.requests import RequestIdReused
from services.chassis.values import to_timestamp
from services.contact import store
from services.contact.consumers import HEARS
from services.contact.domain.contact import ContactNotFound
from services.contact.domain.timeline import CAUSE, Entry, Kind
from services.contact.notes import Notes
from shop.catalog.events.v1 import facts_pb2 as catalog
from shop.contact.v1 import contact_pb2 as pb
from shop.loyalty.events.v1 import facts_pb2 as loyalty
from shop.loyalty.v1.loyalty_pb2 import TIER_REGULAR
from shop.shipping.events.v1 import facts_pb2 as shipping
from shop.shipping.v1.shipping_pb2 import DeliveryPromise
from tests.contact.conftest import KEY, Replica, offer_at, told

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "prefers the side door of Rosenweg 7"

LATE = DeliveryPromise(latest=Date(year=2026, month=3, day=6))
SOON = DeliveryPromise(latest=Date(year=2026, month=3, day=3))


def story(at: Callable[[int], Any]) -> list[Message]:
    """What they waited for is back, and ordered: up to the points; `at` gives the time of each step."""
    who: dict[str, Any] = {"order_id": "ord_1", "customer_id": "cus_1"}
    items = [shipping.OrderedItem(sku="a", quantity=2), shipping.OrderedItem(sku="b", quantity=1)]
    total = Money(currency_code="EUR", units=149, nanos=900_000_000)
    return [
        catalog.BackInStock(customer_id="cus_1", sku="a", change_time=at(-1), hold_expire_time=to_timestamp(NOON)),
        shipping.OrderPlaced(**who, order_time=at(0), items=items, total=total, promise=LATE),
        loyalty.UpgradeGranted(**who, decide_time=at(1), reason="your tenth order with us"),
        shipping.ShipmentUpgraded(**who, upgrade_time=at(2), promise=SOON, original_promise=LATE),
        shipping.ShipmentDispatched(**who, dispatch_time=at(3), items=items, carrier="Alpine Post"),
        shipping.ShipmentDelivered(**who, delivery_time=at(4), promise_kept=True),
        loyalty.StandingChanged(**who, change_time=at(5), points=180, points_delta=149, tier=TIER_REGULAR),
    ]


TOLD = [
    "Back in stock for them: a, held until 2026-03-01 12:00 UTC",
    "Ordered 3 items for 149.90 EUR; promised by 2026-03-06",
    "Overnight shipping as a surprise: your tenth order with us",
    "Arrives by 2026-03-03 instead of 2026-03-06",
    "A parcel with 3 items left us with Alpine Post",
    "A parcel arrived, as promised",
    "+149 points: 180 now, tier regular",
]


async def hear(database: Database, message: Message, fact_id: str = "") -> None:
    """As the consumption does: the handler in a transaction."""
    (handler,) = [hears.handlers[type(message)] for hears in HEARS if type(message) in hears.handlers]
    sent = NOON + timedelta(days=1)
    heard = Heard(fact_id or uuid4().hex, message, "topic", 0, 0, "key", sent, "/shop/test", "journey-1")
    async with database.transaction() as tx:
        await handler(None, tx, heard)


async def read(replica: Replica, customer: str = "cus_1") -> list[str]:
    return [entry.summary for entry in (await replica.timeline(customer)).entries][::-1]


@pytest.mark.parametrize("apart", [60, 0])
async def test_heard_in_any_order_twice_it_is_told_once_in_order(
    replica: Replica, database: Database, apart: int
) -> None:
    """Also when everything happened at the same instant: then one thing leads to the other."""
    facts = list(enumerate(story(lambda step: to_timestamp(NOON + timedelta(seconds=apart * step)))))
    for number, fact in [*reversed(facts), *facts]:
        await hear(database, fact, f"fact-{number}")
    assert await read(replica) == TOLD
    entries = (await replica.timeline("cus_1")).entries
    assert {(entry.order_id, entry.journey_id) for entry in entries[:-1]} == {("ord_1", "journey-1")}
    assert entries[-2].occur_time == to_timestamp(NOON)
    assert (entries[-1].order_id, entries[-1].kind) == ("", pb.TIMELINE_KIND_BACK_IN_STOCK)


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (
            shipping.OrderRejected(customer_id="cus_1", order_id="ord_1", reason="OUT_OF_STOCK"),
            ["The order could not be taken: out of stock"],
        ),
        (shipping.OrderCancelled(customer_id="cus_1", order_id="ord_1"), ["The order was cancelled"]),
        (
            loyalty.UpgradeDeclined(customer_id="cus_1", order_id="ord_1", reason="not a regular yet"),
            ["No faster shipping this time: not a regular yet"],
        ),
        (
            shipping.UpgradeNotApplied(customer_id="cus_1", order_id="ord_1", reason="ALREADY_DISPATCHED"),
            ["The faster shipping could not be had: already dispatched"],
        ),
        (
            shipping.ShipmentDelivered(customer_id="cus_1", order_id="ord_1", promise=LATE),
            ["A parcel arrived, later than promised (2026-03-06)"],
        ),
        (
            loyalty.StandingChanged(customer_id="cus_1", points=5, points_delta=-20),
            ["-20 points: 5 now"],
        ),
        (loyalty.StandingChanged(customer_id="cus_1", points=5), []),
        (
            catalog.BackInStock(
                customer_id="cus_1", sku="boot-42", hold_expire_time=to_timestamp(NOON), change_time=to_timestamp(NOON)
            ),
            ["Back in stock for them: boot-42, held until 2026-03-01 12:00 UTC"],
        ),
    ],
)
async def test_each_fact_in_plain_words(replica: Replica, database: Database, fact: Message, words: list[str]) -> None:
    await hear(database, fact)
    assert await read(replica) == words


def test_each_kind_has_a_place_among_things_of_one_instant() -> None:
    assert set(CAUSE) == set(Kind)


async def test_pages_go_through_everything_once(replica: Replica, database: Database) -> None:
    async with database.transaction() as tx:
        for number in range(25):  # five at each instant
            time = NOON + timedelta(microseconds=number // 5)
            entry = Entry(f"fact-{number}", "cus_1", Kind.ORDER_PLACED, time, str(number))
            await store.add_entries(tx.connection, [entry])
    seen: list[str] = []
    token = ""
    while True:
        page = await replica.timeline("cus_1", 4, token)
        seen += [entry.summary for entry in page.entries]
        token = page.next_page_token
        if not token:
            break
    assert seen == [str(number) for number in reversed(range(25))]
    with pytest.raises(InvalidInput):
        await replica.timeline("cus_2", 4, (await replica.timeline("cus_1", 4)).next_page_token)


async def test_a_page_deep_in_a_long_timeline_reads_no_more_than_itself(replica: Replica, database: Database) -> None:
    await database.pool.execute(
        "INSERT INTO timeline (customer_id, kind, occur_time, cause, fact_id, summary)"
        " SELECT 'cus_' || n % 2, 'order_placed', now() - make_interval(secs => n), 110, n::text, 'x'"
        " FROM generate_series(1, 20000) AS n"
    )
    await database.pool.execute("ANALYZE timeline")
    plan = await database.fetch(
        "EXPLAIN (ANALYZE, BUFFERS OFF, COSTS OFF, TIMING OFF) SELECT * FROM timeline WHERE customer_id = 'cus_1'"
        " AND (occur_time, cause, entry_id) < (coalesce(now() - interval '5000 s', 'infinity'), 0, 0)"
        " ORDER BY occur_time DESC, cause DESC, entry_id DESC LIMIT 50"
    )
    text = "\n".join(row[0] for row in plan)
    assert "timeline_newest" in text
    assert "Sort" not in text
    assert "Rows Removed" not in text
    assert len((await replica.timeline("cus_1", 500)).entries) == 500


# -- notes


async def talk(replica: Replica, database: Database) -> pb.Contact:
    await replica.agent("ada")
    await replica.press("cus_1")
    await replica.route()
    return await replica.accept("ada", await offer_at(database, "ada"))


async def test_a_note_is_read_by_agents_and_lies_nowhere_in_the_clear(replica: Replica, database: Database) -> None:
    contact = await talk(replica, database)
    entry = await replica.note("ada", "cus_1", SECRET, contact.contact_id, request="note-it-once")
    assert (entry.summary, entry.kind, entry.agent_id) == (SECRET, pb.TIMELINE_KIND_NOTE, "ada")
    assert await replica.note("ada", "cus_1", SECRET, contact.contact_id, request="note-it-once") == entry
    with pytest.raises(RequestIdReused):
        await replica.note("ada", "cus_1", "other words", contact.contact_id, request="note-it-once")
    assert (await replica.timeline("cus_1")).entries[0] == entry
    assert await told(database, "cus_1") == ["contact_pressed", "contact_answered", "note"]
    for table in ("timeline", "requests", "outbox", "contacts"):
        for row in await database.fetch(f"SELECT * FROM {table}"):
            stored = b"|".join(value if isinstance(value, bytes) else str(value).encode() for value in row.values())
            assert SECRET.encode() not in stored


async def test_notes_stay_readable_when_the_keys_change() -> None:
    stored = Notes(KEY).encrypt(SECRET)
    newer = "7" * 43 + "="
    assert Notes(f"{newer}, {KEY}").decrypt(stored) == SECRET


async def test_a_note_needs_a_contact_of_ones_own_or_a_known_customer(replica: Replica, database: Database) -> None:
    contact = await talk(replica, database)
    with pytest.raises(ContactNotFound):
        await replica.note("mallory", "cus_1", "hm", contact.contact_id)
    with pytest.raises(ContactNotFound):
        await replica.note("ada", "cus_2", "hm", contact.contact_id)
    with pytest.raises(NotFound):
        await replica.note("ada", "cus_unknown", "hm")
    await replica.note("bea", "cus_1", "a thought after the call")
    assert (await told(database, "cus_1")).count("note") == 1


async def test_completing_anothers_contact_is_not_found(replica: Replica, database: Database) -> None:
    contact = await talk(replica, database)
    for agent_id, contact_id in (("mallory", contact.contact_id), ("ada", "con_none")):
        with pytest.raises(ContactNotFound):
            await replica.complete(agent_id, contact_id)
    await replica.complete("ada", contact.contact_id)
    words = await read(replica)
    assert words[0] == "Asked for a human by phone"
    assert words[1].startswith("Ada answered after ")
    assert words[2].startswith("Talked with Ada for ")
