"""Tell me when it is back, over gRPC."""

from __future__ import annotations

from services.catalog import queueing
from services.catalog.back_in_stock import BackInStock
from services.catalog.domain.waiting import State, Subscription
from services.catalog.store import subscriptions
from services.chassis import pages
from services.chassis.database import Database, Transaction
from services.chassis.errors import InvalidInput
from services.chassis.latest import Latest
from services.chassis.requests import once
from services.chassis.values import to_timestamp
from shop.catalog.v1 import back_in_stock_pb2 as pb
from shop.contact.v1.contact_options_pb2 import ContactOptions

STATES = {
    State.WAITING: pb.BACK_IN_STOCK_STATE_WAITING,
    # Not theirs before it is held.
    State.TURN: pb.BACK_IN_STOCK_STATE_WAITING,
    State.HELD: pb.BACK_IN_STOCK_STATE_HELD,
    State.TAKEN: pb.BACK_IN_STOCK_STATE_TAKEN,
    State.LAPSED: pb.BACK_IN_STOCK_STATE_LAPSED,
}


class BackInStockApi:
    """shop.catalog.v1.BackInStockService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database, turns: BackInStock, hotline: Latest[ContactOptions], most: int) -> None:
        self._database = database
        self._turns = turns
        self._hotline = hotline
        self._most = most

    async def SubscribeBackInStock(self, request: pb.SubscribeBackInStockRequest) -> pb.SubscribeBackInStockResponse:
        _check_customer(request.customer_id)

        async def run(tx: Transaction) -> pb.SubscribeBackInStockResponse:
            subscription = await queueing.begin(tx, request.customer_id, request.sku, self._most)
            return pb.SubscribeBackInStockResponse(subscription=_message(subscription))

        response = await once(self._database, request, pb.SubscribeBackInStockResponse, run)
        response.contact_options.CopyFrom(await self._hotline.read())
        return response

    async def UnsubscribeBackInStock(
        self, request: pb.UnsubscribeBackInStockRequest
    ) -> pb.UnsubscribeBackInStockResponse:
        _check_customer(request.customer_id)

        async def run(tx: Transaction) -> pb.UnsubscribeBackInStockResponse:
            if await queueing.leave(tx, request.customer_id, request.sku):
                tx.after_commit(self._turns.wake)
            return pb.UnsubscribeBackInStockResponse()

        response = await once(self._database, request, pb.UnsubscribeBackInStockResponse, run)
        response.contact_options.CopyFrom(await self._hotline.read())
        return response

    async def ListBackInStock(self, request: pb.ListBackInStockRequest) -> pb.ListBackInStockResponse:
        _check_customer(request.customer_id)
        size = pages.size(request.page_size, usual=24, most=100)
        position = pages.position(request, (int,))
        found = await subscriptions.page(self._database, request.customer_id, position[0] if position else None, size)
        return pb.ListBackInStockResponse(
            subscriptions=map(_message, found),
            next_page_token=pages.token(request, (found[-1].place,)) if len(found) == size else "",
            contact_options=await self._hotline.read(),
        )


def _check_customer(customer_id: str) -> None:
    """An agent must say for whom. Raises `InvalidInput`."""
    if not customer_id:
        raise InvalidInput([("customer_id", "is needed from whoever is no customer")])


def _message(subscription: Subscription) -> pb.BackInStockSubscription:
    held_until = subscription.hold_expire_time
    return pb.BackInStockSubscription(
        subscription_id=subscription.subscription_id,
        sku=subscription.sku,
        product_id=subscription.product_id,
        state=STATES[subscription.state],
        create_time=to_timestamp(subscription.create_time),
        hold_expire_time=to_timestamp(held_until) if held_until else None,
    )
