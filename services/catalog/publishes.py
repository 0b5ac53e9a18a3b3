"""What catalog announces, and where."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.catalog.domain.waiting import BackInStock
from services.chassis.facts import Fact, Topic
from services.chassis.values import to_timestamp
from shop.catalog.events.v1 import facts_pb2 as facts

PRODUCTS = Topic("shop.catalog.products.v1", (facts.ProductDelisted, facts.ProductRelisted, facts.BackInStock))
PUBLISHES = (PRODUCTS,)


@dataclass(frozen=True, slots=True)
class ListingChanged:
    """A product came into the window or left it."""

    product_id: str
    version: int
    listed: bool
    time: datetime


def listing_changed(happened: ListingChanged) -> Fact:
    """The last free unit of a product went, or units of it are free again."""
    kind = facts.ProductRelisted if happened.listed else facts.ProductDelisted
    message = kind(product_id=happened.product_id, version=happened.version, change_time=to_timestamp(happened.time))
    return Fact(PRODUCTS, happened.product_id, message)


def back_in_stock(happened: BackInStock) -> Fact:
    """A unit is held for a customer who waited for it."""
    message = facts.BackInStock(
        subscription_id=happened.subscription_id,
        version=happened.version,
        customer_id=happened.customer_id,
        sku=happened.sku,
        product_id=happened.product_id,
        reservation_id=happened.reservation_id,
        hold_expire_time=to_timestamp(happened.hold_expire_time),
        change_time=to_timestamp(happened.time),
    )
    return Fact(PRODUCTS, happened.subscription_id, message)
