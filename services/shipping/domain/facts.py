"""What happens to orders, as the domain tells it. The rest of each fact is read off the order when it is published."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.shipping.domain.delivery import DeliveryPromise


@dataclass(frozen=True, slots=True)
class OrderPlaced:
    """The stock is committed, the promise is made."""

    version: int


@dataclass(frozen=True, slots=True)
class OrderRejected:
    """The stock was gone."""

    version: int
    reason: str
    time: datetime


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """Called off before anything of it left."""

    version: int
    time: datetime


@dataclass(frozen=True, slots=True)
class ShipmentUpgraded:
    """It goes faster than was promised."""

    version: int
    original: DeliveryPromise
    promise: DeliveryPromise
    policy_version: int
    reason: str
    time: datetime


@dataclass(frozen=True, slots=True)
class UpgradeNotApplied:
    """An upgrade was granted and could not be applied."""

    version: int
    policy_version: int
    reason: str
    time: datetime


@dataclass(frozen=True, slots=True)
class ShipmentDispatched:
    """A parcel left the house."""

    version: int
    shipment_id: str
    time: datetime


@dataclass(frozen=True, slots=True)
class ShipmentDelivered:
    """A parcel arrived."""

    version: int
    shipment_id: str
    time: datetime
    promise_kept: bool
    order_complete: bool


Happened = (
    OrderPlaced
    | OrderRejected
    | OrderCancelled
    | ShipmentUpgraded
    | UpgradeNotApplied
    | ShipmentDispatched
    | ShipmentDelivered
)
