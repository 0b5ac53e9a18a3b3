"""What must hold between the services: each order, its stock, its decision and its timeline tell the same story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from .evidence import Evidence, Fact
from .findings import Findings

ACCEPTED = ("confirmed", "dispatched", "delivered")
# What contact hears of an order.
ON_TIMELINE = (
    "OrderPlaced",
    "OrderRejected",
    "OrderCancelled",
    "UpgradeGranted",
    "UpgradeDeclined",
    "ShipmentUpgraded",
    "UpgradeNotApplied",
    "ShipmentDispatched",
    "ShipmentDelivered",
    "StandingChanged",
)


async def orders_exist_once(evidence: Evidence, findings: Findings) -> None:
    """Every accepted order exists once, and what is announced of it is what became of it."""
    orders = await _by(evidence, "shipping", "SELECT order_id, state, checkout_id, upgrade FROM orders", "order_id")
    findings.count("orders told accepted", len(evidence.told.accepted))
    for state, number in sorted(Counter(row["state"] for row in orders.values()).items()):
        findings.count(f"orders {state}", number)
    rule = "every accepted order exists once"
    for order_id in sorted(evidence.told.accepted):
        state = orders[order_id]["state"] if order_id in orders else "not there"
        if state not in (*ACCEPTED, "cancelled"):
            findings.wrong(rule, [f"{order_id} was accepted and is {state}"])
    cancelled = {order_id for order_id, row in orders.items() if row["state"] == "cancelled"}
    findings.wrong(rule, (f"{each} was cancelled and is not" for each in sorted(evidence.told.cancelled - cancelled)))
    findings.wrong(
        "a refused order is none",
        (
            f"{order_id} is {row['state']}, its checkout was refused"
            for order_id, row in orders.items()
            if row["checkout_id"] in evidence.told.refused_checkouts and row["state"] != "rejected"
        ),
    )
    announced = {name: _per_order(evidence, name) for name in ("OrderPlaced", "OrderRejected", "OrderCancelled")}
    for name, states in (
        ("OrderPlaced", (*ACCEPTED, "cancelled")),
        ("OrderRejected", ("rejected",)),
        ("OrderCancelled", ("cancelled",)),
    ):
        expected = {order_id: 1 for order_id, row in orders.items() if row["state"] in states}
        findings.wrong(f"one {name} for each such order", _differences(expected, announced[name]))


async def stock_is_committed_to_orders(evidence: Evidence, findings: Findings) -> None:
    """Committed reservations belong to accepted orders, line by line; all others hold nothing."""
    reserved = await evidence.databases["inventory"].fetch(
        "SELECT order_id, sku, location, quantity, shipped FROM reservations JOIN reservation_lines"
        " USING (reservation_id) WHERE state = 'committed'"
    )
    packed = await evidence.databases["shipping"].fetch(
        "SELECT order_id, sku, location, quantity, s.state FROM shipments s JOIN shipment_items USING (shipment_id)"
        " WHERE s.state <> 'cancelled'"
    )
    findings.count("reservations committed", len({row["order_id"] for row in reserved}))
    findings.count("units shipped", sum(row["shipped"] for row in reserved))
    findings.wrong(
        "committed stock is that of accepted orders",
        _differences(
            {_place(row): (row["quantity"], 0 if row["state"] == "preparing" else row["quantity"]) for row in packed},
            {_place(row): (row["quantity"], row["shipped"]) for row in reserved},
        ),
    )


async def one_decision_for_each_order(evidence: Evidence, findings: Findings) -> None:
    """One upgrade decision, announced once, and shipping's answer to a grant counted once."""
    upgrades = await _by(
        evidence, "loyalty", "SELECT order_id, state FROM upgrades WHERE state IS NOT NULL", "order_id"
    )
    granted = [order_id for order_id, row in upgrades.items() if row["state"] != "declined"]
    findings.count("upgrade decisions", len(upgrades))
    findings.count("upgrades granted", len(granted))
    findings.count("upgrades paid for", sum(row["state"] == "spent" for row in upgrades.values()))
    rule = "one upgrade decision for each order"
    placed = dict.fromkeys(_per_order(evidence, "OrderPlaced"), 1)
    findings.wrong(rule, _differences(placed, dict.fromkeys(upgrades, 1)))
    findings.wrong(rule, _differences(placed, _per_order(evidence, "UpgradeGranted", "UpgradeDeclined")))
    rule = "one answer of shipping to each grant"
    findings.wrong(rule, _differences(dict.fromkeys(granted, 1), _per_order(evidence, "UpgradeGranted")))
    answers = _per_order(evidence, "ShipmentUpgraded", "UpgradeNotApplied")
    findings.wrong(rule, _differences(dict.fromkeys(granted, 1), answers))
    applied = {row["order_id"] for row in await _rows(evidence, "shipping", APPLIED)}
    findings.wrong(rule, _differences(dict.fromkeys(applied, 1), _per_order(evidence, "ShipmentUpgraded")))


APPLIED = "SELECT order_id FROM orders WHERE upgrade = 'APPLIED'"


async def parcels_give_their_points_once(evidence: Evidence, findings: Findings) -> None:
    """Each delivered parcel is announced once, and its points are in the ledger once."""
    delivered = await _rows(evidence, "shipping", "SELECT shipment_id FROM shipments WHERE state = 'delivered'")
    entries = await _rows(evidence, "loyalty", "SELECT shipment_id FROM points_ledger WHERE reason = 'delivery'")
    findings.count("parcels delivered", len(delivered))
    expected = {row["shipment_id"]: 1 for row in delivered}
    rule = "each delivered parcel gives its points once"
    findings.wrong(rule, _differences(expected, Counter(row["shipment_id"] for row in entries)))
    announced = Counter(fact.message.shipment_id for fact in evidence.topics.of("ShipmentDelivered"))
    findings.wrong(rule, _differences(expected, announced))


async def catalog_equals_inventory(evidence: Evidence, findings: Findings) -> None:
    """What inventory can promise is what it last announced, and what catalog shows."""
    levels = await _rows(evidence, "inventory", FREE)
    copy = await _rows(evidence, "catalog", "SELECT sku, location, free FROM stock_copy")
    findings.count("stock levels", len(levels))
    shelves = {f"{row['sku']}@{row['location']}": row["free"] for row in levels if row["free"]}
    findings.wrong(
        "catalog equals inventory",
        _differences(shelves, {f"{row['sku']}@{row['location']}": row["free"] for row in copy if row["free"]}),
    )
    newest: dict[str, Fact] = {}
    for fact in evidence.topics.of("StockLevelChanged"):
        if fact.key not in newest or fact.message.version > newest[fact.key].message.version:
            newest[fact.key] = fact
    findings.wrong(
        "the newest announced level is the level",
        _differences(shelves, {key: fact.message.free for key, fact in newest.items() if fact.message.free}),
    )


FREE = "SELECT sku, location, greatest(0, on_hand - held - committed - safety) AS free FROM stock"


async def timelines_are_complete(evidence: Evidence, findings: Findings) -> None:
    """Each fact of an order stands once on the timeline of its customer."""
    entries = await _rows(
        evidence, "contact", "SELECT customer_id, fact_id FROM timeline WHERE order_id IS NOT NULL AND order_id <> ''"
    )
    told = [fact for fact in evidence.topics.of(*ON_TIMELINE) if fact.message.order_id]
    findings.count("timeline entries of orders", len(entries))
    findings.wrong(
        "each timeline has every fact of its customer's orders once",
        _differences(
            {(fact.message.customer_id, fact.id): 1 for fact in told},
            Counter((row["customer_id"], row["fact_id"]) for row in entries),
        ),
    )


async def dead_letters_are_settled(evidence: Evidence, findings: Findings) -> None:
    """What stands on a dead-letter topic was handled since, or given up by a human."""
    findings.count("facts on the topics", len(evidence.topics.facts))
    findings.count("facts sent more than once", evidence.topics.repeats)
    findings.count("dead letters ever", len(evidence.topics.dead))
    for service in {letter.consumer for letter in evidence.topics.dead}:
        settled = {(row["topic"], row["fact_id"]) for row in await _rows(evidence, service, INBOX)}
        findings.wrong(
            "nothing is in a dead letter",
            (
                f"{letter.fact_id} of {letter.topic} for {service}: {letter.reason}"
                for letter in evidence.topics.dead
                if letter.consumer == service and (letter.topic, letter.fact_id) not in settled
            ),
        )


INBOX = "SELECT topic, fact_id FROM inbox"

RULES: tuple[Callable[[Evidence, Findings], Awaitable[None]], ...] = (
    orders_exist_once,
    stock_is_committed_to_orders,
    one_decision_for_each_order,
    parcels_give_their_points_once,
    catalog_equals_inventory,
    timelines_are_complete,
    dead_letters_are_settled,
)


async def check(evidence: Evidence, findings: Findings) -> None:
    """Every rule between the services."""
    for rule in RULES:
        await rule(evidence, findings)


async def _rows(evidence: Evidence, service: str, query: str) -> list[Any]:
    return await evidence.databases[service].fetch(query)


async def _by(evidence: Evidence, service: str, query: str, column: str) -> dict[str, Any]:
    return {row[column]: row for row in await _rows(evidence, service, query)}


def _per_order(evidence: Evidence, *names: str) -> Counter[str]:
    return Counter(fact.message.order_id for fact in evidence.topics.of(*names))


def _place(row: Any) -> tuple[str, str, str]:
    return row["order_id"], row["sku"], row["location"]


def _differences(expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> Iterable[str]:
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            name = " ".join(key) if isinstance(key, tuple) else key
            yield f"{name}: expected {expected.get(key, 'none')}, found {found.get(key, 'none')}"
