"""The auditor finds what it is there for: each kind of drift is seeded, named, and taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from deploy.local.stack import Stack
from tests.chaos.auditor import audit, judge
from tests.chaos.evidence import DeadLetter, Evidence, Fact, NotAtRest, Topics, gather
from tests.chaos.faults import Faults
from tests.chaos.load import Load
from tests.chaos.stories import FREE


@pytest.fixture(scope="module")
async def evidence(shop: Stack) -> AsyncIterator[Evidence]:
    """The books after some orders, kept open: what is written into them is seen by the auditor and never committed."""
    load = Load(shop, customers=6)
    async with load.running():
        while len(load.record.cancelled) < 3 or load.record.dispatched < 10 or not load.record.refusals:
            await load.accepted_more(5)
    async with gather(shop, load.record.told, seconds=120) as found:
        yield found


@dataclass(frozen=True)
class Drift:
    """Something that must never be, written straight into a database, and the rule that must name it."""

    service: str
    rule: str
    statement: str


ONE_LEVEL = "(sku, location) = (SELECT sku, location FROM stock WHERE on_hand > 0 ORDER BY 1, 2 LIMIT 1)"
AN_ORDER = "(SELECT min(order_id) FROM orders WHERE state = '{}')"
DRIFTS = [
    Drift(
        "inventory",
        "stock is conserved: on hand + shipped = received",
        f"UPDATE stock SET on_hand = on_hand + 1 WHERE {ONE_LEVEL}",
    ),
    Drift(
        "inventory",
        "balances are the sums of the ledger",
        "DELETE FROM ledger WHERE entry_id = (SELECT max(entry_id) FROM ledger WHERE kind = 'commit')",
    ),
    Drift(
        "inventory",
        "nothing is promised that is not there",
        "UPDATE stock SET committed = on_hand + 1 WHERE (sku, location) ="
        " (SELECT sku, location FROM stock WHERE sku LIKE 'chaos-%' ORDER BY 1, 2 LIMIT 1)",
    ),
    Drift(
        "inventory",
        "held units are those of live holds",
        f"UPDATE stock SET held = held + 1 WHERE {ONE_LEVEL}",
    ),
    Drift(
        "inventory",
        "committed units are the unshipped ones of committed reservations",
        f"UPDATE stock SET committed = committed + 1 WHERE {ONE_LEVEL}",
    ),
    Drift(
        "inventory",
        "shipped units are those that left with orders",
        "UPDATE reservation_lines SET shipped = shipped - 1 WHERE shipped > 0",
    ),
    Drift(
        "inventory",
        "a released order holds nothing",
        "UPDATE reservations SET state = 'committed' WHERE state = 'released'",
    ),
    Drift(
        "inventory",
        "committed stock is that of accepted orders",
        "UPDATE reservations SET order_id = order_id || 'x' WHERE state = 'committed'",
    ),
    Drift(
        "catalog",
        "the window shows what the copy of stock says",
        "UPDATE products SET listed = NOT listed WHERE product_id = (SELECT min(product_id) FROM products)",
    ),
    Drift(
        "catalog",
        "the window shows what the copy of stock says",
        "UPDATE variants SET free = free + 1 WHERE sku = (SELECT min(sku) FROM variants)",
    ),
    Drift(
        "catalog",
        "catalog equals inventory",
        "UPDATE stock_copy SET free = free + 1 WHERE sku = (SELECT min(sku) FROM stock_copy)",
    ),
    Drift("catalog", "catalog equals inventory", "DELETE FROM stock_copy WHERE free > 0"),
    Drift(
        "shipping",
        "every accepted order exists once",
        f"DELETE FROM orders WHERE order_id = {AN_ORDER.format('confirmed')}",
    ),
    Drift(
        "shipping",
        "every accepted order exists once",
        f"UPDATE orders SET state = 'rejected' WHERE order_id = {AN_ORDER.format('confirmed')}",
    ),
    Drift(
        "shipping",
        "every accepted order exists once",
        f"UPDATE orders SET state = 'confirmed' WHERE order_id = {AN_ORDER.format('cancelled')}",
    ),
    Drift(
        "shipping",
        "one OrderPlaced for each such order",
        "INSERT INTO orders SELECT (jsonb_populate_record(o, jsonb_build_object('order_id', 'copy', 'checkout_id',"
        " 'copy', 'payment_reference', 'copy', 'request_id', 'copy'))).*"
        " FROM orders o WHERE state = 'confirmed' LIMIT 1",
    ),
    Drift(
        "shipping",
        "orders stand as their parcels do",
        f"UPDATE orders SET state = 'delivered' WHERE order_id = {AN_ORDER.format('confirmed')}",
    ),
    Drift("shipping", "parcels hold what was ordered", "UPDATE shipment_items SET quantity = quantity + 1"),
    Drift(
        "shipping",
        "each delivered parcel gives its points once",
        "UPDATE shipments SET state = 'delivered' WHERE state = 'dispatched'",
    ),
    Drift("shipping", "one answer of shipping to each grant", "UPDATE orders SET upgrade = 'APPLIED'"),
    Drift(
        "loyalty",
        "one upgrade decision for each order",
        "DELETE FROM upgrades WHERE order_id = (SELECT min(order_id) FROM upgrades)",
    ),
    Drift("loyalty", "granted budget = reserved + spent", "UPDATE budgets SET spent = spent + 1 WHERE period = 'day'"),
    Drift("loyalty", "no budget is overdrawn", "UPDATE budgets SET spent = 1000000"),
    Drift("loyalty", "no grant waits for ever", "UPDATE upgrades SET state = 'reserved' WHERE state = 'spent'"),
    Drift("loyalty", "points are the sum of the ledger", "UPDATE standings SET points = points + 1"),
    Drift(
        "loyalty",
        "each delivered parcel gives its points once",
        "DELETE FROM points_ledger WHERE reason = 'delivery'",
    ),
    Drift(
        "contact",
        "each timeline has every fact of its customer's orders once",
        "DELETE FROM timeline WHERE entry_id = (SELECT max(entry_id) FROM timeline WHERE order_id IS NOT NULL)",
    ),
    Drift(
        "contact",
        "each timeline has every fact of its customer's orders once",
        "UPDATE timeline SET customer_id = 'somebody else' WHERE order_id IS NOT NULL",
    ),
    Drift("loyalty", "nothing is left lying", "INSERT INTO outbox (topic, headers) VALUES ('t', '{}')"),
    Drift(
        "contact", "nothing is left lying", "INSERT INTO dead_letters (topic, fact_id, reason) VALUES ('t', '1', 'x')"
    ),
    Drift("inventory", "nothing is left lying", "INSERT INTO parked_keys (topic, key, parked) VALUES ('t', 'k', 1)"),
]


@asynccontextmanager
async def seeded(evidence: Evidence, drift: Drift) -> AsyncIterator[None]:
    """Triggers and foreign keys look away, so that also what they would forbid can be written."""
    database = evidence.databases[drift.service]
    transaction = database.transaction()
    await transaction.start()
    await database.execute("SET LOCAL session_replication_role = replica")
    assert int((await database.execute(drift.statement)).split()[-1]), "nothing was seeded"
    yield
    await transaction.rollback()


async def test_books_in_order_are_found_so(evidence: Evidence) -> None:
    findings = await judge(evidence)
    assert not findings.problems, "\n".join(findings.lines())
    assert all(
        findings.counts[what]
        for what in (
            "orders told accepted",
            "orders cancelled",
            "units shipped",
            "upgrades granted",
            "parcels delivered",
        )
    )


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: f"{drift.service}: {drift.rule}")
async def test_drift_in_a_database_is_named(evidence: Evidence, drift: Drift) -> None:
    async with seeded(evidence, drift):
        findings = await judge(evidence)
    assert drift.rule in findings.problems, "\n".join(findings.lines())
    assert not (await judge(evidence)).problems


def _without(name: str) -> Callable[[Topics], Topics]:
    """One fact of the kind was never announced."""

    def lose(topics: Topics) -> Topics:
        lost = topics.of(name)[-1]
        return replace(topics, facts=[fact for fact in topics.facts if fact is not lost])

    return lose


def _twice(name: str) -> Callable[[Topics], Topics]:
    """Something was announced again as if it had happened again."""

    def repeat(topics: Topics) -> Topics:
        fact = topics.of(name)[-1]
        return replace(topics, facts=[*topics.facts, Fact(fact.topic, "another", fact.key, fact.name, fact.message)])

    return repeat


def _dead(topics: Topics) -> Topics:
    letter = DeadLetter("shop.shipping.orders.v1", "loyalty", "a fact", "ValueError")
    return replace(topics, dead=[*topics.dead, letter])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (_without("OrderPlaced"), "one OrderPlaced for each such order"),
        (_twice("OrderPlaced"), "one OrderPlaced for each such order"),
        (_without("OrderCancelled"), "one OrderCancelled for each such order"),
        (_twice("UpgradeGranted"), "one upgrade decision for each order"),
        (_without("UpgradeDeclined"), "one upgrade decision for each order"),
        (_twice("ShipmentUpgraded"), "one answer of shipping to each grant"),
        (_twice("ShipmentDelivered"), "each delivered parcel gives its points once"),
        (_twice("ShipmentDispatched"), "each timeline has every fact of its customer's orders once"),
        (_dead, "nothing is in a dead letter"),
    ],
)
async def test_drift_on_a_topic_is_named(evidence: Evidence, change: Callable[[Topics], Topics], rule: str) -> None:
    findings = await judge(replace(evidence, topics=change(evidence.topics)))
    assert rule in findings.problems, "\n".join(findings.lines())


async def test_a_level_that_was_never_announced_is_named(evidence: Evidence) -> None:
    stocked = await evidence.databases["inventory"].fetchrow(f"SELECT * FROM ({FREE}) f WHERE free > 0 LIMIT 1")
    assert stocked
    place = f"{stocked['sku']}@{stocked['location']}"
    left = [fact for fact in evidence.topics.facts if fact.key != place]
    findings = await judge(replace(evidence, topics=replace(evidence.topics, facts=left)))
    assert "the newest announced level is the level" in findings.problems


async def test_a_refused_order_that_exists_is_named(evidence: Evidence) -> None:
    checkout_id = await evidence.databases["shipping"].fetchval("SELECT max(checkout_id) FROM orders")
    told = replace(evidence.told, refused_checkouts=frozenset({checkout_id}))
    assert "a refused order is none" in (await judge(replace(evidence, told=told))).problems


async def test_the_auditor_waits_for_those_who_are_behind(shop: Stack) -> None:
    load, faults = Load(shop, customers=1), Faults(shop)
    async with faults.frozen("contact", seconds=0):
        async with load.running():
            await load.accepted_more(1)
        with pytest.raises(NotAtRest, match=r"contact is \d+ messages behind on shop\."):
            await audit(shop, seconds=5)
    assert not (await audit(shop, load.record.told)).problems
