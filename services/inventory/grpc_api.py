"""Inventory over gRPC: from messages to commands, and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from services.chassis import pages, telemetry
from services.chassis.access import current_caller
from services.chassis.database import Database, Transaction
from services.chassis.errors import InvalidInput, Refusal
from services.chassis.requests import once
from services.chassis.together import Together
from services.chassis.values import to_timestamp
from services.inventory import audit, messages, queries, stock_rows
from services.inventory.domain.levels import Cause
from services.inventory.domain.reservation import Purpose, ReservationNotFound
from services.inventory.settings import Settings
from services.inventory.usecases import orders, reserving, stock
from shop.inventory.v1 import inventory_pb2 as pb


class InventoryApi:
    """shop.inventory.v1.InventoryService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._limits = settings.limits
        self._hold_limits = {purpose: settings.hold_limit(purpose) for purpose in Purpose}
        # The calls of a rush: those that wait at the same moment share a transaction.
        self._reserving = Together(database, pb.ReserveStockResponse, self._reserve)
        self._committing = Together(
            database,
            pb.CommitReservationResponse,
            self._commit,
            apart=lambda command: (command.order_id, command.reservation_id),
        )

    # --- stock

    async def ReceiveStock(self, request: pb.ReceiveStockRequest) -> pb.ReceiveStockResponse:
        async def run(tx: Transaction) -> pb.ReceiveStockResponse:
            cause = _cause(request)
            level = await stock.receive_stock(tx, request.sku, request.location, request.quantity, cause)
            return pb.ReceiveStockResponse(level=messages.level(level))

        return await once(self._database, request, pb.ReceiveStockResponse, run)

    async def AdjustStock(self, request: pb.AdjustStockRequest) -> pb.AdjustStockResponse:
        async def run(tx: Transaction) -> pb.AdjustStockResponse:
            cause = _cause(request)
            level = await stock.adjust_stock(tx, request.sku, request.location, request.delta, cause)
            return pb.AdjustStockResponse(level=messages.level(level))

        return await once(self._database, request, pb.AdjustStockResponse, run)

    async def CountStock(self, request: pb.CountStockRequest) -> pb.CountStockResponse:
        async def run(tx: Transaction) -> pb.CountStockResponse:
            cause = _cause(request)
            level, difference = await stock.count_stock(tx, request.sku, request.location, request.counted, cause)
            return pb.CountStockResponse(level=messages.level(level), difference=difference)

        return await once(self._database, request, pb.CountStockResponse, run)

    async def WriteOffStock(self, request: pb.WriteOffStockRequest) -> pb.WriteOffStockResponse:
        async def run(tx: Transaction) -> pb.WriteOffStockResponse:
            cause = _cause(request)
            level = await stock.write_off_stock(tx, request.sku, request.location, request.quantity, cause)
            return pb.WriteOffStockResponse(level=messages.level(level))

        return await once(self._database, request, pb.WriteOffStockResponse, run)

    async def TransferStock(self, request: pb.TransferStockRequest) -> pb.TransferStockResponse:
        source, target = request.from_location, request.to_location
        if source == target:
            raise InvalidInput([("to_location", "must be another location than from_location")])

        async def run(tx: Transaction) -> pb.TransferStockResponse:
            cause = _cause(request)
            left, came = await stock.transfer_stock(tx, request.sku, source, target, request.quantity, cause)
            return pb.TransferStockResponse(from_level=messages.level(left), to_level=messages.level(came))

        return await once(self._database, request, pb.TransferStockResponse, run)

    async def SetSafetyStock(self, request: pb.SetSafetyStockRequest) -> pb.SetSafetyStockResponse:
        async def run(tx: Transaction) -> pb.SetSafetyStockResponse:
            cause = _cause(request)
            level = await stock.set_safety_stock(tx, request.sku, request.location, request.units, cause)
            return pb.SetSafetyStockResponse(level=messages.level(level))

        return await once(self._database, request, pb.SetSafetyStockResponse, run)

    async def SetLocationRanks(self, request: pb.SetLocationRanksRequest) -> pb.SetLocationRanksResponse:
        async def run(tx: Transaction) -> pb.SetLocationRanksResponse:
            await stock.set_location_ranks(tx, request.ranks.country, request.ranks.locations)
            return pb.SetLocationRanksResponse(ranks=request.ranks)

        return await once(self._database, request, pb.SetLocationRanksResponse, run)

    async def ListLocationRanks(self, request: pb.ListLocationRanksRequest) -> pb.ListLocationRanksResponse:
        size = pages.size(request.page_size, usual=300, most=300)
        position = pages.position(request, (str,))
        rows = await queries.location_ranks(self._database, str(position[0]) if position else None, size)
        return pb.ListLocationRanksResponse(
            ranks=[pb.LocationRanks(country=row["country"], locations=row["locations"]) for row in rows],
            next_page_token=pages.token(request, (rows[-1]["country"],)) if len(rows) == size else "",
        )

    async def ReturnStock(self, request: pb.ReturnStockRequest) -> pb.ReturnStockResponse:
        lines = [
            orders.Returned(line.sku, line.location, line.to_location or line.location, line.quantity)
            for line in request.lines
        ]

        async def run(tx: Transaction) -> pb.ReturnStockResponse:
            levels = await orders.return_stock(tx, request.order_id, lines, _cause(request))
            return pb.ReturnStockResponse(levels=map(messages.level, levels))

        return await once(self._database, request, pb.ReturnStockResponse, run)

    async def ImportStock(self, request: pb.ImportStockRequest) -> pb.ImportStockResponse:
        counts, problems = stock_rows.check_rows(request.rows)
        async with self._database.transaction() as tx:
            changed = await stock.import_counts(tx, request.document_id, counts, current_caller().actor)
        return pb.ImportStockResponse(changed=changed, unchanged=len(counts) - changed, problems=problems)

    # --- reservations

    async def ReserveStock(self, request: pb.ReserveStockRequest) -> pb.ReserveStockResponse:
        purpose = messages.purpose(request.purpose, current_caller())
        usual = self._settings.usual_hold_time(purpose)
        command = reserving.ReserveStock(
            request.customer_id,
            messages.wanted(request.lines),
            self._hold_time(request.hold_time, purpose) if request.HasField("hold_time") else usual,
            current_caller().actor,
            request.request_id,
            telemetry.carrier(),
            purpose,
            request.partial,
            request.country,
            request.peer,
            request.guest,
        )

        # A customer may repeat from elsewhere, having changed networks: it is the same request.
        request.ClearField("peer")
        return await self._reserving(request, command)

    async def ExtendReservation(self, request: pb.ExtendReservationRequest) -> pb.ExtendReservationResponse:
        hold_time: timedelta = request.hold_time.ToTimedelta()
        only = messages.visible(current_caller())

        async def run(tx: Transaction) -> pb.ExtendReservationResponse:
            reservation = await reserving.extend_reservation(
                tx, request.reservation_id, hold_time, self._hold_limits, only
            )
            return pb.ExtendReservationResponse(reservation=messages.reservation(reservation))

        return await once(self._database, request, pb.ExtendReservationResponse, run)

    async def ShrinkReservation(self, request: pb.ShrinkReservationRequest) -> pb.ShrinkReservationResponse:
        kept = messages.wanted(request.lines)

        async def run(tx: Transaction) -> pb.ShrinkReservationResponse:
            reservation = await reserving.shrink_reservation(
                tx, request.reservation_id, kept, current_caller().actor, request.request_id
            )
            return pb.ShrinkReservationResponse(reservation=messages.reservation(reservation))

        return await once(self._database, request, pb.ShrinkReservationResponse, run)

    async def CommitReservation(self, request: pb.CommitReservationRequest) -> pb.CommitReservationResponse:
        command = orders.CommitReservation(
            request.reservation_id,
            request.order_id,
            current_caller().actor,
            request.request_id,
            telemetry.carrier(),
        )

        return await self._committing(request, command)

    async def ReleaseReservation(self, request: pb.ReleaseReservationRequest) -> pb.ReleaseReservationResponse:
        only = messages.visible(current_caller())

        async def run(tx: Transaction) -> pb.ReleaseReservationResponse:
            reservation = await reserving.release_reservation(
                tx, request.reservation_id, current_caller().actor, request.request_id, only
            )
            return pb.ReleaseReservationResponse(reservation=messages.reservation(reservation))

        return await once(self._database, request, pb.ReleaseReservationResponse, run)

    async def ReleaseOrder(self, request: pb.ReleaseOrderRequest) -> pb.ReleaseOrderResponse:
        async def run(tx: Transaction) -> pb.ReleaseOrderResponse:
            released = await orders.release_order(tx, request.order_id, current_caller().actor, request.request_id)
            return pb.ReleaseOrderResponse(released=messages.allocations(released))

        return await once(self._database, request, pb.ReleaseOrderResponse, run)

    # --- reading

    async def GetReservation(self, request: pb.GetReservationRequest) -> pb.GetReservationResponse:
        rows = await queries.reservation(self._database, request.reservation_id)
        only = messages.visible(current_caller())
        if not rows or (only and rows[0]["purpose"] != only):
            raise ReservationNotFound("there is no such reservation", reservation_id=request.reservation_id)
        return pb.GetReservationResponse(reservation=messages.reservation_of(rows))

    async def BatchGetAvailability(self, request: pb.BatchGetAvailabilityRequest) -> pb.BatchGetAvailabilityResponse:
        read_time, rows = await queries.levels(self._database, list(request.skus))
        answer = pb.BatchGetAvailabilityResponse(read_time=to_timestamp(read_time))
        messages.add_levels(answer.levels, rows)
        return answer

    async def ListStockLevels(self, request: pb.ListStockLevelsRequest) -> pb.ListStockLevelsResponse:
        size = pages.size(request.page_size, usual=500, most=1000)
        sku, location = pages.position(request, (str, str)) or ("", "")
        read_time, rows = await queries.levels_after(self._database, str(sku), str(location), size)
        answer = pb.ListStockLevelsResponse(
            next_page_token=pages.token(request, (rows[-1]["sku"], rows[-1]["location"])) if len(rows) == size else "",
            read_time=to_timestamp(read_time),
        )
        messages.add_levels(answer.levels, rows)
        return answer

    async def ListLedgerEntries(self, request: pb.ListLedgerEntriesRequest) -> pb.ListLedgerEntriesResponse:
        size = pages.size(request.page_size, usual=50, most=500)
        position = pages.position(request, (int,))
        rows = await queries.ledger(self._database, request.sku, int(position[0]) if position else None, size)
        return pb.ListLedgerEntriesResponse(
            entries=map(messages.entry, rows),
            next_page_token=pages.token(request, (rows[-1]["entry_id"],)) if len(rows) == size else "",
        )

    async def AuditStock(self, request: pb.AuditStockRequest) -> pb.AuditStockResponse:
        size = pages.size(request.page_size, usual=1000, most=5000)
        sku, location = pages.position(request, (str, str)) or ("", "")
        rows, drifts = await audit.audit(self._database, str(sku), str(location), size)
        return pb.AuditStockResponse(
            drifts=drifts,
            levels=len(rows),
            next_page_token=pages.token(request, (rows[-1]["sku"], rows[-1]["location"])) if len(rows) == size else "",
        )

    async def _reserve(
        self, tx: Transaction, commands: Sequence[reserving.ReserveStock]
    ) -> list[pb.ReserveStockResponse | Refusal]:
        outcomes = await reserving.reserve_stock(tx, commands, self._limits)
        return [one if isinstance(one, Refusal) else messages.held(one) for one in outcomes]

    async def _commit(
        self, tx: Transaction, commands: Sequence[orders.CommitReservation]
    ) -> list[pb.CommitReservationResponse | Refusal]:
        outcomes = await orders.commit_reservations(tx, commands)
        return [
            one if isinstance(one, Refusal) else pb.CommitReservationResponse(reservation=messages.reservation(one))
            for one in outcomes
        ]

    def _hold_time(self, given: Duration, purpose: Purpose) -> timedelta:
        """How long to hold. Raises `InvalidInput` for more than the shop allows."""
        limit = self._hold_limits[purpose]
        hold_time = given.ToTimedelta()
        if hold_time > limit:
            seconds = int(limit.total_seconds())
            problem = f"must be at most {seconds} seconds"
            raise InvalidInput([("hold_time", problem)], reason="HOLD_TOO_LONG", limit_seconds=seconds)
        return hold_time


def _cause(request: object) -> Cause:
    """Who asks for it, and why."""
    return Cause(
        current_caller().actor, getattr(request, "reason", ""), request_id=getattr(request, "request_id", None)
    )
