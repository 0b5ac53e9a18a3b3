"""What a pod is told is what its service asks for: the service's own settings load from it."""

import importlib
import os
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from deploy.cluster import check
from deploy.cluster.manifests import Manifests, build
from deploy.cluster.topology import SECRETS, SERVICES, SETTINGS
from services.chassis.settings import ServiceSettings, load

NOT_READ_AS_A_SETTING = {"SERVICE", "SECRETS_DIR"}


@pytest.fixture(scope="module")
def cluster() -> Manifests:
    return Manifests(build(check.HERE / "base"))


def settings_class(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{service}.settings")
    found: type[ServiceSettings] = module.Settings
    return found


def test_every_common_setting_is_one_that_services_read() -> None:
    fields = {name.upper() for name in ServiceSettings.model_fields}
    # The exporter's endpoint is read by OpenTelemetry itself.
    assert SETTINGS - NOT_READ_AS_A_SETTING - {"OTEL_EXPORTER_OTLP_ENDPOINT"} <= fields


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
