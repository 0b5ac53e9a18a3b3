"""The upgrade policy: a document with versions. A version is never edited; the next one takes over at its time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from services.chassis.errors import InvalidInput, NotNow
from services.loyalty.domain.countries import known_countries
from services.loyalty.domain.money import CENT, Money
from services.loyalty.domain.standing import Tier

MOST = Decimal(1_000_000_000)
MOST_DAYS = 3650
MOST_COUNTRIES = 250
# A version for later must pass before the next can begin: one for the far future would be the last for ever.
MOST_AHEAD = timedelta(days=366)


class PolicyNotAfterActive(NotNow):
    """A version would begin no later than the one before it."""

    reason = "POLICY_NOT_AFTER_ACTIVE"


@dataclass(frozen=True, slots=True)
class UpgradePolicy:
    """When an overnight upgrade is given. All conditions must hold; all amounts are in one currency."""

    version: int
    active_from: datetime
    minimum_tier: Tier
    minimum_order_value: Money | None
    countries: tuple[str, ...]
    minimum_days_since_last: int
    unit_cost: Money
    monthly_budget: Money
    daily_budget: Money

    @property
    def currency(self) -> str:
        return self.unit_cost.currency


@dataclass(frozen=True, slots=True)
class Draft:
    """A policy as somebody wrote it: anything may be missing or wrong."""

    active_from: datetime | None
    minimum_tier: int
    minimum_order_value: Money | None
    countries: tuple[str, ...]
    minimum_days_since_last: int
    unit_cost: Money | None
    monthly_budget: Money | None
    daily_budget: Money | None


def next_version(draft: Draft, latest: UpgradePolicy | None, now: datetime) -> UpgradePolicy:
    """The policy that a draft becomes, active from now on if it does not say when.

    Raises `InvalidInput` with every field that is wrong or contradicts another, and `PolicyNotAfterActive`.
    """
    if problems := [*_problems(draft), *_time_problems(draft, now)]:
        raise InvalidInput(problems)
    active_from = draft.active_from or now
    if latest is not None and active_from <= latest.active_from:
        raise PolicyNotAfterActive(
            "a version begins after the one before it",
            active_from=active_from.isoformat(),
            latest_version=latest.version,
            latest_active_from=latest.active_from.isoformat(),
        )
    if draft.unit_cost is None or draft.monthly_budget is None or draft.daily_budget is None:
        raise RuntimeError("a draft without its amounts has a problem")
    return UpgradePolicy(
        latest.version + 1 if latest else 1,
        active_from,
        Tier(draft.minimum_tier),
        draft.minimum_order_value,
        draft.countries,
        draft.minimum_days_since_last,
        draft.unit_cost,
        draft.monthly_budget,
        draft.daily_budget,
    )


def _problems(draft: Draft) -> Iterator[tuple[str, str]]:
    if draft.minimum_tier not in list(Tier):
        yield "policy.minimum_tier", f"must be one of {', '.join(tier.name for tier in Tier)}"
    yield from _country_problems(draft.countries)
    if not 0 <= draft.minimum_days_since_last <= MOST_DAYS:
        yield "policy.minimum_days_since_last", f"must be between 0 and {MOST_DAYS}"
    yield from _money_problems(draft)


def _time_problems(draft: Draft, now: datetime) -> Iterator[tuple[str, str]]:
    if draft.active_from is None:
        return
    if draft.active_from < now:
        yield "policy.active_from", f"is past; it is {now.isoformat()}"
    if draft.active_from > now + MOST_AHEAD:
        yield "policy.active_from", f"is more than a year ahead; it is {now.isoformat()}"


def _country_problems(countries: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if len(countries) > MOST_COUNTRIES:
        yield "policy.countries", f"are {len(countries)}, more than there are in the world"
        return
    for number, country in enumerate(countries):
        if country not in known_countries():
            yield f"policy.countries[{number}]", f"{country!r} is no country by ISO 3166-1 alpha-2"
        elif country in countries[:number]:
            yield f"policy.countries[{number}]", f"{country} stands twice"


def _money_problems(draft: Draft) -> Iterator[tuple[str, str]]:
    amounts = {
        "minimum_order_value": draft.minimum_order_value,
        "unit_cost": draft.unit_cost,
        "monthly_budget": draft.monthly_budget,
        "daily_budget": draft.daily_budget,
    }
    wrong = [
        (f"policy.{name}", problem)
        for name, money in amounts.items()
        if (problem := _amount_problem(money, required=name != "minimum_order_value"))
    ]
    cost, month, day = draft.unit_cost, draft.monthly_budget, draft.daily_budget
    if not wrong and cost is not None:
        wrong = [
            (f"policy.{name}", f"is in {money.currency}, the unit cost in {cost.currency}")
            for name, money in amounts.items()
            if money is not None and money.currency != cost.currency
        ]
    yield from wrong
    if wrong or cost is None or month is None or day is None:
        return
    for name, budget in (("monthly_budget", month), ("daily_budget", day)):
        if budget.amount < cost.amount:
            yield f"policy.{name}", f"{budget} do not pay for one upgrade of {cost}"
    if day.amount > month.amount:
        yield "policy.daily_budget", f"{day} are more than the {month} of the month"


def _amount_problem(money: Money | None, *, required: bool) -> str | None:
    if money is None:
        return "is missing" if required else None
    if not re.fullmatch("[A-Z]{3}", money.currency):
        return "needs a currency by ISO 4217"
    if money.amount < 0:
        return f"{money.amount} is negative"
    if money.amount > MOST:
        return f"is more than {MOST}"
    if money.amount != money.amount.quantize(CENT):
        return "has fractions of a cent"
    return None
