"""What catalog hears, and what runs for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.catalog import usecases
from services.catalog.store.stock import Level
from services.chassis.database import Transaction
from services.chassis.facts import Heard, Hears
from services.chassis.values import to_datetime
from shop.contact.events.v1.facts_pb2 import HotlineStatusChanged
from shop.inventory.events.v1.facts_pb2 import StockLevelChanged, StockWatermark

STOCK = "shop.inventory.stock.v1"


async def on_stock(app: object, tx: Transaction, heard: Sequence[Heard[Any]]) -> None:
    """Levels changed, and all up to some time was told. In any order and any number of times: versions decide."""
    levels: list[Level] = []
    watermarks: dict[int, datetime] = {}
    for fact in heard:
        message = fact.message
        if isinstance(message, StockLevelChanged):
            levels.append(Level(message.sku, message.location, message.version, message.free))
            if message.HasField("moved_with"):
                # Both sides of a transfer at once: the sum over the locations never has the units twice, or not at all.
                other = message.moved_with
                levels.append(Level(message.sku, other.location, other.version, other.free))
        elif isinstance(message, StockWatermark):
            as_of = to_datetime(message.as_of)
            watermarks[fact.partition] = max(as_of, watermarks.get(fact.partition, as_of))
    await usecases.hear_stock(tx, levels, watermarks)


async def on_hotline_status_changed(app: Any, tx: Transaction, heard: Heard[HotlineStatusChanged]) -> None:
    """Contact says who is there to answer."""
    told = heard.message
    await app.hotline.hear(tx, told.contact_options, to_datetime(told.contact_options.as_of), told.version)


HEARS = (
    Hears(STOCK, batch=on_stock, batch_facts=(StockLevelChanged, StockWatermark)),
    Hears("shop.contact.hotline.v1", {HotlineStatusChanged: on_hotline_status_changed}),
)
