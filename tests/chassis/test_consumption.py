"""Consumption on real parts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local.stack import Stack
from tests.chassis.kafka_rig import Rig, rig


@pytest.fixture
async def made(infrastructure: Stack) -> AsyncIterator[Rig]:
    async with rig(infrastructure, partitions=3) as made:
        yield made


async def test_facts_are_handled_once_in_the_order_of_their_key(made: Rig) -> None:
    made.relay()
    await made.listen()
    await made.announce(*(made.fact(f"key-{number % 7}", f"{number:04}") for number in range(300)))
    await made.handled(300)
    rows = await made.database.pool.fetch(
        "SELECT key, array_agg(value ORDER BY id) AS values FROM handled GROUP BY key"
    )
    for row in rows:
        assert row["values"] == sorted(row["values"])
    assert await made.count("handled") == await made.count("inbox") == 300
    assert await made.count("attempts") == 0
    await made.committed(300)
