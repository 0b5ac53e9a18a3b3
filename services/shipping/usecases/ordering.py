"""Place an order: written down as pending, its stock committed at inventory, then confirmed. Each order ends once.

    take     one transaction: the order is PENDING, its payment and its checkout are used
    commit   inventory promises the held units to the order (idempotent), or refuses
    settle   one transaction: CONFIRMED with its parcels and OrderPlaced, or REJECTED and OrderRejected

A process may stop between any two of these. Whoever comes next, the repeat of the call or the sweeper, goes on from
the order's state. Only the state decides: what somebody learned from inventory before does not count once the order
is no longer PENDING. So an order is given up in this order: GIVING_UP, then inventory releases it for good, then
REJECTED. A process that slept through that confirms nothing, and its late commit is refused by inventory.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from services.chassis import telemetry
from services.chassis.database import Database
from services.chassis.errors import NotFound, NotNow, Refusal, Unavailable
from services.chassis.grpc_errors import RemoteError
from services.chassis.requests import RequestIdReused
from services.shipping import messages, queries, store
from services.shipping.clients import Inventory
from services.shipping.domain.checkout import CheckoutNotFound, CheckoutOrdered, PaymentReferenceUsed
from services.shipping.domain.order import Allocation, Order, OrderNotFound, OrderState, Refused
from services.shipping.usecases.announcing import announce
from shop.inventory.v1 import inventory_pb2

logger = logging.getLogger(__name__)

_OPEN = (OrderState.PENDING, OrderState.GIVING_UP)
_GIVEN_UP = Refused("ORDER_GIVEN_UP", "the order could not be confirmed in time; nothing is owed", {})


class OrderPending(Unavailable):
    """The order is taken and will be finished without the caller; how, GetOrder says."""

    reason = "ORDER_PENDING"

    def __init__(self, order_id: str) -> None:
        super().__init__("the order is kept and will be finished later", order_id=order_id)


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """Order what a checkout holds."""

    customer_id: str
    checkout_id: str
    highlights_version: str
    payment_reference: str
    # Who asks, with which request id.
    caller: str
    request_id: str


class Ordering:
    """Takes orders, and finishes them."""

    def __init__(
        self, database: Database, inventory: Inventory, *, grace: timedelta, retry: timedelta, give_up: timedelta
    ) -> None:
        """`grace`: see `Checkout.place`; `retry`: how long a pending order is left alone; `give_up`: at which age."""
        self._database = database
        self._inventory = inventory
        self._grace = grace
        self._retry = retry
        self._give_up_after = give_up

    async def place(self, command: PlaceOrder) -> Order:
        """The confirmed order. Raises what `take` and `finish` raise."""
        return await self.finish(await self.take(command))

    async def take(self, command: PlaceOrder) -> Order:
        """Writes the order down as pending, or finds the one that was written before.

        Raises `CheckoutNotFound`, `CheckoutOrdered`, `CheckoutExpired`, `TermsNotShown`, `PaymentReferenceUsed`,
        `RequestIdReused`.
        """
        async with self._database.transaction() as tx:
            order = await store.order_of_request(tx.connection, command.caller, command.request_id)
            if order is not None:
                return _same(order, command)
            checkout = await store.lock_checkout(tx.connection, command.checkout_id)
            if checkout is None or checkout.customer_id != command.customer_id:
                raise CheckoutNotFound("there is no such checkout, or it is not yours")
            order = await store.order_of_checkout(tx.connection, command.checkout_id)
            if order is not None:
                if order.payment_reference == command.payment_reference:
                    return order
                raise CheckoutOrdered("this checkout was ordered with another payment", order_id=order.order_id)
            order = checkout.place(
                command.highlights_version,
                command.payment_reference,
                telemetry.current_journey(),
                await store.now(tx.connection),
                self._grace,
            )
            if not await store.add_order(tx.connection, order, command.caller, command.request_id, self._retry):
                order = await store.order_of_request(tx.connection, command.caller, command.request_id)
                if order is not None:
                    return _same(order, command)
                raise PaymentReferenceUsed("this payment belongs to another order")
            return order

    async def finish(self, order: Order) -> Order:
        """Drives a pending order to its end and returns it confirmed (or whatever came after that).

        Raises what its rejection was, with its numbers, and `OrderPending` when inventory does not answer.
        """
        if order.state is OrderState.PENDING:
            order = await self.settle(order.order_id, await self.commit(order))
        if order.state is OrderState.GIVING_UP:
            await self.release(order)
            order = await self.settle(order.order_id, _GIVEN_UP)
        if order.refused is not None:
            raise order.refused.refusal()
        return order

    async def commit(self, order: Order) -> Sequence[Allocation] | Refused:
        """Asks inventory to promise the held units to the order. Raises `OrderPending` without an answer."""
        request = inventory_pb2.CommitReservationRequest(
            # Another id each time: an answer kept from before the order was released must not count again.
            request_id=f"commit:{uuid4().hex}",
            reservation_id=order.reservation_id,
            order_id=order.order_id,
        )
        try:
            answer = await self._inventory.CommitReservation(request)
        except (NotNow, NotFound) as refusal:
            return _refused(refusal)
        except (Refusal, RemoteError) as error:
            raise OrderPending(order.order_id) from error
        return [Allocation(part.sku, part.location, part.quantity) for part in answer.reservation.allocations]

    async def release(self, order: Order) -> None:
        """Has inventory give back what the order holds, for good. Raises `OrderPending` without an answer."""
        request = inventory_pb2.ReleaseOrderRequest(request_id=f"release:{order.order_id}", order_id=order.order_id)
        try:
            await self._inventory.ReleaseOrder(request)
        except (Refusal, RemoteError) as error:
            raise OrderPending(order.order_id) from error

    async def settle(self, order_id: str, outcome: Sequence[Allocation] | Refused) -> Order:
        """Ends a pending order, if nobody else has. Returns it as it is then."""
        async with self._database.transaction() as tx:
            order = await store.lock_order(tx.connection, order_id)
            if order is None:
                raise OrderNotFound("there is no such order", order_id=order_id)
            if isinstance(outcome, Refused) and order.state in _OPEN:
                await announce(tx, order, order.reject(outcome, await store.now(tx.connection)))
            elif not isinstance(outcome, Refused) and order.state is OrderState.PENDING:
                happened = order.confirm(outcome)
                order.answer = messages.order(order).SerializeToString()
                await announce(tx, order, happened)
            return order

    async def give_up(self, order_id: str) -> Order:
        """From now on nothing confirms the order. Returns it as it is then."""
        async with self._database.transaction() as tx:
            order = await store.lock_order(tx.connection, order_id)
            if order is None:
                raise OrderNotFound("there is no such order", order_id=order_id)
            if order.state is OrderState.PENDING:
                order.give_up()
                await store.save_order(tx.connection, order)
            return order

    async def sweep(self, limit: int = 20) -> int:
        """Goes on with orders that stayed pending, each under its own journey. Returns how many it looked at.

        Any number of replicas may do so: an order is taken by one of them at a time, and it does no harm if not.
        """
        async with self._database.transaction() as tx:
            due = await store.lock_pending(tx.connection, self._retry, limit)
        for row in due:
            with telemetry.with_journey(row["journey_id"], row["customer_id"]):
                try:
                    with telemetry.span("finish pending order", {"order.id": row["order_id"]}):
                        await self._go_on(row["order_id"], past_patience=row["age"] > self._give_up_after)
                except Exception:
                    # A mistake of ours in one order is no reason to leave those taken with it for another round.
                    logger.exception("a pending order cannot be finished", extra={"order_id": row["order_id"]})
        return len(due)

    async def _go_on(self, order_id: str, *, past_patience: bool) -> None:
        try:
            order = await queries.order(self._database, order_id)
            if order is None:
                return
            try:
                await self.finish(order)
            except OrderPending:
                if not past_patience or order.state is OrderState.GIVING_UP:
                    raise
                logger.warning("an order is given up", extra={"order_id": order_id})
                await self.finish(await self.give_up(order_id))
        except Refusal as refusal:
            # Rejected now, or nobody answers and the next round tries again.
            logger.info("a pending order was looked after", extra={"order_id": order_id, "reason": refusal.reason})


def _same(order: Order, command: PlaceOrder) -> Order:
    """The order a request id stands for. Raises `RequestIdReused` when something else was asked with it."""
    if (order.customer_id, order.checkout_id, order.highlights_version, order.payment_reference) != (
        command.customer_id,
        command.checkout_id,
        command.highlights_version,
        command.payment_reference,
    ):
        raise RequestIdReused([("request_id", "was used before with another request")])
    return order


def _refused(refusal: Refusal) -> Refused:
    if refusal.reason == "OUT_OF_STOCK":
        return Refused(refusal.reason, str(refusal), refusal.details)
    # Released, or never there: whatever inventory calls it, to the customer the hold is over.
    return Refused("CHECKOUT_EXPIRED", "the goods are no longer held", {"cause": refusal.reason})
