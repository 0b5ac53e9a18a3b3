"""Begin a checkout: price it, hold the goods, and only then write it down.

The goods are held under a request id made of the caller's, so that a repeat finds the hold of the attempt before it
instead of standing in its own way. What no attempt comes back for lapses by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from services.chassis.database import Transaction
from services.chassis.errors import Refusal, Unavailable
from services.chassis.grpc_errors import RemoteError
from services.chassis.values import from_money, to_datetime
from services.shipping import store
from services.shipping.clients import Catalog, Inventory
from services.shipping.domain.checkout import Checkout, CurrencyNotSold, UnknownSku
from services.shipping.domain.delivery import CURRENCY, DeliveryQuote, ServiceLevel, quote
from services.shipping.domain.order import Line
from services.shipping.domain.terms import VERSION
from shop.catalog.v1 import records_pb2
from shop.inventory.v1 import inventory_pb2

# A hold of an earlier attempt that is gone is replaced; more often than this somebody is playing with us.
_MOST_HOLDS = 5


@dataclass(frozen=True, slots=True)
class BeginCheckout:
    """Hold these for a customer who is about to order."""

    customer_id: str
    wanted: Mapping[str, int]
    country: str
    service_level: ServiceLevel
    # Who asks, with which request id.
    caller: str
    request_id: str
    # Where the call comes from, as an opaque name.
    peer: str = ""


async def prepare_checkout(
    command: BeginCheckout, catalog: Catalog, inventory: Inventory, now: datetime
) -> tuple[Checkout, DeliveryQuote]:
    """Holds the goods. Nothing is written down here yet.

    Raises `DestinationNotServed`, `UnknownSku`, what inventory refuses (OUT_OF_STOCK ...), and `Unavailable`.
    """
    delivery = quote(now, command.country, command.service_level)
    lines = await _priced(command.wanted, catalog)
    reservation = await _hold(command, inventory)
    begun = Checkout(
        checkout_id=f"chk_{uuid4().hex}",
        customer_id=command.customer_id,
        reservation_id=reservation.reservation_id,
        lines=lines,
        service_level=command.service_level,
        delivery_price=delivery.price,
        country=command.country,
        highlights_version=VERSION,
        expire_time=to_datetime(reservation.expire_time),
    )
    return begun, delivery


async def release_hold(inventory: Inventory, checkout: Checkout) -> None:
    """Gives back the goods of a checkout that could not be written down. If that fails, the hold lapses by itself."""
    with suppress(Refusal, RemoteError):
        await inventory.ReleaseReservation(
            inventory_pb2.ReleaseReservationRequest(
                request_id=f"release:{checkout.reservation_id}", reservation_id=checkout.reservation_id
            )
        )


async def forget_unordered(tx: Transaction, kept_for: timedelta, limit: int = 200) -> int:
    """Deletes what nobody ordered this long after its hold, addresses and all. Returns how many it looked at."""
    return await store.delete_unordered(tx.connection, kept_for, limit)


async def _priced(wanted: Mapping[str, int], catalog: Catalog) -> list[Line]:
    request = records_pb2.BatchGetVariantsRequest(skus=list(wanted), currency_code=CURRENCY)
    answer = await catalog.BatchGetVariants(request)
    sold = {variant.sku: variant for variant in answer.variants}
    lines = []
    for sku, quantity in wanted.items():
        variant = sold.get(sku)
        if variant is None:
            raise UnknownSku(f"{sku} is not sold here", sku=sku)
        if variant.price.currency_code != CURRENCY:
            raise CurrencyNotSold(f"{sku} has no price in {CURRENCY}", sku=sku, currency=CURRENCY)
        lines.append(Line(sku, variant.title, quantity, from_money(variant.price)))
    return lines


async def _hold(command: BeginCheckout, inventory: Inventory) -> inventory_pb2.Reservation:
    lines = [inventory_pb2.ReservationLine(sku=sku, quantity=count) for sku, count in command.wanted.items()]
    for attempt in range(_MOST_HOLDS):
        answer = await inventory.ReserveStock(
            inventory_pb2.ReserveStockRequest(
                request_id=_hold_id(command, attempt),
                customer_id=command.customer_id,
                lines=lines,
                country=command.country,
                peer=command.peer,
            )
        )
        # That may be the answer of an earlier attempt, whose hold ran out or was given back since.
        found = await inventory.GetReservation(
            inventory_pb2.GetReservationRequest(reservation_id=answer.reservation.reservation_id)
        )
        if found.reservation.state == inventory_pb2.RESERVATION_STATE_HELD:
            return found.reservation
    raise Unavailable("the goods could not be held", reason="HOLD_LOST")


def _hold_id(command: BeginCheckout, attempt: int) -> str:
    asked = "\n".join((command.caller, "BeginCheckout", command.request_id))
    return f"hold:{hashlib.sha256(asked.encode()).hexdigest()[:40]}:{attempt}"
