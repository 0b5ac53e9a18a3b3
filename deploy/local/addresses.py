"""Where everything of a stack is, and what a service is told of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import issuer as issuing
from . import postgres
from .credentials import Secrets
from .ports import HOST, SERVICES, Ports
from .tokens import AUDIENCE


@dataclass(frozen=True)
class External:
    """What runs elsewhere and is used instead of a local part. `database_server` is a URL of a role that may
    create roles and databases; OTLP goes to the endpoint of the standard setting."""

    database_server: str | None = None
    kafka: str | None = None
    otlp: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> External:
        return cls(
            environment.get("SHOP_DATABASE_SERVER_URL"),
            environment.get("KAFKA_BOOTSTRAP_SERVERS"),
            environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
        )

    @property
    def replaced(self) -> set[str]:
        """The local parts that need not run."""
        given = {"postgres": self.database_server, "kafka": self.kafka, "zipkin": self.otlp}
        return {part for part, url in given.items() if url}


NOTHING_EXTERNAL = External()


class Addresses:
    """Of the local parts, or of what is used in their place."""

    def __init__(self, state: Path, ports: Ports, parts: Sequence[str], external: External) -> None:
        self.state = state.absolute()
        self.state.mkdir(parents=True, exist_ok=True)
        self.ports, self.external = ports, external
        self.wanted = tuple(part for part in parts if part not in external.replaced)
        self.secrets = Secrets.of(self.state)
        self.issuer = issuing.issuer(self.state, ports)

    @property
    def kafka_bootstrap(self) -> str:
        return self.external.kafka or f"{HOST}:{self.ports['kafka']}"

    @property
    def zipkin_url(self) -> str:
        return f"http://{HOST}:{self.ports['zipkin']}"

    @property
    def envoy_url(self) -> str:
        return f"http://{HOST}:{self.ports['envoy']}"

    @property
    def database_server_url(self) -> str:
        """The URL of the role that owns the server, for tests and provisioning; no service has it."""
        return self.external.database_server or postgres.server_url(self.ports, self.secrets)

    def database_url(self, name: str) -> str:
        """The URL of one service's database, with that service's own role."""
        return postgres.database_url(self.database_server_url, name, self.secrets.database_roles[name])

    def address(self, name: str) -> str:
        """host:port of a service's gRPC."""
        return f"{HOST}:{self.ports[name]}"

    def environment(self, name: str, grpc: str | None = None, metrics: str | None = None) -> dict[str, str]:
        """The settings a service runs with; `grpc` and `metrics` name other ports than its usual ones."""
        settings = {
            "DATABASE_URL": self.database_url(name),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap,
            "GRPC_PORT": str(self.ports[grpc or name]),
            "METRICS_PORT": str(self.ports[metrics or f"{name}-metrics"]),
            "TOKEN_ISSUER": self.issuer.url,
            "TOKEN_AUDIENCE": AUDIENCE,
            "JWKS_URL": self.issuer.url + issuing.KEYS,
            "SERVICE_TOKEN_FILE": str(self.token_file(name)),
            "LOG_LEVEL": os.environ.get("LOG_LEVEL", "INFO"),
            **{f"{other.upper()}_ADDRESS": self.address(other) for other in SERVICES},
        }
        if name in self.secrets.personal_data_keys:
            settings["PERSONAL_DATA_KEYS"] = self.secrets.personal_data_keys[name]
        if self.external.otlp:
            return {**settings, "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": self.external.otlp}
        if "zipkin" not in self.wanted:
            return {**settings, "OTEL_TRACES_EXPORTER": "none"}
        endpoint = f"{self.zipkin_url}/api/v2/spans"
        return {**settings, "OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_ZIPKIN_ENDPOINT": endpoint}

    def mint(self, role: str, **claims: Any) -> str:
        """A token of this stack's issuer, as `tokens.Issuer.mint`."""
        return self.issuer.mint(role, **claims)

    def token_file(self, name: str) -> Path:
        """Where the service finds its own token."""
        return self.state / "tokens" / name
