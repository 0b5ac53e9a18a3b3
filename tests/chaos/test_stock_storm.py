"""A rush on two replicas of inventory, killed in turn in the middle of it: nothing oversells and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from deploy.local.stack import INFRASTRUCTURE, Stack
from deploy.local.temporary import temporary_stack
from tests.chaos.faults import Faults, errors_logged
from tests.chaos.storm import HOT_UNITS, Storm, drifts, judge


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Inventory and what it stands on, alone."""
    with temporary_stack((*INFRASTRUCTURE, "inventory")) as running:
        yield running


async def _blow(stack: Stack, attempts: int, kills: int, seconds: float) -> None:
    second = await asyncio.to_thread(stack.start_replica, "inventory")
    storm, faults = Storm(stack, [stack.address("inventory"), second]), Faults(stack)
    async with storm.blowing():
        for number in range(kills):
            await storm.attempted(attempts * (number + 1) // (kills + 1), seconds)
            await faults.kill(("inventory", "inventory-2")[number % 2])
        await storm.attempted(attempts, seconds)
    found = await drifts(storm)
    await storm.close()
    print(f"\nfaults: {dict(faults.injected)}")
    print("\n".join(storm.tally.lines()))
    problems = await judge(storm, stack.database_url("inventory"))
    assert not problems, problems[:10]
    assert not found, found[:10]
    assert not errors_logged(stack)
    assert storm.tally.attempts >= attempts
    # It was a rush: all there is was sold at some moment, and more was wanted.
    assert storm.tally.most_held == HOT_UNITS
    assert storm.tally.refusals["OUT_OF_STOCK"]


async def test_a_rush_on_two_replicas_that_are_killed(stack: Stack) -> None:
    await _blow(stack, attempts=3_000, kills=2, seconds=120)


@pytest.mark.long
async def test_a_long_rush_on_two_replicas_that_are_killed_again_and_again(stack: Stack) -> None:
    await _blow(stack, attempts=200_000, kills=20, seconds=1_200)
