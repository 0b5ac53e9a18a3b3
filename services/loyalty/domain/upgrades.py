"""The one decision on an order: whether it goes overnight, why, and what becomes of its cost.

    (none) ──decide──▶ DECLINED
       │
       └─────decide──▶ RESERVED ──upgraded──▶ SPENT
                           │                    │
                           └──not applied, ─────┴──▶ RETURNED
                              cancelled

What shipping says may come twice, in any order, and before the decision: the state is made of *what* was heard, not of
when, and only moves to the right. So a cost that was given back is never taken again, when others may have it already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from services.loyalty.domain.money import Money
from services.loyalty.domain.policy import UpgradePolicy
from services.loyalty.domain.standing import TIER_RULE, Tier

GRANTED = "GRANTED"
# How a customer is spoken of to the customer.
ADDRESSED = {Tier.NEW: "a new customer", Tier.REGULAR: "a regular customer", Tier.FRIEND: "a friend of the house"}
ZERO = Decimal(0)


class State(StrEnum):
    """What became of the cost of an upgrade."""

    DECLINED = "declined"
    RESERVED = "reserved"
    SPENT = "spent"
    RETURNED = "returned"


class Outcome(StrEnum):
    """What shipping says of an order that may have been granted an upgrade."""

    UPGRADED = "upgraded"
    NOT_APPLIED = "not_applied"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """What a decision needs to know of an order."""

    order_id: str
    customer_id: str
    goods: Money
    country: str
    overnight: bool
    order_time: datetime

    @property
    def month(self) -> date:
        """The first day of the calendar month (UTC) whose budget counts."""
        return month_of(self.order_time)

    @property
    def day(self) -> date:
        """The calendar day (UTC) whose budget counts."""
        return day_of(self.order_time)


def month_of(instant: datetime) -> date:
    """The calendar month (UTC) of an instant, by its first day."""
    return day_of(instant).replace(day=1)


def day_of(instant: datetime) -> date:
    """The calendar day (UTC) of an instant."""
    return instant.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class Budget:
    """What one period may spend: limit = reserved + spent + left, to the cent."""

    limit: Decimal
    reserved: Decimal
    spent: Decimal

    @property
    def left(self) -> Decimal:
        """Below zero where a later policy version has a smaller budget than was given away before."""
        return self.limit - self.reserved - self.spent


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets of the month and of the day of an order."""

    month: Budget
    day: Budget


@dataclass(frozen=True, slots=True)
class Basis:
    """What is known when an order is decided, under the lock of its customer."""

    qualifying_points: int
    # The order time of the customer's latest surprise that was not given back.
    last_surprise: datetime | None
    policy: UpgradePolicy | None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """One condition against one order, with its numbers in plain words."""

    rule: str
    holds: bool
    text: str


@dataclass(frozen=True, slots=True)
class Movement:
    """What changes in the budgets of an order's month and day."""

    reserved: Decimal
    spent: Decimal

    @property
    def moves(self) -> bool:
        return bool(self.reserved or self.spent)


NOTHING = Movement(ZERO, ZERO)


@dataclass(frozen=True, slots=True)
class Decision:
    """The one decision on an order."""

    order: PlacedOrder
    policy: UpgradePolicy | None
    outcomes: tuple[RuleOutcome, ...]
    # What is left of the budgets after it.
    month_left: Decimal | None
    day_left: Decimal | None
    text: str
    # What a customer may read.
    thanks: str

    @property
    def granted(self) -> bool:
        return all(outcome.holds for outcome in self.outcomes)

    @property
    def decisive(self) -> RuleOutcome | None:
        """The first rule that did not hold."""
        return next((outcome for outcome in self.outcomes if not outcome.holds), None)

    @property
    def reason(self) -> str:
        """The first rule that did not hold, or GRANTED."""
        return self.decisive.rule if self.decisive else GRANTED


@dataclass(slots=True)
class Upgrade:
    """What is on record for one order, locked; `state` is None until it is decided."""

    state: State | None = None
    cost: Decimal = ZERO
    heard: set[Outcome] = field(default_factory=set)

    def grant(self, cost: Decimal) -> Movement:
        """The decision gave it: reserves the cost, and counts at once what was heard too early."""
        self.cost = cost
        return self._move_to(settled(self.heard))

    def decline(self) -> Movement:
        """The decision did not give it."""
        self.state = State.DECLINED
        return NOTHING

    def hear(self, outcome: Outcome) -> Movement:
        """Shipping said something. Saying it again changes nothing."""
        self.heard.add(outcome)
        if self.state in (None, State.DECLINED):
            return NOTHING
        return self._move_to(settled(self.heard))

    def _move_to(self, after: State) -> Movement:
        before, self.state = self.state, after
        return Movement(
            self.cost * ((after is State.RESERVED) - (before is State.RESERVED)),
            self.cost * ((after is State.SPENT) - (before is State.SPENT)),
        )


def settled(heard: set[Outcome]) -> State:
    """What a granted upgrade has come to."""
    if heard & {Outcome.CANCELLED, Outcome.NOT_APPLIED}:
        return State.RETURNED
    return State.SPENT if Outcome.UPGRADED in heard else State.RESERVED


def may_be_granted(order: PlacedOrder, basis: Basis) -> bool:
    """Whether nothing but a budget can stand in the way: only then the budgets need to be locked."""
    return all(outcome.holds for outcome in _rules(order, basis))


def decide(order: PlacedOrder, basis: Basis, budgets: Budgets | None) -> Decision:
    """Decides on an order. For a grant the budgets must be locked; the caller reserves the policy's unit cost.

    `budgets` are those of the policy's currency, None where no policy was in force.
    """
    outcomes = list(_rules(order, basis))
    policy = basis.policy
    if policy is None or budgets is None:
        return Decision(order, None, tuple(outcomes), None, None, _sentence(order, outcomes, None, None), "")
    outcomes += _budget_rules(order, policy, budgets)
    taken = policy.unit_cost.amount if all(outcome.holds for outcome in outcomes) else ZERO
    month_left = max(ZERO, budgets.month.left - taken)
    day_left = max(ZERO, budgets.day.left - taken)
    return Decision(
        order,
        policy,
        tuple(outcomes),
        month_left,
        day_left,
        _sentence(order, outcomes, policy, Money(month_left, policy.currency)),
        f"a surprise for {ADDRESSED[TIER_RULE.tier(basis.qualifying_points)]}:"
        f" {basis.qualifying_points} points in the last {TIER_RULE.days} days",
    )


def _rules(order: PlacedOrder, basis: Basis) -> Iterator[RuleOutcome]:
    """Every condition but the budgets, each with its numbers."""
    if basis.cancelled:
        yield RuleOutcome("ORDER_CANCELLED", False, "the order is cancelled")
    policy = basis.policy
    if policy is None:
        yield RuleOutcome("NO_POLICY", False, f"no policy was in force at {order.order_time.isoformat()}")
        return
    yield RuleOutcome(
        "ALREADY_FAST",
        not order.overnight,
        "the order goes overnight already" if order.overnight else "the order does not go overnight yet",
    )
    tier = TIER_RULE.tier(basis.qualifying_points)
    yield RuleOutcome(
        "MINIMUM_TIER",
        tier >= policy.minimum_tier,
        f"{basis.qualifying_points} points in {TIER_RULE.days} days make the customer {tier.name}"
        + (f", {policy.minimum_tier.name} is needed" if tier is not policy.minimum_tier else ""),
    )
    yield _order_value(order, policy)
    served = ", ".join(policy.countries) or "no country"
    text = f"the order goes to {order.country}, overnight is given to {served}"
    yield RuleOutcome("COUNTRY", order.country in policy.countries, text)
    yield _days_since_last(order, policy, basis.last_surprise)


def _order_value(order: PlacedOrder, policy: UpgradePolicy) -> RuleOutcome:
    least = policy.minimum_order_value
    if order.goods.currency != policy.currency:
        # Not even an unset minimum: a policy speaks for orders in its own currency.
        text = f"the goods are in {order.goods.currency or 'no one currency'}, the policy counts in {policy.currency}"
        return RuleOutcome("MINIMUM_ORDER_VALUE", False, text)
    if least is None:
        return RuleOutcome("MINIMUM_ORDER_VALUE", True, f"the goods are worth {order.goods}")
    return RuleOutcome(
        "MINIMUM_ORDER_VALUE",
        order.goods.amount >= least.amount,
        f"the goods are worth {order.goods}, {least} are needed",
    )


def _days_since_last(order: PlacedOrder, policy: UpgradePolicy, last: datetime | None) -> RuleOutcome:
    wanted = timedelta(days=policy.minimum_days_since_last)
    if last is None:
        return RuleOutcome("DAYS_SINCE_LAST", True, "the customer was never surprised before")
    # An order decided late may be older than the last surprise: then there is no day between them.
    since = max(timedelta(0), order.order_time - last)
    holds = since >= wanted
    return RuleOutcome("DAYS_SINCE_LAST", holds, f"{since.days} days since the last surprise, {wanted.days} are needed")


def _budget_rules(order: PlacedOrder, policy: UpgradePolicy, budgets: Budgets) -> Iterator[RuleOutcome]:
    for rule, budget, period in (
        ("MONTHLY_BUDGET", budgets.month, f"{order.month:%Y-%m}"),
        ("DAILY_BUDGET", budgets.day, f"{order.day}"),
    ):
        left = Money(max(ZERO, budget.left), policy.currency)
        limit = Money(budget.limit, policy.currency)
        holds = budget.left >= policy.unit_cost.amount
        needed = "" if holds else f"{policy.unit_cost} are needed, "
        yield RuleOutcome(rule, holds, f"{needed}{left} are left of the {limit} for {period}")


def _sentence(
    order: PlacedOrder, outcomes: list[RuleOutcome], policy: UpgradePolicy | None, month_left: Money | None
) -> str:
    failed = next((outcome for outcome in outcomes if not outcome.holds), None)
    if policy is None or month_left is None:
        return f"Order {order.order_id} goes as ordered, because {failed.text if failed else 'nothing was known'}."
    by = f"Decided by policy version {policy.version}; {month_left} are left for {order.month:%Y-%m}."
    if failed is not None:
        return f"Order {order.order_id} goes as ordered, because {failed.text}. {by}"
    told = "; ".join(outcome.text for outcome in outcomes)
    return f"Order {order.order_id} goes overnight at our cost of {policy.unit_cost}: {told}. {by}"
