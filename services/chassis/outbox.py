"""The outbox: facts are saved in the transaction of the state they announce, with their trace context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from opentelemetry import propagate

from services.chassis.facts import CONTENT_TYPE, Fact

if TYPE_CHECKING:
    from services.chassis.database import Connection


async def append(connection: Connection, service: str, facts: Sequence[Fact]) -> None:
    """Writes the facts in their order, in one statement."""
    carried: dict[str, str] = {}
    propagate.inject(carried)
    time = datetime.now(UTC).isoformat()
    await connection.execute(
        "INSERT INTO outbox (topic, key, headers, value)"
        " SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::bytea[])",
        [fact.topic.name for fact in facts],
        [fact.key for fact in facts],
        [json.dumps({**headers(fact, service, time), **carried}) for fact in facts],
        [fact.message.SerializeToString() for fact in facts],
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
