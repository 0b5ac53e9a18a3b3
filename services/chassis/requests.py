"""Request ids: a repeat of a call that succeeded gets the same answer, written in the transaction of the call.

A repeat of a refusal is judged anew, for a refusal leaves nothing behind. A repeat while the first still runs waits for
it on the row both want to write. Answers are kept for `KEPT_DAYS`: a repeat that comes later runs anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import asyncpg
from google.protobuf.message import Message

from services.chassis.access import current_caller
from services.chassis.database import Database, Transaction
from services.chassis.errors import InvalidInput

R = TypeVar("R", bound=Message)
# Longer than anybody retries, and than a desk stays open.
KEPT_DAYS = 30
PRUNE = """
DELETE FROM requests WHERE ctid IN (
    SELECT ctid FROM requests WHERE create_time < now() - make_interval(days => $1) LIMIT $2)
RETURNING 1
"""


class RequestIdReused(InvalidInput):
    """The same request id came with another body before."""

    reason = "REQUEST_ID_REUSED"


async def once(
    database: Database,
    request: Message,
    response_type: type[R],
    run: Callable[[Transaction], Awaitable[R]],
    *,
    customer_id: str | None = None,
) -> R:
    """Runs a mutation in one transaction, or returns the answer it gave before. `customer_id`: as for `claim`.

    The id is unique per caller and method (the request's message type). Raises `RequestIdReused` for another body,
    `Conflict` when the first attempt still runs after the lock timeout, and what `run` raises.
    """
    async with database.transaction() as tx:
        stored = await claim(tx, request, customer_id)
        if stored is not None:
            return response_type.FromString(stored)
        response = await run(tx)
        await answer(tx, request, response)
        return response


async def answered(database: Database, request: Message, response_type: type[R]) -> R | None:
    """The answer this request got before, if it did: for whoever must call others before the transaction.

    Raises `RequestIdReused` for another body.
    """
    rows = await database.fetch(
        "SELECT body_hash, response FROM requests WHERE caller = $1 AND method = $2 AND request_id = $3", *_key(request)
    )
    return response_type.FromString(_same(rows[0], request)) if rows else None


async def claim(tx: Transaction, request: Message, customer_id: str | None = None) -> bytes | None:
    """Marks the request as running in this transaction. Returns the stored answer if it ran before.

    `customer_id`: whom the answer is about, where the request itself has no field of that name.
    """
    key = _key(request)
    # A row that another transaction is writing makes this statement wait for its end.
    claimed = await tx.connection.fetchval(
        "INSERT INTO requests (caller, method, request_id, body_hash, customer_id) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT DO NOTHING RETURNING true",
        *key,
        _body_hash(request),
        customer_id or getattr(request, "customer_id", None) or None,
    )
    if claimed:
        return None
    row = await tx.connection.fetchrow(
        "SELECT body_hash, response FROM requests WHERE caller = $1 AND method = $2 AND request_id = $3", *key
    )
    if row is None or row["response"] is None:
        raise RuntimeError("a finished request left no answer")
    return _same(row, request)


async def answer(tx: Transaction, request: Message, response: Message) -> None:
    """Keeps the answer of a claimed request."""
    await tx.connection.execute(
        "UPDATE requests SET response = $4 WHERE caller = $1 AND method = $2 AND request_id = $3",
        *_key(request),
        response.SerializeToString(),
    )


Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer a request got."""

    body_hash: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that is to run among others, in a transaction that is not its caller's alone."""

    key: Key
    body_hash: bytes
    customer_id: str | None

    @classmethod
    def of(cls, request: Message) -> Claim:
        """The request of the current caller."""
        return cls(_key(request), _body_hash(request), getattr(request, "customer_id", None) or None)

    def same(self, stored: Stored) -> bytes:
        """The stored answer. Raises `RequestIdReused` when it was to another body."""
        if stored.body_hash != self.body_hash:
            raise RequestIdReused([("request_id", "was used before with another request")])
        return stored.response


async def claim_all(tx: Transaction, claims: Sequence[Claim]) -> Mapping[Key, Stored]:
    """Makes sure that nobody else runs these requests until the transaction ends. Returns those that ran before.

    They are locked, not written: a refusal leaves nothing behind. No key stands twice.
    """
    locks = sorted(_lock_number(claim.key) for claim in claims)
    await tx.connection.execute("SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) key", locks)
    rows = await tx.connection.fetch(
        "SELECT r.* FROM unnest($1::text[], $2::text[], $3::text[]) AS k(caller, method, request_id)"
        " JOIN requests r USING (caller, method, request_id)",
        *zip(*(claim.key for claim in claims), strict=True),
    )
    return {
        (row["caller"], row["method"], row["request_id"]): Stored(row["body_hash"], row["response"]) for row in rows
    }


async def answer_all(tx: Transaction, answers: Sequence[tuple[Claim, Message]]) -> None:
    """Keeps the answers of claimed requests."""
    if not answers:
        return
    await tx.connection.execute(
        "INSERT INTO requests (caller, method, request_id, body_hash, customer_id, response)"
        " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::bytea[])",
        *zip(*(claim.key for claim, _ in answers), strict=True),
        [claim.body_hash for claim, _ in answers],
        [claim.customer_id for claim, _ in answers],
        [response.SerializeToString() for _, response in answers],
    )


def _lock_number(key: Key) -> int:
    digest = hashlib.blake2b("\n".join(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _same(row: asyncpg.Record, request: Message) -> bytes:
    if row["body_hash"] != _body_hash(request):
        raise RequestIdReused([("request_id", "was used before with another request")])
    response: bytes = row["response"]
    return response


def _key(request: Message) -> Key:
    return current_caller().key, request.DESCRIPTOR.full_name, getattr(request, "request_id")  # noqa: B009


def _body_hash(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
