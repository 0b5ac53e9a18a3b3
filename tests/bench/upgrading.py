"""Order to upgrade: from the order to the better promise on its shipment, by the times both were written with.

All services run, each order is a regular customer's, and half as many orders come in as the shop can take.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from google.type import money_pb2

from shop.loyalty.v1 import loyalty_pb2 as loyalty
from shop.shipping.v1 import shipping_pb2 as shipping

from .checkouts import ADDRESS, Checkouts
from .figures import Ratio, Row, Run, percentile
from .load import Load, answers, send
from .rounds import Bench, measure
from .shop import Shop, new_id

LOYALTY = "shop.loyalty.v1.LoyaltyService"
CALLERS = 32
SATURATING_CALLS = 200
POINTS_OF_A_REGULAR = 100_000
PATIENCE_SECONDS = 20


def order_to_upgrade(bench: Bench) -> list[Row]:
    shop = bench.shop
    shop.all()
    checkouts = Checkouts(shop)
    _publish_policy(shop)
    burst = _ready(checkouts, SATURATING_CALLS)
    placing = checkouts.method("PlaceOrder")
    saturation = shop.measured(["shipping"], lambda: send(placing, burst, Load(CALLERS))).per_second
    bench.say(f"  {saturation:,.0f} orders/s can be taken")
    time.sleep(SATURATING_CALLS / saturation)  # what still goes on behind them
    rate = saturation / 2
    orders = max(20, int(rate * bench.seconds))
    prepared = _ready(checkouts, orders * (bench.rounds + 1))

    def run(number: int) -> Run:
        mine = prepared[(number + 1) * orders : (number + 2) * orders]
        placed: list[bytes] = []

        def place() -> Run:
            placed.extend(answers(placing, mine, Load(CALLERS, rate=rate)))
            return Run(orders / rate, [0] * len(placed))

        measured = shop.measured(["shipping"], place)
        return replace(measured, micros=_upgrades(checkouts, placed))

    (ours,) = measure(bench, {"order to upgrade": run})
    every = [micros for each in ours.runs for micros in each.micros]
    return [
        Row(
            "order to upgrade",
            (ours,),
            [Ratio(f"ms: p99 of all {len(every)}", percentile(every, 99) / 1000, at_most=250)],
            f"{rate:.0f} orders/s, half of the {saturation:.0f}/s that {CALLERS} callers can place; all services run",
        )
    ]


def _ready(checkouts: Checkouts, number: int) -> Sequence[shipping.PlaceOrderRequest]:
    """Orders of as many new regulars, ready to be placed."""
    customers = [new_id("cus") for _ in range(number)]
    gifts = [
        loyalty.AdjustPointsRequest(
            request_id=new_id("req"), customer_id=customer, points=POINTS_OF_A_REGULAR, reason="a regular"
        )
        for customer in customers
    ]
    answers(checkouts.shop.target("loyalty", f"{LOYALTY}/AdjustPoints", "operator"), gifts, Load(callers=8))
    return checkouts.begun(number, customers)


def _publish_policy(shop: Shop) -> None:
    """A policy whose budget no run uses up."""
    policy = loyalty.UpgradePolicy(
        minimum_tier=loyalty.TIER_REGULAR,
        countries=[ADDRESS.country],
        unit_cost=money_pb2.Money(currency_code="EUR", units=1),
        monthly_budget=money_pb2.Money(currency_code="EUR", units=1_000_000),
        daily_budget=money_pb2.Money(currency_code="EUR", units=1_000_000),
    )
    publish = shop.target("loyalty", f"{LOYALTY}/PublishUpgradePolicy", "operator")
    shop.ask(publish, loyalty.PublishUpgradePolicyRequest(request_id=new_id("req"), policy=policy))


def _upgrades(checkouts: Checkouts, placed: Sequence[bytes]) -> list[int]:
    """The microseconds from each order to its upgrade. Raises TimeoutError when one does not come."""
    orders = [shipping.PlaceOrderResponse.FromString(answer).order for answer in placed]
    asked = [shipping.GetOrderRequest(customer_id=order.customer_id, order_id=order.order_id) for order in orders]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = answers(checkouts.method("GetOrder"), asked, Load(callers=4))
        now = [shipping.GetOrderResponse.FromString(answer).order for answer in found]
        changes = [order.shipments[0].promise_changes for order in now]
        if all(changes):
            return [
                change[0].change_time.ToMicroseconds() - order.create_time.ToMicroseconds()
                for order, change in zip(now, changes, strict=True)
            ]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{sum(not change for change in changes)} of {len(now)} orders were not upgraded")
        time.sleep(0.5)
