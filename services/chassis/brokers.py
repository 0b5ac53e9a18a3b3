"""Where Kafka is, and how it is spoken to."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from services.chassis.settings import ServiceSettings

_MECHANISMS = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}


@dataclass(frozen=True, slots=True)
class Brokers:
    """The brokers of the shop. Addresses alone are spoken to in plaintext."""

    addresses: str
    protocol: str = "PLAINTEXT"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    mechanism: str = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: ServiceSettings) -> Brokers:
        """Those of the settings."""
        return cls(
            settings.kafka_bootstrap_servers,
            settings.kafka_security_protocol,
            settings.kafka_ssl_ca_file,
            settings.kafka_ssl_cert_file,
            settings.kafka_ssl_key_file,
            settings.kafka_sasl_mechanism,
            settings.kafka_sasl_username or "",
            settings.kafka_sasl_password or "",
        )

    def security(self) -> BaseSecurity | None:
        """What FastStream wants to know, with what stands in the files now. Raises OSError when that is broken."""
        if self.protocol == "PLAINTEXT":
            return None
        # Checks the broker's name; without a file, the authorities of the system count.
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        if self.protocol == "SSL":
            return BaseSecurity(ssl_context=context, use_ssl=True)
        return _MECHANISMS[self.mechanism](self.username, self.password, ssl_context=context, use_ssl=True)


def client(brokers: Brokers | str) -> dict[str, Any]:
    """What each of aiokafka's clients is told. One that is made later uses files that were renewed meanwhile."""
    if isinstance(brokers, str):
        return {"bootstrap_servers": brokers}
    return {"bootstrap_servers": brokers.addresses, **parse_security(brokers.security())}
