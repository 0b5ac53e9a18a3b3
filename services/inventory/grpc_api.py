"""Inventory over gRPC: from messages to commands, and back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import asyncpg

from services.chassis import pages
from services.chassis.access import current_caller
from services.chassis.database import Database, Transaction
from services.chassis.errors import InvalidInput
from services.chassis.requests import once
from services.chassis.values import to_timestamp
from services.inventory import queries, stock_file, usecases
from services.inventory.domain.reservation import Reservation, ReservationNotFound, ReservationState
from services.inventory.domain.stock import Allocation, Cause, Level, MovementKind
from services.inventory.settings import Settings
from shop.inventory.v1 import inventory_pb2 as pb

STATES = {state: pb.ReservationState.Value(f"RESERVATION_STATE_{state.name}") for state in ReservationState}
KINDS = {kind: pb.MovementKind.Value(f"MOVEMENT_KIND_{kind.name}") for kind in MovementKind}


class InventoryApi:
    """shop.inventory.v1.InventoryService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def ReceiveStock(self, request: pb.ReceiveStockRequest) -> pb.ReceiveStockResponse:
        async def run(tx: Transaction) -> pb.ReceiveStockResponse:
            cause = Cause(current_caller().actor, request.reason)
            level = await usecases.receive_stock(tx, request.sku, request.location, request.quantity, cause)
            return pb.ReceiveStockResponse(level=_level(level))

        return await once(self._database, request, pb.ReceiveStockResponse, run)

    async def AdjustStock(self, request: pb.AdjustStockRequest) -> pb.AdjustStockResponse:
        async def run(tx: Transaction) -> pb.AdjustStockResponse:
            cause = Cause(current_caller().actor, request.reason)
            level = await usecases.adjust_stock(tx, request.sku, request.location, request.delta, cause)
            return pb.AdjustStockResponse(level=_level(level))

        return await once(self._database, request, pb.AdjustStockResponse, run)

    async def ImportStock(self, request: pb.ImportStockRequest) -> pb.ImportStockResponse:
        counts, problems = stock_file.check_rows(request.rows)
        async with self._database.transaction() as tx:
            changed = await usecases.import_counts(tx, request.document_id, counts, current_caller().actor)
        return pb.ImportStockResponse(changed=changed, unchanged=len(counts) - changed, problems=problems)

    async def ReserveStock(self, request: pb.ReserveStockRequest) -> pb.ReserveStockResponse:
        command = usecases.ReserveStock(
            request.customer_id,
            _wanted(request.lines),
            request.hold_time.ToTimedelta() if request.HasField("hold_time") else self._settings.hold_time,
            self._settings.holds_per_customer,
            current_caller().actor,
        )

        async def run(tx: Transaction) -> pb.ReserveStockResponse:
            return pb.ReserveStockResponse(reservation=_reservation(await usecases.reserve_stock(tx, command)))

        return await once(self._database, request, pb.ReserveStockResponse, run)

    async def ExtendReservation(self, request: pb.ExtendReservationRequest) -> pb.ExtendReservationResponse:
        hold_time: timedelta = request.hold_time.ToTimedelta()

        async def run(tx: Transaction) -> pb.ExtendReservationResponse:
            reservation = await usecases.extend_reservation(
                tx, request.reservation_id, hold_time, self._settings.hold_limit
            )
            return pb.ExtendReservationResponse(reservation=_reservation(reservation))

        return await once(self._database, request, pb.ExtendReservationResponse, run)

    async def CommitReservation(self, request: pb.CommitReservationRequest) -> pb.CommitReservationResponse:
        async def run(tx: Transaction) -> pb.CommitReservationResponse:
            reservation = await usecases.commit_reservation(
                tx, request.reservation_id, request.order_id, current_caller().actor
            )
            return pb.CommitReservationResponse(reservation=_reservation(reservation))

        return await once(self._database, request, pb.CommitReservationResponse, run)

    async def ReleaseReservation(self, request: pb.ReleaseReservationRequest) -> pb.ReleaseReservationResponse:
        async def run(tx: Transaction) -> pb.ReleaseReservationResponse:
            reservation = await usecases.release_reservation(tx, request.reservation_id, current_caller().actor)
            return pb.ReleaseReservationResponse(reservation=_reservation(reservation))

        return await once(self._database, request, pb.ReleaseReservationResponse, run)

    async def ReleaseOrder(self, request: pb.ReleaseOrderRequest) -> pb.ReleaseOrderResponse:
        async def run(tx: Transaction) -> pb.ReleaseOrderResponse:
            released = await usecases.release_order(tx, request.order_id, current_caller().actor)
            return pb.ReleaseOrderResponse(released=_allocations(released))

        return await once(self._database, request, pb.ReleaseOrderResponse, run)

    async def GetReservation(self, request: pb.GetReservationRequest) -> pb.GetReservationResponse:
        rows = await queries.reservation(self._database, request.reservation_id)
        if not rows:
            raise ReservationNotFound("there is no such reservation", reservation_id=request.reservation_id)
        head = rows[0]
        return pb.GetReservationResponse(
            reservation=pb.Reservation(
                reservation_id=head["reservation_id"],
                customer_id=head["customer_id"],
                state=STATES[ReservationState(head["state_now"])],
                allocations=_allocations(Allocation(row["sku"], row["location"], row["quantity"]) for row in rows),
                create_time=to_timestamp(head["create_time"]),
                expire_time=to_timestamp(head["expire_time"]),
                order_id=head["order_id"] or "",
            )
        )

    async def BatchGetAvailability(self, request: pb.BatchGetAvailabilityRequest) -> pb.BatchGetAvailabilityResponse:
        read_time, rows = await queries.levels(self._database, list(request.skus))
        return pb.BatchGetAvailabilityResponse(
            levels=[_level_row(row) for row in rows], read_time=to_timestamp(read_time)
        )

    async def ListStockLevels(self, request: pb.ListStockLevelsRequest) -> pb.ListStockLevelsResponse:
        size = pages.size(request.page_size, usual=500, most=1000)
        sku, location = pages.position(request, (str, str)) or ("", "")
        read_time, rows = await queries.levels_after(self._database, str(sku), str(location), size)
        return pb.ListStockLevelsResponse(
            levels=[_level_row(row) for row in rows],
            next_page_token=pages.token(request, (rows[-1]["sku"], rows[-1]["location"])) if len(rows) == size else "",
            read_time=to_timestamp(read_time),
        )

    async def ListLedgerEntries(self, request: pb.ListLedgerEntriesRequest) -> pb.ListLedgerEntriesResponse:
        size = pages.size(request.page_size, usual=50, most=500)
        position = pages.position(request, (int,))
        rows = await queries.ledger(self._database, request.sku, int(position[0]) if position else None, size)
        return pb.ListLedgerEntriesResponse(
            entries=[
                pb.LedgerEntry(
                    entry_id=row["entry_id"],
                    sku=row["sku"],
                    location=row["location"],
                    kind=KINDS[MovementKind(row["kind"])],
                    on_hand_delta=row["on_hand_delta"],
                    held_delta=row["held_delta"],
                    committed_delta=row["committed_delta"],
                    reservation_id=row["reservation_id"] or "",
                    order_id=row["order_id"] or "",
                    actor=row["actor"],
                    reason=row["reason"],
                    create_time=to_timestamp(row["create_time"]),
                    version=row["version"],
                )
                for row in rows
            ],
            next_page_token=pages.token(request, (rows[-1]["entry_id"],)) if len(rows) == size else "",
        )


def _wanted(lines: Iterable[pb.ReservationLine]) -> dict[str, int]:
    """The quantity per SKU. Raises `InvalidInput` for a SKU that stands twice."""
    wanted: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines):
        if line.sku in wanted:
            problems.append((f"lines[{number}].sku", f"{line.sku} stands twice; give it once with the whole quantity"))
        wanted[line.sku] = line.quantity
    if problems:
        raise InvalidInput(problems, reason="DUPLICATE_LINE")
    return wanted


def _level(level: Level) -> pb.StockLevel:
    return pb.StockLevel(
        sku=level.sku,
        location=level.location,
        free=level.free,
        on_hand=level.on_hand,
        held=level.held,
        committed=level.committed,
        version=level.version,
        received_total=level.received_total,
    )


def _allocations(parts: Iterable[Allocation]) -> list[pb.Allocation]:
    return [pb.Allocation(sku=part.sku, location=part.location, quantity=part.quantity) for part in parts]


def _reservation(reservation: Reservation) -> pb.Reservation:
    return pb.Reservation(
        reservation_id=reservation.reservation_id,
        customer_id=reservation.customer_id,
        state=STATES[reservation.state],
        allocations=_allocations(line.allocation for line in reservation.lines),
        create_time=to_timestamp(reservation.create_time),
        expire_time=to_timestamp(reservation.expire_time),
        order_id=reservation.order_id or "",
    )


def _level_row(row: asyncpg.Record) -> pb.StockLevel:
    return pb.StockLevel(
        sku=row["sku"],
        location=row["location"],
        free=row["free"],
        on_hand=row["on_hand"],
        held=row["held"],
        committed=row["committed"],
        version=row["version"],
        received_total=row["received_total"],
    )
