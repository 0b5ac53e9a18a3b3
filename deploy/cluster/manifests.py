"""Kubernetes objects as kustomize builds them, and the few ways our rules look at them."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Object = dict[str, Any]
PORT_KEYS = frozenset({"port", "containerPort", "hostPort", "targetPort", "nodePort", "endPort"})


class Problem(NamedTuple):
    """One breach of one rule: where it is and what is wrong."""

    where: str
    what: str


class BuildError(Exception):
    """kustomize could not build a folder, or had something to complain about; the text is its own."""


def build(folder: Path) -> list[Object]:
    """Build a kustomize folder offline and return its objects in output order. Raises BuildError."""
    done = subprocess.run([_kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stderr.strip():  # a warning today is an error of the next kustomize
        raise BuildError(done.stderr.strip())
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _kubectl() -> str:
    beside_python = Path(sys.executable).with_name("kubectl")
    found = str(beside_python) if beside_python.exists() else shutil.which("kubectl")
    if found is None:
        raise BuildError("kubectl is missing: install requirements-dev.lock")
    return found


class Manifests:
    """All objects of one build. Tolerates broken ones: what is not there reads as empty, and a rule then says so."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def of(self, *kinds: str) -> list[Object]:
        """Objects of these kinds."""
        return [candidate for candidate in self.objects if candidate.get("kind") in kinds]

    def find(self, kind: str, name: str) -> Object | None:
        """The object of that kind and name, if it exists."""
        return next((candidate for candidate in self.of(kind) if name_of(candidate) == name), None)

    def workloads(self) -> list[Object]:
        """What starts pods: the servers' Deployments and the migrations' Jobs."""
        return self.of("Deployment", "Job")

    def environment(self, workload: Object) -> dict[str, str]:
        """Name and value of all variables of a workload's first container; a value from elsewhere is empty."""
        values: dict[str, str] = {}
        container = next(iter(containers(workload)), {})
        for source in container.get("envFrom", []):
            config = self.find("ConfigMap", source.get("configMapRef", {}).get("name", ""))
            values |= (config or {}).get("data") or {}
        return values | {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}


def name_of(candidate: Object) -> str:
    """Name of an object."""
    return str(candidate.get("metadata", {}).get("name", "?"))


def where(candidate: Object) -> str:
    """How a report names an object: `deployment/catalog-server`."""
    return f"{str(candidate.get('kind', '?')).lower()}/{name_of(candidate)}"


def pod_template(workload: Object) -> Object:
    """Pod template of a Deployment or Job."""
    template: Object = workload.get("spec", {}).get("template", {})
    return template


def pod_spec(workload: Object) -> Object:
    """Pod specification of a Deployment or Job."""
    spec: Object = pod_template(workload).get("spec", {})
    return spec


def pod_labels(workload: Object) -> dict[str, str]:
    """Labels of the pods a workload starts."""
    labels: dict[str, str] = pod_template(workload).get("metadata", {}).get("labels", {})
    return labels


def service_of(workload: Object) -> str:
    """Which of the five services a workload belongs to, by the label of its pods."""
    return pod_labels(workload).get("app.kubernetes.io/name", "?")


def containers(workload: Object) -> list[Object]:
    """All containers of a workload's pods, those that run first included."""
    spec = pod_spec(workload)
    return [*spec.get("containers", []), *spec.get("initContainers", [])]


def mounted(workload: Object, container: Object, kind: str, name: str) -> dict[str, str]:
    """Where a container finds volumes of a kind, by the name of what is mounted."""
    volumes = {
        volume["name"]: volume[kind].get(name, "?")
        for volume in pod_spec(workload).get("volumes", [])
        if kind in volume
    }
    mounts = container.get("volumeMounts", [])
    return {volumes[mount["name"]]: mount["mountPath"] for mount in mounts if mount["name"] in volumes}


def selected(labels: dict[str, str], workloads: list[Object]) -> list[Object]:
    """Workloads whose pods carry all of these labels."""
    return [workload for workload in workloads if labels.items() <= pod_labels(workload).items()]


def ports_in(value: Any) -> Iterator[tuple[str, Any]]:
    """Every number or name under a key that means a port, wherever it stands: probes, services, policies."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in PORT_KEYS and not isinstance(inner, dict):
                yield key, inner
            yield from ports_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from ports_in(inner)
