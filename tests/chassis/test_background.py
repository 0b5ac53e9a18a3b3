"""Background work goes on, whatever ends it: an outage is waited out, a mistake is told with its place."""

from __future__ import annotations

import asyncio
import logging
from unittest.mock import AsyncMock

import pytest

from services.chassis import service, waiting
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


async def test_a_step_is_done_again_and_an_outage_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = Unavailable("the database does not answer", reason="DATABASE_AWAY")
    step, rest = AsyncMock(side_effect=[3, 0, away, away, away, 0, ZeroDivisionError()]), AsyncMock()
    monkeypatch.setattr(asyncio, "sleep", rest)
    with pytest.raises(ZeroDivisionError):
        await waiting.every(7, step)
    assert [call.args for call in rest.await_args_list] == [(7,)] * 5  # not after the step that found something
    assert [line.message for line in caplog.records] == ["background work waits"]


async def test_a_service_that_fails_while_it_gets_ready_says_so_and_tries_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, server = AsyncMock(), AsyncMock()
    app.ready.side_effect = [ZeroDivisionError(), None]
    await service._get_ready(app, server)
    server.set_serving.assert_awaited_once_with(True)
    assert [line.message for line in caplog.records if line.exc_info] == ["background work failed"]
