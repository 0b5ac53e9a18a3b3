"""Inventory's composition: what it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from services.chassis.grpc_server import Servicer
from services.chassis.relay import Watermark
from services.chassis.service import Runtime, Service, run
from services.chassis.waiting import every
from services.inventory import publishes
from services.inventory.audit import audit_all
from services.inventory.consumers import HEARS
from services.inventory.grpc_api import InventoryApi
from services.inventory.settings import Settings
from services.inventory.stock_import import import_file
from services.inventory.usecases import reserving


class Inventory:
    """The application object."""

    def __init__(self, runtime: Runtime) -> None:
        self._database = runtime.database
        self.servicers: Sequence[Servicer] = [
            ("shop.inventory.v1.InventoryService", InventoryApi(runtime.database, runtime.settings))
        ]
        self.background: Sequence[Callable[[], Awaitable[None]]] = [self.sweep]

    async def sweep(self) -> None:
        """Expires, at most every second, what nobody touched."""
        await every(1, self._expire_due)

    async def _expire_due(self) -> object:
        async with self._database.transaction() as tx:
            return await reserving.expire_due(tx)

    async def ready(self) -> None:
        """Inventory may answer as soon as its database does."""

    async def close(self) -> None:
        """Nothing of its own is open."""


SERVICE = Service(
    name="inventory",
    settings=Settings,
    sql=Path(__file__).parent / "sql",
    publishes=publishes.PUBLISHES,
    hears=HEARS,
    build=Inventory,
    watermark=Watermark(publishes.STOCK, publishes.watermark),
    commands={
        "import-stock": ("take in a stock file", import_file),
        "audit": ("recompute all balances and name each drift", audit_all),
    },
)

if __name__ == "__main__":
    run(SERVICE)
