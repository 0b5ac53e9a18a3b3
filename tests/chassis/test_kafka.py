"""How our producers behave when there is no broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaClient

from services.chassis import kafka


async def test_a_producer_asks_patiently_who_leads_what(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, rests = [False, False, True], []

    async def ask(client: Any, *arguments: Any) -> bool:
        return answers.pop(0)

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(AIOKafkaClient, "_metadata_update", ask)
    producer = kafka.producer("127.0.0.1:1", "trial")
    with monkeypatch.context() as resting:
        resting.setattr(asyncio, "sleep", rest)
        assert [await producer.client._metadata_update() for _ in range(3)] == [False, False, True]
    assert rests == [kafka.PATIENCE_SECONDS] * 2
    await producer.stop()
