"""The audit: balances recomputed from the ledger and from the reservations, and each difference named.

Page by page, each in a snapshot of its own: millions of levels are no long transaction and no large answer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from services.chassis.database import Database
from shop.inventory.v1 import inventory_pb2 as pb
from shop.inventory.v1 import inventory_pb2_grpc as rpc

# Each level with the sums of its books. LATERAL, so that the indexes are walked level by level.
BOOKS = """
SELECT s.*, booked.*, reserved.*, promised.*
FROM (SELECT * FROM stock WHERE (sku, location) > ($1, $2) ORDER BY sku, location LIMIT $3) s
CROSS JOIN LATERAL (
    SELECT coalesce(sum(on_hand_delta), 0)::bigint AS ledger_on_hand,
        coalesce(sum(held_delta), 0)::bigint AS ledger_held,
        coalesce(sum(committed_delta), 0)::bigint AS ledger_committed,
        coalesce(sum(safety_delta), 0)::bigint AS ledger_safety,
        coalesce(sum(greatest(on_hand_delta, 0)) FILTER (WHERE kind <> 'transfer'), 0)::bigint AS ledger_received,
        count(*) AS moves, coalesce(max(l.version), 0) AS last_version
    FROM ledger l WHERE l.sku = s.sku AND l.location = s.location
) booked
CROSS JOIN LATERAL (
    SELECT coalesce(sum(quantity), 0)::bigint AS lines_held FROM reservation_lines r
    WHERE r.sku = s.sku AND r.location = s.location AND r.held_until IS NOT NULL
) reserved
CROSS JOIN LATERAL (
    SELECT coalesce(sum(quantity - shipped), 0)::bigint AS lines_committed FROM reservation_lines r
    WHERE r.sku = s.sku AND r.location = s.location AND r.promised AND r.shipped < r.quantity
) promised
ORDER BY s.sku, s.location
"""
# What the level says, and what its books say.
COMPARED = (
    (pb.DRIFT_KIND_ON_HAND, "on_hand", "ledger_on_hand"),
    (pb.DRIFT_KIND_HELD, "held", "ledger_held"),
    (pb.DRIFT_KIND_COMMITTED, "committed", "ledger_committed"),
    (pb.DRIFT_KIND_SAFETY, "safety", "ledger_safety"),
    (pb.DRIFT_KIND_RECEIVED_TOTAL, "received_total", "ledger_received"),
    (pb.DRIFT_KIND_VERSION, "version", "moves"),
    (pb.DRIFT_KIND_HELD_LINES, "held", "lines_held"),
    (pb.DRIFT_KIND_COMMITTED_LINES, "committed", "lines_committed"),
)


async def audit(database: Database, sku: str, location: str, limit: int) -> tuple[list[Any], list[pb.Drift]]:
    """The levels after a position, in (sku, location) order, and every drift among them."""
    rows = await database.fetch(BOOKS, sku, location, limit)
    return rows, [drift for row in rows for drift in drifts(row)]


def drifts(row: Any) -> Iterator[pb.Drift]:
    """What disagrees about one level."""
    found = [(kind, row[said], row[books]) for kind, said, books in COMPARED if row[said] != row[books]]
    if row["moves"] == row["version"] != row["last_version"]:
        # As many movements as there should be, and yet not numbered in turn.
        found.append((pb.DRIFT_KIND_VERSION, row["version"], row["last_version"]))
    for balance in ("on_hand", "held", "committed", "safety"):
        if row[balance] < 0:
            found.append((pb.DRIFT_KIND_NEGATIVE, row[balance], 0))
    for kind, said, books in found:
        yield pb.Drift(sku=row["sku"], location=row["location"], kind=kind, balance=said, recomputed=books)


async def audit_all(arguments: Sequence[str]) -> int:
    """The command `audit`: asks the service page by page, names each drift, and fails when there is one."""
    parser = argparse.ArgumentParser(prog="python -m services.inventory audit", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of inventory's gRPC")
    parser.add_argument("--token-file", type=Path, required=True, help="file with an operator's token")
    given = parser.parse_args(arguments)
    levels = found = 0
    try:
        metadata = (("authorization", f"Bearer {given.token_file.read_text().strip()}"),)
        async with grpc.aio.insecure_channel(given.address) as channel:
            stub: rpc.InventoryServiceAsyncStub = rpc.InventoryServiceStub(channel)
            request = pb.AuditStockRequest()
            while True:
                answer = await stub.AuditStock(request, metadata=metadata, timeout=30)
                levels += answer.levels
                found += len(answer.drifts)
                for drift in answer.drifts:
                    kind = pb.DriftKind.Name(drift.kind).removeprefix("DRIFT_KIND_")
                    print(f"{drift.sku} at {drift.location}: {kind} is {drift.balance}, should be {drift.recomputed}")
                if sys.stderr.isatty():
                    print(f"\r{levels} levels", end="", file=sys.stderr, flush=True)
                if not answer.next_page_token:
                    break
                request.page_token = answer.next_page_token
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    except grpc.aio.AioRpcError as error:
        print(f"the audit stopped: {error.code().name} {error.details()}", file=sys.stderr)
        return 2
    print(f"{levels} levels, {found} drifts")
    return 1 if found else 0
