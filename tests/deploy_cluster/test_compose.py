"""The compose file tells each service the same as the cluster does, and is as careful."""

import json
import re
import threading
import urllib.request
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml

from deploy import compose_issuer
from deploy.cluster import check
from deploy.cluster.manifests import Manifests, build, name_of
from deploy.cluster.topology import CALLS, SECRETS, SERVICES, address_setting
from deploy.local.tokens import Issuer

COMPOSE = Path(compose_issuer.__file__).with_name("compose.yaml")
# In compose, one issuer names people and services; in a cluster, the platform names the services.
WORKLOAD = {"WORKLOAD_ISSUER", "WORKLOAD_JWKS_URL", "WORKLOAD_SUBJECT"}
# Compose's network is private to one machine, and plaintext.
TLS = {"GRPC_TLS_CA_FILE", "GRPC_TLS_CERT_FILE", "GRPC_TLS_KEY_FILE", "GRPC_HEALTH_PORT"} | {
    "KAFKA_SECURITY_PROTOCOL", "KAFKA_SSL_CA_FILE", "PGSSLMODE", "PGSSLROOTCERT"
}  # fmt: skip
ONLY_IN_A_CLUSTER = {"SERVICE", "SECRETS_DIR", "OTEL_EXPORTER_OTLP_ENDPOINT"} | WORKLOAD | TLS
ONLY_IN_COMPOSE = {"OTEL_EXPORTER_ZIPKIN_ENDPOINT"}


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def cluster() -> Manifests:
    return Manifests(build(check.HERE / "base"))


@pytest.mark.parametrize("service", SERVICES)
def test_names_of_settings_are_those_of_the_cluster(compose: Any, cluster: Manifests, service: str) -> None:
    server = cluster.find("Deployment", f"{service}-server")
    assert server is not None
    in_cluster = cluster.environment(server).keys() | SECRETS[service]
    told = compose["services"][service]["environment"]
    assert told.keys() - ONLY_IN_COMPOSE == in_cluster - ONLY_IN_A_CLUSTER
    assert compose["services"][f"{service}-migrate"]["environment"] == told


@pytest.mark.parametrize("service", SERVICES)
def test_addresses_and_databases_are_its_own(compose: Any, service: str) -> None:
    told = compose["services"][service]["environment"]
    for called in CALLS[service]:
        assert told[address_setting(called)] == f"{called}:50051"
    assert told["DATABASE_URL"].startswith(f"postgresql://{service}:")
    assert told["DATABASE_URL"].endswith(f"@postgres/{service}")
    assert told["SERVICE_TOKEN_FILE"] == f"/run/tokens/{service}"
    databases = compose["configs"]["databases"]["content"]
    assert f"CREATE DATABASE {service} OWNER {service};" in databases
    assert f"REVOKE ALL ON DATABASE {service} FROM PUBLIC;" in databases


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_after_its_migration_and_asks_for_nothing(compose: Any, service: str) -> None:
    server = compose["services"][service]
    migration = compose["services"][f"{service}-migrate"]
    assert server["command"] == ["python", "-m", f"services.{service}"]
    assert migration["command"] == [*server["command"], "migrate"]
    assert server["depends_on"] == {f"{service}-migrate": {"condition": "service_completed_successfully"}}
    for container in (server, migration):
        assert container["read_only"]
        assert container["cap_drop"] == ["ALL"]
        assert "user" not in container, "the image says who"


def test_one_image_with_the_tag_of_the_base(compose: Any, cluster: Manifests) -> None:
    images = {
        container["image"] for name, container in compose["services"].items() if name.startswith((*SERVICES, "image"))
    }
    in_cluster = {
        container["image"]
        for workload in cluster.workloads()
        for container in workload["spec"]["template"]["spec"]["containers"]
    }
    assert images == in_cluster


def test_the_base_has_all_five_servers(cluster: Manifests) -> None:
    assert sorted(name_of(server) for server in cluster.of("Deployment")) == sorted(f"{s}-server" for s in SERVICES)


def test_no_password_or_key_is_written_down(compose: Any) -> None:
    passwords = re.findall(r"postgresql://\w+:([^@]+)@", COMPOSE.read_text())
    assert passwords
    for value in [
        *passwords,
        compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"],
        compose["services"]["contact"]["environment"]["PERSONAL_DATA_KEYS"],
        compose["services"]["shipping"]["environment"]["PEER_SECRET"],
    ]:
        assert value.startswith("${")


def test_ports_are_open_to_this_machine_only_and_each_once(compose: Any) -> None:
    ports = [port for container in compose["services"].values() for port in container.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_the_issuer_serves_the_key_of_the_tokens_it_wrote(tmp_path: Path, compose: Any) -> None:
    issuer = Issuer(compose_issuer.URL, tmp_path / "key.pem")
    compose_issuer.write_tokens(issuer, tmp_path)
    server = compose_issuer.server(issuer, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{compose_issuer.KEYS}") as answer:
            keys = jwt.PyJWKSet.from_dict(json.load(answer))
    finally:
        server.shutdown()
        server.server_close()
    settings = compose["services"]["loyalty"]["environment"]
    assert settings["JWKS_URL"] == compose_issuer.URL + compose_issuer.KEYS
    token = (tmp_path / "loyalty").read_text()
    claims = jwt.decode(
        token,
        keys.keys[0],
        algorithms=["RS256"],
        audience=settings["TOKEN_AUDIENCE"],
        issuer=settings["TOKEN_ISSUER"],
    )
    assert (claims["role"], claims["sub"]) == ("service", "loyalty")
