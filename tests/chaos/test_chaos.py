"""Every part is killed, frozen and cut off while orders flow; then the auditor reads the books.

Minutes long: run by `make chaos`.
"""

from __future__ import annotations

import asyncio
import signal

import pytest

from deploy.local.ports import SERVICES
from deploy.local.stack import Stack
from tests.chaos.faults import Faults, conclude
from tests.chaos.load import SERVICES as ASKED
from tests.chaos.load import Load

KAFKA_SECONDS = 30.0
# Longer than a consumer's session (10 s) and than the relay's hold on its lock (4 s).
FROZEN_SECONDS = 15.0


@pytest.mark.long
async def test_orders_survive_everything_we_can_think_of(shop: Stack) -> None:
    # More regulars than the budget of a day has surprises for.
    load, faults = Load(shop, customers=8, regulars=400), Faults(shop)
    async with load.running():
        await load.accepted_more(30)
        await _kill_each(load, faults)
        await _take_kafka_away(load, faults)
        await faults.kill("postgres", signal.SIGQUIT)
        await load.accepted_more(30)
        await _with_two_of_each(shop, load, faults)
    await conclude(shop, load, faults)


async def _kill_each(load: Load, faults: Faults) -> None:
    for service in SERVICES:
        await faults.kill(service)
        await load.accepted_more(20)


async def _take_kafka_away(load: Load, faults: Faults) -> None:
    """Orders are taken all the same."""
    async with faults.frozen("kafka", seconds=KAFKA_SECONDS):
        await load.accepted_more(50)
    await load.accepted_more(20)
    async with faults.stopped("kafka", seconds=KAFKA_SECONDS):
        await load.accepted_more(50)
    await load.accepted_more(20)


async def _with_two_of_each(shop: Stack, load: Load, faults: Faults) -> None:
    """One of two is frozen until the other has taken its place, and thaws into a world that has moved on."""
    for service in SERVICES:
        second = await asyncio.to_thread(shop.start_replica, service)
        if service in ASKED:
            load.use(service, shop.address(service), second)
        await load.accepted_more(5)
    for frozen in (("loyalty", "contact"), ("shipping",), ("catalog",), ("inventory",)):
        async with faults.frozen(*frozen, seconds=FROZEN_SECONDS):
            pass
        await load.accepted_more(20)
    for service in SERVICES:
        await faults.kill(service)
    await load.accepted_more(20)
