"""The stock file (sku, location, quantity; TSV): its rows checked, and the command that imports one.

The file is a count of what lies where. Its digest is its name: a row of the same file is taken in once, however often
the import is run.
"""

from __future__ import annotations

import argparse
import codecs
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import grpc

from services.inventory.usecases.stock import Counted
from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1 import inventory_pb2_grpc as rpc

COLUMNS = ("sku", "location", "quantity")
SKU = re.compile(r"[!-~]{1,64}")
LOCATION = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
QUANTITY = re.compile(r"[0-9]{1,7}")
MOST = 1_000_000
BATCH = 500
LINE_CHARACTERS = 10_000


def check_rows(rows: Iterable[pb.StockRow]) -> tuple[list[Counted], list[pb.RowProblem]]:
    """Splits rows into good ones and problems. Of two rows for one place, the first counts."""
    counts: list[Counted] = []
    problems: list[pb.RowProblem] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        wrong = _problem(row)
        if wrong is None and (row.sku, row.location) in seen:
            wrong = ("sku", f"{row.sku} at {row.location} stands twice; the first row counts")
        if wrong:
            problems.append(pb.RowProblem(line=row.line, field=wrong[0], reason=wrong[1]))
            continue
        seen.add((row.sku, row.location))
        counts.append(Counted(row.line, row.sku, row.location, int(row.quantity)))
    return counts, problems


def _problem(row: pb.StockRow) -> tuple[str, str] | None:
    if not SKU.fullmatch(row.sku):
        return "sku", "must be 1 to 64 printable ASCII characters without spaces"
    if not LOCATION.fullmatch(row.location):
        return "location", "must be 1 to 32 of a-z, 0-9 and -"
    if not QUANTITY.fullmatch(row.quantity) or int(row.quantity) > MOST:
        return "quantity", f"must be a whole number from 0 to {MOST}"
    return None


async def import_file(arguments: Sequence[str]) -> int:
    """The command `import-stock`: streams a file to the service, shows progress, and reports each broken row."""
    parser = argparse.ArgumentParser(prog="python -m services.inventory import-stock", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--address", required=True, help="host:port of inventory's gRPC")
    parser.add_argument("--token-file", type=Path, required=True, help="file with an operator's token")
    given = parser.parse_args(arguments)
    metadata = (("authorization", f"Bearer {given.token_file.read_text().strip()}"),)
    changed = unchanged = broken = 0
    try:
        document_id = f"sha256:{_digest(given.file)}"
        async with grpc.aio.insecure_channel(given.address) as channel:
            stub: rpc.InventoryServiceAsyncStub = rpc.InventoryServiceStub(channel)
            rows = _rows(given.file)
            while batch := list(islice(rows, BATCH)):
                answer = await stub.ImportStock(
                    pb.ImportStockRequest(document_id=document_id, rows=batch), metadata=metadata, timeout=30
                )
                changed += answer.changed
                unchanged += answer.unchanged
                broken += len(answer.problems)
                for problem in answer.problems:
                    print(f"{given.file.name}:{problem.line}: {problem.field}: {problem.reason}", file=sys.stderr)
                if sys.stderr.isatty():
                    print(f"\r{changed + unchanged + broken} rows", end="", file=sys.stderr, flush=True)
    except (OSError, ValueError) as error:
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    except grpc.aio.AioRpcError as error:
        print(f"\nthe import stopped: {error.code().name} {error.details()}; run it again", file=sys.stderr)
        return 1
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr, flush=True)
    print(f"{given.file.name}: {changed} changed, {unchanged} unchanged, {broken} broken")
    return 0


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _rows(file: Path) -> Iterator[pb.StockRow]:
    """The rows of a file, one by one; a line that cannot be read becomes a row that the service reports.

    Raises `ValueError` when a column is missing.
    """
    with _opened(file) as opened:
        header = _cells(opened.readline(LINE_CHARACTERS))
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise ValueError(f"the column {missing[0]} is missing; the first line must name {', '.join(COLUMNS)}")
        unknown = [column for column in header if column not in COLUMNS]
        if unknown:
            print(f"{file.name}: ignoring the columns {', '.join(map(ascii, unknown))}", file=sys.stderr)
        for number, line in enumerate(iter(lambda: opened.readline(LINE_CHARACTERS), ""), 2):
            if line.strip():
                cells = dict(zip(header, _cells(line), strict=False))
                yield pb.StockRow(line=number, **{column: cells.get(column, "") for column in COLUMNS})


def _opened(file: Path) -> TextIO:
    """The file as text. A wrong byte breaks its row, not the file."""
    with file.open("rb") as opened:
        utf_16 = opened.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return file.open(encoding="utf-16" if utf_16 else "utf-8-sig", errors="replace")


def _cells(line: str) -> list[str]:
    """The cells of one line. No value of ours has a tab or a line break in it, so quotes end where the line does."""
    return [cell.strip().strip('"').replace("\0", "\N{REPLACEMENT CHARACTER}") for cell in line.split("\t")]
