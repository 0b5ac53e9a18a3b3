"""Our own rules for TLS: between services, to Kafka and to PostgreSQL."""

from collections.abc import Iterator

from deploy.cluster.manifests import Manifests, Problem, containers, mounted, service_of, where

OF_THE_IMAGE = "/etc/ssl/certs"
"""Where the image has the public authorities."""


def tls_is_on(manifests: Manifests) -> Iterator[Problem]:
    """Each service has a certificate and an authority to check others by; Kafka and PostgreSQL are verified."""
    for workload in manifests.workloads():
        told = manifests.environment(workload)
        for container in containers(workload):
            folder = mounted(workload, container, "secret", "secretName").get(f"{service_of(workload)}-tls")
            for setting, file in {"CERT": "tls.crt", "KEY": "tls.key", "CA": "ca.crt"}.items():
                found, wanted = told.get(f"GRPC_TLS_{setting}_FILE"), f"{folder}/{file}"
                if found != wanted:
                    yield Problem(where(workload), f"GRPC_TLS_{setting}_FILE is {found!r}, must be {wanted!r}")
            known = {*mounted(workload, container, "configMap", "name").values(), OF_THE_IMAGE}
            for setting in ("KAFKA_SSL_CA_FILE", "PGSSLROOTCERT"):
                if told.get(setting, "").rpartition("/")[0] not in known:
                    yield Problem(where(workload), f"{setting} is {told.get(setting)!r}, in no folder of authorities")
        if told.get("KAFKA_SECURITY_PROTOCOL") not in ("SSL", "SASL_SSL"):
            yield Problem(where(workload), f"speaks {told.get('KAFKA_SECURITY_PROTOCOL')} to Kafka, must be TLS")
        if told.get("PGSSLMODE") != "verify-full":
            yield Problem(where(workload), f"PGSSLMODE is {told.get('PGSSLMODE')!r}, must be 'verify-full'")
