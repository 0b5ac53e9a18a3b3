"""The running shop, with callers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local.stack import Stack
from tests.journeys.rig import Shop


@pytest.fixture(scope="session")
async def calls(shop: Stack) -> AsyncIterator[Shop]:
    """Calls to the shop."""
    opened = Shop(shop)
    yield opened
    await opened.close()
