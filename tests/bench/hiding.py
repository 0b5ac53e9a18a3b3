"""Commit to hidden: from inventory's commit to catalog's list without the size, against a bare Kafka round trip.

Once through the replica of catalog that hears of it, once through one that owns no partition and is told by the other.

Measured from the time in the ledger, which is a moment before the commit, to the first answer of the list without the
SKU, asked for every half millisecond by one caller.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from shop.catalog.v1 import catalog_pb2 as catalog
from shop.inventory.v1 import inventory_pb2 as inventory

from .figures import Ratio, Row, Run, paired, percentile
from .load import Prober
from .reading import CATALOG
from .rounds import Bench, measure
from .rulers.messages import RoundTrips
from .rulers.process import Ruler
from .shop import Shop, new_id

INVENTORY = "shop.inventory.v1.InventoryService"
MOST_UNITS = 10_000
HIDINGS_PER_SECOND = 15
ROUND_TRIPS_PER_SECOND = 100
# Between two questions. Without it, asking alone would keep both cores of a small machine busy.
PAUSE_SECONDS = 0.0005
# About a StockLevelChanged.
VALUE_BYTES = 60


@dataclass(frozen=True, slots=True)
class Size:
    """A size on the first page, and how many units are free of it."""

    sku: str
    free: int
    # A list of few products with this among them: what asking costs is not what is measured.
    listed: catalog.ListProductsRequest


def commit_to_hidden(bench: Bench) -> list[Row]:
    shop = bench.shop
    shop.all()
    hears = shop.stack.address("catalog")
    return [
        _measured(bench, "commit to hidden", hears),
        _measured(bench, "commit to hidden, by another replica", shop.deaf_catalog),
    ]


def _measured(bench: Bench, title: str, address: str) -> Row:
    shop = bench.shop
    sizes = _sizes(shop)
    hidings, round_trips = int(bench.seconds * HIDINGS_PER_SECOND), int(bench.seconds * ROUND_TRIPS_PER_SECOND)
    turns = count()
    with Prober() as prober, Ruler("messages", RoundTrips(shop.stack.kafka_bootstrap, VALUE_BYTES)) as kafka:

        def hide() -> Run:
            began = time.perf_counter()
            micros = [_hide(shop, prober, sizes[next(turns) % len(sizes)], address) for _ in range(hidings)]
            return Run(time.perf_counter() - began, micros)

        ours, ruler = measure(
            bench,
            {
                title: lambda _: shop.measured([], hide),
                "bare Kafka round trip": lambda _: shop.measured([], lambda: kafka.run("run", calls=round_trips)),
            },
        )
    every = [micros for run in ours.runs for micros in run.micros]
    return Row(
        title,
        (ours, ruler),
        [
            Ratio("median", paired(ours, ruler, lambda run: run.milliseconds(50)), at_most=3),
            Ratio(f"ms: p99 of all {len(every)}", percentile(every, 99) / 1000, at_most=100),
        ],
        "one at a time; a list of few products is asked for every half millisecond",
    )


def _sizes(shop: Shop) -> Sequence[Size]:
    """Sizes on the first page of which one reservation can take all there is."""
    listing = shop.target("catalog", f"{CATALOG}/ListProducts", "customer", customer_id="bench")
    page = catalog.ListProductsResponse.FromString(shop.ask(listing, catalog.ListProductsRequest()))
    return [
        Size(
            variant.sku,
            variant.free,
            catalog.ListProductsRequest(
                filters=[
                    catalog.Filter(attribute="brand", values=[product.brand]),
                    catalog.Filter(attribute="size", values=[variant.size]),
                    catalog.Filter(attribute="color", values=[variant.color]),
                ]
            ),
        )
        for product in page.products
        for variant in product.variants
        if variant.free <= MOST_UNITS
    ]


def _hide(shop: Shop, prober: Prober, size: Size, address: str) -> int:
    """Takes all there is of a size, gives it back, and returns the microseconds until a catalog had hidden it."""
    target = shop.target("catalog", f"{CATALOG}/ListProducts", "customer", customer_id="bench").at(address)
    listing = target, size.listed
    # The field `sku` of a variant, as it stands in the answer.
    needle = catalog.Variant(sku=size.sku).SerializeToString()
    taking = inventory.ReserveStockRequest(
        request_id=new_id("req"),
        customer_id=new_id("cus"),
        lines=[inventory.ReservationLine(sku=size.sku, quantity=size.free)],
    )
    take, give = shop.as_shipping("ReserveStock"), shop.as_shipping("ReleaseReservation")
    hidden = prober.until(listing, needle, present=False, act=(take, taking), pause_seconds=PAUSE_SECONDS)
    reservation = inventory.ReserveStockResponse.FromString(hidden.answer).reservation
    ledger = shop.target("inventory", f"{INVENTORY}/ListLedgerEntries", "operator")
    newest = inventory.ListLedgerEntriesResponse.FromString(
        shop.ask(ledger, inventory.ListLedgerEntriesRequest(sku=size.sku, page_size=1))
    ).entries[0]
    giving_back = inventory.ReleaseReservationRequest(
        request_id=new_id("req"), reservation_id=reservation.reservation_id
    )
    prober.until(listing, needle, present=True, act=(give, giving_back), pause_seconds=PAUSE_SECONDS)
    return int(hidden.seen * 1e6 - newest.create_time.ToMicroseconds())
