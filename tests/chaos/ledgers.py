"""What must hold inside each database. Every rule is a query for what breaks it: one row, with a text, for each."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.local.ports import SERVICES

from .evidence import Evidence
from .findings import Findings

NOT_LEFT = "nothing is left lying"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule inside one database."""

    service: str
    text: str
    breaks: str


# The ledger by place, with the units that came and went by what moved them.
_SUMS = """
SELECT s.sku || '@' || s.location AS place, s.*, coalesce(l.on_hand, 0) AS on_hand_sum, coalesce(l.held, 0) AS held_sum,
    coalesce(l.committed, 0) AS committed_sum, coalesce(l.came, 0) AS came, coalesce(l.shipped, 0) AS shipped,
    coalesce(l.moves, 0) AS moves, coalesce(l.taken, 0) AS taken
FROM stock s LEFT JOIN (
    SELECT sku, location, sum(on_hand_delta) AS on_hand, sum(held_delta) AS held, sum(committed_delta) AS committed,
        sum(on_hand_delta) FILTER (WHERE kind <> 'ship') AS came,
        -sum(on_hand_delta) FILTER (WHERE kind = 'ship') AS shipped,
        sum(on_hand_delta) FILTER (WHERE kind IN ('adjust', 'count', 'write_off') AND on_hand_delta < 0) AS taken,
        count(*) AS moves
    FROM ledger GROUP BY sku, location
) l USING (sku, location)
"""
_LINES = """
SELECT l.*, l.sku || '@' || l.location AS place, r.state, r.order_id
FROM reservation_lines l JOIN reservations r USING (reservation_id)
"""

RULES = (
    Rule(
        "inventory",
        "stock is conserved: on hand + shipped = received",
        f"SELECT format('%s: %s on hand, %s shipped, %s received', place, on_hand, shipped, came)"
        f" FROM ({_SUMS}) t WHERE on_hand + shipped <> came",
    ),
    Rule(
        "inventory",
        "balances are the sums of the ledger",
        f"SELECT format('%s: on hand %s (%s), held %s (%s), committed %s (%s), version %s (%s)', place, on_hand,"
        f" on_hand_sum, held, held_sum, committed, committed_sum, version, moves) FROM ({_SUMS}) t"
        f" WHERE (on_hand, held, committed, version) <> (on_hand_sum, held_sum, committed_sum, moves)",
    ),
    Rule(
        "inventory",
        "nothing is promised that is not there",
        # Somebody who counts fewer units than are promised makes a shortfall, which is announced and no mistake.
        f"SELECT format('%s: %s on hand, %s held, %s committed', place, on_hand, held, committed)"
        f" FROM ({_SUMS}) t WHERE held + committed > on_hand AND taken = 0",
    ),
    Rule(
        "inventory",
        "held units are those of live holds",
        f"SELECT format('%s: %s held, %s in lines', s.sku || '@' || s.location, s.held, coalesce(t.units, 0))"
        f" FROM stock s LEFT JOIN (SELECT sku, location, sum(quantity) AS units FROM ({_LINES}) l"
        f" WHERE held_until IS NOT NULL AND state = 'held' GROUP BY sku, location) t USING (sku, location)"
        f" WHERE s.held <> coalesce(t.units, 0)",
    ),
    Rule(
        "inventory",
        "committed units are the unshipped ones of committed reservations",
        f"SELECT format('%s: %s committed, %s in lines', s.sku || '@' || s.location, s.committed,"
        f" coalesce(t.units, 0)) FROM stock s LEFT JOIN (SELECT sku, location, sum(quantity - shipped) AS units"
        f" FROM ({_LINES}) l WHERE state = 'committed' GROUP BY sku, location) t USING (sku, location)"
        f" WHERE s.committed <> coalesce(t.units, 0)",
    ),
    Rule(
        "inventory",
        "shipped units are those that left with orders",
        f"SELECT format('%s: %s shipped by the ledger, %s by lines', t.place, t.shipped, coalesce(l.units, 0))"
        f" FROM ({_SUMS}) t LEFT JOIN (SELECT sku, location, sum(shipped) AS units FROM reservation_lines"
        f" GROUP BY sku, location) l USING (sku, location) WHERE t.shipped <> coalesce(l.units, 0)",
    ),
    Rule(
        "inventory",
        "a released order holds nothing",
        "SELECT format('%s: %s, its reservation is %s', m.order_id, m.state, r.state) FROM order_marks m"
        " JOIN reservations r USING (reservation_id)"
        " WHERE (m.state = 'released') = (r.state = 'committed') AND m.reservation_id IS NOT NULL",
    ),
    Rule(
        "catalog",
        "the window shows what the copy of stock says",
        "SELECT format('%s: %s free, %s in the copy', v.sku, v.free, coalesce(c.free, 0)) FROM variants v LEFT JOIN"
        " (SELECT sku, sum(free) AS free FROM stock_copy GROUP BY sku) c USING (sku)"
        " WHERE v.free <> coalesce(c.free, 0) UNION ALL"
        " SELECT format('%s: %s', product_id, CASE WHEN listed THEN 'listed, nothing is free' ELSE"
        " 'not listed, something is free' END) FROM products p WHERE listed <>"
        " EXISTS (SELECT FROM variants v WHERE v.product_id = p.product_id AND v.free > 0)",
    ),
    Rule(
        "shipping",
        "orders stand as their parcels do",
        "SELECT format('%s is %s with %s parcels, %s of them preparing', order_id, o.state, count(s),"
        " count(s) FILTER (WHERE s.state = 'preparing')) FROM orders o LEFT JOIN shipments s USING (order_id)"
        " GROUP BY order_id, o.state HAVING NOT CASE o.state"
        "  WHEN 'confirmed' THEN bool_or(s.state = 'preparing')"
        "  WHEN 'dispatched' THEN bool_and(s.state IN ('dispatched', 'delivered'))"
        "  WHEN 'delivered' THEN bool_and(s.state = 'delivered')"
        "  WHEN 'cancelled' THEN bool_and(s.state = 'cancelled')"
        "  ELSE count(s) = 0 END",
    ),
    Rule(
        "shipping",
        "parcels hold what was ordered",
        "SELECT format('%s: %s of %s ordered, %s in parcels', order_id, l.quantity, l.sku, coalesce(i.units, 0))"
        " FROM orders o JOIN checkout_lines l USING (checkout_id) LEFT JOIN ("
        "  SELECT order_id, sku, sum(quantity) AS units FROM shipments JOIN shipment_items USING (shipment_id)"
        "  GROUP BY order_id, sku) i USING (order_id, sku)"
        " WHERE o.state NOT IN ('rejected', 'pending', 'giving_up') AND l.quantity <> coalesce(i.units, 0)",
    ),
    Rule(
        "loyalty",
        "granted budget = reserved + spent",
        "SELECT format('%s of %s: %s reserved, %s spent; granted: %s, %s', b.period, b.first_day, b.reserved, b.spent,"
        " g.reserved, g.spent) FROM budgets b, LATERAL ("
        "  SELECT coalesce(sum(cost) FILTER (WHERE state = 'reserved'), 0) AS reserved,"
        "   coalesce(sum(cost) FILTER (WHERE state = 'spent'), 0) AS spent FROM upgrades u"
        "  WHERE u.currency = b.currency AND date_trunc(b.period, u.order_time AT TIME ZONE 'UTC')::date = b.first_day"
        " ) g WHERE (b.reserved, b.spent) <> (g.reserved, g.spent)",
    ),
    Rule(
        "loyalty",
        "no budget is overdrawn",
        "SELECT format('%s of %s: %s given of %s', period, first_day, reserved + spent, allowed)"
        " FROM budgets b, LATERAL ("
        "  SELECT max(CASE b.period WHEN 'day' THEN daily_budget ELSE monthly_budget END) AS allowed"
        "  FROM upgrade_policies p WHERE p.currency = b.currency) p WHERE reserved + spent > allowed",
    ),
    Rule(
        "loyalty",
        "no grant waits for ever",
        "SELECT format('%s is %s', order_id, coalesce(state, 'not decided')) FROM upgrades"
        " WHERE state IS NULL OR state = 'reserved'",
    ),
    Rule(
        "loyalty",
        "points are the sum of the ledger",
        "SELECT format('%s: %s points, %s in the ledger', customer_id, s.points, coalesce(sum(l.points), 0))"
        " FROM standings s LEFT JOIN points_ledger l USING (customer_id) GROUP BY customer_id, s.points"
        " HAVING s.points <> coalesce(sum(l.points), 0)",
    ),
    *(
        Rule(
            service,
            NOT_LEFT,
            f"SELECT format('{service}: %s waits in the outbox', topic) FROM outbox UNION ALL"
            f" SELECT format('{service}: a dead letter of %s waits (%s)', topic, reason) FROM dead_letters UNION ALL"
            f" SELECT format('{service}: a key of %s is parked', topic) FROM parked_keys",
        )
        for service in SERVICES
    ),
)


async def check(evidence: Evidence, findings: Findings) -> None:
    """Every rule inside every database."""
    for rule in RULES:
        rows = await evidence.databases[rule.service].fetch(rule.breaks)
        findings.wrong(rule.text, [row[0] for row in rows])
