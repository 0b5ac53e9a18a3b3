"""Orders survive what can break; the long form is in test_chaos.py."""

from __future__ import annotations

import signal

from deploy.local.stack import Stack
from tests.chaos.faults import Faults, conclude
from tests.chaos.load import Load


async def test_orders_survive_the_death_of_parts(shop: Stack) -> None:
    load, faults = Load(shop, customers=6), Faults(shop)
    async with load.running():
        await load.accepted_more(20)
        await faults.kill("shipping")
        await load.accepted_more(10)
        await faults.kill("inventory")
        await load.accepted_more(10)
        async with faults.frozen("kafka", seconds=5):
            await load.accepted_more(10)  # the shop takes orders meanwhile
        await load.accepted_more(10)
        await faults.kill("postgres", signal.SIGQUIT)  # its immediate mode: no goodbye, then recovery
        await load.accepted_more(20)
    await conclude(shop, load, faults)
