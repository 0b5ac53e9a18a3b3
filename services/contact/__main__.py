"""Contact's composition: what it is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from services.chassis.grpc_server import Servicer
from services.chassis.service import Runtime, Service, run
from services.contact import publishes
from services.contact.consumers import HEARS
from services.contact.grpc_api import DeskApi, HotlineApi
from services.contact.hotline import Hotline
from services.contact.notes import Notes
from services.contact.router import Router
from services.contact.settings import Settings
from services.contact.watches import Watches


class ContactCentre:
    """The application object."""

    def __init__(self, runtime: Runtime) -> None:
        database, settings = runtime.database, runtime.settings
        notes = Notes(settings.personal_data_keys.get_secret_value())
        self.watches = Watches(database, settings.sweep_seconds, settings.note_seconds)
        self.router = Router(database, settings, self.watches)
        self.hotline = Hotline(database, settings)
        self.customers = HotlineApi(database, settings, self.router, self.watches, self.hotline)
        self.desks = DeskApi(database, settings, self.router, self.watches, notes)
        self.servicers: Sequence[Servicer] = [
            ("shop.contact.v1.HotlineService", self.customers),
            ("shop.contact.v1.DeskService", self.desks),
        ]
        self.background: Sequence[Callable[[], Awaitable[None]]] = [
            self.router.run,
            self.watches.run,
            self.hotline.run,
        ]

    async def ready(self) -> None:
        """Contact may answer as soon as its database does."""

    async def close(self) -> None:
        """Nothing of its own is open."""


SERVICE = Service(
    name="contact",
    settings=Settings,
    sql=Path(__file__).parent / "sql",
    publishes=publishes.PUBLISHES,
    hears=HEARS,
    build=ContactCentre,
)

if __name__ == "__main__":
    run(SERVICE)
