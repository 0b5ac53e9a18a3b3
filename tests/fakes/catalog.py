"""Catalog in memory, as far as checkouts ask it: names and prices of what is sold."""

from __future__ import annotations

from decimal import Decimal

from services.chassis.errors import Unavailable
from services.chassis.values import to_money
from shop.catalog.v1 import catalog_pb2
from shop.catalog.v1 import records_pb2 as pb


class FakeCatalog:
    """Variants that are sold. Passes tests/contracts/test_catalog_client.py, as the real one does."""

    def __init__(self) -> None:
        self.away = False
        self._variants: dict[str, catalog_pb2.Variant] = {}

    def sell(self, sku: str, title: str, price: str, currency: str = "EUR") -> None:
        """This is sold from now on, at this price."""
        self._variants[sku] = catalog_pb2.Variant(sku=sku, title=title, price=to_money(Decimal(price), currency))

    async def BatchGetVariants(self, request: pb.BatchGetVariantsRequest) -> pb.BatchGetVariantsResponse:
        if self.away:
            raise Unavailable("catalog does not answer", reason="CATALOG_AWAY")
        return pb.BatchGetVariantsResponse(
            variants=[self._variants[sku] for sku in request.skus if sku in self._variants]
        )
