"""The window over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

from services.catalog.answers import KeptAnswers
from services.catalog.domain.feed import category
from services.catalog.freshness import Freshness
from services.catalog.grpc_api.messages import Shop, alternative_messages, product_message, since
from services.catalog.grpc_api.referrals import referral_message
from services.catalog.queries import Filters
from services.catalog.window import Window
from services.chassis import pages
from services.chassis.errors import InvalidInput
from services.chassis.latest import Latest
from shop.catalog.v1 import catalog_pb2 as pb
from shop.contact.v1.contact_options_pb2 import ContactOptions

ATTRIBUTES = ("brand", "category", "size", "color", "gender")


class CatalogApi:
    """shop.catalog.v1.CatalogService; what each call promises and refuses stands in its proto."""

    def __init__(
        self,
        window: Window,
        shop: Shop,
        hotline: Latest[ContactOptions],
        freshness: Freshness,
        follow: Callable[[pb.WatchProductsRequest], AsyncGenerator[pb.WatchProductsResponse]],
    ) -> None:
        self._window = window
        self._shop = shop
        self._hotline = hotline
        self.WatchProducts = follow
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
        page = await self._window.page(
            self._shop.audience(request), filters, str(position[0]) if position else "", size
        )
        return pb.ListProductsResponse(
            products=map(product_message, page.products),
            next_page_token=pages.token(request, (page.last,)) if page.last else "",
            contact_options=await self._hotline.read(),
            unconfirmed_since=since(page.unconfirmed_since),
        )

    async def GetProduct(self, request: pb.GetProductRequest) -> pb.GetProductResponse:
        opened = await self._window.product(self._shop.audience(request), request.product_id, request.sku)
        return pb.GetProductResponse(
            product=product_message(opened.product),
            alternatives=alternative_messages(opened.alternatives),
            contact_options=await self._hotline.read(),
            unconfirmed_since=since(opened.unconfirmed_since),
            elsewhere=map(referral_message, opened.elsewhere),
        )

    async def ListAlternatives(self, request: pb.ListAlternativesRequest) -> pb.ListAlternativesResponse:
        size = pages.size(request.page_size, usual=5, most=20)
        alternatives, unconfirmed_since = await self._window.alternatives(
            self._shop.audience(request), request.sku, size
        )
        return pb.ListAlternativesResponse(
            alternatives=alternative_messages(alternatives),
            contact_options=await self._hotline.read(),
            unconfirmed_since=since(unconfirmed_since),
        )


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


def _listed_ids(answer: pb.ListProductsResponse) -> Iterable[str]:
    return (product.product_id for product in answer.products)


def _product_ids(answer: pb.GetProductResponse) -> Iterable[str]:
    return (answer.product.product_id, *_alternative_ids(answer))


def _alternative_ids(answer: pb.GetProductResponse | pb.ListAlternativesResponse) -> Iterable[str]:
    return (alternative.product.product_id for alternative in answer.alternatives)
