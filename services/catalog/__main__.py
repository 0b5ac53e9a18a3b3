"""Catalog's composition: what it is made of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from aiokafka.errors import KafkaError
from opentelemetry.metrics import CallbackOptions, Observation

from services.catalog import consumers, price_clock, publishes
from services.catalog.back_in_stock import BackInStock
from services.catalog.changes import Changes
from services.catalog.clients import InventoryClient
from services.catalog.feed_commands import export_file, import_file
from services.catalog.freshness import Freshness
from services.catalog.grpc_api import BackInStockApi, CatalogAdminApi, CatalogApi, OpenLists, ReferralApi, Shop
from services.catalog.grpc_api.messages import on_page
from services.catalog.kept_products import KeptProducts
from services.catalog.rebuilding import Rebuilding
from services.catalog.reconciliation import Reconciliation
from services.catalog.search.finding import Finding
from services.catalog.search.upkeep import Upkeep
from services.catalog.settings import Settings
from services.catalog.window import Window
from services.chassis import kafka, logs, telemetry
from services.chassis.brokers import Brokers
from services.chassis.database import OUTAGES, Database
from services.chassis.errors import Refusal
from services.chassis.grpc_client import Peer
from services.chassis.grpc_errors import RemoteError
from services.chassis.grpc_server import Servicer
from services.chassis.latest import Latest
from services.chassis.service import Runtime, Service, run
from services.chassis.settings import load
from services.chassis.waiting import every
from shop.contact.v1.contact_options_pb2 import ContactOptions

log = logging.getLogger(__name__)

# Between two sums of what was added to the counts of the window.
SUM_UP_SECONDS = 5.0


class Catalog:
    """The application object."""

    def __init__(self, runtime: Runtime) -> None:
        settings: Settings = runtime.settings
        meter = runtime.telemetry.meter
        peer = Peer("inventory", settings.inventory_address, settings, runtime.telemetry)
        self._inventory = InventoryClient(peer, settings.confirm_deadline_seconds)
        self._database = runtime.database
        self._reconcile_seconds = settings.reconcile_seconds
        self.changes = Changes(runtime.database)
        self._freshness = Freshness(runtime.database, settings.staleness_bound_seconds)
        self.reconciliation = Reconciliation(
            runtime.database,
            self._inventory,
            lambda: kafka.partition_count(Brokers.of(settings), consumers.STOCK),
            meter.create_counter("shop.catalog.drift", description="Places where the copy was wrong, by kind.").add,
        )
        kept_products = KeptProducts(self._freshness)
        self.changes.listen(kept_products.forget)
        window = Window(
            runtime.database,
            self._freshness,
            self._inventory,
            meter.create_counter("shop.catalog.asked", description="Answers past the bound, by inventory's.").add,
            Finding(runtime.database, settings.shop_currency),
            kept_products,
            on_page,
        )
        meter.create_observable_gauge("shop.catalog.staleness", [self._staleness], "s", "Age of the copy of stock.")
        meter.create_observable_counter(
            "shop.catalog.bound_breaches", [self._breaches], description="How often the copy went past the bound."
        )
        meter.create_observable_gauge(
            "shop.catalog.inventory_clock", [self._clock_ahead], "s", "How far inventory's clock is ahead of ours."
        )
        self.upkeep = Upkeep(runtime.database)
        self.hotline = Latest(runtime.database, "hotline", ContactOptions(phone_number=settings.hotline_phone_number))
        shop = Shop(settings.shop_locale, settings.shop_currency)
        self._open_lists = OpenLists(runtime.database, self.changes, window, shop, self._freshness, self.hotline)
        storefront = CatalogApi(window, shop, self.hotline, self._freshness, self._open_lists.follow)
        for kept in storefront.keepers.values():
            self.changes.listen(kept.forget)
        self._kept = storefront.keepers
        meter.create_observable_counter(
            "shop.catalog.answers", [self._answers], description="Answers given, by method and whether kept or made."
        )
        self.back_in_stock = BackInStock(
            runtime.database, self._inventory, timedelta(seconds=settings.back_in_stock_retry_seconds)
        )
        waiting = BackInStockApi(runtime.database, self.back_in_stock, self.hotline, settings.back_in_stock_limit)
        meter.create_observable_gauge(
            "shop.catalog.open_lists", [self._open_streams], description="Open lists that are being followed."
        )
        self.servicers: Sequence[Servicer] = [
            ("shop.catalog.v1.CatalogService", storefront),
            ("shop.catalog.v1.BackInStockService", waiting),
            ("shop.catalog.v1.ReferralService", ReferralApi(runtime.database)),
            ("shop.catalog.v1.CatalogAdminService", CatalogAdminApi(runtime.database, shop)),
        ]
        self.background: Sequence[Callable[[], Awaitable[None]]] = [
            self.reconcile,
            self.move_prices,
            self._freshness.keep_looking,
            self.changes.run,
            self._open_lists.watches.run,
            self.back_in_stock.run,
            self.prune,
            self.sum_up,
        ]

    async def reconcile(self) -> None:
        """Compares the copy of stock with inventory's own, again and again."""
        await self.reconciliation.keep_comparing(self._reconcile_seconds)

    async def prune(self) -> None:
        """Deletes what nobody needs any more."""
        await every(60, self.back_in_stock.prune)

    async def move_prices(self) -> None:
        """Has prices begin and end by the clock."""
        await price_clock.keep_moving(self._database)

    async def sum_up(self) -> None:
        """Keeps the counts of the window short."""
        await every(SUM_UP_SECONDS, self.upkeep.sum_up)

    async def ready(self) -> None:
        """Catalog answers once all products can be searched and its copy was compared, or could not be for some
        seconds."""
        await self.upkeep.describe_all()
        await self.reconciliation.begin()

    async def close(self) -> None:
        """Closes the connections to inventory."""
        await self._inventory.close()

    def _answers(self, _options: CallbackOptions) -> Iterable[Observation]:
        for method, kept in self._kept.items():
            yield Observation(kept.given, {"method": method, "outcome": "kept"})
            yield Observation(kept.made, {"method": method, "outcome": "made"})

    def _staleness(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._freshness.age_seconds)]

    def _breaches(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._freshness.breaches)]

    def _open_streams(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._open_lists.watches.open)]

    def _clock_ahead(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self.reconciliation.clock_ahead_seconds)]


async def rebuild(_arguments: Sequence[str]) -> int:
    """Rebuilds the copy of stock. Returns 1 when a part was away: then it is to be run again."""
    loaded: Settings = load(Settings)
    logs.configure("catalog", loaded.log_level)
    observed = telemetry.start("catalog", loaded, metrics_endpoint=False)
    database = Database(loaded.database_url, "catalog", pool_size=4)
    app = Catalog(Runtime(loaded, database, observed))
    telling = asyncio.create_task(app.changes.run())
    try:
        await database.open()
        await Rebuilding(database, Brokers.of(loaded), app, app.reconciliation).run()
    except (*OUTAGES, Refusal, RemoteError, KafkaError) as error:
        log.warning("not rebuilt: run it again", extra={"error": type(error).__name__})
        return 1
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await app.close()
        await database.close()
        await asyncio.to_thread(observed.stop)
    return 0


SERVICE = Service(
    name="catalog",
    settings=Settings,
    sql=Path(__file__).parent / "sql",
    publishes=publishes.PUBLISHES,
    hears=consumers.HEARS,
    build=Catalog,
    commands={
        "import-products": ("take in a product feed", import_file),
        "export-products": ("write the feed of what can be shipped now", export_file),
        "rebuild": ("rebuild the copy of stock from its topic, while catalog answers", rebuild),
    },
)

if __name__ == "__main__":
    run(SERVICE)
