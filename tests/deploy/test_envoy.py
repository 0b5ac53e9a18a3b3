"""The way in for browsers: JSON, gRPC-Web and CORS, in front of an ordinary gRPC server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deploy.local import envoy
from deploy.local.ports import DEFAULTS, HOST
from deploy.local.service import ROOT
from deploy.local.stack import Stack
from deploy.local.temporary import temporary_stack
from services.chassis.telemetry import JOURNEY_METADATA
from shop.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from shop.contact.v1 import contact_pb2, contact_pb2_grpc

LIST = "/shop.catalog.v1.CatalogService/ListProducts"
WATCH = "/shop.contact.v1.HotlineService/WatchContact"
ORIGIN = "http://localhost:5173"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envoy, "CALL_SECONDS", 3)
        with temporary_stack(("envoy",)) as stack:
            yield stack


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    """Lists one page, and refuses the page token "broken" with a typed reason."""

    async def ListProducts(self, request: Any, context: Any) -> catalog_pb2.ListProductsResponse:
        if request.page_token == "broken":
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason="PAGE_TOKEN_INVALID", metadata={"token": "broken"}))
            status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="no such page", details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such page")
        return catalog_pb2.ListProductsResponse(next_page_token=f"after {request.page_size}")


class Hotline(contact_pb2_grpc.HotlineServiceServicer):
    """Has one contact, and news of it once it is over."""

    over = asyncio.Event()

    async def WatchContact(self, request: Any, context: Any) -> AsyncIterator[contact_pb2.WatchContactResponse]:
        yield contact_pb2.WatchContactResponse(contact=contact_pb2.Contact(contact_id="waiting"))
        await self.over.wait()
        yield contact_pb2.WatchContactResponse(contact=contact_pb2.Contact(contact_id="over"))


@pytest.fixture(scope="module", autouse=True)
async def server(gateway: Stack) -> AsyncIterator[None]:
    server = grpc.aio.server()
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(), server)  # type: ignore[abstract]  # one is enough
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    contact_pb2_grpc.add_HotlineServiceServicer_to_server(Hotline(), server)  # type: ignore[abstract]
    server.add_insecure_port(gateway.address("catalog"))
    server.add_insecure_port(gateway.address("contact"))
    await server.start()
    yield
    await server.stop(None)


Answer = tuple[int, dict[str, str], bytes]


async def call(url: str, body: bytes, headers: dict[str, str], method: str = "POST") -> Answer:
    """In a thread, since the server answers on this loop."""

    def send() -> Answer:
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, dict(answer.headers.items()), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers.items()), error.read()

    return await asyncio.to_thread(send)


async def test_plain_json_reaches_the_service(gateway: Stack) -> None:
    code, _, body = await call(gateway.envoy_url + LIST, b'{"pageSize": 7}', {"content-type": "application/json"})
    assert (code, json.loads(body)["nextPageToken"]) == (200, "after 7")


async def test_an_error_keeps_its_reason_and_numbers_in_json(gateway: Stack) -> None:
    headers = {"content-type": "application/json"}
    code, _, body = await call(gateway.envoy_url + LIST, b'{"pageToken": "broken"}', headers)
    found = json.loads(body)
    assert (code, found["code"], found["message"]) == (400, 3, "no such page")
    (detail,) = found["details"]
    assert (detail["reason"], detail["metadata"]) == ("PAGE_TOKEN_INVALID", {"token": "broken"})


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "reason"),
    [
        (LIST + "Twice", b"", 404, 5, "UNKNOWN_METHOD"),
        ("/nowhere", b"", 404, 5, "UNKNOWN_METHOD"),
        (LIST + "?pagesize_=7", b"", 400, 3, "MALFORMED_REQUEST"),
        (LIST, b'{"pageSize": "many"}', 400, 3, "MALFORMED_REQUEST"),
        (LIST, b'{"pageToken": "\xff"}', 400, 3, "MALFORMED_REQUEST"),
        (LIST, b"{no json", 400, 3, "MALFORMED_REQUEST"),
    ],
)
async def test_what_the_gateway_refuses_reads_as_a_services_refusal(
    gateway: Stack, path: str, body: bytes, status: int, code: int, reason: str
) -> None:
    found, headers, answer = await call(gateway.envoy_url + path, body, {"content-type": "application/json"})
    assert (found, headers["content-type"]) == (status, "application/json")
    told = json.loads(answer)
    (detail,) = told["details"]
    assert (told["code"], detail["reason"], detail["domain"]) == (code, reason, "shop")
    assert detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc-web+proto"])
async def test_a_refused_grpc_call_gets_no_json(gateway: Stack, kind: str) -> None:
    _, headers, answer = await call(gateway.envoy_url + "/nowhere", b"", {"content-type": kind})
    assert headers.get("content-type") != "application/json"
    assert b"{" not in answer
    assert "{" not in headers.get("grpc-message", "")


async def test_a_browser_speaks_grpc_web(gateway: Stack) -> None:
    message = catalog_pb2.ListProductsRequest(page_size=3).SerializeToString()
    frame = b"\x00" + len(message).to_bytes(4, "big") + message
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": ORIGIN}
    code, answered, body = await call(gateway.envoy_url + LIST, frame, headers)
    assert code == 200
    assert answered["access-control-allow-origin"] == ORIGIN
    assert b"after 3" in body
    assert b"grpc-status:0" in body


async def test_a_call_that_never_ends_is_ended_and_a_stream_is_not(gateway: Stack) -> None:
    async with grpc.aio.insecure_channel(gateway.envoy_url.removeprefix("http://")) as channel:
        watch: Any = contact_pb2_grpc.HotlineServiceStub(channel).WatchContact
        news = aiter(watch(contact_pb2.WatchContactRequest()))
        assert (await anext(news)).contact.contact_id == "waiting"
        # The service does not begin a call without a message.
        headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
        code, _, _ = await call(gateway.envoy_url + LIST, b"", headers)
        assert code == 504
        Hotline.over.set()
        assert (await anext(news)).contact.contact_id == "over"


async def test_a_request_that_is_never_sent_whole_is_ended(gateway: Stack) -> None:
    reader, writer = await asyncio.open_connection(HOST, gateway.ports["envoy"])
    head = f"POST {WATCH} HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{{"
    writer.write(head.encode())
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 30)
    writer.close()


@pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, True), ("https://elsewhere.example", False)])
async def test_only_pages_of_this_machine_may_call(gateway: Stack, origin: str, allowed: bool) -> None:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-grpc-web,authorization",
    }
    _, answered, _ = await call(gateway.envoy_url + LIST, b"", headers, "OPTIONS")
    assert ("access-control-allow-origin" in answered) is allowed


async def test_a_page_may_name_its_journey_and_read_it(gateway: Stack) -> None:
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": f"x-grpc-web,{JOURNEY_METADATA}",
    }
    _, allowed, _ = await call(gateway.envoy_url + LIST, b"", headers, "OPTIONS")
    assert JOURNEY_METADATA in allowed["access-control-allow-headers"].split(",")
    headers = {"content-type": "application/json", "origin": ORIGIN}
    _, answered, _ = await call(gateway.envoy_url + LIST, b"{}", headers)
    assert JOURNEY_METADATA in answered["access-control-expose-headers"].split(",")


async def test_health_of_a_picked_service_is_reached_over_grpc(gateway: Stack) -> None:
    async with grpc.aio.insecure_channel(gateway.envoy_url.removeprefix("http://")) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # not in its stubs
        picked = ((envoy.PICK_HEADER, "catalog"),)
        answer = await check(health_pb2.HealthCheckRequest(), metadata=picked)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as nobody:
            await check(health_pb2.HealthCheckRequest(), metadata=((envoy.PICK_HEADER, "loyalty"),))
        assert nobody.value.code() == grpc.StatusCode.UNAVAILABLE


def test_the_configuration_of_the_default_ports_is_valid(tmp_path: Path) -> None:
    described, services, streams = envoy.describe((ROOT / "proto" / "shop.binpb").read_bytes())
    (tmp_path / "shop.binpb").write_bytes(described)
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(envoy.configuration(DEFAULTS, tmp_path / "shop.binpb", services, streams)))
    command = [str(envoy.program()), "--mode", "validate", "-c", str(config), "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_service_of_the_contracts_has_a_route() -> None:
    _, services, streams = envoy.describe((ROOT / "proto" / "shop.binpb").read_bytes())
    config = envoy.configuration(DEFAULTS, Path("shop.binpb"), services, streams)
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    matches = [route["match"] for route in manager["route_config"]["virtual_hosts"][0]["routes"]]
    prefixes = [match["prefix"] for match in matches if "prefix" in match]
    assert services
    assert [name for name in services if not any(f"/{name}/".startswith(prefix) for prefix in prefixes)] == []
