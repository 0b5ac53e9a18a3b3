"""Browsers' calls through Envoy to a server of ours: what it makes of them that no other client sends."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from email.message import Message
from http.client import HTTPConnection
from typing import Any

import pytest

from deploy.local.ports import HOST
from deploy.local.stack import Stack
from deploy.local.temporary import temporary_stack
from services.chassis.peers import current_peer
from shop.contact.v1 import contact_pb2
from tests.chassis.grpc_rig import Issuer, Rig, issuing, serving, stand_in

HOTLINE = "shop.contact.v1.HotlineService"
GRPC_WEB = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Stack]:
    with temporary_stack(("envoy",)) as stack:
        yield stack


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture
async def contact(gateway: Stack, issuer: Issuer) -> AsyncIterator[Rig]:
    async with serving(issuer, stand_in(HOTLINE), grpc_port=gateway.ports["contact"]) as rig:
        yield rig


async def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[Message, bytes]:
    """In a thread, since the server answers on this loop."""

    def send() -> tuple[Message, bytes]:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as answer:
            return answer.headers, answer.read()

    return await asyncio.to_thread(send)


@pytest.mark.parametrize(("role", "status"), [("customer", b"3"), ("visitor", b"16")])
async def test_a_stream_without_a_message_is_answered(
    gateway: Stack, issuer: Issuer, contact: Rig, role: str, status: bytes
) -> None:
    headers = {**GRPC_WEB, **dict(issuer.bearer(role))}
    told, body = await post(f"{gateway.envoy_url}/{HOTLINE}/WatchContact", b"", headers)
    # Of an answer without a message, Envoy puts the status into the headers.
    assert (told["grpc-status"] or "").encode() == status or b"grpc-status:" + status in body


async def test_a_service_learns_where_a_call_comes_from_whatever_the_call_says(gateway: Stack, issuer: Issuer) -> None:
    seen: list[str | None] = []

    async def GetHotlineStatus(request: Any) -> Any:
        seen.append(current_peer())
        return contact_pb2.GetHotlineStatusResponse()

    def call(source: str, claimed: dict[str, str]) -> int:
        """A call from one of the addresses of this machine."""
        connection = HTTPConnection(HOST, gateway.ports["envoy"], timeout=20, source_address=(source, 0))
        with closing(connection):
            headers = {"content-type": "application/json", **claimed}
            connection.request("POST", f"/{HOTLINE}/GetHotlineStatus", b"{}", headers)
            return connection.getresponse().status

    hotline = stand_in(HOTLINE, GetHotlineStatus=GetHotlineStatus)
    async with serving(issuer, hotline, grpc_port=gateway.ports["contact"], grpc_trusted_proxies="127.0.0.1"):
        for claimed in ({}, {"x-forwarded-for": "127.0.0.3"}, {"x-forwarded-for": "192.0.2.1,127.0.0.1"}):
            assert await asyncio.to_thread(call, "127.0.0.2", claimed) == 200
        assert await asyncio.to_thread(call, "127.0.0.3", {}) == 200
    assert len(seen) == 4
    assert seen[0] == seen[1] == seen[2] != seen[3]
