"""Browsers' calls through Envoy to a server of ours: what it makes of them that no other client sends."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from email.message import Message

import pytest

from deploy.local.stack import Stack
from deploy.local.temporary import temporary_stack
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
