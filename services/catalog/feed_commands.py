"""The commands that bring a product feed to the service, and that write one."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import grpc

from services.catalog.feed_file import FeedFile, Progress, UnusableFile, batches, opened
from services.catalog.feed_writer import FeedWriter
from shop.catalog.v1 import records_pb2 as pb
from shop.catalog.v1 import records_pb2_grpc as rpc

CALL_SECONDS = 30
# The service checks one part while its database writes the other, and the next is read meanwhile.
IN_FLIGHT = 2
# What passes by itself: the service restarts, or somebody else holds what a part needs.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED)
PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


async def import_file(arguments: Sequence[str]) -> int:
    """The command `import-products`: streams a file to the service, shows progress, and reports each broken row.

    Returns 0 when the whole file was read, 1 when the service did not take it all, 2 when the file cannot be used.
    """
    parser = _parser("import-products", "Take in a product feed (Google Merchant Center's columns; TSV).")
    parser.add_argument("--locale", default="", help="language of the texts, such as de; empty is the shop's own")
    given = parser.parse_args(arguments)
    progress = Progress(given.file.name)
    try:
        with opened(given.file) as text:
            async with _service(given) as service:
                await _send(service, text, given.file.stat().st_size, given.locale, progress)
    except (OSError, UnusableFile) as error:
        progress.end()
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    except grpc.aio.AioRpcError as error:
        progress.end()
        print(f"the import stopped: {error.code().name} {error.details()}; run it again", file=sys.stderr)
        return 1
    progress.end()
    print(progress.summary)
    return 0


async def export_file(arguments: Sequence[str]) -> int:
    """The command `export-products`: writes the feed of what can be shipped now, row by row.

    Rows go to a file beside it, which takes its name when it is whole. An export that was stopped goes on where it was
    when it is run again. Returns 0 when the file is whole, 1 when the service stopped, 2 when it cannot be written.
    """
    parser = _parser("export-products", "Write the product feed of what can be shipped now (TSV).")
    parser.add_argument("--locale", default="", help="language of the texts; empty is the shop's own")
    parser.add_argument("--currency", default="", help="currency of the prices; empty is the shop's own")
    given = parser.parse_args(arguments)
    part = given.file.with_name(f"{given.file.name}.{given.locale or 'own'}.{given.currency or 'own'}.part")
    try:
        with FeedWriter(part) as writer:
            if writer.last_sku:
                print(f"{given.file.name}: going on after {writer.last_sku}", file=sys.stderr)
            request = pb.ExportProductsRequest(
                after_sku=writer.last_sku, locale=given.locale, currency_code=given.currency
            )
            async with _service(given) as service:
                async for answer in service.stub.ExportProducts(request, metadata=service.metadata):
                    writer.write(answer.rows)
        part.replace(given.file)
    except OSError as error:
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    except grpc.aio.AioRpcError as error:
        print(f"the export stopped: {error.code().name} {error.details()}; run it again", file=sys.stderr)
        return 1
    print(f"{given.file.name}: {writer.rows} rows")
    return 0


@dataclass(frozen=True, slots=True)
class _Service:
    """Catalog, called as an operator."""

    stub: rpc.CatalogAdminServiceAsyncStub
    metadata: tuple[tuple[str, str], ...]


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m services.catalog {command}", description=description)
    parser.add_argument("file", type=Path)
    parser.add_argument("--address", required=True, help="host:port of catalog's gRPC")
    parser.add_argument("--token-file", type=Path, required=True, help="file with an operator's token")
    return parser


@asynccontextmanager
async def _service(given: argparse.Namespace) -> AsyncIterator[_Service]:
    metadata = (("authorization", f"Bearer {given.token_file.read_text().strip()}"),)
    async with grpc.aio.insecure_channel(given.address) as channel:
        yield _Service(rpc.CatalogAdminServiceStub(channel), metadata)


async def _send(service: _Service, text: TextIO, size: int, locale: str, progress: Progress) -> None:
    calls: deque[asyncio.Task[pb.ImportProductsResponse]] = deque()

    async def call(rows: Sequence[pb.FeedRow]) -> pb.ImportProductsResponse:
        request = pb.ImportProductsRequest(rows=rows, locale=locale)
        for pause in PAUSES_SECONDS:
            try:
                return await service.stub.ImportProducts(request, metadata=service.metadata, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING:
                    raise
            await asyncio.sleep(pause)
        return await service.stub.ImportProducts(request, metadata=service.metadata, timeout=CALL_SECONDS)

    try:
        for rows in batches(FeedFile(text, progress, translation=bool(locale))):
            calls.append(asyncio.create_task(call(rows)))
            await asyncio.sleep(0)  # sends it before the next part is read
            if len(calls) == IN_FLIGHT:
                progress.add(await calls.popleft(), text.buffer.tell() / size)
        while calls:
            progress.add(await calls.popleft(), 1)
    finally:
        for unanswered in calls:
            unanswered.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
