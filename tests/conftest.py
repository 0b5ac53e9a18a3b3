"""Real parts for tests: started once per session, on free ports, with their own state, beside any `make up`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local.stack import EVERYTHING, INFRASTRUCTURE, Stack
from deploy.local.temporary import temporary_stack


@pytest.fixture(scope="session")
def infrastructure() -> Iterator[Stack]:
    """PostgreSQL, Kafka and the token issuer. `database_url(service)`, `kafka_bootstrap`, `mint(role)` lead to them."""
    with temporary_stack(INFRASTRUCTURE) as running:
        yield running


@pytest.fixture(scope="session")
def shop() -> Iterator[Stack]:
    """The whole shop: every part, and the five services behind Envoy."""
    with temporary_stack(EVERYTHING) as running:
        yield running
