"""What a storefront reads: the first page of the list, and one product, against a bare server with the same bytes.

Once while nothing happens, once while stock changes 200 times a second all over the shop: the bare server answers
beside the same stream, so that both see the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import cycle, islice
from statistics import median

from google.protobuf.message import Message

from shop.catalog.v1 import catalog_pb2 as catalog
from shop.inventory.v1 import inventory_pb2 as inventory

from .figures import Measured, Ratio, Row, Run, by_rate, by_server_cpu, paired
from .load import Load, Target, send
from .rounds import Bench, measure
from .rulers.calls import BareServer
from .rulers.process import Ruler
from .shop import LOCATION, Shop, new_id

CATALOG = "shop.catalog.v1.CatalogService"
CALLERS = 16
CHANGES_PER_SECOND = 200
# A first page as a storefront opens with: products, and what they can be narrowed by.
PAGE_SIZE = 24


def list_first_page(bench: Bench) -> list[Row]:
    request = catalog.ListProductsRequest(page_size=PAGE_SIZE, facets=True)
    return [
        _read(bench, "list first page", "ListProducts", request),
        _read(bench, f"list first page, {CHANGES_PER_SECOND} changes/s", "ListProducts", request, Changes(bench.shop)),
    ]


def get_product(bench: Bench) -> list[Row]:
    listing = bench.shop.target("catalog", f"{CATALOG}/ListProducts", "customer", customer_id="bench")
    page = catalog.ListProductsResponse.FromString(bench.shop.ask(listing, catalog.ListProductsRequest()))
    request = catalog.GetProductRequest(product_id=page.products[0].product_id)
    return [
        _read(bench, "get product", "GetProduct", request),
        _read(bench, f"get product, {CHANGES_PER_SECOND} changes/s", "GetProduct", request, Changes(bench.shop)),
    ]


class Changes:
    """Stock that changes: one unit of one SKU after the other comes in."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._rates: list[float] = []

    @property
    def rate(self) -> float:
        """How many there were a second, which a busy machine makes fewer."""
        return median(self._rates)

    @contextmanager
    def meanwhile(self, seconds: float) -> Iterator[None]:
        """While the block runs, which takes so many seconds."""
        skus = islice(cycle(self._shop.plenty), int((seconds + 1) * CHANGES_PER_SECOND))
        requests = [
            inventory.ReceiveStockRequest(request_id=new_id("req"), sku=sku, location=LOCATION, quantity=1)
            for sku in skus
        ]
        receive = self._shop.target("inventory", "shop.inventory.v1.InventoryService/ReceiveStock", "operator")
        load = Load(callers=16, seconds=seconds + 1, rate=CHANGES_PER_SECOND)
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(send, receive, requests, load)
            time.sleep(0.5)  # it is under way, and goes on as long beyond the end
            yield
            changed = sending.result()
        if changed.failures:
            raise RuntimeError(f"stock did not change: {dict(changed.failures)}")
        self._rates.append(changed.per_second)


def _read(
    bench: Bench,
    title: str,
    method: str,
    request: Message,
    changes: Changes | None = None,
) -> Row:
    shop = bench.shop
    shop.all()
    # A customer, not a listing: the token is checked too.
    target = shop.target("catalog", f"{CATALOG}/{method}", "customer", customer_id="bench")
    body = shop.ask(target, request)
    load = Load(CALLERS, seconds=bench.seconds, again=True)
    with Ruler("calls", BareServer({target.method: body})) as bare:

        def contestant(pids: Sequence[str | int], asked: Target) -> Run:
            with changes.meanwhile(bench.seconds) if changes else nullcontext():
                return shop.measured(pids, lambda: send(asked, [request], load))

        ours, ruler = measure(
            bench,
            {
                title: lambda _: contestant(["catalog"], target),
                "bare server": lambda _: contestant([bare.pid], target.at(bare.ready["address"])),
            },
        )
    note = f"{len(body):,} bytes; {CALLERS} callers"
    if changes:
        note += f"; stock changed {changes.rate:.0f} times a second"
    return Row(title, (ours, ruler), _ratios(ours, ruler), note)


def _ratios(ours: Measured, ruler: Measured) -> list[Ratio]:
    return [
        Ratio("server CPU per call", paired(ours, ruler, by_server_cpu), at_most=1.3),
        Ratio("calls per second", paired(ours, ruler, by_rate)),
    ]
