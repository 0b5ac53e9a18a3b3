"""Loyalty on a real broker: two replicas, facts told twice, and one decision for each order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from google.protobuf.message import Message

from deploy.local.stack import Stack
from services.chassis.consumption import Consumption
from services.chassis.facts import Topic
from services.chassis.handling import Handling
from services.chassis.kafka import ensure_topics
from services.chassis.relay import Relay
from services.loyalty import store
from services.loyalty.consumers import HEARS
from services.loyalty.publishes import PUBLISHES, UPGRADES
from shop.loyalty.events.v1 import facts_pb2 as facts
from shop.loyalty.v1 import loyalty_pb2 as pb
from shop.shipping.events.v1 import facts_pb2 as shipping
from tests.locks import waiting
from tests.loyalty.conftest import Shop, delivered, new_id, order_placed, upgraded

DECIDED = {kind.DESCRIPTOR.full_name: kind for kind in (facts.UpgradeGranted, facts.UpgradeDeclined)}
ORDERS = "shop.shipping.orders.v1"
SHIPMENTS = "shop.shipping.shipments.v1"


def headers(message: Message, fact_id: str) -> list[tuple[str, bytes]]:
    told = {
        "ce_specversion": "1.0",
        "ce_id": fact_id,
        "ce_source": "/shop/shipping",
        "ce_type": message.DESCRIPTOR.full_name,
        "ce_time": datetime.now(UTC).isoformat(),
        "content-type": "application/protobuf",
    }
    return [(name, value.encode()) for name, value in told.items()]


class Broker:
    """What shipping tells, and what loyalty does."""

    def __init__(self, producer: AIOKafkaProducer, decisions: AIOKafkaConsumer) -> None:
        self._producer = producer
        self._decisions = decisions
        # The broker is shared with other tests, which may have placed orders too.
        self._ours: set[str] = set()

    async def tell(self, topic: str, message: Message, fact_id: str = "") -> None:
        order_id: str = message.order_id  # type: ignore[attr-defined]
        self._ours.add(order_id)
        fact = headers(message, fact_id or new_id("fact"))
        await self._producer.send_and_wait(topic, message.SerializeToString(), key=order_id.encode(), headers=fact)

    async def decisions(self, count: int) -> list[Message]:
        """The next decisions, each with the order it is keyed by."""
        found: list[Message] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                record = await self._decisions.getone()
                message = DECIDED[dict(record.headers)["ce_type"].decode()].FromString(record.value)
                assert record.key == message.order_id.encode()
                if message.order_id in self._ours:
                    found.append(message)
        return found


@pytest.fixture
async def broker(infrastructure: Stack, shop: Shop) -> AsyncIterator[Broker]:
    bootstrap = infrastructure.kafka_bootstrap
    await ensure_topics(bootstrap, [*PUBLISHES, *(Topic(heard.topic, ()) for heard in HEARS)])
    relay = Relay(shop.database, bootstrap)
    shop.database.wake_relay = relay.wake
    replicas = [Consumption("loyalty", shop.database, bootstrap, HEARS, shop) for _ in range(2)]
    decisions = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer, decisions:
        decisions.assign([TopicPartition(UPGRADES.name, number) for number in range(UPGRADES.partitions)])
        await decisions.seek_to_end()
        for partition in decisions.assignment():
            await decisions.position(partition)
        relaying = asyncio.create_task(relay.run())
        for replica in replicas:
            await replica.start()
        try:
            yield Broker(producer, decisions)
        finally:
            for replica in replicas:
                await replica.stop()
            relaying.cancel()
            await asyncio.gather(relaying, return_exceptions=True)
            shop.database.wake_relay = lambda: None


async def test_each_order_is_announced_decided_once(broker: Broker, shop: Shop) -> None:
    customers = [await shop.regular() for _ in range(4)]
    orders = [order_placed(customer) for customer in customers for _ in range(3)]
    for order in orders:
        await broker.tell(ORDERS, order, fact_id := new_id("fact"))
        await broker.tell(ORDERS, order, fact_id)
        await broker.tell(ORDERS, order)
    decided = await broker.decisions(len(orders))
    assert sorted(one.order_id for one in decided) == sorted(order.order_id for order in orders)  # type: ignore[attr-defined]
    assert sum(isinstance(one, facts.UpgradeGranted) for one in decided) == len(customers)
    last = order_placed(await shop.regular())
    await broker.tell(ORDERS, last)
    assert (await broker.decisions(1))[0].order_id == last.order_id  # type: ignore[attr-defined]
    await shop.audit()


async def test_from_order_to_points(broker: Broker, shop: Shop) -> None:
    order = order_placed(await shop.regular(400))
    await broker.tell(ORDERS, order)
    assert isinstance((await broker.decisions(1))[0], facts.UpgradeGranted)
    parcel = delivered(order.customer_id, "80.00")
    await broker.tell(SHIPMENTS, upgraded(order))
    await broker.tell(SHIPMENTS, parcel)
    async with asyncio.timeout(60):
        while (await shop.decision(order.order_id)).state != pb.UPGRADE_STATE_SPENT:
            await asyncio.sleep(0.02)
        while (await shop.standing(order.customer_id)).points != 480:
            await asyncio.sleep(0.02)
    await shop.audit()


async def test_facts_handled_together_never_wait_for_each_other_in_a_ring(shop: Shop) -> None:
    """Two transactions with the same customers the other way round: a deadlock would end one with `Conflict`."""
    heard = next(one for one in HEARS if one.topic == ORDERS)
    handling = Handling("loyalty", shop.database, heard, shop)
    customers = [await shop.regular() for _ in range(8)]
    for round_number in range(10):
        letters = []
        for partition, some in enumerate((customers, customers[::-1])):
            orders = [order_placed(customer) for customer in some]
            letters.append([handling.decode(record(order, partition, round_number)) for order in orders])
        await asyncio.gather(*(handling.together(some) for some in letters))
        await handling.together(letters[0])  # told again: the inbox has them all
    assert len(await shop.announced(facts.UpgradeGranted)) == len(customers)
    assert len(await shop.announced(facts.UpgradeDeclined)) == len(customers) * 19
    await shop.audit()


@pytest.mark.parametrize("what", ["orders", "customers"])
async def test_what_nobody_ever_heard_of_is_locked_in_one_order_too(shop: Shop, what: str) -> None:
    """Two who write the same new rows the other way round. A third holds one in the middle, so that both are at it."""
    names = ["a", "m", "z"]

    async def lock(some: Sequence[str]) -> None:
        async with shop.database.transaction() as tx:
            if what == "orders":
                await store.lock_ahead(tx.connection, dict.fromkeys(some, "cus_1"), [])
            else:
                await store.lock_ahead(tx.connection, {}, some)

    async with shop.database.transaction() as tx:
        if what == "orders":
            await store.lock_ahead(tx.connection, {"m": "cus_1"}, [])
        else:
            await store.lock_ahead(tx.connection, {}, ["m"])
        both = asyncio.gather(lock(names), lock(names[::-1]))
        await waiting(shop.database, 2)
    await both


def record(message: shipping.OrderPlaced, partition: int, offset: int) -> ConsumerRecord[bytes | None, bytes | None]:
    value = message.SerializeToString()
    key = message.order_id.encode()
    fact = headers(message, new_id("fact"))
    return ConsumerRecord(ORDERS, partition, offset, 0, 0, key, value, None, len(key), len(value), fact)
