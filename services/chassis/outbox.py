"""The outbox: facts are saved in the transaction of the state they announce, with their trace context."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.chassis.facts import CONTENT_TYPE, Fact

if TYPE_CHECKING:
    from services.chassis.database import Connection

# The last digit of a trace context's flags, when their lowest bit is set.
SAMPLED = tuple("13579bdf")


@dataclass(frozen=True, slots=True)
class Row:
    """A message to be sent as it is. The text of a header is its bytes, read as latin-1."""

    topic: str
    key: bytes | None
    headers: Mapping[str, str]
    value: bytes | None


def row(fact: Fact, service: str, time: str, carried: Mapping[str, str]) -> Row:
    """A fact as a message, with the trace context and baggage it carries."""
    return Row(
        fact.topic.name,
        fact.key.encode(),
        {**headers(fact, service, time), **carried},
        fact.message.SerializeToString(),
    )


async def write(connection: Connection, rows: Sequence[Row]) -> None:
    """Writes messages in their order, in one statement."""
    await connection.execute(
        "INSERT INTO outbox (topic, key, headers, value)"
        " SELECT * FROM unnest($1::text[], $2::bytea[], $3::json[], $4::bytea[])",
        [row.topic for row in rows],
        [row.key for row in rows],
        [json.dumps(row.headers) for row in rows],
        [row.value for row in rows],
    )


def headers(fact: Fact, service: str, time: str) -> dict[str, str]:
    """The CloudEvents headers of a fact."""
    return {
        "ce_specversion": "1.0",
        "ce_id": fact.id,
        "ce_source": f"/shop/{service}",
        "ce_type": fact.message.DESCRIPTOR.full_name,
        "ce_time": time,
        "content-type": CONTENT_TYPE,
    }


def sampled(headers: Mapping[str, str]) -> bool:
    """Whether the trace context in the headers says that somebody records."""
    return headers.get("traceparent", "")[-1:] in SAMPLED
