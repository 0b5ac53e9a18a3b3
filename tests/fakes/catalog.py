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
        # By SKU and currency.
        self._variants: dict[str, dict[str, catalog_pb2.Variant]] = {}

    def sell(self, sku: str, title: str, price: str, currency: str = "EUR") -> None:
        """This is sold from now on, in that currency at this price."""
        variant = catalog_pb2.Variant(sku=sku, title=title, price=to_money(Decimal(price), currency))
        self._variants.setdefault(sku, {})[currency] = variant

    async def BatchGetVariants(self, request: pb.BatchGetVariantsRequest) -> pb.BatchGetVariantsResponse:
        if self.away:
            raise Unavailable("catalog does not answer", reason="CATALOG_AWAY")
        currency = request.currency_code or "EUR"
        return pb.BatchGetVariantsResponse(
            variants=[_priced(self._variants[sku], currency) for sku in request.skus if sku in self._variants]
        )


def _priced(by_currency: dict[str, catalog_pb2.Variant], currency: str) -> catalog_pb2.Variant:
    if currency in by_currency:
        return by_currency[currency]
    [any_of_them, *_] = by_currency.values()
    return catalog_pb2.Variant(sku=any_of_them.sku, title=any_of_them.title)
