"""What a deployment must look like: the five services, whom each may call, what each must be told.

The manifests are compared with these tables, and so is the compose file.
"""

from typing import Final

GRPC_PORT: Final = 50051
METRICS_PORT: Final = 9464
HEALTH_PORT: Final = 50052
TOKEN_AUDIENCE: Final = "shop"

CALLS: Final[dict[str, tuple[str, ...]]] = {
    "inventory": (),
    "catalog": ("inventory",),
    "shipping": ("inventory", "catalog"),
    "loyalty": (),
    "contact": (),
}
"""Who calls whom while somebody waits; everything else goes over Kafka."""

SERVICES: Final = tuple(CALLS)

SETTINGS: Final = frozenset(
    {
        "DRAIN_SECONDS",
        "GRPC_HEALTH_PORT",
        "GRPC_HOST",
        "GRPC_PORT",
        "GRPC_TLS_CA_FILE",
        "GRPC_TLS_CERT_FILE",
        "GRPC_TLS_KEY_FILE",
        "GRPC_TRUSTED_PROXIES",
        "JWKS_URL",
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_SSL_CA_FILE",
        "LOG_LEVEL",
        "METRICS_HOST",
        "METRICS_PORT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_TRACES_EXPORTER",
        "PGSSLMODE",
        "PGSSLROOTCERT",
        "SECRETS_DIR",
        "SERVICE",
        "SERVICE_TOKEN_FILE",
        "TOKEN_AUDIENCE",
        "TOKEN_ISSUER",
        "WORKLOAD_ISSUER",
        "WORKLOAD_JWKS_URL",
        "WORKLOAD_SUBJECT",
    }
)
"""Environment of every service."""

OPTIONAL: Final = frozenset(
    {"KAFKA_SASL_MECHANISM", "KAFKA_SSL_CERT_FILE", "KAFKA_SSL_KEY_FILE", "OTEL_EXPORTER_OTLP_CERTIFICATE"}
)
"""What an overlay may tell besides, as its Kafka and its collector want it."""

SECRETS: Final[dict[str, frozenset[str]]] = {
    "inventory": frozenset({"DATABASE_URL"}),
    "catalog": frozenset({"DATABASE_URL"}),
    "shipping": frozenset({"DATABASE_URL", "PERSONAL_DATA_KEYS", "PEER_SECRET"}),
    "loyalty": frozenset({"DATABASE_URL"}),
    "contact": frozenset({"DATABASE_URL", "PERSONAL_DATA_KEYS"}),
}
"""Files each service finds in SECRETS_DIR, one per setting. Shipping and contact alone hold personal data; shipping
names to inventory where a checkout comes from."""


def address_setting(service: str) -> str:
    """Name of the setting that holds a service's gRPC target."""
    return f"{service.upper()}_ADDRESS"


def environment(service: str) -> frozenset[str]:
    """Names of all environment variables of a service, no more and no fewer."""
    return SETTINGS | {address_setting(called) for called in CALLS[service]}
