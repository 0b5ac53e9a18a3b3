"""Open lists over gRPC: a stream that follows what happens to its products."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime

from services.catalog.changes import Changes
from services.catalog.freshness import Freshness
from services.catalog.grpc_api.messages import Shop, product_message, since
from services.catalog.queries import Audience
from services.catalog.watching import Position, Watches
from services.catalog.window import Window
from services.chassis import pages
from services.chassis.database import Database
from services.chassis.latest import Latest
from shop.catalog.v1 import catalog_pb2 as pb
from shop.contact.v1.contact_options_pb2 import ContactOptions


class OpenLists:
    """WatchProducts of shop.catalog.v1.CatalogService; what it promises and refuses stands in its proto."""

    def __init__(
        self,
        database: Database,
        feed: Changes,
        window: Window,
        shop: Shop,
        freshness: Freshness,
        hotline: Latest[ContactOptions],
    ) -> None:
        self._window = window
        self._shop = shop
        self._hotline = hotline
        self.watches: Watches[Audience, pb.Product] = Watches(database, feed, freshness, hotline, self._read)

    async def follow(self, request: pb.WatchProductsRequest) -> AsyncGenerator[pb.WatchProductsResponse]:
        """The products as they are now, then each change."""
        resumed = pages.position(request, (int, datetime), "resume_token")
        audience = self._shop.audience(request)
        position = Position(*resumed) if resumed else None
        async with aclosing(self.watches.follow(audience, request.product_ids, position)) as updates:
            async for update in updates:
                yield pb.WatchProductsResponse(
                    products=[update.products[product_id] for product_id in sorted(update.products)],
                    resume_token=pages.token(request, (update.position.xid, update.position.time)),
                    contact_options=await self._hotline.read(),
                    unconfirmed_since=since(update.unconfirmed_since),
                )

    async def _read(
        self, audience: Audience, product_ids: Sequence[str]
    ) -> tuple[Mapping[str, pb.Product], datetime | None]:
        shown, unconfirmed_since = await self._window.products(audience, product_ids)
        found = {each.head["product_id"]: product_message(each) for each in shown}
        return {
            each: found.get(each) or pb.Product(product_id=each, sold_out=True) for each in product_ids
        }, unconfirmed_since
