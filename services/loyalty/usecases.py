"""What loyalty does: each locks, decides in the domain, saves, and appends the facts, in one transaction.

Locks are taken in one order: order, customer, budget of the month, budget of the day.
"""

from __future__ import annotations

from services.chassis.database import Transaction
from services.loyalty import publishes, store
from services.loyalty.domain.policy import Draft, UpgradePolicy, next_version
from services.loyalty.domain.standing import DeliveredParcel, Standing, adjusted, delivered
from services.loyalty.domain.upgrades import Decision, Outcome, PlacedOrder, decide, may_be_granted


async def accrue(tx: Transaction, parcel: DeliveredParcel) -> None:
    """Gives the points for a parcel that arrived: once, however often that is told."""
    standing, now = await store.lock_standing(tx.connection, parcel.customer_id)
    entry = delivered(parcel, now)
    if await store.add_entry(tx.connection, parcel.customer_id, entry):
        standing.add(entry, now)
        await store.save_standings(tx.connection, [standing])
        await tx.append(publishes.standing_changed(one, now) for one in standing.happened)


async def adjust_points(tx: Transaction, customer_id: str, points: int, reason: str, actor: str) -> Standing:
    """Gives or takes points. Raises `NegativePoints`."""
    standing, now = await store.lock_standing(tx.connection, customer_id)
    entry = adjusted(points, reason, actor, now)
    standing.add(entry, now)
    await store.add_entry(tx.connection, customer_id, entry)
    await store.save_standings(tx.connection, [standing])
    await tx.append(publishes.standing_changed(one, now) for one in standing.happened)
    return standing


async def review_due(tx: Transaction, limit: int = 200) -> int:
    """Looks again at standings that time, or a new version of the rule, may have changed. Returns how many."""
    due, now = await store.lock_due(tx.connection, limit)
    for standing in due:
        standing.review()
    await store.save_standings(tx.connection, due)
    await tx.append(publishes.standing_changed(one, now) for standing in due for one in standing.happened)
    return len(due)


async def publish_policy(tx: Transaction, draft: Draft, actor: str) -> UpgradePolicy:
    """Publishes the next version. Raises what `next_version` raises."""
    latest, now = await store.lock_policies(tx.connection)
    policy = next_version(draft, latest, now)
    await store.add_policy(tx.connection, policy, actor)
    return policy


async def decide_upgrade(tx: Transaction, order: PlacedOrder) -> Decision | None:
    """Decides whether an order goes overnight: once, ever. Returns None when it was decided before."""
    basis, upgrade, budgets, now = await store.lock_for_decision(tx.connection, order)
    if upgrade.state is not None:
        return None
    if basis.policy is not None and may_be_granted(order, basis):
        # Only now, since everybody waits for these rows; those read before were good enough to say why not.
        budgets = await store.lock_budgets(tx.connection, order, basis.policy)
    decision = decide(order, basis, budgets)
    if decision.granted and basis.policy is not None:
        movement = upgrade.grant(basis.policy.unit_cost.amount)
    else:
        movement = upgrade.decline()
    await store.save_decision(tx.connection, decision, upgrade, movement, now)
    await tx.append([publishes.upgrade_decided(decision, now)])
    return decision


async def settle_upgrade(tx: Transaction, order_id: str, customer_id: str, outcome: Outcome) -> None:
    """Spends what was reserved for an order, or gives it back; remembers what comes before the decision."""
    upgrade, place = await store.lock_upgrade(tx.connection, order_id, customer_id)
    movement = upgrade.hear(outcome)
    await store.save_upgrade(tx.connection, order_id, upgrade, movement, place)
