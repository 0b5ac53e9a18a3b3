"""What loyalty announces, and where."""

from __future__ import annotations

from datetime import datetime

from services.chassis.facts import Fact, Topic
from services.chassis.values import to_money, to_timestamp
from services.loyalty.domain.standing import StandingChanged, Tier
from services.loyalty.domain.upgrades import Decision
from shop.loyalty.events.v1 import facts_pb2 as facts
from shop.loyalty.v1 import loyalty_pb2 as pb

UPGRADES = Topic("shop.loyalty.upgrades.v1", (facts.UpgradeGranted, facts.UpgradeDeclined), retention_days=30)
STANDING = Topic("shop.loyalty.standing.v1", (facts.StandingChanged,), compacted=True)
PUBLISHES = (UPGRADES, STANDING)

TIERS = {tier: pb.Tier.Value(f"TIER_{tier.name}") for tier in Tier}


def upgrade_decided(decision: Decision, now: datetime) -> Fact:
    """The one decision on an order."""
    order = decision.order
    policy_version = decision.policy.version if decision.policy else 0
    if decision.granted and decision.policy is not None:
        cost = decision.policy.unit_cost
        return Fact(
            UPGRADES,
            order.order_id,
            facts.UpgradeGranted(
                order_id=order.order_id,
                version=1,
                customer_id=order.customer_id,
                policy_version=policy_version,
                reason=decision.thanks,
                cost=to_money(cost.amount, cost.currency),
                decide_time=to_timestamp(now),
            ),
        )
    return Fact(
        UPGRADES,
        order.order_id,
        facts.UpgradeDeclined(
            order_id=order.order_id,
            version=1,
            customer_id=order.customer_id,
            policy_version=policy_version,
            rule=decision.reason,
            reason=decision.decisive.text if decision.decisive else "",
            decide_time=to_timestamp(now),
        ),
    )


def standing_changed(happened: StandingChanged, now: datetime) -> Fact:
    """A customer now stands so."""
    return Fact(
        STANDING,
        happened.customer_id,
        facts.StandingChanged(
            customer_id=happened.customer_id,
            version=happened.version,
            tier=TIERS[happened.tier],
            points=happened.points,
            change_time=to_timestamp(now),
            order_id=happened.order_id or "",
            points_delta=happened.points_delta,
        ),
    )
