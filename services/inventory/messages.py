"""Between inventory's messages and its own words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from services.chassis.access import Caller
from services.chassis.errors import InvalidInput, NotAllowed
from services.chassis.values import to_timestamp
from services.inventory.domain.allocation import Allocation
from services.inventory.domain.levels import Level, MovementKind
from services.inventory.domain.reservation import Purpose, Reservation, ReservationState
from services.inventory.publishes import PURPOSES
from services.inventory.usecases.reserving import Held
from shop.inventory.v1 import inventory_pb2 as pb

STATES = {state: pb.ReservationState.Value(f"RESERVATION_STATE_{state.name}") for state in ReservationState}
KINDS = {kind: pb.MovementKind.Value(f"MOVEMENT_KIND_{kind.name}") for kind in MovementKind}
# Who may hold for what.
PURPOSE_OF = {"shipping": Purpose.CHECKOUT, "catalog": Purpose.WAITING_CUSTOMER}


class Line(Protocol):
    """A line of a request."""

    sku: str
    quantity: int


def purpose(given: pb.HoldPurpose.ValueType, caller: Caller) -> Purpose:
    """What a caller holds units for. Raises `NotAllowed` for a purpose that is not theirs."""
    known = {number: purpose for purpose, number in PURPOSES.items()}
    wanted = known.get(given, Purpose.CHECKOUT)
    if PURPOSE_OF.get(caller.service or "") is not wanted:
        raise NotAllowed("units are not yours to hold for this", purpose=wanted)
    return wanted


def visible(caller: Caller) -> Purpose | None:
    """The holds a caller sees, if not all: catalog sees those of customers who wait."""
    return Purpose.WAITING_CUSTOMER if caller.service == "catalog" else None


def wanted(lines: Iterable[Line]) -> dict[str, int]:
    """The quantity per SKU. Raises `InvalidInput` for a SKU that stands twice."""
    found: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines):
        if line.sku in found:
            problems.append((f"lines[{number}].sku", f"{line.sku} stands twice; give it once with the whole quantity"))
        found[line.sku] = line.quantity
    if problems:
        raise InvalidInput(problems, reason="DUPLICATE_LINE")
    return found


def level(level: Level) -> pb.StockLevel:
    return pb.StockLevel(
        sku=level.sku,
        location=level.location,
        free=level.free,
        on_hand=level.on_hand,
        held=level.held,
        committed=level.committed,
        version=level.version,
        received_total=level.received_total,
        safety=level.safety,
        missing=level.missing,
    )


def add_levels(levels: Any, rows: Iterable[Any]) -> None:
    """Adds the levels of rows that were read, a hold past its time being free."""
    # By position, and straight into the answer: a page of a storefront asks for hundreds.
    for _, sku, location, on_hand, written, committed, safety, received_total, version, due in rows:
        held = written - due
        levels.add(
            sku=sku,
            location=location,
            free=max(0, on_hand - held - committed - safety),
            on_hand=on_hand,
            held=held,
            committed=committed,
            version=version,
            received_total=received_total,
            safety=safety,
            missing=max(0, held + committed - on_hand),
        )


def allocations(parts: Iterable[Allocation]) -> list[pb.Allocation]:
    return [pb.Allocation(sku=part.sku, location=part.location, quantity=part.quantity) for part in parts]


def reservation(reservation: Reservation) -> pb.Reservation:
    return pb.Reservation(
        reservation_id=reservation.reservation_id,
        customer_id=reservation.customer_id,
        state=STATES[reservation.state],
        allocations=allocations(line.allocation for line in reservation.lines),
        create_time=to_timestamp(reservation.create_time),
        expire_time=to_timestamp(reservation.expire_time),
        order_id=reservation.order_id or "",
        purpose=PURPOSES[reservation.purpose],
        used_by_reservation_id=reservation.used_by or "",
    )


def reservation_of(rows: list[Any]) -> pb.Reservation:
    """The reservation of rows that were read, one a line."""
    head = rows[0]
    return pb.Reservation(
        reservation_id=head["reservation_id"],
        customer_id=head["customer_id"],
        state=STATES[ReservationState(head["state_now"])],
        allocations=allocations(Allocation(row["sku"], row["location"], row["quantity"]) for row in rows),
        create_time=to_timestamp(head["create_time"]),
        expire_time=to_timestamp(head["expire_time"]),
        order_id=head["order_id"] or "",
        purpose=PURPOSES[Purpose(head["purpose"])],
        used_by_reservation_id=head["used_by"] or "",
    )


def held(held: Held) -> pb.ReserveStockResponse:
    return pb.ReserveStockResponse(
        reservation=reservation(held.reservation),
        missing=[pb.MissingUnits(sku=sku, wanted=units, held=have) for sku, units, have in held.missing],
        used_reservation_ids=[each.reservation_id for each, _ in held.used],
    )


def entry(row: Any) -> pb.LedgerEntry:
    return pb.LedgerEntry(
        entry_id=row["entry_id"],
        sku=row["sku"],
        location=row["location"],
        kind=KINDS[MovementKind(row["kind"])],
        on_hand_delta=row["on_hand_delta"],
        held_delta=row["held_delta"],
        committed_delta=row["committed_delta"],
        safety_delta=row["safety_delta"],
        reservation_id=row["reservation_id"] or "",
        order_id=row["order_id"] or "",
        actor=row["actor"],
        reason=row["reason"],
        request_id=row["request_id"] or "",
        create_time=to_timestamp(row["create_time"]),
        version=row["version"],
    )
