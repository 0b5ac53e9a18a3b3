"""Background work goes on, whatever ends it: an outage is waited out, a mistake is told with its place."""

from __future__ import annotations

import logging

import pytest

from services.chassis import service
from services.chassis.errors import Unavailable


@pytest.mark.parametrize(
    ("trouble", "level", "message"),
    [
        (Unavailable("the database does not answer"), logging.WARNING, "background work waits"),
        (ZeroDivisionError(), logging.ERROR, "background work failed"),
    ],
)
async def test_background_work_begins_again(
    trouble: Exception, level: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    troubles = [trouble]

    async def work() -> None:
        if troubles:
            raise troubles.pop()

    await service._keep_running(work, "work")
    [record] = caplog.records
    assert (record.levelno, record.message) == (level, message)
    assert (record.exc_info is not None) == (level == logging.ERROR)
