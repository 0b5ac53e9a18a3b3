"""The demo's story on the running shop: every step comes true, and every hop of it is in the trace backend."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.local.demo import journey
from deploy.local.demo.__main__ import fill
from deploy.local.demo.story import EDGES, Story, told
from deploy.local.stack import Stack
from tests.chaos.auditor import audit

README = Path("README.md")


@pytest.fixture(scope="module")
def filled(shop: Stack) -> Stack:
    """The shop with its goods. Filling it again changes nothing."""
    fill(shop)
    return shop


@pytest.fixture(scope="module")
async def played(filled: Stack) -> tuple[Story, list[str]]:
    """The story once it is over, and what it said."""
    lines: list[str] = []
    async with told(filled, lines.append) as story:
        await story.play()
    return story, lines


def test_every_hop_is_in_the_trace_backend(played: tuple[Story, list[str]]) -> None:
    story, _ = played
    assert journey.edges(story.spans) >= EDGES


def test_the_journey_crosses_every_service(played: tuple[Story, list[str]]) -> None:
    story, lines = played
    assert {span.service for span in story.spans} >= {"inventory", "catalog", "shipping", "loyalty", "contact"}
    assert any("shipping  shop.shipping.v1.shippingservice/placeorder" in line.lower() for line in lines)


async def test_a_hop_that_never_was_is_missed(filled: Stack, played: tuple[Story, list[str]]) -> None:
    story, _ = played
    wrong = ("catalog", "shop.shipping.orders.v1")
    async with aiohttp.ClientSession() as http:
        with pytest.raises(TimeoutError, match=re.escape(str(wrong))):
            await journey.await_edges(http, filled.zipkin_url, story.journey_id, EDGES | {wrong}, seconds=0)


async def test_the_story_can_be_played_again(filled: Stack, played: tuple[Story, list[str]]) -> None:
    first, _ = played
    async with told(filled, lambda line: None) as story:
        await story.play()
    assert story.sku != first.sku
    assert story.order.order_id != first.order.order_id


async def test_the_line_of_the_readme_gets_products(filled: Stack) -> None:
    answer = await _pasted(filled)
    assert len(answer["products"]) == 2
    assert all(int(variant["free"]) > 0 for product in answer["products"] for variant in product["variants"])
    assert answer["contactOptions"]["phoneNumber"]


async def _pasted(stack: Stack) -> Any:
    """Does what the README's first curl line does, on this shop; curl itself need not be there."""
    found = re.search(r"^curl .*?[^\\]$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    words = shlex.split(found[0].replace("\\\n", " ").replace("http://127.0.0.1:18080", stack.envoy_url))
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="header")
    parser.add_argument("-d", dest="data")
    parser.add_argument("url")
    asked = parser.parse_args(words[1:])
    headers = dict([asked.header.split(": ")])
    async with (
        aiohttp.ClientSession() as http,
        http.request(asked.method, asked.url, headers=headers, data=asked.data) as response,
    ):
        assert response.status == 200
        return await response.json()


async def test_the_books_are_in_order_afterwards(filled: Stack, played: tuple[Story, list[str]]) -> None:
    findings = await audit(filled)
    assert not findings.problems, "\n".join(findings.lines())
