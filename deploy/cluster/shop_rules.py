"""Our own rules for the shop as a whole: every service complete, told what it needs, reached only by who may."""

from collections import Counter
from collections.abc import Iterator

from deploy.cluster.manifests import (
    Manifests,
    Object,
    Problem,
    name_of,
    pod_labels,
    selected,
    service_of,
    where,
)
from deploy.cluster.topology import CALLS, GRPC_PORT, METRICS_PORT, OPTIONAL, SERVICES, address_setting, environment

KNOWN_KINDS = frozenset(
    {
        ("apps/v1", "Deployment"),
        ("batch/v1", "Job"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("policy/v1", "PodDisruptionBudget"),
        ("v1", "ConfigMap"),
        ("v1", "Namespace"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
    }
)
"""What may be in a build. Another kind is added here on purpose, with rules for it."""

SERVER = {"app.kubernetes.io/component": "server"}


def kinds_are_known(manifests: Manifests) -> Iterator[Problem]:
    """Only kinds whose schema we have: a validator would let a kind it does not know pass unread."""
    for candidate in manifests.objects:
        kind = (candidate.get("apiVersion", ""), candidate.get("kind", ""))
        if kind not in KNOWN_KINDS:
            yield Problem(where(candidate), f"{'/'.join(kind)} is not a kind we know")


def objects_are_unique(manifests: Manifests) -> Iterator[Problem]:
    """No two objects of one kind and name: the later would silently win."""
    for place, count in Counter(where(candidate) for candidate in manifests.objects).items():
        if count > 1:
            yield Problem(place, f"is there {count} times")


def services_are_complete(manifests: Manifests) -> Iterator[Problem]:
    """Each of the five has all its objects, and no sixth has crept in."""
    for service in SERVICES:
        for kind, name in (
            ("Deployment", f"{service}-server"),
            ("Service", f"{service}-headless"),
            ("Job", f"{service}-migrate"),
            ("PodDisruptionBudget", f"{service}-server"),
            ("ServiceAccount", f"{service}-account"),
        ):
            if manifests.find(kind, name) is None:
                yield Problem(service, f"has no {kind} {name}")
        if not any(name_of(config).startswith(f"{service}-config") for config in manifests.of("ConfigMap")):
            yield Problem(service, "has no ConfigMap")
    for workload in manifests.workloads():
        if service_of(workload) not in SERVICES:
            yield Problem(where(workload), f"{service_of(workload)!r} is not a service of the shop")


def services_are_told_what_they_need(manifests: Manifests) -> Iterator[Problem]:
    """Exactly the settings of the table: the addresses of whom a service calls, and nobody else's."""
    for workload in manifests.workloads():
        service = service_of(workload)
        told = manifests.environment(workload)
        wanted = environment(service) if service in CALLS else frozenset()
        for name in sorted(wanted - told.keys()):
            yield Problem(where(workload), f"is not told {name}")
        for name in sorted(told.keys() - wanted - OPTIONAL):
            yield Problem(where(workload), f"is told {name}, which it does not need")
        for called in CALLS.get(service, ()):
            target = f"dns:///{called}-headless:{GRPC_PORT}"
            if told.get(address_setting(called), target) != target:
                yield Problem(where(workload), f"{address_setting(called)} must be {target}")


def references_exist(manifests: Manifests) -> Iterator[Problem]:
    """A ConfigMap or account that a pod names is in the same build."""
    for workload in manifests.workloads():
        spec = workload.get("spec", {}).get("template", {}).get("spec", {})
        if manifests.find("ServiceAccount", spec.get("serviceAccountName", "")) is None:
            yield Problem(where(workload), f"ServiceAccount {spec.get('serviceAccountName')} does not exist")
        for container in spec.get("containers", []):
            for source in container.get("envFrom", []):
                name = source.get("configMapRef", {}).get("name", "")
                if manifests.find("ConfigMap", name) is None:
                    yield Problem(where(workload), f"ConfigMap {name} does not exist")


def selectors_mean_one_server(manifests: Manifests) -> Iterator[Problem]:
    """What selects pods selects the servers of its own service: never a migration, never a neighbour."""
    for candidate in manifests.of("Deployment", "Service", "PodDisruptionBudget"):
        selector = candidate.get("spec", {}).get("selector", {})
        labels = selector if candidate["kind"] == "Service" else selector.get("matchLabels", {})
        found = [where(workload) for workload in selected(labels, manifests.workloads())]
        wanted = [f"deployment/{name_of(candidate).rsplit('-', 1)[0]}-server"]
        if found != wanted:
            yield Problem(where(candidate), f"selects {found or 'nothing'}, must be {wanted}")
        if candidate["kind"] == "Service" and candidate.get("spec", {}).get("clusterIP") != "None":
            yield Problem(where(candidate), "must be headless: clients take turns over the pods themselves")


def servers_can_be_left_out(manifests: Manifests) -> Iterator[Problem]:
    """The server label stands on the Deployments and nothing else, for the order of a release depends on it."""
    for candidate in manifests.objects:
        labels = candidate.get("metadata", {}).get("labels", {})
        if (SERVER.items() <= labels.items()) != (candidate.get("kind") == "Deployment"):
            yield Problem(where(candidate), "only Deployments carry the label component=server")


def nothing_passes_unasked(manifests: Manifests) -> Iterator[Problem]:
    """All traffic is denied first, and each permission names both who and which port."""
    closed = any(
        policy.get("spec", {}) == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        for policy in manifests.of("NetworkPolicy")
    )
    if not closed:
        yield Problem("networkpolicy", "no policy that denies everything to every pod")
    for policy, rule, peers in _permissions(manifests):
        if not peers or not rule.get("ports"):
            yield Problem(where(policy), "a permission must name peers and ports")
        for peer in peers:
            selectors = [value for key, value in peer.items() if key.endswith("Selector")]
            if any(not selector.get("matchLabels") or "matchExpressions" in selector for selector in selectors):
                yield Problem(where(policy), "a peer is selected by matchLabels, never by everything")
            if peer.get("ipBlock", {}).get("cidr", "").endswith("/0"):
                yield Problem(where(policy), "a peer must not be the whole world")


def calls_are_those_of_the_table(manifests: Manifests) -> Iterator[Problem]:
    """Between services, exactly the declared calls pass, and both ends say so."""
    wanted = {(f"{caller}-server", f"{called}-server") for caller, all_called in CALLS.items() for called in all_called}
    for direction in ("egress", "ingress"):
        found: set[tuple[str, str]] = set()
        for policy, rule, peers in _permissions(manifests, direction):
            ports = [port.get("port") for port in rule.get("ports", [])]
            for peer in peers:
                if "podSelector" not in peer or "namespaceSelector" in peer:
                    continue
                if ports != [GRPC_PORT]:
                    yield Problem(where(policy), f"services talk on {GRPC_PORT} only, found {ports}")
                near = [name_of(workload) for workload in _subjects(policy, manifests)]
                labels = peer["podSelector"].get("matchLabels", {})
                far = [name_of(workload) for workload in selected(labels, manifests.workloads())]
                found |= {(a, b) if direction == "egress" else (b, a) for a in near for b in far}
        for caller, called in sorted(wanted - found):
            yield Problem(f"{direction} policies", f"{caller} cannot call {called}")
        for caller, called in sorted(found - wanted):
            yield Problem(f"{direction} policies", f"{caller} may call {called}, which nobody declared")


def pods_reach_what_they_stand_on(manifests: Manifests) -> Iterator[Problem]:
    """Names, PostgreSQL, Kafka, collector; and servers are reached by the gateway and by Prometheus alone."""
    for workload in manifests.workloads():
        out = _open_ports(workload, manifests, "egress")
        needed = {53: "DNS", 5432: "PostgreSQL", 9093: "Kafka", 4317: "the collector"}
        for port, what in needed.items():
            if port not in out:
                yield Problem(where(workload), f"cannot reach {what} on {port}")
        reached = _open_ports(workload, manifests, "ingress")
        wanted = {GRPC_PORT, METRICS_PORT} if workload["kind"] == "Deployment" else set()
        if reached != wanted:
            yield Problem(where(workload), f"is open to the outside on {sorted(reached)}, must be {sorted(wanted)}")


def _permissions(manifests: Manifests, *directions: str) -> Iterator[tuple[Object, Object, list[Object]]]:
    """Each rule of each policy with its peers."""
    for policy in manifests.of("NetworkPolicy"):
        for direction in directions or ("egress", "ingress"):
            for rule in policy.get("spec", {}).get(direction) or []:
                yield policy, rule, rule.get("to" if direction == "egress" else "from") or []


def _subjects(policy: Object, manifests: Manifests) -> list[Object]:
    """Workloads whose pods a policy is about."""
    return selected(policy.get("spec", {}).get("podSelector", {}).get("matchLabels", {}), manifests.workloads())


def _open_ports(workload: Object, manifests: Manifests, direction: str) -> set[int]:
    """Ports open between a workload's pods and peers outside the shop."""
    return {
        port["port"]
        for policy, rule, peers in _permissions(manifests, direction)
        if any("namespaceSelector" in peer or "ipBlock" in peer for peer in peers)
        if pod_labels(workload) and workload in _subjects(policy, manifests)
        for port in rule.get("ports", [])
    }
