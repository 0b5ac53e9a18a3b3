"""A checkout: goods held for a customer who is about to order, at the prices and terms shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from services.chassis.errors import NotFound, NotNow
from services.shipping.domain.delivery import ServiceLevel, quote
from services.shipping.domain.order import Line, Order


class CheckoutNotFound(NotFound):
    """There is no such checkout, or it is not the caller's."""

    reason = "CHECKOUT_NOT_FOUND"


class UnknownSku(NotNow):
    """Nothing of that name is sold here."""

    reason = "UNKNOWN_SKU"


class CurrencyNotSold(NotNow):
    """It has no price in the currency of the order."""

    reason = "CURRENCY_NOT_SOLD"


class CheckoutExpired(NotNow):
    """The goods are no longer held, and it is too late to try whether they are still there."""

    reason = "CHECKOUT_EXPIRED"


class CheckoutOrdered(NotNow):
    """One checkout is one order at most, and this one has been ordered with another payment."""

    reason = "CHECKOUT_ORDERED"


class TermsNotShown(NotNow):
    """The order does not name the terms that belong to its checkout."""

    reason = "TERMS_NOT_SHOWN"


class PaymentReferenceUsed(NotNow):
    """A payment pays one order."""

    reason = "PAYMENT_REFERENCE_USED"


@dataclass(frozen=True, slots=True)
class Checkout:
    """What the customer was shown, and until when it is held."""

    checkout_id: str
    customer_id: str
    reservation_id: str
    lines: Sequence[Line]
    service_level: ServiceLevel
    delivery_price: Decimal
    country: str
    highlights_version: str
    expire_time: datetime

    @property
    def total(self) -> Decimal:
        """Goods and delivery."""
        return sum((line.total for line in self.lines), Decimal(0)) + self.delivery_price

    def place(
        self, highlights_version: str, payment_reference: str, journey_id: str | None, now: datetime, grace: timedelta
    ) -> Order:
        """The order, pending until its stock is committed. The date is promised as of now: see the cut-off.

        Past its time it may still be had while the goods are free, for `grace` longer: then prices and dates are old.
        Raises `TermsNotShown`, `CheckoutExpired`.
        """
        if highlights_version != self.highlights_version:
            raise TermsNotShown(
                "the order must name the terms that were shown with its checkout",
                wanted=self.highlights_version,
                shown=highlights_version,
            )
        if now > self.expire_time + grace:
            raise CheckoutExpired("the goods are no longer held", expire_time=self.expire_time.isoformat())
        delivery = quote(now, self.country, self.service_level)
        return Order(
            order_id=f"ord_{uuid4().hex}",
            customer_id=self.customer_id,
            checkout_id=self.checkout_id,
            reservation_id=self.reservation_id,
            payment_reference=payment_reference,
            highlights_version=highlights_version,
            country=self.country,
            carrier=delivery.carrier,
            delivery_price=self.delivery_price,
            promise=delivery.promise,
            lines=self.lines,
            create_time=now,
            journey_id=journey_id,
        )
