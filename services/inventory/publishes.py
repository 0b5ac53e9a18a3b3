"""What inventory announces, and where."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.facts import Fact, Topic
from services.chassis.values import to_timestamp
from services.inventory.domain.reservation import Purpose, Reservation, ReservationState
from services.inventory.domain.shortfall import HurtPromise
from services.inventory.domain.stock import StockLevelChanged, StockShortfallDetected
from shop.inventory.events.v1 import facts_pb2 as facts
from shop.inventory.v1 import inventory_pb2 as pb

STOCK = Topic(
    "shop.inventory.stock.v1",
    (facts.StockLevelChanged, facts.StockWatermark),
    compacted=True,
)
RESERVATIONS = Topic(
    "shop.inventory.reservations.v1",
    (facts.ReservationExpired, facts.WaitingHoldUsed, facts.StockShortfallDetected),
    retention_days=14,
)
PUBLISHES = (STOCK, RESERVATIONS)
PURPOSES = {purpose: pb.HoldPurpose.Value(f"HOLD_PURPOSE_{purpose.name}") for purpose in Purpose}


def stock_level_changed(happened: StockLevelChanged, now: Timestamp) -> Fact:
    """A level is now so."""
    fact = facts.StockLevelChanged(
        sku=happened.sku,
        location=happened.location,
        version=happened.version,
        free=happened.free,
        received_total=happened.received_total,
        change_time=now,
    )
    other = happened.moved_with
    if other:
        fact.moved_with.CopyFrom(
            facts.OtherLevel(
                location=other.location,
                version=other.version,
                free=other.free,
                received_total=other.received_total,
            )
        )
    return Fact(STOCK, f"{happened.sku}@{happened.location}", fact)


def stock_shortfall_detected(happened: StockShortfallDetected, hurt: Sequence[HurtPromise]) -> Fact:
    """Fewer units are there than are promised; `hurt` newest first."""
    ordered = [(each.reservation_id, each.order_id) for each in hurt if each.order_id is not None]
    return Fact(
        RESERVATIONS,
        f"{happened.sku}@{happened.location}",
        facts.StockShortfallDetected(
            sku=happened.sku,
            location=happened.location,
            version=happened.version,
            missing=happened.missing,
            reservation_ids=[reservation_id for reservation_id, _ in ordered],
            order_ids=[order_id for _, order_id in ordered],
            hurt=[
                facts.HurtReservation(
                    reservation_id=each.reservation_id,
                    state=pb.RESERVATION_STATE_COMMITTED if each.order_id else pb.RESERVATION_STATE_HELD,
                    order_id=each.order_id or "",
                    customer_id=each.customer_id,
                    quantity=each.quantity,
                    missing=each.missing,
                    purpose=PURPOSES[each.purpose],
                )
                for each in hurt
            ],
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
            purpose=PURPOSES[reservation.purpose],
        ),
    )


def waiting_hold_used(waiting: Reservation, skus: Sequence[str], used_by: str) -> Fact:
    """A customer who waited took their turn."""
    return Fact(
        RESERVATIONS,
        waiting.reservation_id,
        facts.WaitingHoldUsed(
            reservation_id=waiting.reservation_id,
            version=waiting.version,
            customer_id=waiting.customer_id,
            used_by_reservation_id=used_by,
            skus=skus,
            closed=waiting.state is ReservationState.RELEASED,
        ),
    )


def watermark(as_of: datetime) -> facts.StockWatermark:
    """Everything up to this instant was announced."""
    return facts.StockWatermark(as_of=to_timestamp(as_of))
