"""Loyalty's composition: what it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from services.chassis.grpc_server import Servicer
from services.chassis.latest import Latest
from services.chassis.service import Runtime, Service, run
from services.chassis.waiting import every
from services.loyalty import publishes, usecases
from services.loyalty.consumers import HEARS
from services.loyalty.grpc_api import LoyaltyApi
from services.loyalty.settings import Settings
from shop.contact.v1.contact_options_pb2 import ContactOptions


class Loyalty:
    """The application object."""

    def __init__(self, runtime: Runtime) -> None:
        self._database = runtime.database
        self._review_seconds: float = runtime.settings.review_seconds
        self.hotline = Latest(
            runtime.database, "hotline", ContactOptions(phone_number=runtime.settings.hotline_phone_number)
        )
        self.servicers: Sequence[Servicer] = [
            ("shop.loyalty.v1.LoyaltyService", LoyaltyApi(runtime.database, self.hotline))
        ]
        self.background: Sequence[Callable[[], Awaitable[None]]] = [self.review]

    async def review(self) -> None:
        """Announces the standings that only time has changed."""
        await every(self._review_seconds, self._review_due)

    async def _review_due(self) -> object:
        async with self._database.transaction() as tx:
            return await usecases.review_due(tx)

    async def ready(self) -> None:
        """Loyalty may answer as soon as its database does."""

    async def close(self) -> None:
        """Nothing of its own is open."""


SERVICE = Service(
    name="loyalty",
    settings=Settings,
    sql=Path(__file__).parent / "sql",
    publishes=publishes.PUBLISHES,
    hears=HEARS,
    build=Loyalty,
)

if __name__ == "__main__":
    run(SERVICE)
