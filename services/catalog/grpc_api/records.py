"""The records over gRPC: what keeps the window filled, and what other services and the desk ask."""

from __future__ import annotations

from services.catalog import feed_file, queries, usecases
from services.catalog.grpc_api.messages import Shop, variant_message
from services.chassis.database import Database
from shop.catalog.v1 import records_pb2 as pb


class CatalogAdminApi:
    """shop.catalog.v1.CatalogAdminService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database, shop: Shop) -> None:
        self._database = database
        self._shop = shop

    async def ImportProducts(self, request: pb.ImportProductsRequest) -> pb.ImportProductsResponse:
        checked = feed_file.check_rows(request.rows)
        async with self._database.transaction() as tx:
            changed = await usecases.import_variants(tx, checked.variants, self._shop.locale)
        return pb.ImportProductsResponse(
            changed=changed,
            unchanged=len(checked.variants) - changed,
            problems=checked.problems,
            unknown_columns=checked.unknown_columns,
        )

    async def BatchGetVariants(self, request: pb.BatchGetVariantsRequest) -> pb.BatchGetVariantsResponse:
        rows = await queries.variants(self._database, self._shop.audience(request), list(request.skus))
        return pb.BatchGetVariantsResponse(variants=[variant_message(row, row["free"]) for row in rows])
