"""Shipping's composition: what it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from services.chassis.grpc_client import Peer
from services.chassis.grpc_server import Servicer
from services.chassis.latest import Latest
from services.chassis.service import Runtime, Service, run
from services.chassis.waiting import every
from services.shipping import publishes
from services.shipping.clients import CatalogClient, InventoryClient
from services.shipping.consumers import HEARS
from services.shipping.grpc_api import ShippingApi, WarehouseApi
from services.shipping.sealing import AddressSeal
from services.shipping.settings import Settings
from services.shipping.usecases import checkout
from services.shipping.usecases.ordering import Ordering
from shop.contact.v1.contact_options_pb2 import ContactOptions


class Shipping:
    """The application object."""

    def __init__(self, runtime: Runtime) -> None:
        settings: Settings = runtime.settings
        self._database = runtime.database
        self._checkout_keep = settings.checkout_keep
        self._peers = [
            Peer("inventory", settings.inventory_address, settings, runtime.telemetry),
            Peer("catalog", settings.catalog_address, settings, runtime.telemetry),
        ]
        inventory, catalog = InventoryClient(self._peers[0]), CatalogClient(self._peers[1])
        self.hotline = Latest(runtime.database, "hotline", ContactOptions(phone_number=settings.hotline_phone_number))
        self._ordering = Ordering(
            runtime.database,
            inventory,
            grace=settings.checkout_grace,
            retry=settings.order_retry,
            give_up=settings.order_give_up,
        )
        seal = AddressSeal(settings.personal_data_keys.get_secret_value())
        self.servicers: Sequence[Servicer] = [
            (
                "shop.shipping.v1.ShippingService",
                ShippingApi(runtime.database, catalog, inventory, self._ordering, seal, self.hotline),
            ),
            ("shop.shipping.v1.WarehouseService", WarehouseApi(runtime.database)),
        ]
        self.background: Sequence[Callable[[], Awaitable[None]]] = [
            self.finish_pending_orders,
            self.forget_unordered,
        ]

    async def finish_pending_orders(self) -> None:
        """Looks after orders whose process stopped, or whose inventory was away."""
        await every(1, self._ordering.sweep)

    async def forget_unordered(self) -> None:
        """Deletes the checkouts, and so the addresses, of those who never ordered."""
        await every(60, self._forget_unordered)

    async def _forget_unordered(self) -> object:
        async with self._database.transaction() as tx:
            return await checkout.forget_unordered(tx, self._checkout_keep)

    async def ready(self) -> None:
        """Shipping may answer as soon as its database does; whoever is away is told so per call."""

    async def close(self) -> None:
        """Closes the connections to other services."""
        for peer in self._peers:
            await peer.close()


SERVICE = Service(
    name="shipping",
    settings=Settings,
    sql=Path(__file__).parent / "sql",
    publishes=publishes.PUBLISHES,
    hears=HEARS,
    build=Shipping,
)

if __name__ == "__main__":
    run(SERVICE)
