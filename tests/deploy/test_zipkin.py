"""The trace backend finds a journey by its id."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.local.stack import Stack
from deploy.local.supervision import wait_until
from deploy.local.temporary import temporary_stack


@pytest.fixture(scope="module")
def backend() -> Iterator[Stack]:
    with temporary_stack(("zipkin",)) as stack:
        yield stack


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def test_a_journey_is_found_by_its_id(backend: Stack) -> None:
    span = {
        "traceId": "a" * 32,
        "id": "b" * 16,
        "name": "place order",
        "timestamp": int(time.time() * 1e6),
        "duration": 1000,
        "localEndpoint": {"serviceName": "shipping"},
        "tags": {"journey.id": "j-1"},
    }
    request = urllib.request.Request(
        backend.environment("shipping")["OTEL_EXPORTER_ZIPKIN_ENDPOINT"],
        json.dumps([span]).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202
    query = urllib.parse.urlencode({"annotationQuery": "journey.id=j-1"})
    url = f"{backend.zipkin_url}/api/v2/traces?{query}"
    wait_until(lambda: bool(get(url)), 10, "the journey was not found")
    assert get(url)[0][0]["id"] == "b" * 16


def test_journeys_can_be_completed_on_its_page(backend: Stack) -> None:
    assert "journey.id" in get(f"{backend.zipkin_url}/api/v2/autocompleteKeys")
