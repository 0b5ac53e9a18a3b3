"""Kept answers: the same for everybody, gone as soon as they are not right any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from services.catalog import answers, freshness
from services.catalog.answers import KeptAnswers
from services.chassis.errors import NotFound
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import catalog_pb2_grpc as rpc
from shop.contact.v1.contact_options_pb2 import CHANNEL_PHONE, ContactOptions
from tests.catalog.conftest import Shelf
from tests.chassis.grpc_rig import Issuer, refused, serving

LIST = pb.ListProductsRequest()


class Clock:
    """The clock by which answers and readings grow old."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(answers, "monotonic", clock)
    monkeypatch.setattr(freshness, "monotonic", clock)
    yield clock


@pytest.fixture
async def stocked(shelf: Shelf) -> Shelf:
    await shelf.feed(*({"id": f"{name}-41", "item_group_id": name, "size": "41"} for name in ("a", "b", "c")))
    await shelf.stock(**{"a-41": 1, "b-41": 1})
    return shelf


def kept(shelf: Shelf, method: str = "ListProducts") -> KeptAnswers:
    return shelf.storefront.keepers[method]


async def ask(shelf: Shelf, request: Any = LIST) -> Any:
    """As the chassis asks."""
    method = type(request).__name__.removesuffix("Request")
    question = request.SerializeToString()
    keeper = kept(shelf, method)
    body = keeper.get(question) or await keeper.make(question, lambda: getattr(shelf.storefront, method)(request))
    return getattr(pb, f"{method}Response").FromString(body)


def shown(answer: pb.ListProductsResponse) -> dict[str, int]:
    return {variant.sku: variant.free for product in answer.products for variant in product.variants}


async def test_what_many_ask_for_is_made_once(stocked: Shelf) -> None:
    found = await asyncio.gather(*(ask(stocked) for _ in range(20)))
    assert all(shown(answer) == {"a-41": 1, "b-41": 1} for answer in found)
    await ask(stocked)
    assert (kept(stocked).made, kept(stocked).given) == (1, 1)


async def test_an_answer_goes_as_soon_as_a_product_in_it_changed(stocked: Shelf) -> None:
    questions = (LIST, pb.GetProductRequest(product_id="a"), pb.ListAlternativesRequest(sku="b-41"))
    for question in questions:
        await ask(stocked, question)
    await stocked.stock(**{"a-41": 0})
    assert shown(await ask(stocked)) == {"b-41": 1}
    assert (await ask(stocked, questions[1])).product.sold_out
    assert not (await ask(stocked, questions[2])).alternatives


async def test_other_answers_stay(stocked: Shelf) -> None:
    question = pb.GetProductRequest(product_id="b")
    await ask(stocked, question)
    await stocked.stock(**{"a-41": 0})
    await ask(stocked, question)
    assert kept(stocked, "GetProduct").made == 1


async def test_what_is_new_appears_when_the_answer_has_ended(stocked: Shelf, clock: Clock) -> None:
    await ask(stocked)
    await stocked.stock(**{"c-41": 1})
    assert "c-41" not in shown(await ask(stocked))
    clock.now += answers.KEPT_SECONDS
    assert "c-41" in shown(await ask(stocked))


async def test_no_answer_is_older_than_the_bound_with_the_age_of_what_it_was_made_of(
    stocked: Shelf, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "KEPT_SECONDS", 3600.0)
    monkeypatch.setattr(freshness, "READING_SECONDS", 3600.0)
    bound = stocked.app._freshness.bound_seconds
    await stocked.database.pool.execute("DELETE FROM watermarks")
    await stocked.be_fresh(age=bound - 10)
    await ask(stocked)
    clock.now += 9
    await ask(stocked)
    assert kept(stocked).made == 1
    clock.now += 1
    stocked.inventory.put("a-41", 0)
    assert shown(await ask(stocked)) == {"b-41": 1}  # asked of inventory
    await ask(stocked)
    assert kept(stocked).made == 3  # which is not kept


async def test_what_is_not_confirmed_is_not_kept(stocked: Shelf, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the copy was within its bound when the answer was begun: it went past while that was made."""
    monkeypatch.setattr(freshness, "READING_SECONDS", 0.0)
    stocked.inventory.away = True
    question = LIST.SerializeToString()

    async def overtaken() -> pb.ListProductsResponse:
        await stocked.be_stale()
        answer: pb.ListProductsResponse = await stocked.storefront.ListProducts(LIST)
        return answer

    body = await kept(stocked).make(question, overtaken)
    assert pb.ListProductsResponse.FromString(body).HasField("unconfirmed_since")
    assert kept(stocked).get(question) is None
    await stocked.be_fresh()
    assert not (await ask(stocked)).HasField("unconfirmed_since")
    assert kept(stocked).get(question)


async def test_what_changed_while_the_answer_was_made_is_not_kept(stocked: Shelf) -> None:
    question = LIST.SerializeToString()
    read, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> pb.ListProductsResponse:
        answer = await stocked.storefront.ListProducts(LIST)
        read.set()
        await go_on.wait()
        return answer

    making = asyncio.create_task(kept(stocked).make(question, slow))
    await read.wait()
    await stocked.stock(**{"a-41": 0})
    go_on.set()
    await making
    assert kept(stocked).get(question) is None


async def test_refusals_are_not_kept(stocked: Shelf) -> None:
    question = pb.GetProductRequest(product_id="new")
    with pytest.raises(NotFound):
        await ask(stocked, question)
    await stocked.feed({"id": "new-1", "item_group_id": "new"})
    assert (await ask(stocked, question)).product.product_id == "new"


async def test_who_goes_away_does_not_take_the_answer_from_the_others(stocked: Shelf) -> None:
    first, second = (asyncio.create_task(ask(stocked)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert shown(await second)
    assert kept(stocked).made == 1


async def test_other_contact_options_are_shown_at_once(stocked: Shelf) -> None:
    await ask(stocked)
    options = ContactOptions(open_channels=[CHANNEL_PHONE])
    async with stocked.database.transaction() as tx:
        await stocked.app.hotline.hear(tx, options, await stocked.now(), 1)
    assert (await ask(stocked)).contact_options.open_channels == [CHANNEL_PHONE]


async def test_memory_has_a_bound_and_what_is_asked_for_stays(stocked: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "KEPT_BYTES", 10_000)
    keeper = kept(stocked)
    popular = LIST.SerializeToString()
    for size in range(1, 100):
        await ask(stocked)
        await ask(stocked, pb.ListProductsRequest(page_size=size))
        assert keeper._bytes <= 10_000
    assert keeper.get(popular) is not None
    assert len(keeper._answers) < 30
    keeper.forget(None)
    assert (keeper._bytes, len(keeper._answers), keeper._showing) == (0, 0, {})


async def test_a_kept_answer_is_given_to_those_only_who_may_ask(stocked: Shelf, issuer: Issuer) -> None:
    servicer = ("shop.catalog.v1.CatalogService", stocked.storefront)
    async with serving(issuer, servicer, browsing_sample_ratio=0.0) as rig:
        stub: rpc.CatalogServiceAsyncStub = rpc.CatalogServiceStub(rig.channel)
        first = await stub.ListProducts(LIST)
        assert await stub.ListProducts(LIST, metadata=issuer.bearer("customer")) == first
        assert (kept(stocked).made, kept(stocked).given) == (1, 1)
        answer = await refused(stub.ListProducts(LIST, metadata=issuer.bearer("service")))
        assert answer.code == "PERMISSION_DENIED"
        answer = await refused(stub.ListProducts(LIST, metadata=(("authorization", "Bearer nobody"),)))
        assert answer.code == "UNAUTHENTICATED"
        assert kept(stocked).given == 1
        labels = {"rpc_method": "shop.catalog.v1.CatalogService/ListProducts", "rpc_response_status_code": "OK"}
        registry = rig.telemetry._registry
        assert registry.get_sample_value("rpc_server_call_duration_seconds_count", labels) == 2
        assert not rig.spans()


async def test_a_kept_answer_has_its_span_and_its_journey_too(stocked: Shelf, issuer: Issuer) -> None:
    async with serving(issuer, ("shop.catalog.v1.CatalogService", stocked.storefront)) as rig:
        stub: rpc.CatalogServiceAsyncStub = rpc.CatalogServiceStub(rig.channel)
        for _ in range(2):
            call: grpc.aio.UnaryUnaryCall[Any, Any] = stub.ListProducts(LIST, metadata=(("journey-id", "j-1"),))
            await call
            assert dict(await call.initial_metadata()).get("journey-id") == "j-1"
        assert (kept(stocked).made, kept(stocked).given) == (1, 1)
        assert [span.attributes and span.attributes["journey.id"] for span in rig.spans()] == ["j-1", "j-1"]
