"""Our own rules for pods: what a schema cannot know."""

from collections.abc import Iterator

from deploy.cluster.manifests import (
    Manifests,
    Object,
    Problem,
    containers,
    mounted,
    name_of,
    pod_spec,
    ports_in,
    service_of,
    where,
)
from deploy.cluster.topology import GRPC_PORT, HEALTH_PORT, METRICS_PORT, SECRETS, TOKEN_AUDIENCE

STOP_SECONDS = 30
"""What a process may take once it refuses new calls: finish those that run, stop consumers, close pools."""


def pods_ask_for_nothing(manifests: Manifests) -> Iterator[Problem]:
    """Numeric non-root user, read-only root, no capability, no way up, nothing of the node."""
    for workload in manifests.workloads():
        spec = pod_spec(workload)
        pod = spec.get("securityContext", {})
        wanted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        yield from _differences(where(workload), pod, wanted)
        if not (isinstance(pod.get("runAsUser"), int) and pod["runAsUser"] > 0):
            yield Problem(where(workload), "runAsUser must be a number above 0")
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield Problem(where(workload), f"{key} is not for us")
        for volume in spec.get("volumes", []):
            if "hostPath" in volume:
                yield Problem(where(workload), f"volume {volume.get('name')} reaches into the node")
        for container in containers(workload):
            context = container.get("securityContext", {})
            wanted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            yield from _differences(where(workload), context, wanted)
            for key in ("privileged", "runAsUser", "runAsNonRoot", "seccompProfile"):
                if key in context:
                    yield Problem(where(workload), f"container overrides {key}")


def _differences(place: str, found: Object, wanted: Object) -> Iterator[Problem]:
    for key, value in wanted.items():
        if found.get(key) != value:
            yield Problem(place, f"{key} is {found.get(key)!r}, must be {value!r}")


def containers_have_limits(manifests: Manifests) -> Iterator[Problem]:
    """Requests and limits for processor and memory, each."""
    for workload in manifests.workloads():
        for container in containers(workload):
            resources = container.get("resources", {})
            for side in ("requests", "limits"):
                for resource in ("cpu", "memory"):
                    if resource not in resources.get(side, {}):
                        yield Problem(where(workload), f"no {resource} in resources.{side}")


def servers_are_probed(manifests: Manifests) -> Iterator[Problem]:
    """Three gRPC probes, on the port without TLS; being alive is asked apart from being able to serve."""
    for server in manifests.of("Deployment"):
        for container in containers(server):
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                grpc = container.get(probe, {}).get("grpc")
                if grpc is None:
                    yield Problem(where(server), f"no gRPC {probe}")
                    continue
                if grpc.get("port") != HEALTH_PORT:
                    yield Problem(where(server), f"{probe} asks port {grpc.get('port')}, health is on {HEALTH_PORT}")
                asked = grpc.get("service", "")
                if asked != ("" if probe == "readinessProbe" else "liveness"):
                    yield Problem(where(server), f"{probe} asks for health of {asked!r}")


def ports_exist(manifests: Manifests) -> Iterator[Problem]:
    """Numbers from 1 to 65535, in containers above 1023; names that a container has; one number everywhere."""
    for candidate in manifests.objects:
        for key, port in ports_in(candidate.get("spec", {})):
            lowest = 1024 if key == "containerPort" else 1
            if isinstance(port, int) and not lowest <= port <= 65535:
                yield Problem(where(candidate), f"{key} {port} is not between {lowest} and 65535")
    for server in manifests.of("Deployment"):
        found = {port.get("name"): port.get("containerPort") for c in containers(server) for port in c.get("ports", [])}
        if found != {"grpc": GRPC_PORT, "metrics": METRICS_PORT, "health": HEALTH_PORT}:
            yield Problem(where(server), f"ports are {found}")
        told = manifests.environment(server)
        for setting, value in {
            "GRPC_HOST": "0.0.0.0",
            "GRPC_PORT": str(GRPC_PORT),
            "GRPC_HEALTH_PORT": str(HEALTH_PORT),
            "METRICS_HOST": "0.0.0.0",
            "METRICS_PORT": str(METRICS_PORT),
        }.items():
            if told.get(setting) != value:
                yield Problem(where(server), f"{setting} is {told.get(setting)!r}, must be {value!r}")


def servers_drain(manifests: Manifests) -> Iterator[Problem]:
    """Endpoints forget a pod before its process hears of the end, and the process has the time it needs."""
    for server in manifests.of("Deployment"):
        grace = pod_spec(server).get("terminationGracePeriodSeconds", 30)
        drain = manifests.environment(server).get("DRAIN_SECONDS", "")
        for container in containers(server):
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds")
            if not pause or not drain.isdigit():
                yield Problem(where(server), f"needs a preStop sleep and DRAIN_SECONDS, has {pause} and {drain!r}")
            elif grace < pause + int(drain) + STOP_SECONDS:
                yield Problem(
                    where(server), f"{grace} s of grace < {pause} preStop + {drain} drain + {STOP_SECONDS} stop"
                )


def replicas_outlive_a_node(manifests: Manifests) -> Iterator[Problem]:
    """Two or more, spread over nodes and zones, none missing during a release."""
    for server in manifests.of("Deployment"):
        spec = server.get("spec", {})
        if spec.get("replicas", 1) < 2:
            yield Problem(where(server), "fewer than 2 replicas")
        if spec.get("strategy", {}).get("rollingUpdate", {}).get("maxUnavailable") != 0:
            yield Problem(where(server), "a release must not take capacity away: maxUnavailable 0")
        spread = {constraint.get("topologyKey") for constraint in pod_spec(server).get("topologySpreadConstraints", [])}
        if spread != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
            yield Problem(where(server), "must spread over nodes and zones")


def identity_is_a_token_for_the_shop(manifests: Manifests) -> Iterator[Problem]:
    """Own account, no token for the Kubernetes API, one for the shop where SERVICE_TOKEN_FILE says."""
    for workload in manifests.workloads():
        spec, service = pod_spec(workload), service_of(workload)
        if spec.get("serviceAccountName") != f"{service}-account":
            yield Problem(where(workload), f"runs as {spec.get('serviceAccountName')!r}, not {service}-account")
        if spec.get("automountServiceAccountToken") is not False:
            yield Problem(where(workload), "automountServiceAccountToken must be false")
        files = {
            f"{mount['mountPath']}/{source['serviceAccountToken']['path']}": source["serviceAccountToken"]["audience"]
            for container in containers(workload)
            for mount in container.get("volumeMounts", [])
            for volume in spec.get("volumes", [])
            if volume["name"] == mount["name"]
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        }
        told = manifests.environment(workload).get("SERVICE_TOKEN_FILE", "")
        if files != {told: TOKEN_AUDIENCE}:
            yield Problem(where(workload), f"SERVICE_TOKEN_FILE is {told!r}, mounted are {files}")
    for account in manifests.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield Problem(where(account), "automountServiceAccountToken must be false")


def secrets_are_files(manifests: Manifests) -> Iterator[Problem]:
    """No Secret and no secret value in a manifest; each service mounts its own two, and no other."""
    names = frozenset().union(*SECRETS.values())
    for secret in manifests.of("Secret"):
        yield Problem(where(secret), "secrets are made in the cluster, never here")
    for config in manifests.of("ConfigMap"):
        for name, value in (config.get("data") or {}).items():
            if name in names or _looks_secret(name, value):
                yield Problem(where(config), f"{name} is a secret")
    for workload in manifests.workloads():
        for container in containers(workload):
            for variable in container.get("env", []):
                value = variable.get("value", "")
                by_reference = "secretKeyRef" in variable.get("valueFrom", {})
                if variable["name"] in names or by_reference or _looks_secret(variable["name"], value):
                    yield Problem(where(workload), f"{variable['name']} is a secret: mount it as a file")
            if any("secretRef" in source for source in container.get("envFrom", [])):
                yield Problem(where(workload), "takes a Secret as environment: mount it as files")
            yield from _mounted(manifests, workload, container)


def _mounted(manifests: Manifests, workload: Object, container: Object) -> Iterator[Problem]:
    mounts = mounted(workload, container, "secret", "secretName")
    told, service = manifests.environment(workload), service_of(workload)
    certificate = told.get("GRPC_TLS_CERT_FILE", "").rpartition("/")[0]
    wanted = {f"{service}-secrets": told.get("SECRETS_DIR"), f"{service}-tls": certificate}
    if mounts != wanted:
        yield Problem(where(workload), f"mounts the secrets {mounts}, must be {wanted}")


def _looks_secret(name: str, value: str) -> bool:
    words = ("PASSWORD", "PASSWD", "SECRET", "PRIVATE", "CREDENTIAL", "API_KEY")
    credentials = "://" in value and "@" in value.split("://", 1)[1].split("/", 1)[0]
    return (
        credentials or "-----BEGIN" in value or (name != "SECRETS_DIR" and any(word in name.upper() for word in words))
    )


def images_are_pinned(manifests: Manifests) -> Iterator[Problem]:
    """One image for all, with a tag that means one release, or a digest."""
    images = {container.get("image", "") for workload in manifests.workloads() for container in containers(workload)}
    for image in images:
        tag = image.rsplit("/", 1)[-1].partition(":")[2]
        if "@sha256:" not in image and tag in ("", "latest"):
            yield Problem(image or "image", "needs a tag other than latest, or a digest")
    if len(images) > 1:
        yield Problem("images", f"one image for all services, found {sorted(images)}")


def commands_fit_one_image(manifests: Manifests) -> Iterator[Problem]:
    """`python -m services.<service>` serves, with `migrate` behind it prepares; SERVICE comes from the pod's label."""
    for workload in manifests.workloads():
        wanted = ["python", "-m", "services.$(SERVICE)"] + (["migrate"] if workload["kind"] == "Job" else [])
        first = containers(workload)[0] if containers(workload) else {}
        if first.get("command") != wanted or first.get("args"):
            yield Problem(where(workload), f"command is {first.get('command')} {first.get('args', '')}")
        variables = {variable["name"]: variable for variable in first.get("env", [])}
        source = variables.get("SERVICE", {}).get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if source != "metadata.labels['app.kubernetes.io/name']":
            yield Problem(where(workload), "SERVICE must come from the pod's own label")
        if len(pod_spec(workload).get("containers", [])) != 1 or pod_spec(workload).get("initContainers"):
            yield Problem(where(workload), f"one container only, in {name_of(workload)}")
