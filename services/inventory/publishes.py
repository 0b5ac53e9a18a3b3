"""What inventory announces, and where."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.chassis.facts import Fact, Topic
from services.chassis.values import to_timestamp
from services.inventory.domain.reservation import Reservation
from services.inventory.domain.stock import StockLevelChanged, StockShortfallDetected
from shop.inventory.events.v1 import facts_pb2 as facts

STOCK = Topic(
    "shop.inventory.stock.v1",
    (facts.StockLevelChanged, facts.StockWatermark),
    compacted=True,
)
RESERVATIONS = Topic(
    "shop.inventory.reservations.v1",
    (facts.ReservationExpired, facts.StockShortfallDetected),
    retention_days=14,
)
PUBLISHES = (STOCK, RESERVATIONS)


def stock_level_changed(happened: StockLevelChanged, now: datetime) -> Fact:
    """A level is now so."""
    return Fact(
        STOCK,
        f"{happened.sku}@{happened.location}",
        facts.StockLevelChanged(
            sku=happened.sku,
            location=happened.location,
            version=happened.version,
            free=happened.free,
            received_total=happened.received_total,
            change_time=to_timestamp(now),
        ),
    )


def stock_shortfall_detected(happened: StockShortfallDetected, hurt: Sequence[tuple[str, str]]) -> Fact:
    """Fewer units are there than are promised; `hurt` are (reservation id, order id), newest first."""
    return Fact(
        RESERVATIONS,
        f"{happened.sku}@{happened.location}",
        facts.StockShortfallDetected(
            sku=happened.sku,
            location=happened.location,
            version=happened.version,
            missing=happened.missing,
            reservation_ids=[reservation_id for reservation_id, _ in hurt],
            order_ids=[order_id for _, order_id in hurt],
        ),
    )


def reservation_expired(reservation: Reservation) -> Fact:
    """A hold ran out before it was committed."""
    return Fact(
        RESERVATIONS,
        reservation.reservation_id,
        facts.ReservationExpired(
            reservation_id=reservation.reservation_id,
            version=reservation.version,
            customer_id=reservation.customer_id,
            expire_time=to_timestamp(reservation.expire_time),
        ),
    )


def watermark(as_of: datetime) -> facts.StockWatermark:
    """Everything up to this instant was announced."""
    return facts.StockWatermark(as_of=to_timestamp(as_of))
