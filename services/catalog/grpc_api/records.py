"""The records over gRPC: what keeps the window filled, and what other services and the desk ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.catalog import editing, queries, record_queries, usecases
from services.catalog.domain.editing import Picture, ProductNotFound, SetPrice, Texts
from services.catalog.domain.locales import canonical
from services.catalog.editing import ProductUpdate
from services.catalog.feed_rows import check_rows, feed_row
from services.catalog.grpc_api.messages import Shop, variant_message
from services.catalog.grpc_api.record_messages import change_message, record_message, state_name
from services.catalog.store import feed
from services.chassis import pages, requests
from services.chassis.access import current_caller
from services.chassis.database import Database, Transaction
from services.chassis.values import from_money, to_datetime
from shop.catalog.v1 import records_pb2 as pb

EXPORT_ROWS = 500
NEWEST = 2**63 - 1


class CatalogAdminApi:
    """shop.catalog.v1.CatalogAdminService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database, shop: Shop) -> None:
        self._database = database
        self._shop = shop

    async def ImportProducts(self, request: pb.ImportProductsRequest) -> pb.ImportProductsResponse:
        locale = canonical(request.locale) or self._shop.locale
        translation = locale != self._shop.locale
        checked = check_rows(request.rows, translation=translation)
        async with self._database.transaction() as tx:
            if translation:
                for sku in sorted(await feed.unknown(tx.connection, list(checked.variants))):
                    checked.refuse(sku, f"{sku} is not known; import it in the shop's own language first")
            variants = list(checked.variants.values())
            changed = await usecases.import_variants(
                tx, variants, locale, current_caller().actor, translation=translation
            )
        return pb.ImportProductsResponse(
            changed=changed,
            unchanged=len(variants) - changed,
            problems=checked.problems,
            unknown_columns=checked.unknown_columns,
        )

    async def ExportProducts(self, request: pb.ExportProductsRequest) -> AsyncIterator[pb.ExportProductsResponse]:
        audience = self._shop.audience(request)
        after = request.after_sku
        while rows := await record_queries.feed_rows(self._database.fetch, audience, after, EXPORT_ROWS):
            after = rows[-1]["sku"]
            yield pb.ExportProductsResponse(rows=map(feed_row, rows))

    async def GetProductRecord(self, request: pb.GetProductRecordRequest) -> pb.GetProductRecordResponse:
        found = await record_queries.read(self._database.fetch, [request.product_id], self._shop.locale)
        if not found:
            raise ProductNotFound("there is no such product", product_id=request.product_id)
        return pb.GetProductRecordResponse(product=record_message(found[0]))

    async def ListProductRecords(self, request: pb.ListProductRecordsRequest) -> pb.ListProductRecordsResponse:
        size = pages.size(request.page_size, usual=24, most=100)
        [after] = pages.position(request, (str,)) or [""]
        state = state_name(request.state) if request.state else ""
        ids = await record_queries.ids(self._database.fetch, state, after, size)
        found = await record_queries.read(self._database.fetch, ids, self._shop.locale)
        return pb.ListProductRecordsResponse(
            products=map(record_message, found),
            next_page_token=pages.token(request, (ids[-1],)) if len(ids) == size else "",
        )

    async def UpdateProduct(self, request: pb.UpdateProductRequest) -> pb.UpdateProductResponse:
        given = request.product
        update = ProductUpdate(
            given.product_id,
            given.etag,
            frozenset(request.update_mask.paths),
            state_name(given.state),
            given.brand,
            given.product_type,
            [Texts(one.locale, one.title, one.description) for one in given.texts],
            [Picture(one.uri, one.alternative_text) for one in given.media],
        )

        async def run(tx: Transaction) -> pb.UpdateProductResponse:
            await editing.update_product(tx, update, self._shop.locale, current_caller().actor)
            return pb.UpdateProductResponse(product=await self._record(tx, given.product_id))

        return await requests.once(self._database, request, pb.UpdateProductResponse, run)

    async def UpdateVariant(self, request: pb.UpdateVariantRequest) -> pb.UpdateVariantResponse:
        # A path that names no text is refused before its value is looked at.
        values = {path: getattr(request.variant, path, "") for path in request.update_mask.paths}

        async def run(tx: Transaction) -> pb.UpdateVariantResponse:
            product_id = await editing.update_variant(
                tx, request.variant.sku, values, request.etag, self._shop.locale, current_caller().actor
            )
            return pb.UpdateVariantResponse(product=await self._record(tx, product_id))

        return await requests.once(self._database, request, pb.UpdateVariantResponse, run)

    async def SetPrice(self, request: pb.SetPriceRequest) -> pb.SetPriceResponse:
        given = request.price
        price = SetPrice(
            from_money(given.amount, "price.amount"),
            given.amount.currency_code,
            to_datetime(given.start_time, "price.start_time") if given.HasField("start_time") else None,
            to_datetime(given.end_time, "price.end_time") if given.HasField("end_time") else None,
            given.reduced,
        )

        async def run(tx: Transaction) -> pb.SetPriceResponse:
            product_id = await editing.set_price(tx, request.sku, price, request.etag, current_caller().actor)
            return pb.SetPriceResponse(product=await self._record(tx, product_id))

        return await requests.once(self._database, request, pb.SetPriceResponse, run)

    async def ListProductChanges(self, request: pb.ListProductChangesRequest) -> pb.ListProductChangesResponse:
        size = pages.size(request.page_size, usual=24, most=100)
        [before] = pages.position(request, (int,)) or [NEWEST]
        rows = await record_queries.changes(self._database.fetch, request.product_id, before, size)
        return pb.ListProductChangesResponse(
            changes=map(change_message, rows),
            next_page_token=pages.token(request, (rows[-1]["change_id"],)) if len(rows) == size else "",
        )

    async def BatchGetVariants(self, request: pb.BatchGetVariantsRequest) -> pb.BatchGetVariantsResponse:
        rows = await queries.variants(self._database, self._shop.audience(request), list(request.skus))
        return pb.BatchGetVariantsResponse(variants=[variant_message(row, row["free"]) for row in rows])

    async def _record(self, tx: Transaction, product_id: str) -> pb.ProductRecord:
        [found] = await record_queries.read(tx.connection.fetch, [product_id], self._shop.locale)
        return record_message(found)
