"""Checkouts of three lines each, ready to be ordered."""

from __future__ import annotations

from dataclasses import dataclass

from shop.shipping.v1 import shipping_pb2 as shipping

from .load import Load, Target, answers
from .shop import Shop, new_id

SHIPPING = "shop.shipping.v1.ShippingService"
LINES = 3
ADDRESS = shipping.Address(
    name="Erika Beispiel", street="Beispielgasse 1", postal_code="1010", city="Wien", country="AT"
)


@dataclass(frozen=True, slots=True)
class Checkouts:
    """What begins checkouts and places their orders: an agent does, for a new customer each."""

    shop: Shop

    def method(self, name: str) -> Target:
        return self.shop.target("shipping", f"{SHIPPING}/{name}", "agent", agent_id="agent_bench")

    def beginnings(self, number: int, customers: list[str] | None = None) -> list[shipping.BeginCheckoutRequest]:
        """Requests for checkouts, of SKUs that take turns."""
        skus = self.shop.plenty
        names = customers or [new_id("cus") for _ in range(number)]
        return [
            shipping.BeginCheckoutRequest(
                request_id=new_id("req"),
                customer_id=names[each],
                lines=[
                    shipping.CheckoutLine(sku=skus[(each * LINES + line) % len(skus)], quantity=1)
                    for line in range(LINES)
                ],
                address=ADDRESS,
            )
            for each in range(number)
        ]

    def begun(self, number: int, customers: list[str] | None = None) -> list[shipping.PlaceOrderRequest]:
        """Begins checkouts; returns the requests that order them."""
        found = answers(self.method("BeginCheckout"), self.beginnings(number, customers), Load(callers=8))
        return [self.order_of(answer) for answer in found]

    def order_of(self, answer: bytes) -> shipping.PlaceOrderRequest:
        """The request that orders what a checkout's answer shows."""
        checkout = shipping.BeginCheckoutResponse.FromString(answer).checkout
        return shipping.PlaceOrderRequest(
            request_id=new_id("req"),
            customer_id=checkout.customer_id,
            checkout_id=checkout.checkout_id,
            highlights_version=checkout.highlights_version,
            payment_reference=new_id("pay"),
        )
