"""Loyalty over gRPC: from messages to commands, and back."""

from __future__ import annotations

import json

import asyncpg
from google.type.money_pb2 import Money as MoneyMessage

from services.chassis import pages
from services.chassis.access import current_caller
from services.chassis.database import Database, Transaction
from services.chassis.errors import NotFound
from services.chassis.latest import Latest
from services.chassis.requests import once
from services.chassis.values import from_money, to_datetime, to_money, to_timestamp
from services.loyalty import queries, usecases
from services.loyalty.domain.money import Money
from services.loyalty.domain.policy import Draft, UpgradePolicy
from services.loyalty.domain.standing import Reason, Standing
from services.loyalty.domain.upgrades import State
from services.loyalty.publishes import TIERS
from shop.contact.v1.contact_options_pb2 import ContactOptions
from shop.loyalty.v1 import loyalty_pb2 as pb

REASONS = {reason: pb.PointsReason.Value(f"POINTS_REASON_{reason.name}") for reason in Reason}
STATES = {state: pb.UpgradeState.Value(f"UPGRADE_STATE_{state.name}") for state in State}
# How a decision's sentence ends: what has become of it since.
SINCE = {
    State.DECLINED: "",
    State.RESERVED: " The cost is reserved.",
    State.SPENT: " The order was upgraded, the cost is spent.",
    State.RETURNED: " The order was not upgraded after all, the cost is back in the budget.",
}


class LoyaltyApi:
    """shop.loyalty.v1.LoyaltyService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database, hotline: Latest[ContactOptions]) -> None:
        self._database = database
        self._hotline = hotline

    async def GetStanding(self, request: pb.GetStandingRequest) -> pb.GetStandingResponse:
        return pb.GetStandingResponse(
            standing=_standing(await queries.standing(self._database, request.customer_id)),
            contact_options=await self._hotline.read(),
        )

    async def ListPoints(self, request: pb.ListPointsRequest) -> pb.ListPointsResponse:
        size = pages.size(request.page_size, usual=50, most=500)
        position = pages.position(request, (int,))
        before = int(position[0]) if position else None
        rows = await queries.points(self._database, request.customer_id, before, size)
        return pb.ListPointsResponse(
            entries=[_entry(row) for row in rows],
            next_page_token=pages.token(request, (rows[-1]["entry_id"],)) if len(rows) == size else "",
            contact_options=await self._hotline.read(),
        )

    async def AdjustPoints(self, request: pb.AdjustPointsRequest) -> pb.AdjustPointsResponse:
        async def run(tx: Transaction) -> pb.AdjustPointsResponse:
            standing = await usecases.adjust_points(
                tx, request.customer_id, request.points, request.reason, current_caller().actor
            )
            return pb.AdjustPointsResponse(standing=_standing(standing))

        return await once(self._database, request, pb.AdjustPointsResponse, run)

    async def PublishUpgradePolicy(self, request: pb.PublishUpgradePolicyRequest) -> pb.PublishUpgradePolicyResponse:
        draft = _draft(request.policy)

        async def run(tx: Transaction) -> pb.PublishUpgradePolicyResponse:
            policy = await usecases.publish_policy(tx, draft, current_caller().actor)
            return pb.PublishUpgradePolicyResponse(policy=_policy(policy))

        return await once(self._database, request, pb.PublishUpgradePolicyResponse, run)

    async def GetUpgradePolicy(self, request: pb.GetUpgradePolicyRequest) -> pb.GetUpgradePolicyResponse:
        policy = await queries.policy_in_force(self._database)
        if policy is None:
            raise NotFound("no upgrade policy is in force")
        return pb.GetUpgradePolicyResponse(policy=_policy(policy))

    async def ExplainUpgrade(self, request: pb.ExplainUpgradeRequest) -> pb.ExplainUpgradeResponse:
        row = await queries.decision(self._database, request.order_id)
        if row is None:
            raise NotFound("there is no such order, or nothing was decided on it yet", order_id=request.order_id)
        return pb.ExplainUpgradeResponse(decision=_decision(row))


def _standing(standing: Standing) -> pb.Standing:
    return pb.Standing(
        customer_id=standing.customer_id,
        tier=TIERS[standing.tier],
        points=standing.points,
        qualifying_points=standing.qualifying_points,
        rule_version=standing.rule_version,
        version=standing.version,
    )


def _entry(row: asyncpg.Record) -> pb.PointsEntry:
    return pb.PointsEntry(
        entry_id=str(row["entry_id"]),
        points=row["points"],
        reason=REASONS[Reason(row["reason"])],
        text=row["text"],
        order_id=row["order_id"] or "",
        fact_id=row["fact_id"] or "",
        create_time=to_timestamp(row["create_time"]),
    )


def _draft(policy: pb.UpgradePolicy) -> Draft:
    return Draft(
        to_datetime(policy.active_from, "policy.active_from") if policy.HasField("active_from") else None,
        policy.minimum_tier,
        _amount(policy, "minimum_order_value"),
        tuple(policy.countries),
        policy.minimum_days_since_last,
        _amount(policy, "unit_cost"),
        _amount(policy, "monthly_budget"),
        _amount(policy, "daily_budget"),
    )


def _policy(policy: UpgradePolicy) -> pb.UpgradePolicy:
    return pb.UpgradePolicy(
        version=policy.version,
        active_from=to_timestamp(policy.active_from),
        minimum_tier=TIERS[policy.minimum_tier],
        minimum_order_value=_money(policy.minimum_order_value) if policy.minimum_order_value else None,
        countries=policy.countries,
        minimum_days_since_last=policy.minimum_days_since_last,
        unit_cost=_money(policy.unit_cost),
        monthly_budget=_money(policy.monthly_budget),
        daily_budget=_money(policy.daily_budget),
    )


def _decision(row: asyncpg.Record) -> pb.UpgradeDecision:
    state = State(row["state"])
    currency = row["currency"]
    return pb.UpgradeDecision(
        order_id=row["order_id"],
        customer_id=row["customer_id"],
        granted=state is not State.DECLINED,
        reason=row["reason"],
        policy_version=row["policy_version"] or 0,
        outcomes=[pb.RuleOutcome(**outcome) for outcome in json.loads(row["outcomes"])],
        cost=to_money(row["cost"], currency) if currency else None,
        monthly_budget_left=to_money(row["month_left"], currency) if currency else None,
        daily_budget_left=to_money(row["day_left"], currency) if currency else None,
        decide_time=to_timestamp(row["decide_time"]),
        text=row["text"] + SINCE[state],
        state=STATES[state],
    )


def _amount(policy: pb.UpgradePolicy, field: str) -> Money | None:
    if not policy.HasField(field):  # type: ignore[arg-type]
        return None
    message: MoneyMessage = getattr(policy, field)
    return Money(from_money(message), message.currency_code)


def _money(money: Money) -> MoneyMessage:
    return to_money(money.amount, money.currency)
