"""Whoever leaves for good is forgotten here, too: nothing of them stays but the mark, and nothing brings them back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.stack import Stack
from services.catalog.__main__ import SERVICE as CATALOG
from services.chassis import outbox
from services.chassis.consumption import Consumption
from services.chassis.errors import NotFound
from services.chassis.facts import Fact
from services.chassis.kafka import ensure_topics
from services.contact.publishes import PRIVACY
from shop.contact.events.v1.facts_pb2 import CustomerForgotten
from tests.catalog.conftest import Shelf
from tests.catalog.waiting import Queue, impatient

SECONDS = 40.0


@pytest.fixture
async def queue(shelf: Shelf) -> Queue:
    await shelf.feed({"id": "one"}, {"id": "two"})
    return Queue(shelf, impatient(shelf))


async def traces(queue: Queue, customer_id: str) -> list[str]:
    """Where in the database the customer's id stands."""
    columns = await queue.shelf.database.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name IN ('customer_id', 'caller', 'response')"
    )
    found = []
    for column in columns:
        table, name = column["table_name"], column["column_name"]
        text = f"encode({name}, 'escape')" if name == "response" else name
        rows = await queue.shelf.database.fetch(
            f"SELECT FROM {table} WHERE position($1 IN coalesce({text}, '')) > 0", customer_id
        )
        found += [table] * len(rows)
    return sorted(found)


async def test_what_they_waited_for_is_deleted_and_what_was_held_goes_to_the_next(queue: Queue) -> None:
    await queue.subscribe("ann", request_id="anns-own")
    await queue.subscribe("ann", "two")
    await queue.subscribe("ben")
    await queue.arrive()
    await queue.sweep()
    held = await queue.reservation("ann")
    forgotten = CustomerForgotten(customer_id="ann")
    await queue.hears_fact(forgotten)
    await queue.sweep()
    assert await traces(queue, "ann") == ["forgotten"]
    assert [each.customer_id for each in queue.held()] == ["ben"]
    # Heard again, and what was still on its way about them.
    await queue.hears_fact(forgotten)
    queue.shelf.inventory.expire(held)
    await queue.arrive(sku="two")
    await queue.sweep()
    assert await traces(queue, "ann") == ["forgotten"]
    assert await queue.told() == ["ann", "ben"]


async def test_whoever_is_forgotten_cannot_begin_to_wait(queue: Queue) -> None:
    await queue.hears_fact(CustomerForgotten(customer_id="ann"))
    with pytest.raises(NotFound):
        await queue.subscribe("ann")
    assert await traces(queue, "ann") == ["forgotten"]


async def test_a_call_at_the_same_moment_leaves_nothing_behind(queue: Queue) -> None:
    for number in range(10):
        name = f"race-{number}"
        await asyncio.gather(
            queue.subscribe(name), queue.hears_fact(CustomerForgotten(customer_id=name)), return_exceptions=True
        )
        assert await traces(queue, name) == ["forgotten"]


async def test_while_inventory_is_away_the_hold_is_kept_in_mind_and_given_back(queue: Queue) -> None:
    await queue.subscribe("ann")
    await queue.arrive()
    await queue.sweep()
    queue.shelf.inventory.away = True
    await queue.hears_fact(CustomerForgotten(customer_id="ann"))
    assert await queue.states("ann") == []
    queue.shelf.inventory.away = False
    await queue.sweep()
    assert queue.held() == []
    assert await traces(queue, "ann") == ["forgotten"]


@pytest.fixture
async def listening(infrastructure: Stack, shelf: Shelf) -> AsyncIterator[str]:
    """Catalog hears the real topic. Gives the broker's address."""
    bootstrap = infrastructure.kafka_bootstrap
    await ensure_topics(bootstrap, [PRIVACY])
    hears = [line for line in CATALOG.hears if line.topic == PRIVACY.name]
    consumption = Consumption("catalog", shelf.database, bootstrap, hears, shelf.app)
    consuming = asyncio.create_task(consumption.start())
    yield bootstrap
    await consumption.stop()
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)


async def test_heard_over_the_real_topic_twice(listening: str, queue: Queue) -> None:
    name = f"cus_{uuid4().hex}"
    await queue.subscribe(name)
    fact = Fact(PRIVACY, name, CustomerForgotten(customer_id=name))
    headers = outbox.headers(fact, "contact", datetime.now(UTC).isoformat())
    producer = AIOKafkaProducer(bootstrap_servers=listening)
    await producer.start()
    for _ in range(2):
        await producer.send_and_wait(
            PRIVACY.name,
            fact.message.SerializeToString(),
            name.encode(),
            headers=[(key, text.encode()) for key, text in headers.items()],
        )
    await producer.stop()
    async with asyncio.timeout(SECONDS):
        while await traces(queue, name) != ["forgotten"]:
            await asyncio.sleep(0.02)
    with pytest.raises(NotFound):
        await queue.subscribe(name)
