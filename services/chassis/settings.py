"""Settings: from the environment, and secrets from files.

Each setting is an environment variable of the same name in capitals. A file of that name in the folder SECRETS_DIR
does as well (Kubernetes mounts secrets so); the environment wins.
"""

from __future__ import annotations

import os
import sys
from typing import Literal, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.chassis.peers import Peers

S = TypeVar("S", bound="ServiceSettings")


class ServiceSettings(BaseSettings):
    """What every service needs to know."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: str = Field(description="PostgreSQL URL of this service's own database", pattern=r"^postgres(ql)?://")
    database_pool_size: int = Field(10, ge=2, le=200, description="connections this process may open")
    kafka_bootstrap_servers: str = Field(min_length=1, description="host:port of Kafka brokers, comma separated")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL"] = Field(
        "PLAINTEXT", description="SSL and SASL_SSL speak TLS and check the brokers' names"
    )
    kafka_ssl_ca_file: str | None = Field(None, description="PEM authority of the brokers; none, those of the system")
    kafka_ssl_cert_file: str | None = Field(None, description="PEM certificate that brokers know this service by")
    kafka_ssl_key_file: str | None = Field(None, validate_default=True, description="PEM key of the certificate")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = Field(None, validate_default=True, description="name with SASL_SSL")
    kafka_sasl_password: str | None = Field(None, validate_default=True, description="password with SASL_SSL")
    grpc_host: str = Field("127.0.0.1", description="address the gRPC server listens on")
    grpc_port: int = Field(ge=1, le=65535, description="port the gRPC server listens on")
    grpc_max_concurrent: int = Field(200, ge=1, description="calls handled at once; more are shed")
    grpc_max_streams: int = Field(5000, ge=1, description="streams open at once; more are shed")
    grpc_default_deadline_seconds: float = Field(
        10, gt=0, description="deadline of unary calls that bring none, and of the one message of a stream's client"
    )
    grpc_caller_rate: float = Field(
        200, ge=0, description="calls a second of one caller with a token; ten times as many at once; 0 is no limit"
    )
    grpc_visitor_rate: float = Field(
        500, ge=0, description="the same of all callers without a token behind one address"
    )
    grpc_trusted_proxies: str = Field(
        "127.0.0.0/8,::1/128", description="networks of proxies whose x-forwarded-for is believed, comma separated"
    )
    peer_secret: str = Field(
        "local", min_length=1, description="makes opaque names of callers' addresses; alike in all replicas"
    )
    grpc_tls_cert_file: str | None = Field(
        None, description="PEM certificate; with the key, the server speaks TLS only. May be renewed at any time"
    )
    grpc_tls_key_file: str | None = Field(None, validate_default=True, description="PEM key of the certificate")
    grpc_tls_ca_file: str | None = Field(
        None, description="PEM authority; set, calls to other services use TLS. May be renewed at any time"
    )
    grpc_health_port: int | None = Field(
        None, ge=1, le=65535, description="port that answers health only and always in plaintext: probes speak no TLS"
    )
    metrics_port: int = Field(ge=1, le=65535, description="port of the Prometheus endpoint")
    metrics_host: str = Field("127.0.0.1", description="address the Prometheus endpoint listens on")
    token_issuer: str = Field(min_length=1, description="the `iss` tokens must have")
    token_audience: str = Field("shop", min_length=1, description="the `aud` tokens must have")
    jwks_url: str = Field(pattern=r"^https?://", description="where the issuer's public keys are")
    workload_issuer: str | None = Field(
        None, description="the `iss` of services' tokens, where the platform signs them"
    )
    workload_jwks_url: str | None = Field(None, pattern=r"^https?://", description="where the platform's keys are")
    workload_subject: str = Field(
        "system:serviceaccount:shop:{service}-account",
        pattern=r"\{service\}",
        description="the `sub` of services' tokens, with {service} for the name",
    )
    service_token_file: str = Field(min_length=1, description="file with this service's own token; may be rotated")
    otel_traces_exporter: Literal["otlp", "zipkin", "none"] = Field("none", description="where traces go")
    browsing_sample_ratio: float = Field(0.05, ge=0, le=1, description="share of read-only calls that are traced")
    drain_seconds: float = Field(5, ge=0, description="how long to wait for endpoint removal before stopping")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("grpc_tls_key_file", "kafka_ssl_key_file")
    @classmethod
    def _pair(cls, value: str | None, info: ValidationInfo) -> str | None:
        key = str(info.field_name)
        certificate = key.replace("_key_", "_cert_")
        if (value is None) != (info.data.get(certificate) is None):
            raise ValueError(f"{certificate.upper()} and {key.upper()} go together")
        return value

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _sasl(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("kafka_security_protocol") == "SASL_SSL" and not value:
            raise ValueError("SASL_SSL needs it")
        return value

    @field_validator("grpc_trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        Peers(value, "")
        return value


def load(settings: type[S]) -> S:
    """Reads the settings, or ends the process with one line for each that is missing or wrong."""
    try:
        return settings(_secrets_dir=os.environ.get("SECRETS_DIR"))
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0])
            field = settings.model_fields.get(name)
            described = f" ({field.description})" if field and field.description else ""
            what = "is missing" if problem["type"] == "missing" else problem["msg"]
            print(f"setting {name.upper()}{described}: {what}", file=sys.stderr)
        print("Set them in the environment, or as files in the folder SECRETS_DIR.", file=sys.stderr)
        raise SystemExit(2) from None
