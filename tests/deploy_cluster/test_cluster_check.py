"""Every rule of the cluster check refuses a manifest that breaks it, and only then."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.cluster import check
from deploy.cluster.manifests import Manifests, Object, build

Break = Callable[["Broken"], None]


class Broken:
    """The base with something wrong in it; made anew for each test."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = copy.deepcopy(objects)

    def get(self, kind: str, name: str) -> Any:
        return next(o for o in self.objects if o["kind"] == kind and o["metadata"]["name"].startswith(name))

    def pod(self, kind: str = "Deployment", name: str = "catalog") -> Any:
        return self.get(kind, name)["spec"]["template"]["spec"]

    def container(self, kind: str = "Deployment", name: str = "catalog") -> Any:
        return self.pod(kind, name)["containers"][0]

    def setting(self, variable: str) -> Any:
        return next(v for v in self.container()["env"] if v["name"] == variable)

    def remove(self, kind: str, name: str) -> None:
        self.objects.remove(self.get(kind, name))

    def add(self, kind: str, name: str, api: str = "v1", **rest: Any) -> None:
        self.objects.append({"apiVersion": api, "kind": kind, "metadata": {"name": name}, **rest})


@pytest.fixture(scope="module")
def base() -> list[Object]:
    return build(check.HERE / "base")


@pytest.mark.parametrize("folder", check.folders(), ids=lambda folder: str(folder.name))
def test_what_we_ship_keeps_every_rule(folder: Path) -> None:
    assert check.problems(Manifests(build(folder))) == []


def _policy_rule(broken: Broken, name: str, direction: str, number: int = 0) -> Any:
    return broken.get("NetworkPolicy", name)["spec"][direction][number]


BREAKS: list[tuple[str, str, Break]] = [
    ("kinds_are_known", "is not a kind we know", lambda b: b.add("Cluster", "pg", api="postgresql.cnpg.io/v1")),
    ("fits_the_schemas", "was unexpected", lambda b: b.container().update(imagePullPolice="Always")),
    ("fits_the_schemas", "is not of type", lambda b: b.get("Deployment", "catalog")["spec"].update(replicas="two")),
    ("objects_are_unique", "2 times", lambda b: b.objects.append(b.get("Service", "catalog"))),
    ("services_are_complete", "has no Deployment", lambda b: b.remove("Deployment", "loyalty")),
    ("services_are_complete", "has no Service ", lambda b: b.remove("Service", "loyalty")),
    ("services_are_complete", "has no Job", lambda b: b.remove("Job", "loyalty")),
    ("services_are_complete", "has no PodDisruptionBudget", lambda b: b.remove("PodDisruptionBudget", "loyalty")),
    ("services_are_complete", "has no ServiceAccount", lambda b: b.remove("ServiceAccount", "loyalty")),
    ("services_are_complete", "has no ConfigMap", lambda b: b.remove("ConfigMap", "loyalty")),
    (
        "services_are_complete",
        "not a service of the shop",
        lambda b: b.get("Job", "loyalty")["spec"]["template"]["metadata"]["labels"].update(
            {"app.kubernetes.io/name": "billing"}
        ),
    ),
    (
        "services_are_told_what_they_need",
        "is not told LOG_LEVEL",
        lambda b: b.get("ConfigMap", "shop")["data"].pop("LOG_LEVEL"),
    ),
    (
        "services_are_told_what_they_need",
        "is told CONTACT_ADDRESS",
        lambda b: b.get("ConfigMap", "catalog")["data"].update(CONTACT_ADDRESS="dns:///contact-headless:50051"),
    ),
    (
        "services_are_told_what_they_need",
        "must be dns:///inventory-headless:50051",
        lambda b: b.get("ConfigMap", "catalog")["data"].update(INVENTORY_ADDRESS="inventory:50051"),
    ),
    ("references_exist", "ConfigMap", lambda b: b.remove("ConfigMap", "shop-config")),
    ("references_exist", "ServiceAccount", lambda b: b.remove("ServiceAccount", "contact")),
    (
        "selectors_mean_one_server",
        "job/catalog-migrate",
        lambda b: b.get("Service", "catalog")["spec"]["selector"].pop("app.kubernetes.io/component"),
    ),
    (
        "selectors_mean_one_server",
        "selects nothing",
        lambda b: b.get("PodDisruptionBudget", "catalog")["spec"]["selector"]["matchLabels"].update(x="y"),
    ),
    (
        "selectors_mean_one_server",
        "must be headless",
        lambda b: b.get("Service", "catalog")["spec"].pop("clusterIP"),
    ),
    (
        "servers_can_be_left_out",
        "only Deployments",
        lambda b: b.get("Job", "catalog")["metadata"]["labels"].update({"app.kubernetes.io/component": "server"}),
    ),
    ("nothing_passes_unasked", "denies everything", lambda b: b.remove("NetworkPolicy", "default-deny")),
    (
        "nothing_passes_unasked",
        "must name peers and ports",
        lambda b: _policy_rule(b, "to-engines", "egress").pop("ports"),
    ),
    ("nothing_passes_unasked", "must name peers", lambda b: _policy_rule(b, "to-engines", "egress").pop("to")),
    (
        "nothing_passes_unasked",
        "never by everything",
        lambda b: _policy_rule(b, "to-engines", "egress").update(to=[{"namespaceSelector": {}}]),
    ),
    (
        "nothing_passes_unasked",
        "the whole world",
        lambda b: _policy_rule(b, "to-engines", "egress").update(to=[{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
    ),
    (
        "calls_are_those_of_the_table",
        "egress policies: catalog-server may call contact-server",
        lambda b: _policy_rule(b, "catalog-calls", "egress")["to"].append(
            {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "contact"}}}
        ),
    ),
    (
        "calls_are_those_of_the_table",
        "ingress policies: loyalty-server may call inventory-server",
        lambda b: _policy_rule(b, "inventory-calls", "ingress").update(
            {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "shop"}}}]}
        ),
    ),
    (
        "calls_are_those_of_the_table",
        "ingress policies: shipping-server cannot call inventory-server",
        lambda b: b.remove("NetworkPolicy", "inventory-calls"),
    ),
    (
        "calls_are_those_of_the_table",
        "on 50051 only",
        lambda b: _policy_rule(b, "catalog-calls", "egress").update(ports=[{"port": 9464}]),
    ),
    (
        "pods_reach_what_they_stand_on",
        "open to the outside on [9464, 50051, 50052]",
        lambda b: _policy_rule(b, "to-servers", "ingress")["ports"].append({"port": 50052}),
    ),
    ("pods_reach_what_they_stand_on", "DNS", lambda b: b.remove("NetworkPolicy", "to-names")),
    (
        "pods_reach_what_they_stand_on",
        "cannot reach PostgreSQL",
        lambda b: _policy_rule(b, "to-engines", "egress")["ports"].pop(0),
    ),
    (
        "pods_reach_what_they_stand_on",
        "cannot reach Kafka",
        lambda b: _policy_rule(b, "to-engines", "egress").update(ports=[{"port": 5432}]),
    ),
    (
        "pods_reach_what_they_stand_on",
        "open to the outside on [50051]",
        lambda b: b.get("NetworkPolicy", "to-servers")["spec"]["ingress"].pop(1),
    ),
    (
        "pods_reach_what_they_stand_on",
        "job/catalog-migrate: is open",
        lambda b: b.get("NetworkPolicy", "to-servers")["spec"]["podSelector"]["matchLabels"].pop(
            "app.kubernetes.io/component"
        ),
    ),
    ("pods_ask_for_nothing", "runAsNonRoot", lambda b: b.pod()["securityContext"].update(runAsNonRoot=False)),
    ("pods_ask_for_nothing", "runAsUser", lambda b: b.pod("Job")["securityContext"].update(runAsUser=0)),
    ("pods_ask_for_nothing", "seccompProfile", lambda b: b.pod()["securityContext"].pop("seccompProfile")),
    ("pods_ask_for_nothing", "hostNetwork", lambda b: b.pod().update(hostNetwork=True)),
    ("pods_ask_for_nothing", "the node", lambda b: b.pod()["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    (
        "pods_ask_for_nothing",
        "allowPrivilegeEscalation",
        lambda b: b.container()["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    (
        "pods_ask_for_nothing",
        "readOnlyRootFilesystem",
        lambda b: b.container()["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    (
        "pods_ask_for_nothing",
        "capabilities",
        lambda b: b.container()["securityContext"].update(capabilities={"drop": ["NET_RAW"]}),
    ),
    ("pods_ask_for_nothing", "overrides", lambda b: b.container()["securityContext"].update(privileged=True)),
    ("containers_have_limits", "no memory", lambda b: b.container()["resources"]["limits"].pop("memory")),
    ("containers_have_limits", "no cpu", lambda b: b.container("Job").pop("resources")),
    ("servers_are_probed", "no gRPC startupProbe", lambda b: b.container().pop("startupProbe")),
    ("servers_are_probed", "no gRPC livenessProbe", lambda b: b.container().update(livenessProbe={"exec": {}})),
    ("servers_are_probed", "asks port 50051", lambda b: b.container()["readinessProbe"]["grpc"].update(port=50051)),
    ("servers_are_probed", "asks for health of ''", lambda b: b.container()["livenessProbe"]["grpc"].pop("service")),
    ("ports_exist", "99999", lambda b: b.container()["ports"][0].update(containerPort=99999)),
    ("ports_exist", "is not between 1024", lambda b: b.container()["ports"][1].update(containerPort=80)),
    ("ports_exist", "GRPC_PORT", lambda b: b.setting("GRPC_PORT").update(value="50052")),
    ("ports_exist", "GRPC_HEALTH_PORT", lambda b: b.setting("GRPC_HEALTH_PORT").update(value="50051")),
    ("ports_exist", "METRICS_HOST", lambda b: b.setting("METRICS_HOST").update(value="127.0.0.1")),
    ("servers_drain", "needs a preStop", lambda b: b.container().pop("lifecycle")),
    ("servers_drain", "of grace", lambda b: b.pod().update(terminationGracePeriodSeconds=30)),
    ("servers_drain", "of grace", lambda b: b.setting("DRAIN_SECONDS").update(value="60")),
    (
        "replicas_outlive_a_node",
        "fewer than 2",
        lambda b: b.get("Deployment", "catalog")["spec"].update(replicas=1),
    ),
    ("replicas_outlive_a_node", "maxUnavailable", lambda b: b.get("Deployment", "catalog")["spec"].pop("strategy")),
    ("replicas_outlive_a_node", "spread", lambda b: b.pod().pop("topologySpreadConstraints")),
    ("identity_is_a_token_for_the_shop", "runs as", lambda b: b.pod().update(serviceAccountName="contact-account")),
    (
        "identity_is_a_token_for_the_shop",
        "automount",
        lambda b: b.pod().update(automountServiceAccountToken=True),
    ),
    (
        "identity_is_a_token_for_the_shop",
        "serviceaccount/catalog-account",
        lambda b: b.get("ServiceAccount", "catalog").pop("automountServiceAccountToken"),
    ),
    (
        "identity_is_a_token_for_the_shop",
        "'kubernetes'",
        lambda b: b.pod()["volumes"][1]["projected"]["sources"][0]["serviceAccountToken"].update(audience="kubernetes"),
    ),
    (
        "identity_is_a_token_for_the_shop",
        "SERVICE_TOKEN_FILE",
        lambda b: b.container()["volumeMounts"][1].update(mountPath="/somewhere"),
    ),
    ("secrets_are_files", "never here", lambda b: b.add("Secret", "catalog-secrets", data={"DATABASE_URL": "eA=="})),
    (
        "secrets_are_files",
        "DATABASE_URL is a secret",
        lambda b: b.get("ConfigMap", "catalog")["data"].update(DATABASE_URL="postgresql://db/catalog"),
    ),
    (
        "secrets_are_files",
        "KAFKA_BOOTSTRAP_SERVERS is a secret",
        lambda b: b.get("ConfigMap", "shop")["data"].update(KAFKA_BOOTSTRAP_SERVERS="sasl://me:word@kafka:9092"),
    ),
    (
        "secrets_are_files",
        "mount it as a file",
        lambda b: b.container()["env"].append({"name": "KAFKA_PASSWORD", "value": "word"}),
    ),
    (
        "secrets_are_files",
        "mount it as a file",
        lambda b: b.container()["env"].append(
            {"name": "X", "valueFrom": {"secretKeyRef": {"name": "catalog-secrets", "key": "X"}}}
        ),
    ),
    (
        "secrets_are_files",
        "mount it as files",
        lambda b: b.container()["envFrom"].append({"secretRef": {"name": "catalog-secrets"}}),
    ),
    (
        "secrets_are_files",
        "must be {'catalog-secrets'",
        lambda b: b.pod()["volumes"][0]["secret"].update(secretName="contact-secrets"),
    ),
    ("images_are_pinned", "other than latest", lambda b: b.container().update(image="service-first-shop")),
    ("images_are_pinned", "other than latest", lambda b: b.container().update(image="a:5000/service-first-shop")),
    ("images_are_pinned", "one image", lambda b: b.container().update(image="service-first-shop:0.2.0")),
    ("commands_fit_one_image", "command is", lambda b: b.container().update(command=["sh", "-c", "python"])),
    ("commands_fit_one_image", "command is", lambda b: b.container("Job")["command"].pop()),
    (
        "commands_fit_one_image",
        "own label",
        lambda b: b.container()["env"].__setitem__(0, {"name": "SERVICE", "value": "contact"}),
    ),
    ("commands_fit_one_image", "one container", lambda b: b.pod()["containers"].append(b.container())),
    ("tls_is_on", "GRPC_TLS_CERT_FILE is None", lambda b: b.container()["env"].remove(b.setting("GRPC_TLS_CERT_FILE"))),
    ("tls_is_on", "GRPC_TLS_KEY_FILE is ''", lambda b: b.setting("GRPC_TLS_KEY_FILE").update(value="")),
    ("tls_is_on", "GRPC_TLS_CA_FILE is '/", lambda b: b.setting("GRPC_TLS_CA_FILE").update(value="/tmp/ca.crt")),
    ("tls_is_on", "must be 'None/tls.crt'", lambda b: b.pod()["volumes"][2]["secret"].update(secretName="contact-tls")),
    (
        "tls_is_on",
        "speaks PLAINTEXT to Kafka",
        lambda b: b.get("ConfigMap", "shop")["data"].update(KAFKA_SECURITY_PROTOCOL="PLAINTEXT"),
    ),
    ("tls_is_on", "speaks None to Kafka", lambda b: b.get("ConfigMap", "shop")["data"].pop("KAFKA_SECURITY_PROTOCOL")),
    (
        "tls_is_on",
        "in no folder of authorities",
        lambda b: b.get("ConfigMap", "shop")["data"].update(KAFKA_SSL_CA_FILE="/tmp/kafka.crt"),
    ),
    ("tls_is_on", "PGSSLMODE", lambda b: b.get("ConfigMap", "shop")["data"].update(PGSSLMODE="require")),
    (
        "secrets_are_files",
        "'contact-tls': '/run/secrets/tls'}",
        lambda b: b.pod()["volumes"][2]["secret"].update(secretName="contact-tls"),
    ),
]


@pytest.mark.parametrize(("rule", "words", "break_it"), BREAKS, ids=[f"{rule}-{words}" for rule, words, _ in BREAKS])
def test_a_broken_manifest_is_refused(base: list[Object], rule: str, words: str, break_it: Break) -> None:
    broken = Broken(base)
    break_it(broken)
    manifests = Manifests(broken.objects)
    rules = {known.__name__: known for known in check.FORM + check.RULES}
    said = [f"{problem.where}: {problem.what}" for problem in rules[rule](manifests)]
    assert any(words in line for line in said), said


def test_no_rule_is_without_a_manifest_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BREAKS} == {rule.__name__ for rule in check.FORM + check.RULES}
