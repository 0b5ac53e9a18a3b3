"""A journey as the trace backend (Zipkin) knows it: every hop, drawn as a tree."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

# service -> topic, and topic -> service: what the spans of sending and processing show.
Edge = tuple[str, str]
MESSAGE = re.compile(r"(send|process) (shop\.\S+)")


@dataclass(frozen=True, slots=True)
class Span:
    """One hop."""

    trace_id: str
    span_id: str
    parent_id: str | None
    service: str
    name: str
    kind: str
    # Microseconds since the epoch, and long.
    start: int
    duration: int
    tags: Mapping[str, str]


async def read(session: aiohttp.ClientSession, zipkin_url: str, journey_id: str) -> list[Span]:
    """All spans of a journey that arrived by now, oldest first."""
    query = {"annotationQuery": f"journey.id={journey_id}", "limit": "500", "lookback": str(24 * 3600 * 1000)}
    async with session.get(f"{zipkin_url}/api/v2/traces", params=query) as response:
        response.raise_for_status()
        traces = await response.json()
    spans = [
        Span(
            span["traceId"],
            span["id"],
            span.get("parentId"),
            span.get("localEndpoint", {}).get("serviceName", "?"),
            span.get("name", "?"),
            span.get("kind", ""),
            span.get("timestamp", 0),
            span.get("duration", 0),
            span.get("tags", {}),
        )
        for trace in traces
        for span in trace
    ]
    return sorted(spans, key=lambda span: span.start)


async def await_edges(
    session: aiohttp.ClientSession, zipkin_url: str, journey_id: str, wanted: Iterable[Edge], seconds: float = 20
) -> list[Span]:
    """The spans of a journey once every wanted edge is among them. Raises TimeoutError naming what is missing."""
    deadline = time.monotonic() + seconds
    while True:
        spans = await read(session, zipkin_url, journey_id)
        missing = set(wanted) - edges(spans)
        if not missing:
            return spans
        if time.monotonic() > deadline:
            raise TimeoutError(f"the trace backend does not show {sorted(missing)}")
        # Spans arrive in batches of the services' exporters; there is nothing to wait on.
        await asyncio.sleep(0.2)


def edges(spans: Sequence[Span]) -> set[Edge]:
    """Who called whom, who told a topic, and who heard it."""
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    found: set[Edge] = set()
    for span in spans:
        message = MESSAGE.fullmatch(span.name)
        if message:
            topic = message[2]
            found.add((span.service, topic) if message[1] == "send" else (topic, span.service))
            continue
        parent = by_id.get((span.trace_id, span.parent_id or ""))
        if parent and parent.service != span.service:
            found.add((parent.service, span.service))
    return found


def drawn(spans: Sequence[Span]) -> Iterator[str]:
    """The journey as a tree, one line a hop, each trace of it after the other."""
    known = {(span.trace_id, span.span_id) for span in spans}
    children: dict[tuple[str, str], list[Span]] = defaultdict(list)
    roots = []
    for span in spans:
        parent = (span.trace_id, span.parent_id or "")
        if parent in known:
            children[parent].append(span)
        else:
            roots.append(span)

    def lines(span: Span, prefix: str, last: bool) -> Iterator[str]:
        yield f"{prefix}{'└─' if last else '├─'} {span.service:<9} {span.name}  {span.duration / 1000:.1f} ms"
        below = children[span.trace_id, span.span_id]
        for number, child in enumerate(below):
            yield from lines(child, prefix + ("   " if last else "│  "), number == len(below) - 1)

    for number, root in enumerate(roots):
        yield from lines(root, "", number == len(roots) - 1)
