"""The command that brings a stock file to the service.

The file is a count of what lies where. Its digest is its name: a row of the same file is taken in once, however often
the import is run.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import grpc

from services.inventory.stock_file import Progress, StockFile, UnusableFile, as_text
from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1 import inventory_pb2_grpc as rpc

# The service takes so many at once.
BATCH = 1000
CALL_SECONDS = 30
# The service checks one part while its database writes the other, and the next is read meanwhile.
IN_FLIGHT = 2
# What passes by itself: the service restarts, or somebody else holds what a part needs.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED)
PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


async def import_file(arguments: Sequence[str]) -> int:
    """The command `import-stock`: streams a file to the service, shows progress, and reports each broken row.

    Returns 0 when the whole file was read, 1 when the service did not take it all, 2 when the file cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m services.inventory import-stock",
        description="Take in a stock file (sku, location, quantity; TSV): a count of what lies where.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--address", required=True, help="host:port of inventory's gRPC")
    parser.add_argument("--token-file", type=Path, required=True, help="file with an operator's token")
    given = parser.parse_args(arguments)
    progress = Progress(given.file.name)
    try:
        metadata = (("authorization", f"Bearer {given.token_file.read_text().strip()}"),)
        with given.file.open("rb") as opened:
            document_id = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
            opened.seek(0)
            rows = StockFile(as_text(opened), progress)
            async with grpc.aio.insecure_channel(given.address) as channel:
                await _send(rpc.InventoryServiceStub(channel), metadata, document_id, rows, progress)
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


async def _send(
    service: rpc.InventoryServiceAsyncStub,
    metadata: tuple[tuple[str, str], ...],
    document_id: str,
    file: StockFile,
    progress: Progress,
) -> None:
    calls: deque[asyncio.Task[pb.ImportStockResponse]] = deque()

    async def call(rows: Sequence[pb.StockRow]) -> pb.ImportStockResponse:
        request = pb.ImportStockRequest(document_id=document_id, rows=rows)
        for pause in PAUSES_SECONDS:
            try:
                return await service.ImportStock(request, metadata=metadata, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING:
                    raise
            await asyncio.sleep(pause)
        return await service.ImportStock(request, metadata=metadata, timeout=CALL_SECONDS)

    try:
        rows = iter(file)
        while batch := list(islice(rows, BATCH)):
            calls.append(asyncio.create_task(call(batch)))
            await asyncio.sleep(0)  # sends it before the next part is read
            if len(calls) == IN_FLIGHT:
                progress.add(await calls.popleft())
        while calls:
            progress.add(await calls.popleft())
    finally:
        for unanswered in calls:
            unanswered.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
