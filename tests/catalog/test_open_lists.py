"""Open lists follow what is sold on any replica, miss nothing over a break, and cost little however many watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any

import grpc
import pytest

from services.catalog import freshness, usecases, watching
from services.catalog.__main__ import Catalog
from services.catalog.store.stock import Level
from services.chassis import pages
from services.chassis.database import Database
from services.chassis.errors import InvalidInput
from services.chassis.service import Runtime
from services.chassis.values import to_datetime
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import catalog_pb2_grpc as rpc
from shop.contact.v1.contact_options_pb2 import CHANNEL_PHONE, ContactOptions
from tests.catalog.conftest import Shelf, level_changed
from tests.chassis.grpc_rig import Issuer, answer_of, serving

SECONDS = 20.0
Answers = AsyncGenerator[pb.WatchProductsResponse]


@asynccontextmanager
async def at_work(app: Catalog) -> AsyncIterator[None]:
    """The feed and the open lists of a process."""
    tasks = [asyncio.create_task(work()) for work in (app.changes.run, app._open_lists.watches.run)]
    try:
        async with asyncio.timeout(SECONDS):
            while app.changes.position is None:
                await asyncio.sleep(0.01)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def open_shelf(shelf: Shelf) -> AsyncIterator[Shelf]:
    """Products a, b and c of one size each, of which a has five and b one; and the process at work."""
    await shelf.feed(*({"id": f"{name}-41", "item_group_id": name, "size": "41"} for name in ("a", "b", "c")))
    await shelf.stock(**{"a-41": 5, "b-41": 1})
    async with at_work(shelf.app):
        yield shelf


@pytest.fixture
async def replica(open_shelf: Shelf) -> AsyncIterator[Catalog]:
    """Another process of catalog: its own pool, feed, kept answers and streams."""
    opened = Database(open_shelf.database._url, "catalog", pool_size=4)
    await opened.open()
    app = Catalog(Runtime(open_shelf.settings, opened, open_shelf.telemetry))
    async with at_work(app):
        yield app
    await app.close()
    await opened.close()


def watch(app: Catalog, *product_ids: str, token: str = "") -> Any:
    request = pb.WatchProductsRequest(product_ids=product_ids, resume_token=token)
    return aclosing(dict(app.servicers)["shop.catalog.v1.CatalogService"].WatchProducts(request))  # type: ignore[attr-defined]


async def heard_next(answers: Answers) -> pb.WatchProductsResponse:
    async with asyncio.timeout(SECONDS):
        return await anext(answers)


def free(answer: pb.WatchProductsResponse) -> dict[str, int]:
    return {product.product_id: sum(one.free for one in product.variants) for product in answer.products}


async def until_free(answers: Answers, **expected: int) -> pb.WatchProductsResponse:
    """Reads until the products were shown so."""
    shown: dict[str, int] = {}
    while True:
        answer = await heard_next(answers)
        shown |= free(answer)
        if shown.items() >= expected.items():
            return answer


async def test_products_as_they_are_now_then_each_change(open_shelf: Shelf) -> None:
    async with watch(open_shelf.app, "a", "b", "c", "nothing") as answers:
        first = await heard_next(answers)
        assert free(first) == {"a": 5, "b": 1, "c": 0, "nothing": 0}
        assert [one.product_id for one in first.products if one.sold_out] == ["c", "nothing"]
        assert first.contact_options.phone_number
        await open_shelf.stock(**{"b-41": 0})
        gone = await heard_next(answers)
        assert free(gone) == {"b": 0}
        assert gone.products[0].sold_out
        assert gone.contact_options.phone_number
        await open_shelf.stock(**{"b-41": 2})
        assert free(await heard_next(answers)) == {"b": 2}
        await open_shelf.feed({"id": "a-41", "item_group_id": "a", "size": "41", "price": "80.00 EUR"})
        dearer = await heard_next(answers)
        assert dearer.products[0].variants[0].price.units == 80


async def test_another_replica_s_changes_are_followed_and_its_kept_answers_go(
    open_shelf: Shelf, replica: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one process heard of leaves the lists and the open lists of another, without polling."""
    monkeypatch.setattr("services.catalog.changes.POLL_SECONDS", 3600.0)
    monkeypatch.setattr("services.catalog.answers.KEPT_SECONDS", 3600.0)
    storefront: Any = dict(replica.servicers)["shop.catalog.v1.CatalogService"]
    question = pb.ListProductsRequest()
    keeper = storefront.keepers["ListProducts"]

    async def listed() -> list[str]:
        raw = question.SerializeToString()
        body = keeper.get(raw) or await keeper.make(raw, lambda: storefront.ListProducts(question))
        return [product.product_id for product in pb.ListProductsResponse.FromString(body).products]

    await asyncio.sleep(0.3)  # the feed's last poll before it stops polling
    assert await listed() == ["a", "b"]
    async with watch(replica, "b") as answers:
        await heard_next(answers)
        await open_shelf.stock(**{"b-41": 0})
        assert free(await heard_next(answers)) == {"b": 0}
    async with asyncio.timeout(SECONDS):
        while await listed() != ["a"]:
            await asyncio.sleep(0.001)


async def test_a_stream_goes_on_where_it_stopped_on_any_replica(open_shelf: Shelf, replica: Catalog) -> None:
    async with watch(open_shelf.app, "a", "b") as answers:
        token = (await heard_next(answers)).resume_token
    await open_shelf.stock(**{"b-41": 0})
    async with watch(replica, "a", "b", token=token) as answers:
        missed = await heard_next(answers)
    # Only what changed; the transactions that were open when the token was made may be shown again.
    assert free(missed) in ({"b": 0}, {"a": 5, "b": 0})
    async with asyncio.timeout(SECONDS):
        while replica.changes.position[0] <= watching_xid(missed):  # type: ignore[index]
            await open_shelf.hear(level_changed("other", 1))
            await replica.changes.catch_up()
    async with watch(replica, "a", "b", token=missed.resume_token) as answers:
        nothing = await heard_next(answers)
        assert free(nothing) == {}
        assert nothing.resume_token
        assert nothing.contact_options.phone_number


def watching_xid(answer: pb.WatchProductsResponse) -> int:
    request = pb.WatchProductsRequest(product_ids=["a", "b"], resume_token=answer.resume_token)
    position = pages.position(request, (int, datetime), "resume_token")
    assert position is not None
    return int(position[0])


async def test_a_token_never_passes_over_a_transaction_that_was_open(open_shelf: Shelf) -> None:
    async with open_shelf.database.transaction() as late:
        await late.connection.execute("SELECT pg_current_xact_id()")
        async with watch(open_shelf.app, "a", "b") as answers:
            token = (await heard_next(answers)).resume_token
            await open_shelf.stock(**{"a-41": 4})
            token = (await until_free(answers, a=4)).resume_token
            await open_shelf.app.changes.catch_up()
            await open_shelf.stock(**{"a-41": 3})
            token = (await until_free(answers, a=3)).resume_token
        await usecases.hear_stock(late, [Level("b-41", "vienna-1", version=99, free=0)], {})
    async with watch(open_shelf.app, "a", "b", token=token) as answers:
        assert free(await heard_next(answers))["b"] == 0


async def test_a_token_from_too_long_ago_begins_anew(open_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watch(open_shelf.app, "a") as answers:
        token = (await heard_next(answers)).resume_token
    monkeypatch.setattr("services.catalog.changes.COUNTED_SECONDS", 0.0)
    async with watch(open_shelf.app, "a", token=token) as answers:
        assert free(await heard_next(answers)) == {"a": 5}


async def test_a_token_of_other_products_is_refused(open_shelf: Shelf) -> None:
    async with watch(open_shelf.app, "a") as answers:
        token = (await heard_next(answers)).resume_token
    async with watch(open_shelf.app, "b", token=token) as answers:
        with pytest.raises(InvalidInput) as refusal:
            await anext(answers)
    assert refusal.value.fields[0][0] == "resume_token"


async def test_a_slow_reader_gets_the_latest_of_each_product(open_shelf: Shelf) -> None:
    async with watch(open_shelf.app, "a", "b") as answers:
        await heard_next(answers)
        async with watch(open_shelf.app, "a") as quick:
            await heard_next(quick)
            for units in range(10, 0, -1):
                await open_shelf.stock(**{"a-41": units})
                await until_free(quick, a=units)
        answer = await heard_next(answers)
        assert free(answer) == {"a": 1}


async def test_a_change_costs_the_same_however_many_watch(open_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = open_shelf.app._open_lists
    reads: list[list[str]] = []
    read = lists.watches._read

    async def counted(audience: Any, product_ids: Sequence[str]) -> Any:
        reads.append(sorted(product_ids))
        return await read(audience, product_ids)

    monkeypatch.setattr(lists.watches, "_read", counted)
    streams = [lists.follow(pb.WatchProductsRequest(product_ids=["a", "b"])) for _ in range(500)]
    await asyncio.gather(*(heard_next(stream) for stream in streams))
    assert len(reads) < 50  # those who open at once are read for at once
    reads.clear()
    await open_shelf.stock(**{"a-41": 3})
    assert all(free(answer) == {"a": 3} for answer in await asyncio.gather(*map(heard_next, streams)))
    assert reads[0] == ["a"]
    assert len(reads) <= 2  # told here, and perhaps found by polling, too
    await asyncio.gather(*(stream.aclose() for stream in streams))
    assert (lists.watches.open, lists.watches._watched) == (0, {})


async def test_past_the_bound_inventory_is_asked_or_it_says_so(
    open_shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "READING_SECONDS", 0.0)
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.05)
    async with watch(open_shelf.app, "a", "b") as answers:
        assert not (await heard_next(answers)).HasField("unconfirmed_since")
        open_shelf.inventory.put("b-41", 0)
        as_of = await open_shelf.be_stale()
        answer = await heard_next(answers)
        assert (free(answer), answer.HasField("unconfirmed_since")) == ({"b": 0}, False)
        open_shelf.inventory.away = True
        while not answer.HasField("unconfirmed_since"):
            answer = await heard_next(answers)
        assert to_datetime(answer.unconfirmed_since) == as_of
        await open_shelf.be_fresh()
        while answer.HasField("unconfirmed_since"):
            answer = await heard_next(answers)


async def test_other_contact_options_are_told(open_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.05)
    async with watch(open_shelf.app, "a") as answers:
        await heard_next(answers)
        async with open_shelf.database.transaction() as tx:
            options = ContactOptions(open_channels=[CHANNEL_PHONE])
            await open_shelf.app.hotline.hear(tx, options, await open_shelf.now(), 1)
        answer = await heard_next(answers)
        assert not answer.products
        assert answer.contact_options.open_channels == [CHANNEL_PHONE]


async def test_a_quiet_stream_says_something_now_and_then(open_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "QUIET_SECONDS", 0.05)
    async with watch(open_shelf.app, "a") as answers:
        await heard_next(answers)
        assert free(await heard_next(answers)) == {}


async def test_a_server_that_drains_sends_its_streams_elsewhere(open_shelf: Shelf, issuer: Issuer) -> None:
    servicer = ("shop.catalog.v1.CatalogService", open_shelf.storefront)
    async with serving(issuer, servicer) as rig:
        stub: rpc.CatalogServiceAsyncStub = rpc.CatalogServiceStub(rig.channel)
        call = stub.WatchProducts(pb.WatchProductsRequest(product_ids=["a"]))
        answers = aiter(call)
        assert free(await anext(answers)) == {"a": 5}
        stopping = asyncio.create_task(rig.server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as end:
            while True:
                await anext(answers)
        answer = answer_of(end.value)
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "DRAINING")
        await stopping
    assert open_shelf.app._open_lists.watches.open == 0
