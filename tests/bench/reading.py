"""What a storefront reads: the first page of the list, and one product, against a bare server with the same bytes."""

from __future__ import annotations

from google.protobuf.message import Message

from shop.catalog.v1 import catalog_pb2 as catalog

from .figures import Measured, Ratio, Row, by_rate, by_server_cpu, paired
from .load import Load, send
from .rounds import Bench, measure
from .rulers.calls import BareServer
from .rulers.process import Ruler

CATALOG = "shop.catalog.v1.CatalogService"
CALLERS = 16


def list_first_page(bench: Bench) -> list[Row]:
    return [_read(bench, "list first page", "ListProducts", catalog.ListProductsRequest())]


def get_product(bench: Bench) -> list[Row]:
    listing = bench.shop.target("catalog", f"{CATALOG}/ListProducts", "customer", customer_id="bench")
    page = catalog.ListProductsResponse.FromString(bench.shop.ask(listing, catalog.ListProductsRequest()))
    request = catalog.GetProductRequest(product_id=page.products[0].product_id)
    return [_read(bench, "get product", "GetProduct", request)]


def _read(bench: Bench, title: str, method: str, request: Message) -> Row:
    shop = bench.shop
    shop.all()
    # A customer, not a listing: the token is checked too.
    target = shop.target("catalog", f"{CATALOG}/{method}", "customer", customer_id="bench")
    body = shop.ask(target, request)
    load = Load(CALLERS, seconds=bench.seconds, again=True)
    with Ruler("calls", BareServer({target.method: body})) as bare:
        ours, ruler = measure(
            bench,
            {
                title: lambda _: shop.measured(["catalog"], lambda: send(target, [request], load)),
                "bare server": lambda _: shop.measured(
                    [bare.pid], lambda: send(target.at(bare.ready["address"]), [request], load)
                ),
            },
        )
    return Row(title, (ours, ruler), _ratios(ours, ruler), f"{len(body):,} bytes; {CALLERS} callers")


def _ratios(ours: Measured, ruler: Measured) -> list[Ratio]:
    return [
        Ratio("server CPU per call", paired(ours, ruler, by_server_cpu), at_most=1.3),
        Ratio("calls per second", paired(ours, ruler, by_rate)),
    ]
