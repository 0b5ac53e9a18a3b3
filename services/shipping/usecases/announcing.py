"""Save an order and announce what happened to it, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable

from services.chassis import telemetry
from services.chassis.database import Transaction
from services.shipping import publishes, store
from services.shipping.domain.facts import Happened
from services.shipping.domain.order import Order


async def announce(tx: Transaction, order: Order, happened: Iterable[Happened]) -> None:
    """Writes a locked order and its facts. They belong to the journey of the order, whoever's call caused them."""
    await store.save_order(tx.connection, order)
    with telemetry.with_journey(order.journey_id, order.customer_id):
        await tx.append(publishes.fact(order, one) for one in happened)
