"""The parts that the services stand on are real, apart from each other, and come back when they die."""

from __future__ import annotations

import signal

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local.ports import SERVICES
from deploy.local.stack import Stack
from deploy.local.supervision import wait_until


@pytest.mark.parametrize("service", SERVICES)
async def test_each_service_has_a_database_of_its_own(infrastructure: Stack, service: str) -> None:
    connection = await asyncpg.connect(infrastructure.database_url(service))
    try:
        assert await connection.fetchval("SELECT current_database() || ' ' || current_user") == f"{service} {service}"
        await connection.execute("CREATE TABLE tried (id int); DROP TABLE tried")
    finally:
        await connection.close()


@pytest.mark.parametrize("other", ["catalog", "postgres", "template1"])
async def test_a_service_may_enter_no_other_database(infrastructure: Stack, other: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(infrastructure.database_url("inventory"), database=other)


async def test_a_wrong_password_is_refused(infrastructure: Stack) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(infrastructure.database_url("inventory"), password="guessed")


@pytest.mark.parametrize("service", ["catalog", "contact"])
async def test_search_extensions_are_there(infrastructure: Stack, service: str) -> None:
    connection = await asyncpg.connect(infrastructure.database_url(service))
    try:
        names = {row[0] for row in await connection.fetch("SELECT extname FROM pg_extension")}
    finally:
        await connection.close()
    assert {"pg_trgm", "unaccent", "btree_gin"} <= names


async def test_kafka_takes_an_idempotent_producer_and_a_group(infrastructure: Stack) -> None:
    bootstrap = infrastructure.kafka_bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("tests.round-trip", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        await producer.send_and_wait("tests.round-trip", b"hello")
    consumer = AIOKafkaConsumer(
        "tests.round-trip", bootstrap_servers=bootstrap, group_id="tests", auto_offset_reset="earliest"
    )
    async with consumer:
        assert (await consumer.getone()).value == b"hello"


def test_a_second_up_changes_nothing(infrastructure: Stack) -> None:
    before = {part: infrastructure.pid(part) for part in infrastructure.wanted}
    told: list[tuple[str, str]] = []
    infrastructure.up(lambda part, what, seconds: told.append((part, what)))
    assert {part: infrastructure.pid(part) for part in infrastructure.wanted} == before
    assert told == []


@pytest.mark.parametrize("part", ["postgres", "kafka", "issuer"])
def test_a_killed_part_comes_back_and_the_status_tells(infrastructure: Stack, part: str) -> None:
    before = infrastructure.pid(part)
    (known,) = [len(each.exits) for each in infrastructure.status() if each.name == part]
    infrastructure.signal(part, signal.SIGKILL)
    wait_until(lambda: infrastructure.supervisor.info(part)["pid"] not in (0, before), 30, f"{part} did not come back")
    infrastructure.await_ready(part)
    (status,) = [each for each in infrastructure.status() if each.name == part]
    # PostgreSQL may need more than one try: its orphaned children end a moment later.
    assert status.exits[known].how == "terminated by SIGKILL"
    assert status.pid == infrastructure.pid(part)
    assert status.memory > 0
