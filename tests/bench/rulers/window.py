"""Catalog's storefront in a process of its own, asked without the wire and without the answers and products it keeps:
what a question costs that nobody asked just before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import psutil
from google.protobuf.message import Message

from services.catalog import kept_products
from services.catalog.freshness import Freshness
from services.catalog.grpc_api import CatalogApi, Shop
from services.catalog.grpc_api.messages import on_page
from services.catalog.kept_products import KeptProducts
from services.catalog.search.finding import Finding
from services.catalog.window import Window
from services.chassis.database import Database
from services.chassis.latest import Latest
from shop.catalog.v1 import catalog_pb2 as catalog
from shop.contact.v1.contact_options_pb2 import ContactOptions

from .process import Answer, Obeying, obey, timed

# Each call with its request, and the field of the answer that has what was found.
CALLS: Mapping[str, tuple[type[Message], str]] = {
    "ListProducts": (catalog.ListProductsRequest, "products"),
    "SuggestProducts": (catalog.SuggestProductsRequest, "suggestions"),
    "ListCategories": (catalog.ListCategoriesRequest, "categories"),
}


async def setup(given: Any) -> Obeying:
    """`given`: the URL of catalog's database. Its copy of stock counts as fresh; inventory is never asked."""
    database = Database(given, "catalog", pool_size=4)
    await database.open()
    freshness = Freshness(database, 60)
    inventory: Any = None
    kept_products.KEPT_BYTES = 0  # none is kept
    finding = Finding(database, "EUR")
    window = Window(database, freshness, inventory, lambda *_: None, finding, KeptProducts(freshness), on_page)
    hotline = Latest(database, "hotline", ContactOptions(phone_number="+18005550199"))
    follow: Any = None
    api = CatalogApi(window, Shop("en", "EUR"), hotline, freshness, follow)

    def asked(method: str, questions: Sequence[str]) -> tuple[Callable[[Any], Awaitable[Any]], list[Message]]:
        return getattr(api, method), [CALLS[method][0].FromString(bytes.fromhex(each)) for each in questions]

    async def look(method: str, questions: Sequence[str]) -> Answer:
        """Asks each once. `shown` and `total`: what the answers have, on average."""
        call, requests = asked(method, questions)
        answers = [await call(each) for each in requests]
        shown = [len(getattr(answer, CALLS[method][1])) for answer in answers]
        totals = [getattr(answer, "total_size", 0) for answer in answers]
        return {"shown": sum(shown) / len(shown), "total": sum(totals) / len(totals)}

    async def ask(method: str, questions: Sequence[str], seconds: float) -> Answer:
        """Asks these over and over, one at a time."""
        call, requests = asked(method, questions)
        return await timed(lambda number: call(requests[number % len(requests)]), 0, 1, calls=None, seconds=seconds)

    async def memory() -> Answer:
        return {"bytes": psutil.Process().memory_info().rss}

    return {}, {"look": look, "ask": ask, "memory": memory}, database.close


if __name__ == "__main__":
    obey(setup)
