"""An order's whole story on real Kafka, with inventory and catalog behind real gRPC: every part as it is composed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from cryptography.fernet import Fernet
from google.protobuf.message import Message

from deploy.local.stack import Stack
from services.chassis import kafka, outbox, telemetry
from services.chassis.consumption import Consumption
from services.chassis.database import Database
from services.chassis.errors import NotNow, Unavailable
from services.chassis.facts import Fact
from services.chassis.relay import Relay
from services.chassis.service import Runtime
from services.contact.publishes import PUBLISHES as CONTACT
from services.inventory.publishes import PUBLISHES as INVENTORY_TOPICS
from services.loyalty.publishes import PUBLISHES as LOYALTY
from services.shipping.__main__ import SERVICE, Shipping
from services.shipping.settings import Settings
from shop.loyalty.events.v1.facts_pb2 import UpgradeGranted
from shop.shipping.events.v1 import facts_pb2 as facts
from shop.shipping.v1 import shipping_pb2 as pb
from tests.chassis.grpc_rig import INVENTORY, issuing, serving, stand_in
from tests.shipping.conftest import Desk, order_request

CATALOG = "shop.catalog.v1.CatalogAdminService"
UPGRADES = "shop.loyalty.upgrades.v1"
SECONDS = 60.0


@pytest.fixture
async def composed(
    infrastructure: Stack, desk: Desk, shipping_database: Database, tmp_path: Path
) -> AsyncIterator[Desk]:
    """The desk with the application as it is composed. Its relay and consumption are the test's to start."""
    with issuing() as issuer:
        calls = {
            name: getattr(desk.inventory, name)
            for name in ("ReserveStock", "GetReservation", "CommitReservation", "ReleaseReservation", "ReleaseOrder")
        }
        token_file = tmp_path / "token"
        token_file.write_text(issuer.token(role="service", service="shipping"))
        catalog = stand_in(CATALOG, BatchGetVariants=desk.catalog.BatchGetVariants)
        async with serving(issuer, stand_in(INVENTORY, **calls), catalog) as rig:
            settings = Settings(
                database_url="postgresql://unused",
                kafka_bootstrap_servers=infrastructure.kafka_bootstrap,
                grpc_port=1,
                metrics_port=1,
                token_issuer="unused",
                jwks_url="http://unused",
                service_token_file=str(token_file),
                inventory_address=rig.target,
                catalog_address=rig.target,
                personal_data_keys=Fernet.generate_key().decode(),
            )
            app = Shipping(Runtime(settings, shipping_database, rig.telemetry))
            servicers: dict[str, Any] = dict(app.servicers)
            desk.api = servicers["shop.shipping.v1.ShippingService"]
            desk.warehouse = servicers["shop.shipping.v1.WarehouseService"]
            desk.hotline = app.hotline
            yield desk
            await app.close()


@pytest.fixture
async def topics(infrastructure: Stack) -> str:
    bootstrap = infrastructure.kafka_bootstrap
    await kafka.ensure_topics(bootstrap, [*SERVICE.publishes, *LOYALTY, *CONTACT, *INVENTORY_TOPICS])
    return bootstrap


async def read_story(bootstrap: str, order_id: str, count: int) -> list[tuple[Message, dict[str, str]]]:
    """The first facts of an order as they stand on the topics, with their headers; of each topic in its order."""
    names = [topic.name for topic in SERVICE.publishes]
    consumer = AIOKafkaConsumer(*names, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: list[tuple[Message, dict[str, str]]] = []
    try:
        async with asyncio.timeout(SECONDS):
            async for record in consumer:
                if record.key == order_id.encode():
                    headers = {name: value.decode() for name, value in record.headers}
                    message = getattr(facts, headers["ce_type"].rsplit(".")[-1])()
                    message.ParseFromString(record.value)
                    found.append((message, headers))
                    if len(found) == count:
                        break
    finally:
        await consumer.stop()
    return found


async def send(bootstrap: str, sent: Sequence[Fact]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        for fact in sent:
            headers = outbox.headers(fact, "loyalty", datetime.now(UTC).isoformat())
            await producer.send_and_wait(
                fact.topic.name,
                fact.message.SerializeToString(),
                fact.key.encode(),
                headers=[(name, text.encode()) for name, text in headers.items()],
            )
    finally:
        await producer.stop()


async def until_upgraded(desk: Desk, order_id: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not (await desk.get(order_id)).shipments[0].promise_changes:
            await asyncio.sleep(0.02)


async def test_the_story_of_an_order(composed: Desk, topics: str) -> None:
    # Nobody relays yet, as when Kafka is away: the order is taken all the same.
    with telemetry.with_journey("journey-1", "cus_1"):
        order = await composed.place(await composed.begin(("boot", 1)))
    assert order.state == pb.ORDER_STATE_CONFIRMED
    relay = Relay(composed.database, topics)
    composed.database.wake_relay = relay.wake
    relaying = asyncio.create_task(relay.run())
    consumption = Consumption(SERVICE.name, composed.database, topics, SERVICE.hears, composed)
    await consumption.start()
    try:
        (upgrades,) = [topic for topic in LOYALTY if topic.name == UPGRADES]
        granted = UpgradeGranted(
            order_id=order.order_id, version=1, customer_id="cus_1", policy_version=3, reason="a regular"
        )
        same = Fact(upgrades, order.order_id, granted)
        await send(topics, [same, same, Fact(upgrades, order.order_id, granted)])
        await until_upgraded(composed, order.order_id)
        await composed.dispatch(order.shipments[0], f"T-{order.order_id}")
        await composed.scan(f"T-{order.order_id}", datetime.now(UTC))
        story = await read_story(topics, order.order_id, 4)
    finally:
        await consumption.stop()
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
        composed.database.wake_relay = lambda: None
    by_version = sorted(story, key=lambda told: told[0].version)  # type: ignore[attr-defined]
    assert [(message.DESCRIPTOR.name, message.version) for message, _ in by_version] == [  # type: ignore[attr-defined]
        ("OrderPlaced", 2),
        ("ShipmentUpgraded", 3),
        ("ShipmentDispatched", 4),
        ("ShipmentDelivered", 5),
    ]
    # Those of one topic stand there in the order in which they happened.
    shipments = [message.version for message, _ in story if not isinstance(message, facts.OrderPlaced)]  # type: ignore[attr-defined]
    assert shipments == [3, 4, 5]
    for message, headers in story:
        assert headers["ce_source"] == "/shop/shipping"
        assert "journey.id=journey-1" in headers["baggage"]
        assert message.customer_id == "cus_1"  # type: ignore[attr-defined]


async def test_refusals_and_outages_come_through_the_wire(composed: Desk) -> None:
    with pytest.raises(NotNow) as refused:
        await composed.begin(("boot", 6))
    assert (refused.value.reason, refused.value.details) == (
        "OUT_OF_STOCK",
        {"sku": "boot", "wanted": "6", "free": "5"},
    )
    request = order_request(await composed.begin(("boot", 1)))
    composed.inventory.away = True
    with pytest.raises(Unavailable) as away:
        await composed.api.PlaceOrder(request)
    assert away.value.reason == "ORDER_PENDING"
    composed.inventory.away = False
    assert (await composed.api.PlaceOrder(request)).order.state == pb.ORDER_STATE_CONFIRMED
