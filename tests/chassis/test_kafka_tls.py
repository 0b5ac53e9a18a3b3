"""Kafka over TLS: everything of a service that speaks to it does, and checks whom it speaks to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka.errors import KafkaError

from deploy.local.stack import Stack
from services.chassis import dead_letters, kafka
from services.chassis import settings as chassis_settings
from services.chassis.brokers import Brokers
from services.chassis.consumption import Consumption
from services.chassis.lanes import Patience
from services.chassis.relay import Relay
from tests.chassis.certificates import Authority, Mounted
from tests.chassis.kafka_rig import Failing, Rig, rig, until, within
from tests.chassis.tls_broker import PASSWORD, USER, tls_broker

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Brokers]]:
    """The same broker, by how one shows who one is: with a certificate, or a password."""
    authority, state = Authority(), tmp_path_factory.mktemp("broker")
    files = Mounted(state / "files", authority.issue(HERE))
    with tls_broker(state, authority.issue(HERE)) as ports:
        ca = files.file("ca.crt")
        yield {
            "certificate": Brokers(
                f"{HERE}:{ports['tls']}", "SSL", ca, cert_file=files.file("tls.crt"), key_file=files.file("tls.key")
            ),
            "password": Brokers(f"{HERE}:{ports['password']}", "SASL_SSL", ca, username=USER, password=PASSWORD),
        }


@pytest.fixture
async def made(infrastructure: Stack) -> AsyncIterator[Rig]:
    async with rig(infrastructure) as made:
        yield made


@pytest.mark.parametrize("shown", ["certificate", "password"])
async def test_facts_are_sent_heard_parked_and_replayed_over_tls(
    made: Rig, brokers: dict[str, Brokers], shown: str
) -> None:
    known = brokers[shown]
    await kafka.ensure_topics(known, [made.topic])
    assert await kafka.partition_count(known, made.topic.name) == 1
    failing = Failing(bad=(ValueError("no"), 1))
    relay = Relay(made.database, known)
    relaying = asyncio.create_task(relay.run())
    listening = Consumption(
        made.service, made.database, known, [made.hears(failing)], made.app, patience=Patience(1, (0.01, 0.05))
    )
    try:
        await listening.start()
        await made.announce(made.fact("k", "good"), made.fact("other", "bad"))
        assert await made.handled(1) == ["good"]
        await until(lambda: _is_parked(made))
        await until(lambda: _nothing_waits(made))
        hears = [made.hears(failing)]
        assert await dead_letters.replay(made.service, made.database, known, hears, made.app, made.topic.name) == 0
        assert await made.handled(2) == ["good", "bad"]
    finally:
        await within(listening.stop())
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)


async def _is_parked(made: Rig) -> bool:
    return await made.parked() == [("other", 1, 0)]


async def _nothing_waits(made: Rig) -> bool:
    return await made.count("outbox") == 0


@pytest.mark.parametrize("wrong", ["authority", "name", "no certificate", "password", "plaintext"])
async def test_a_broker_one_does_not_know_or_that_does_not_know_us_is_not_spoken_to(
    brokers: dict[str, Brokers], wrong: str, tmp_path: Path
) -> None:
    by_certificate, by_password = brokers["certificate"], brokers["password"]
    files = Mounted(tmp_path / "files", {"ca.crt": Authority().pem})
    asked = {
        "authority": replace(by_password, ca_file=files.file("ca.crt")),
        "name": replace(by_password, addresses=by_password.addresses.replace(HERE, "localhost")),
        "no certificate": replace(by_certificate, cert_file=None, key_file=None),
        "password": replace(by_password, password="another"),
        "plaintext": Brokers(by_certificate.addresses),
    }[wrong]
    with pytest.raises(KafkaError):
        await kafka.existing(asked, ["any"])


async def test_a_client_made_later_trusts_a_renewed_authority(brokers: dict[str, Brokers], tmp_path: Path) -> None:
    right = Path(brokers["password"].ca_file or "").read_bytes()
    files = Mounted(tmp_path / "files", {"ca.crt": Authority().pem})
    known = replace(brokers["password"], ca_file=files.file("ca.crt"))
    with pytest.raises(KafkaError):
        await kafka.existing(known, [])
    files.replace({"ca.crt": right})
    assert await kafka.existing(known, [f"none-{uuid4().hex}"]) == set()


def test_settings_say_how_kafka_is_spoken_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("SECURITY_PROTOCOL", "SASL_USERNAME", "SSL_CERT_FILE"):
        monkeypatch.setenv(f"KAFKA_{name}", {"SECURITY_PROTOCOL": "SASL_SSL"}.get(name, "something"))
    with pytest.raises(SystemExit):
        chassis_settings.load(chassis_settings.ServiceSettings)
    said = capsys.readouterr().err
    assert "KAFKA_SASL_PASSWORD (password with SASL_SSL): Value error, SASL_SSL needs it" in said
    assert "KAFKA_SSL_CERT_FILE and KAFKA_SSL_KEY_FILE go together" in said
    assert "KAFKA_SASL_USERNAME" not in said
