"""Shipping over gRPC: from messages to commands, and back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from services.chassis import pages
from services.chassis.access import current_caller
from services.chassis.database import Database, Transaction
from services.chassis.errors import InvalidInput, Refusal
from services.chassis.latest import Latest
from services.chassis.peers import current_peer
from services.chassis.requests import answered, once
from services.chassis.telemetry import current_journey
from services.chassis.values import to_datetime
from services.shipping import messages, queries, store
from services.shipping.clients import Catalog, Inventory
from services.shipping.domain.delivery import ServiceLevel, quote_delivery
from services.shipping.domain.order import Order, OrderNotFound
from services.shipping.sealing import AddressSeal
from services.shipping.usecases import fulfilment
from services.shipping.usecases.checkout import BeginCheckout, prepare_checkout, release_hold
from services.shipping.usecases.ordering import Ordering, PlaceOrder
from shop.access.v1.access_pb2 import ROLE_CUSTOMER
from shop.contact.v1.contact_options_pb2 import ContactOptions
from shop.shipping.v1 import shipping_pb2 as pb

LEVELS = {number: level for level, number in messages.LEVELS.items()} | {
    pb.SERVICE_LEVEL_UNSPECIFIED: ServiceLevel.STANDARD
}
KINDS = {
    pb.SCAN_KIND_ACCEPTED: "accepted",
    pb.SCAN_KIND_IN_TRANSIT: "in_transit",
    pb.SCAN_KIND_OUT_FOR_DELIVERY: "out_for_delivery",
    pb.SCAN_KIND_DELIVERED: fulfilment.DELIVERED,
}


class ShippingApi:
    """shop.shipping.v1.ShippingService; what each call promises and refuses stands in its proto."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        inventory: Inventory,
        ordering: Ordering,
        seal: AddressSeal,
        hotline: Latest[ContactOptions],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._inventory = inventory
        self._ordering = ordering
        self._seal = seal
        self._hotline = hotline

    async def QuoteDelivery(self, request: pb.QuoteDeliveryRequest) -> pb.QuoteDeliveryResponse:
        quotes = quote_delivery(await queries.now(self._database), request.country)
        return pb.QuoteDeliveryResponse(
            quotes=[messages.quote(one) for one in quotes], contact_options=await self._hotline.read()
        )

    async def BeginCheckout(self, request: pb.BeginCheckoutRequest) -> pb.BeginCheckoutResponse:
        response = await answered(self._database, request, pb.BeginCheckoutResponse)
        if response is None:
            response = await self._begin_checkout(request)
        response.contact_options.CopyFrom(await self._hotline.read())
        return response

    async def _begin_checkout(self, request: pb.BeginCheckoutRequest) -> pb.BeginCheckoutResponse:
        command = BeginCheckout(
            request.customer_id,
            _wanted(request.lines),
            request.address.country,
            LEVELS[request.service_level],
            current_caller().key,
            request.request_id,
            _peer(),
        )
        begun, delivery = await prepare_checkout(
            command, self._catalog, self._inventory, await queries.now(self._database)
        )

        async def run(tx: Transaction) -> pb.BeginCheckoutResponse:
            await store.add_checkout(tx.connection, begun, self._seal.seal(request.address), current_journey())
            return pb.BeginCheckoutResponse(checkout=messages.checkout(begun, delivery))

        try:
            return await once(self._database, request, pb.BeginCheckoutResponse, run)
        except Refusal:
            # Perhaps it was written after all, or another attempt is at it: the hold may be in use.
            raise
        except Exception:
            await release_hold(self._inventory, begun)
            raise

    async def PlaceOrder(self, request: pb.PlaceOrderRequest) -> pb.PlaceOrderResponse:
        order = await self._ordering.place(
            PlaceOrder(
                request.customer_id,
                request.checkout_id,
                request.highlights_version,
                request.payment_reference,
                current_caller().key,
                request.request_id,
            )
        )
        answer = pb.Order.FromString(order.answer) if order.answer else messages.order(order)
        return pb.PlaceOrderResponse(order=answer, contact_options=await self._hotline.read())

    async def GetOrder(self, request: pb.GetOrderRequest) -> pb.GetOrderResponse:
        order = await queries.order(self._database, request.order_id)
        if order is None or request.customer_id not in ("", order.customer_id):
            raise OrderNotFound("there is no such order, or it is not yours")
        return pb.GetOrderResponse(order=messages.order(order), contact_options=await self._hotline.read())

    async def ListOrders(self, request: pb.ListOrdersRequest) -> pb.ListOrdersResponse:
        size = pages.size(request.page_size, usual=20, most=100)
        orders = await queries.orders_of(self._database, request.customer_id, _position(request), size)
        return pb.ListOrdersResponse(
            orders=[messages.order(order) for order in orders],
            next_page_token=pages.token(request, _place(orders[-1])) if len(orders) == size else "",
            contact_options=await self._hotline.read(),
        )

    async def CancelOrder(self, request: pb.CancelOrderRequest) -> pb.CancelOrderResponse:
        async def run(tx: Transaction) -> pb.CancelOrderResponse:
            order = await fulfilment.cancel_order(tx, request.order_id, request.customer_id, request.reason)
            return pb.CancelOrderResponse(order=messages.order(order))

        response = await once(self._database, request, pb.CancelOrderResponse, run)
        response.contact_options.CopyFrom(await self._hotline.read())
        return response


class WarehouseApi:
    """shop.shipping.v1.WarehouseService."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def DispatchShipment(self, request: pb.DispatchShipmentRequest) -> pb.DispatchShipmentResponse:
        async def run(tx: Transaction) -> pb.DispatchShipmentResponse:
            shipment = await fulfilment.dispatch_shipment(tx, request.shipment_id, request.tracking_reference)
            return pb.DispatchShipmentResponse(shipment=messages.shipment(shipment))

        return await once(self._database, request, pb.DispatchShipmentResponse, run)

    async def RecordScan(self, request: pb.RecordScanRequest) -> pb.RecordScanResponse:
        scan_time = to_datetime(request.scan_time, "scan_time")
        async with self._database.transaction() as tx:
            shipment = await fulfilment.record_scan(
                tx, request.scan_id, request.tracking_reference, KINDS[request.kind], scan_time
            )
        return pb.RecordScanResponse(shipment=messages.shipment(shipment) if shipment else None)


def _peer() -> str:
    """Where a customer calls from. All desks of the hotline are one place, and order for many."""
    return (current_peer() or "") if current_caller().role == ROLE_CUSTOMER else ""


def _wanted(lines: Iterable[pb.CheckoutLine]) -> dict[str, int]:
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


def _place(order: Order) -> tuple[datetime, str]:
    return order.create_time, order.order_id


def _position(request: pb.ListOrdersRequest) -> tuple[datetime, str] | None:
    position = pages.position(request, (datetime, str))
    return (position[0], position[1]) if position else None
