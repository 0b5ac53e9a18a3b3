"""The window and the records over gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp

from services.catalog import feed_file, queries, usecases
from services.catalog.answers import KeptAnswers
from services.catalog.domain.feed import category, product_type
from services.catalog.freshness import Freshness
from services.catalog.queries import Filters
from services.catalog.window import ShownAlternative, ShownProduct, Window
from services.chassis import pages
from services.chassis.database import Database
from services.chassis.errors import InvalidInput
from services.chassis.latest import Latest
from services.chassis.values import to_money, to_timestamp
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import records_pb2 as records
from shop.contact.v1.contact_options_pb2 import ContactOptions

ATTRIBUTES = ("brand", "category", "size", "color", "gender")


class CatalogApi:
    """shop.catalog.v1.CatalogService; what each call promises and refuses stands in its proto."""

    def __init__(self, window: Window, hotline: Latest[ContactOptions], freshness: Freshness) -> None:
        self._window = window
        self._hotline = hotline
        # None of these looks at who asks.
        self.keepers: Mapping[str, KeptAnswers] = {
            "ListProducts": KeptAnswers(freshness, hotline, _listed_ids),
            "GetProduct": KeptAnswers(freshness, hotline, _product_ids),
            "ListAlternatives": KeptAnswers(freshness, hotline, _alternative_ids),
        }

    async def ListProducts(self, request: pb.ListProductsRequest) -> pb.ListProductsResponse:
        size = pages.size(request.page_size, usual=24, most=100)
        position = pages.position(request, (str,))
        filters = _filters(request.filters)
        page = await self._window.page(filters, str(position[0]) if position else "", size)
        return pb.ListProductsResponse(
            products=map(_product, page.products),
            next_page_token=pages.token(request, (page.last,)) if page.last else "",
            contact_options=await self._hotline.read(),
            unconfirmed_since=_since(page.unconfirmed_since),
        )

    async def GetProduct(self, request: pb.GetProductRequest) -> pb.GetProductResponse:
        product, alternatives, unconfirmed_since = await self._window.product(request.product_id)
        return pb.GetProductResponse(
            product=_product(product),
            alternatives=_alternatives(alternatives),
            contact_options=await self._hotline.read(),
            unconfirmed_since=_since(unconfirmed_since),
        )

    async def ListAlternatives(self, request: pb.ListAlternativesRequest) -> pb.ListAlternativesResponse:
        size = pages.size(request.page_size, usual=5, most=20)
        alternatives, unconfirmed_since = await self._window.alternatives(request.sku, size)
        return pb.ListAlternativesResponse(
            alternatives=_alternatives(alternatives),
            contact_options=await self._hotline.read(),
            unconfirmed_since=_since(unconfirmed_since),
        )


class CatalogAdminApi:
    """shop.catalog.v1.CatalogAdminService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database, shop_locale: str, shop_currency: str) -> None:
        self._database = database
        self._shop_locale = shop_locale
        self._shop_currency = shop_currency

    async def ImportProducts(self, request: records.ImportProductsRequest) -> records.ImportProductsResponse:
        checked = feed_file.check_rows(request.rows)
        async with self._database.transaction() as tx:
            changed = await usecases.import_variants(tx, checked.variants, self._shop_locale)
        return records.ImportProductsResponse(
            changed=changed,
            unchanged=len(checked.variants) - changed,
            problems=checked.problems,
            unknown_columns=checked.unknown_columns,
        )

    async def BatchGetVariants(self, request: records.BatchGetVariantsRequest) -> records.BatchGetVariantsResponse:
        rows = await queries.variants(self._database, list(request.skus))
        return records.BatchGetVariantsResponse(variants=[_variant(row, row["free"]) for row in rows])


def _filters(wanted: Iterable[pb.Filter]) -> Filters:
    """Raises `InvalidInput` for an attribute that is not known, that stands twice, or has several values."""
    values: dict[str, str] = {}
    for number, one in enumerate(wanted):
        if one.attribute not in ATTRIBUTES:
            raise InvalidInput(
                [(f"filters[{number}].attribute", f"must be one of {', '.join(ATTRIBUTES)}")],
                reason="UNKNOWN_ATTRIBUTE",
            )
        if one.attribute in values or len(one.values) > 1:
            raise InvalidInput([(f"filters[{number}].attribute", "each attribute once, with one value")])
        values[one.attribute] = one.values[0]
    return Filters(
        values.get("brand", ""),
        category(values.get("category", "")),
        values.get("size", ""),
        values.get("color", ""),
        values.get("gender", "").lower(),
    )


def _product(product: ShownProduct) -> pb.Product:
    head = product.head
    return pb.Product(
        product_id=head["product_id"],
        title=head["product_title"],
        description=head["product_description"],
        brand=head["product_brand"],
        product_type=product_type(head["product_category"]),
        variants=[_variant(shown.row, shown.free) for shown in product.variants],
        sold_out=not product.variants,
    )


def _variant(row: asyncpg.Record, free: int) -> pb.Variant:
    return pb.Variant(
        sku=row["sku"],
        product_id=row["product_id"],
        title=row["title"],
        price=to_money(row["price"], row["currency"]),
        color=row["color"],
        size=row["size"],
        size_system=row["size_system"],
        gender=row["gender"],
        age_group=row["age_group"],
        gtin=row["gtin"],
        image_link=row["image_link"],
        free=free,
    )


def _alternatives(alternatives: Iterable[ShownAlternative]) -> list[pb.Alternative]:
    return [pb.Alternative(product=_product(each.product), reasons=each.likeness.reasons()) for each in alternatives]


def _listed_ids(answer: pb.ListProductsResponse) -> Iterable[str]:
    return (product.product_id for product in answer.products)


def _product_ids(answer: pb.GetProductResponse) -> Iterable[str]:
    return (answer.product.product_id, *_alternative_ids(answer))


def _alternative_ids(answer: pb.GetProductResponse | pb.ListAlternativesResponse) -> Iterable[str]:
    return (alternative.product.product_id for alternative in answer.alternatives)


def _since(instant: datetime | None) -> Timestamp | None:
    return to_timestamp(instant) if instant else None
