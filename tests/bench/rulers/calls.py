"""The first ruler: a bare grpc.aio server on uvloop that returns bytes, and looks at nothing.

Given transactions to replay, it writes them before it answers: what inventory does when an order is placed, bare.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from ..replay import Replay
from .process import Obeying, obey
from .transactions import Connections

NUMBER = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class BareServer:
    """What to answer: "shop.catalog.v1.CatalogService/ListProducts" -> bytes."""

    answers: Mapping[str, bytes]
    # The request is the replay's number then (4 bytes, big endian).
    replay: Replay | None = None
    database_url: str = ""
    connections: int = 10


async def setup(given: BareServer) -> Obeying:
    connections = await Connections.opened(given.database_url, given.connections) if given.replay else None
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])

    def handler(method: str) -> Any:
        body = given.answers[method]

        async def answer(request: bytes, context: object) -> bytes:
            if given.replay and connections:
                async with connections.one() as connection:
                    await given.replay.run(connection, NUMBER.unpack(request)[0])
            return body

        return grpc.unary_unary_rpc_method_handler(answer)

    by_service: dict[str, dict[str, Any]] = {}
    for method in given.answers:
        service, name = method.split("/")
        by_service.setdefault(service, {})[name] = handler(method)
    for service, handlers in by_service.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def close() -> None:
        await server.stop(1)
        if connections:
            await connections.close()

    return {"address": f"127.0.0.1:{port}"}, {}, close


if __name__ == "__main__":
    obey(setup)
