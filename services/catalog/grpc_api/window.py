"""The window over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

from services.catalog.answers import KeptAnswers
from services.catalog.domain.feed import category
from services.catalog.freshness import Freshness
from services.catalog.grpc_api import questions
from services.catalog.grpc_api.messages import (
    Shop,
    alternative_messages,
    facet_messages,
    product_message,
    since,
    suggestion_message,
)
from services.catalog.grpc_api.referrals import referral_message
from services.catalog.window import Window
from services.chassis import pages
from services.chassis.latest import Latest
from shop.catalog.v1 import catalog_pb2 as pb
from shop.contact.v1.contact_options_pb2 import ContactOptions


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
            "SuggestProducts": KeptAnswers(freshness, hotline, _suggested_ids),
            "ListCategories": KeptAnswers(freshness, hotline, lambda _: ()),
            "GetProduct": KeptAnswers(freshness, hotline, _product_ids),
            "ListAlternatives": KeptAnswers(freshness, hotline, _alternative_ids),
        }

    async def ListProducts(self, request: pb.ListProductsRequest) -> pb.ListProductsResponse:
        size = pages.size(request.page_size, usual=24, most=100)
        question = questions.question(request, self._shop.audience(request))
        instead, after = questions.place(request, question.order)
        page = await self._window.page(question, instead, after, size, count=request.facets)
        response = pb.ListProductsResponse(
            next_page_token=questions.token(request, page.instead, page.last) if page.last else "",
            contact_options=await self._hotline.read(),
            unconfirmed_since=since(page.unconfirmed_since),
            total_size=page.counted.total if page.counted else 0,
            estimated=page.counted is not None and page.counted.estimated,
            facets=facet_messages(page.counted.facets) if page.counted else (),
            corrected_query=page.instead,
        )
        response.MergeFromString(b"".join(page.products))
        return response

    async def SuggestProducts(self, request: pb.SuggestProductsRequest) -> pb.SuggestProductsResponse:
        size = pages.size(request.page_size, usual=8, most=20)
        suggestions, unconfirmed_since = await self._window.suggestions(
            self._shop.audience(request), request.prefix, size
        )
        return pb.SuggestProductsResponse(
            suggestions=map(suggestion_message, suggestions),
            contact_options=await self._hotline.read(),
            unconfirmed_since=since(unconfirmed_since),
        )

    async def ListCategories(self, request: pb.ListCategoriesRequest) -> pb.ListCategoriesResponse:
        currency = request.currency_code or self._shop.currency
        found, unconfirmed_since = await self._window.categories(category(request.parent), currency)
        return pb.ListCategoriesResponse(
            categories=[pb.Category(product_type=each.value, product_count=each.products) for each in found],
            contact_options=await self._hotline.read(),
            unconfirmed_since=since(unconfirmed_since),
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


def _suggested_ids(answer: pb.SuggestProductsResponse) -> Iterable[str]:
    return (suggestion.product_id for suggestion in answer.suggestions if suggestion.product_id)


def _listed_ids(answer: pb.ListProductsResponse) -> Iterable[str]:
    return (product.product_id for product in answer.products)


def _product_ids(answer: pb.GetProductResponse) -> Iterable[str]:
    return (answer.product.product_id, *_alternative_ids(answer))


def _alternative_ids(answer: pb.GetProductResponse | pb.ListAlternativesResponse) -> Iterable[str]:
    return (alternative.product.product_id for alternative in answer.alternatives)
