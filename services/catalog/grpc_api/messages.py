"""What the window shows as messages, and for whom."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from services.catalog.domain.feed import product_type
from services.catalog.domain.locales import fallbacks
from services.catalog.queries import Audience
from services.catalog.search.counting import Value
from services.catalog.search.suggesting import Suggestion
from services.catalog.window import ShownAlternative, ShownProduct
from services.chassis.values import to_money, to_timestamp
from shop.catalog.v1 import catalog_pb2 as pb


class Addressed(Protocol):
    """A request that says in which language and currency it wants its answer."""

    locale: str
    currency_code: str


@dataclass(frozen=True, slots=True)
class Shop:
    """The language and the currency that are meant where none is asked for."""

    locale: str
    currency: str

    def audience(self, request: Addressed) -> Audience:
        """For whom the answer to the request is."""
        return Audience(tuple(fallbacks(request.locale, self.locale)), request.currency_code or self.currency)


def product_message(product: ShownProduct) -> pb.Product:
    """A product with what may be shown of it."""
    head = product.head
    return pb.Product(
        product_id=head["product_id"],
        title=head["product_title"],
        description=head["product_description"],
        brand=head["product_brand"],
        product_type=product_type(head["product_category"]),
        variants=[variant_message(shown.row, shown.free) for shown in product.variants],
        sold_out=not product.variants,
        locale=head["product_locale"] or "",
        media=[pb.Media(**one) for one in json.loads(head["media"])],
        create_time=to_timestamp(head["create_time"]),
        discontinued=head["product_state"] == "DISCONTINUED",
    )


def on_page(product: ShownProduct) -> bytes:
    """A product as it stands in a page: bytes of a response that has nothing else. Joined, they are all of them."""
    return pb.ListProductsResponse(products=[product_message(product)]).SerializeToString()


def variant_message(row: asyncpg.Record, free: int) -> pb.Variant:
    """A variant, and its free units."""
    return pb.Variant(
        sku=row["sku"],
        product_id=row["product_id"],
        title=row["title"],
        price=_money(row["price"], row["currency"]),
        regular_price=_money(row["regular_price"], row["currency"]),
        color=row["color"],
        size=row["size"],
        size_system=row["size_system"],
        width=row["width"],
        material=row["material"],
        gender=row["gender"],
        age_group=row["age_group"],
        gtin=row["gtin"],
        image_link=row["image_link"],
        free=free,
    )


def alternative_messages(alternatives: Iterable[ShownAlternative]) -> list[pb.Alternative]:
    """Alternatives with their reasons."""
    return [
        pb.Alternative(product=product_message(each.product), reasons=each.likeness.reasons()) for each in alternatives
    ]


def facet_messages(facets: Mapping[str, Sequence[Value]]) -> list[pb.Facet]:
    """The values of each attribute, and how many products have each."""
    return [
        pb.Facet(
            attribute=attribute,
            values=[pb.FacetValue(value=each.value, product_count=each.products) for each in values],
        )
        for attribute, values in facets.items()
    ]


def suggestion_message(suggestion: Suggestion) -> pb.Suggestion:
    """What somebody who types may mean."""
    return pb.Suggestion(
        kind=pb.SuggestionKind.Value(f"SUGGESTION_KIND_{suggestion.kind.name}"),
        text=suggestion.text,
        product_id=suggestion.product_id,
        product_count=suggestion.products,
    )


def since(instant: datetime | None) -> Timestamp | None:
    """Since when an answer is not confirmed, if it is not."""
    return to_timestamp(instant) if instant else None


def _money(amount: Decimal | None, currency: str) -> Money | None:
    return None if amount is None else to_money(amount, currency)
