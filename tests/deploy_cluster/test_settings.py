"""What a pod is told is what its service asks for: the service's own settings load from it."""

import importlib
import os
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet

from deploy.cluster import check
from deploy.cluster.manifests import Manifests, build
from deploy.cluster.topology import CALLS, OPTIONAL, SECRETS, SERVICES, SETTINGS, address_setting
from services.chassis.brokers import Brokers
from services.chassis.settings import ServiceSettings, load

NOT_READ_AS_A_SETTING = {"SERVICE", "SECRETS_DIR"}
# By OpenTelemetry and asyncpg.
READ_BY_LIBRARIES = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_CERTIFICATE", "PGSSLMODE", "PGSSLROOTCERT"}


@pytest.fixture(scope="module")
def cluster() -> Manifests:
    return Manifests(build(check.HERE / "base"))


def settings_class(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{service}.settings")
    found: type[ServiceSettings] = module.Settings
    return found


def test_every_common_setting_is_one_that_services_read() -> None:
    fields = {name.upper() for name in ServiceSettings.model_fields}
    assert fields >= (SETTINGS | OPTIONAL) - NOT_READ_AS_A_SETTING - READ_BY_LIBRARIES


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_with_what_its_pod_is_told(
    cluster: Manifests, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = cluster.find("Deployment", f"{service}-server")
    assert server is not None
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in cluster.environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    secrets = {
        "DATABASE_URL": f"postgresql://{service}:secret@database/{service}",
        "PERSONAL_DATA_KEYS": Fernet.generate_key().decode(),
        "PEER_SECRET": "any long random text",
    }
    for name in SECRETS[service]:
        (tmp_path / name).write_text(secrets[name])
    loaded = load(settings_class(service))
    assert loaded.database_url == secrets["DATABASE_URL"]
    assert (loaded.grpc_host, loaded.metrics_host) == ("0.0.0.0", "0.0.0.0")
    assert Brokers.of(loaded).protocol == "SSL"


@pytest.mark.parametrize("service", SERVICES)
def test_the_certificate_we_ask_for_has_the_name_that_others_call(cluster: Manifests, service: str) -> None:
    template = check.HERE / "overlays" / "example" / "certificate.yaml"
    certificate = yaml.safe_load(template.read_text().replace("SERVICE", service))
    server = cluster.find("Deployment", f"{service}-server")
    assert server is not None
    volumes = server["spec"]["template"]["spec"]["volumes"]
    assert certificate["spec"]["secretName"] in [v["secret"]["secretName"] for v in volumes if "secret" in v]
    for caller in SERVICES:
        if service in CALLS[caller]:
            calling = cluster.find("Deployment", f"{caller}-server")
            assert calling is not None
            target = cluster.environment(calling)[address_setting(service)]
            assert target.removeprefix("dns:///").partition(":")[0] in certificate["spec"]["dnsNames"]
