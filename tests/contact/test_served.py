"""Contact as a process: over gRPC with tokens, with its facts on real topics."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

import grpc
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy import map as shop_map
from deploy.local import service
from deploy.local.stack import Stack
from services.chassis import outbox
from services.chassis.database import Database
from services.chassis.facts import Fact, Topic
from services.chassis.kafka import ensure_topics
from services.chassis.values import to_timestamp
from services.contact.publishes import HOTLINE, INTERACTIONS
from shop.contact.events.v1 import facts_pb2 as facts
from shop.contact.v1 import contact_pb2 as pb
from shop.contact.v1 import contact_pb2_grpc as rpc
from shop.contact.v1.contact_options_pb2 import CHANNEL_PHONE
from shop.shipping.events.v1 import facts_pb2 as shipping
from tests.contact.conftest import clear, request_id

HEARD = [topic for name in ("shipping", "loyalty") for topic in shop_map.declared(name).publishes]
ORDERS = next(topic for topic in HEARD if topic.name == "shop.shipping.orders.v1")
M = TypeVar("M", facts.InteractionRecorded, facts.HotlineStatusChanged)
Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
async def address(infrastructure: Stack, shared: Database) -> AsyncIterator[str]:
    """Where a process of contact answers. Nobody waits there from the tests before."""
    await clear(shared)
    await ensure_topics(infrastructure.kafka_bootstrap, HEARD)
    settings = {
        **os.environ,
        **service.service_environment(infrastructure.environment("contact")),
        "DRAIN_SECONDS": "0",
    }
    command: Sequence[str] = (sys.executable, "-m", "services.contact")
    migrated = await asyncio.create_subprocess_exec(*command, "migrate", env=settings)
    assert await migrated.wait() == 0
    process = await asyncio.create_subprocess_exec(*command, env=settings)
    try:
        at = f"127.0.0.1:{settings['GRPC_PORT']}"
        async with asyncio.timeout(60):
            while not await serves(at):
                assert process.returncode is None
                await asyncio.sleep(0.1)
        yield at
    finally:
        if process.returncode is None:
            process.terminate()
        assert await process.wait() == 0, "it ends by itself when told to"


async def serves(at: str) -> bool:
    try:
        return await asyncio.to_thread(service.is_serving, at)
    except grpc.RpcError:
        return False


async def test_a_press_is_answered_and_everybody_hears_of_it(infrastructure: Stack, address: str) -> None:
    def who(role: str, **claims: str) -> Metadata:
        return (("authorization", f"Bearer {infrastructure.mint(role, **claims)}"),)

    agent_id, customer_id = f"ada-{uuid4().hex}", f"cus-{uuid4().hex}"
    customer, ada = who("customer", customer_id=customer_id), who("agent", agent_id=agent_id)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(60):
        desks: rpc.DeskServiceAsyncStub = rpc.DeskServiceStub(channel)
        hotline: rpc.HotlineServiceAsyncStub = rpc.HotlineServiceStub(channel)
        save = pb.SaveAgentRequest(
            request_id=request_id(), agent_id=agent_id, display_name="Ada", channels=[CHANNEL_PHONE]
        )
        await desks.SaveAgent(save, metadata=who("operator"))
        available = pb.SetAgentStatusRequest(request_id=request_id(), status=pb.AGENT_STATUS_AVAILABLE)
        await desks.SetAgentStatus(available, metadata=ada)
        beat = await desks.SendHeartbeat(pb.SendHeartbeatRequest(), metadata=ada)
        assert (beat.agent.present, beat.next_heartbeat.seconds) == (True, 2)

        press = pb.PressHelpRequest(request_id=request_id(), customer_id=customer_id, channel=CHANNEL_PHONE)
        pressed = await hotline.PressHelp(press, metadata=customer)
        contact_id = pressed.contact.contact_id
        rings = desks.WatchOffers(pb.WatchOffersRequest(), metadata=ada)
        offer = (await anext(aiter(rings))).offer
        assert offer.contact.contact_id == contact_id
        await desks.AcceptOffer(pb.AcceptOfferRequest(request_id=request_id(), offer_id=offer.offer_id), metadata=ada)
        await desks.CompleteContact(
            pb.CompleteContactRequest(request_id=request_id(), contact_id=contact_id), metadata=ada
        )
        recorded = await heard(infrastructure, INTERACTIONS, facts.InteractionRecorded, customer_id)
        assert (recorded.contact_id, recorded.HasField("answer_time")) == (contact_id, True)
        announced = await heard(infrastructure, HOTLINE, facts.HotlineStatusChanged, "hotline")
        assert announced.contact_options.phone_number.startswith("+")

        placed = Fact(
            ORDERS,
            "ord_1",
            shipping.OrderPlaced(order_id="ord_1", customer_id=customer_id, order_time=to_timestamp(datetime.now(UTC))),
        )
        await send_twice(infrastructure, placed)
        while True:
            entries = await desks.ListTimeline(pb.ListTimelineRequest(customer_id=customer_id), metadata=ada)
            kinds = [entry.kind for entry in entries.entries]
            if pb.TIMELINE_KIND_ORDER_PLACED in kinds:
                break
            await asyncio.sleep(0.1)
        assert kinds.count(pb.TIMELINE_KIND_ORDER_PLACED) == 1
        assert len(kinds) == 4
        rings.cancel()

        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            other = pb.PressHelpRequest(request_id=request_id(), customer_id="cus_other", channel=CHANNEL_PHONE)
            await hotline.PressHelp(other, metadata=customer)
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await hotline.PressHelp(pb.PressHelpRequest(request_id=request_id(), channel=99), metadata=customer)  # type: ignore[arg-type]
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await desks.ListTimeline(pb.ListTimelineRequest(customer_id=customer_id), metadata=customer)
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def heard(infrastructure: Stack, topic: Topic, kind: type[M], key: str) -> M:
    """The first fact of a kind with this key."""
    consumer = AIOKafkaConsumer(
        topic.name, bootstrap_servers=infrastructure.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async for message in consumer:
            name = dict(message.headers).get("ce_type", b"").decode()
            if message.key == key.encode() and name == kind.DESCRIPTOR.full_name:
                return kind.FromString(message.value)
    finally:
        await consumer.stop()
    raise AssertionError("the consumer ended")


async def send_twice(infrastructure: Stack, fact: Fact) -> None:
    """As a relay does that was stopped between sending and noting it."""
    producer = AIOKafkaProducer(bootstrap_servers=infrastructure.kafka_bootstrap)
    await producer.start()
    try:
        headers = outbox.headers(fact, "shipping", datetime.now(UTC).isoformat())
        for _ in range(2):
            await producer.send_and_wait(
                fact.topic.name,
                fact.message.SerializeToString(),
                fact.key.encode(),
                headers=[(name, text.encode()) for name, text in headers.items()],
            )
    finally:
        await producer.stop()
