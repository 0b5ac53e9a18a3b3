"""The records over gRPC: what keeps the window filled, and what other services and the desk ask."""

from __future__ import annotations

from services.catalog import queries, usecases
from services.catalog.domain.locales import canonical
from services.catalog.feed_rows import check_rows
from services.catalog.grpc_api.messages import Shop, variant_message
from services.catalog.store import feed
from services.chassis.access import current_caller
from services.chassis.database import Database
from shop.catalog.v1 import records_pb2 as pb


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

    async def BatchGetVariants(self, request: pb.BatchGetVariantsRequest) -> pb.BatchGetVariantsResponse:
        rows = await queries.variants(self._database, self._shop.audience(request), list(request.skus))
        return pb.BatchGetVariantsResponse(variants=[variant_message(row, row["free"]) for row in rows])
