"""The two ways in: what a browser does (JSON through Envoy), and what our own people's tools do (gRPC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import aiohttp
import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from ..stack import Stack

R = TypeVar("R", bound=Message)
SECONDS = 10


class Refused(Exception):
    """A typed answer that is no: its reason in capitals, and its numbers."""

    def __init__(self, reason: str, message: str, details: Mapping[str, str]) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.details = dict(details)


def new_id(kind: str) -> str:
    """A fresh id, such as req_3f2a…"""
    return f"{kind}_{uuid4().hex[:16]}"


@dataclass(slots=True)
class Browser:
    """One person's browser: speaks JSON to Envoy, bears that person's token and one journey id."""

    session: aiohttp.ClientSession
    envoy_url: str
    token: str | None = None
    journey_id: str = field(default_factory=lambda: new_id("journey"))

    async def call(self, method: str, request: Message, answer: type[R]) -> R:
        """Calls `shop.catalog.v1.CatalogService/ListProducts` and the like. Raises `Refused`."""
        headers = {"content-type": "application/json", "journey-id": self.journey_id}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        async with self.session.post(
            f"{self.envoy_url}/{method}",
            data=json_format.MessageToJson(request),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=SECONDS),
        ) as response:
            body = await response.json()
        if response.status != 200:
            raise _refused(body)
        return json_format.ParseDict(body, answer(), ignore_unknown_fields=True)


def _refused(body: Mapping[str, Any]) -> Refused:
    for detail in body.get("details", ()):
        if detail.get("@type", "").endswith("google.rpc.ErrorInfo"):
            return Refused(detail["reason"], body.get("message", ""), detail.get("metadata", {}))
    return Refused(str(body.get("code", "UNKNOWN")), body.get("message", str(body)), {})


class Tools:
    """What our own people use: gRPC straight to a service, with a role of theirs."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, service: str) -> grpc.aio.Channel:
        """The one channel to a service."""
        if service not in self._channels:
            self._channels[service] = grpc.aio.insecure_channel(self._stack.address(service))
        return self._channels[service]

    def metadata(self, role: str, journey_id: str = "", **claims: str) -> Sequence[tuple[str, str]]:
        """Who calls, and for which journey."""
        bearer = ("authorization", f"Bearer {self._stack.mint(role, **claims)}")
        return (bearer, ("journey-id", journey_id)) if journey_id else (bearer,)

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels.values():
            await channel.close()
