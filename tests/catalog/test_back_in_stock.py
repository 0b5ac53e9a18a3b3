"""First come, first served: only what physically came in is somebody's turn, and each is told once."""

from __future__ import annotations

import asyncio
from itertools import permutations
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from services.catalog.reconciliation import Reconciliation
from services.chassis.access import acting_as
from services.chassis.errors import InvalidInput, NotFound, NotNow, TooMuch
from services.chassis.requests import RequestIdReused
from shop.catalog.v1 import back_in_stock_pb2 as pb
from shop.catalog.v1 import records_pb2 as records
from shop.inventory.events.v1.facts_pb2 import OtherLevel, StockLevelChanged
from shop.inventory.v1 import inventory_pb2 as inventory
from tests.catalog.conftest import OPERATOR, Shelf, level_changed
from tests.catalog.waiting import Queue, customer, impatient


@pytest.fixture
async def queue(shelf: Shelf) -> Queue:
    """A shop that sells `one` and `two`, both sold out."""
    await shelf.feed({"id": "one"}, {"id": "two"})
    return Queue(shelf, impatient(shelf))


def reconciliation(shelf: Shelf) -> Reconciliation:
    reconciliation: Reconciliation = shelf.app.reconciliation
    return reconciliation


# -- whose turn it is


async def test_the_first_is_told_once_a_unit_is_held_for_them(queue: Queue) -> None:
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.arrive()
    await queue.sweep()
    (held,) = queue.held()
    assert (held.customer_id, held.purpose) == ("ann", inventory.HOLD_PURPOSE_WAITING_CUSTOMER)
    assert (await queue.states("ann"), await queue.states("ben")) == (["held"], ["waiting"])
    (told,) = await queue.facts()
    assert (told.customer_id, told.sku, told.product_id) == ("ann", "one", "one")
    assert (told.reservation_id, told.hold_expire_time) == (held.reservation_id, held.expire_time)


async def test_as_many_are_asked_as_units_came_in(queue: Queue) -> None:
    for name in ("ann", "ben", "cid", "dan"):
        await queue.subscribe(name)
    await queue.arrive(2)
    await queue.arrive(1, location="graz-1")
    await queue.sweep()
    assert await queue.told() == ["ann", "ben", "cid"]
    assert await queue.states("dan") == ["waiting"]


async def test_a_cart_that_lapsed_is_nobodys_turn(queue: Queue) -> None:
    await queue.arrive()
    cart = await queue.cart()
    await queue.hear_level()
    await queue.subscribe("ann")
    await queue.release(cart)
    await queue.hear_level()
    await queue.sweep()
    assert await queue.states("ann") == ["waiting"]
    assert not queue.held()


HISTORY = [
    StockLevelChanged(sku="one", location="vienna-1", version=version, free=free, received_total=total)
    for version, (free, total) in enumerate([(1, 1), (0, 1), (1, 2), (0, 2), (1, 2)], start=1)
]


@pytest.mark.parametrize("order", list(permutations(range(5)))[::7])
async def test_late_repeated_and_reordered_facts_count_each_unit_once(queue: Queue, order: tuple[int, ...]) -> None:
    names = [f"c{number}" for number in range(5)]
    for name in names:
        await queue.subscribe(name)
    queue.shelf.inventory.receive("one", 10)
    for number in order:
        await queue.shelf.hear(HISTORY[number])
        await queue.shelf.hear(HISTORY[number])
    await queue.shelf.hear(*HISTORY, *HISTORY)
    await queue.sweep()
    assert await queue.told() == ["c0", "c1"]


async def test_a_copy_that_is_built_anew_counts_nothing_twice(queue: Queue) -> None:
    """By the comparison, or from the beginning of the topic."""
    for name in ("ann", "ben", "cid"):
        await queue.subscribe(name)
    queue.shelf.inventory.receive("one", 2)
    await queue.shelf.hear(HISTORY[-1])
    await queue.shelf.database.pool.execute("TRUNCATE stock_copy")
    await reconciliation(queue.shelf).compare(settle=False)
    await queue.shelf.database.pool.execute("TRUNCATE stock_copy")
    # There is a unit for whoever is asked by mistake.
    queue.shelf.inventory.receive("one", 1)
    for fact in HISTORY:
        await queue.shelf.hear(fact)
    await queue.sweep()
    assert await queue.told() == ["ann", "ben"]


async def test_a_unit_whose_fact_was_lost_is_found_by_the_comparison_and_counted_once(queue: Queue) -> None:
    for name in ("ann", "ben", "cid"):
        await queue.subscribe(name)
    await queue.arrive()
    await queue.sweep()
    await queue.hear_level()
    # It came and was sold: the number of free units says nothing of it.
    queue.shelf.inventory.receive("one", 1)
    cart = await queue.cart()
    await reconciliation(queue.shelf).compare(settle=False)
    await queue.hear_level()
    await reconciliation(queue.shelf).compare(settle=False)
    await queue.release(cart)
    await queue.sweep()
    assert await queue.told() == ["ann", "ben"]


async def test_what_came_in_before_anybody_counted_is_nobodys_turn(queue: Queue) -> None:
    """As after the migration that brought the counter."""
    await queue.shelf.database.pool.execute(
        "INSERT INTO received (sku, location, heard_time) VALUES ('one', 'vienna-1', 'epoch')"
    )
    await queue.subscribe("ann")
    await queue.shelf.hear(
        level_changed("one", 0, 7, received_total=500), level_changed("one", 1, 8, received_total=500)
    )
    await queue.sweep()
    assert await queue.states("ann") == ["waiting"]


async def test_an_inventory_that_was_restored_counts_from_where_it_is(queue: Queue) -> None:
    await queue.shelf.hear(level_changed("one", 0, 90, received_total=100))
    await queue.subscribe("ann")
    queue.shelf.inventory.receive("one", 3)
    cart = await queue.cart(units=3)
    await reconciliation(queue.shelf).compare(settle=False)
    assert await queue.states("ann") == ["waiting"]
    queue.shelf.inventory.receive("one", 1)
    await reconciliation(queue.shelf).compare(settle=False)
    await queue.sweep()
    assert await queue.told() == ["ann"]
    await queue.release(cart)


async def test_both_sides_of_a_transfer_are_heard_at_once_and_are_no_arrival(queue: Queue) -> None:
    await queue.shelf.hear(level_changed("one", 1, 1, received_total=1))
    await queue.shelf.hear(
        StockLevelChanged(
            sku="one",
            location="vienna-1",
            version=2,
            free=0,
            received_total=1,
            moved_with=OtherLevel(location="graz-1", version=1, free=1),
        )
    )
    with pytest.raises(NotNow) as refused:
        await queue.subscribe("ann")
    assert refused.value.details["free"] == "1"


# -- how a turn ends


async def test_whoever_lets_it_lapse_is_followed_by_the_next_once(queue: Queue) -> None:
    await queue.arrive()
    cart = await queue.cart()
    await queue.hear_level()
    for name in ("ann", "ben", "cid"):
        await queue.subscribe(name)
    await queue.arrive()
    await queue.sweep()
    lapsed = await queue.expires("ann")
    await queue.hears_fact(lapsed)
    await queue.sweep()
    # Heard again while there is a unit that is nobody's turn.
    await queue.release(cart)
    await queue.hears_fact(lapsed)
    await queue.sweep()
    assert await queue.told() == ["ann", "ben"]
    assert [await queue.states(name) for name in ("ann", "ben", "cid")] == [["lapsed"], ["held"], ["waiting"]]


async def test_whoever_takes_it_ends_the_turn(queue: Queue) -> None:
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.arrive()
    await queue.sweep()
    taken = await queue.takes("ann")
    await queue.hears_fact(taken)
    await queue.sweep()
    assert (await queue.states("ann"), await queue.states("ben")) == (["taken"], ["waiting"])
    assert await queue.told() == ["ann"]


async def test_whoever_unsubscribes_gives_it_to_the_next(queue: Queue) -> None:
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.arrive()
    await queue.sweep()
    await queue.unsubscribe("ann")
    assert await queue.states("ann") == []
    await queue.sweep()
    await queue.unsubscribe("ann")
    await queue.sweep()
    assert await queue.told() == ["ann", "ben"]
    assert [each.customer_id for each in queue.held()] == ["ben"]


async def test_whoever_unsubscribes_while_waiting_is_passed_over(queue: Queue) -> None:
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.unsubscribe("ann")
    await queue.arrive()
    await queue.sweep()
    assert await queue.told() == ["ben"]


async def test_a_unit_that_somebody_bought_in_between_leaves_the_place_as_it_was(queue: Queue) -> None:
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.arrive()
    cart = await queue.cart()
    await queue.sweep()
    assert await queue.states("ann") == ["waiting"]
    await queue.release(cart)
    await queue.arrive()
    await queue.sweep()
    assert await queue.told() == ["ann"]


async def test_who_may_hold_no_more_is_passed_over_and_keeps_the_place(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.arrive()
    holds = queue.turns._inventory.hold

    async def refusing(request_id: str, customer_id: str, sku: str) -> object:
        if customer_id == "ann":
            raise TooMuch("as many holds as allowed", reason="TOO_MANY_HOLDS")
        return await holds(request_id, customer_id, sku)

    with monkeypatch.context() as patch:
        patch.setattr(queue.turns._inventory, "hold", refusing)
        await queue.sweep()
    assert await queue.told() == ["ben"]
    await queue.arrive()
    await queue.sweep()
    assert await queue.told() == ["ben", "ann"]


@pytest.mark.parametrize("state", ["lapsed", "taken"])
async def test_an_end_that_was_never_heard_of_is_asked_for(queue: Queue, state: str) -> None:
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.arrive()
    await queue.sweep()
    await queue.wait_out("ann")
    await queue.sweep()
    assert await queue.states("ann") == ["held"]
    if state == "taken":
        await queue.cart(name="ann")
    else:
        queue.shelf.inventory.expire(await queue.reservation("ann"))
    await queue.wait_out("ann")
    await queue.sweep()
    assert await queue.states("ann") == [state]
    assert await queue.states("ben") == (["held"] if state == "lapsed" else ["waiting"])


# -- who may wait


async def test_asking_twice_is_one_subscription(queue: Queue) -> None:
    first = await queue.subscribe("ann", request_id="request-1")
    assert await queue.subscribe("ann", request_id="request-1") == first
    assert await queue.subscribe("ann", request_id="request-2") == first
    with pytest.raises(RequestIdReused):
        await queue.subscribe("ann", "two", request_id="request-1")
    assert await queue.states("ann") == ["waiting"]
    await queue.arrive(2)
    await queue.sweep()
    assert await queue.told() == ["ann"]
    again = await queue.subscribe("ann")
    assert (again.subscription_id, again.state) == (first.subscription_id, pb.BACK_IN_STOCK_STATE_HELD)


async def test_nobody_waits_for_what_is_there_or_does_not_exist(queue: Queue) -> None:
    with pytest.raises(NotFound):
        await queue.subscribe("ann", "nothing")
    await queue.arrive(3)
    with pytest.raises(NotNow) as refused:
        await queue.subscribe("ann")
    assert (refused.value.reason, refused.value.details) == ("IN_STOCK", {"sku": "one", "free": "3"})


async def test_nobody_waits_for_what_is_not_sold(queue: Queue) -> None:
    await queue.shelf.database.pool.execute("UPDATE products SET state = 'DRAFT' WHERE product_id = 'one'")
    with pytest.raises(NotFound):
        await queue.subscribe("ann")
    await queue.shelf.database.pool.execute("UPDATE products SET state = 'DISCONTINUED' WHERE product_id = 'one'")
    with pytest.raises(NotNow) as refused:
        await queue.subscribe("ann")
    assert refused.value.reason == "DISCONTINUED"


@pytest.mark.parametrize("away", [records.PRODUCT_STATE_DRAFT, records.PRODUCT_STATE_DISCONTINUED])
async def test_what_came_in_while_it_was_not_sold_is_their_turn_once_it_is(
    queue: Queue, away: records.ProductState.ValueType
) -> None:
    for name in ("ann", "bob", "cem"):
        await queue.subscribe(name)
    await set_state(queue.shelf, away)
    await queue.arrive(2)
    await queue.sweep()
    assert await queue.told() == []
    await set_state(queue.shelf, records.PRODUCT_STATE_PUBLISHED)
    await set_state(queue.shelf, records.PRODUCT_STATE_PUBLISHED)
    await queue.sweep()
    assert await queue.told() == ["ann", "bob"]
    assert await queue.states("cem") == ["waiting"]


async def test_who_waits_is_told_of_the_product_that_a_feed_moved_it_to(queue: Queue) -> None:
    await queue.subscribe("ann")
    await queue.shelf.feed({"id": "one", "item_group_id": "two"})
    await queue.arrive()
    await queue.sweep()
    assert [fact.product_id for fact in await queue.facts()] == ["two"]
    with customer("ann"):
        answer = await queue.api.ListBackInStock(pb.ListBackInStockRequest(customer_id="ann"))
    assert [each.product_id for each in answer.subscriptions] == ["two"]


async def set_state(shelf: Shelf, state: records.ProductState.ValueType) -> None:
    request = records.UpdateProductRequest(
        request_id=uuid4().hex,
        product=records.ProductRecord(product_id="one", state=state),
        update_mask=FieldMask(paths=["state"]),
    )
    with acting_as(OPERATOR):
        await shelf.admin.UpdateProduct(request)


async def test_nobody_waits_for_more_than_allowed_also_at_once(queue: Queue) -> None:
    queue.api._most = 3
    await queue.shelf.feed(*({"id": f"many-{number}"} for number in range(8)))
    outcomes = await asyncio.gather(
        *(queue.subscribe("ann", f"many-{number}") for number in range(8)), return_exceptions=True
    )
    refused = [each for each in outcomes if isinstance(each, TooMuch)]
    assert len(refused) == 5
    assert (refused[0].reason, refused[0].details) == ("TOO_MANY_SUBSCRIPTIONS", {"open": "3", "limit": "3"})
    assert await queue.states("ann") == ["waiting"] * 3
    await queue.subscribe("ben")


async def test_who_begins_to_wait_as_a_unit_comes_in_is_asked_or_told_it_is_there(queue: Queue) -> None:
    for number in range(20):
        sku = f"race-{number}"
        await queue.shelf.feed({"id": sku})
        subscribed, _ = await asyncio.gather(queue.subscribe("ann", sku), queue.arrive(1, sku), return_exceptions=True)
        await queue.sweep()
        in_stock = isinstance(subscribed, NotNow) and subscribed.reason == "IN_STOCK"
        told = sku in [fact.sku for fact in await queue.facts()]
        assert in_stock != told, sku


async def test_a_list_is_ones_own_newest_first_in_pages(queue: Queue) -> None:
    await queue.shelf.feed(*({"id": f"many-{number}"} for number in range(5)))
    for number in range(5):
        await queue.subscribe("ann", f"many-{number}")
    await queue.subscribe("ben")
    seen: list[str] = []
    request = pb.ListBackInStockRequest(customer_id="ann", page_size=2)
    with customer("ann"):
        while True:
            page = await queue.api.ListBackInStock(request)
            assert page.contact_options.phone_number
            seen += [each.sku for each in page.subscriptions]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    assert seen == [f"many-{number}" for number in reversed(range(5))]
    with pytest.raises(InvalidInput):
        await queue.api.ListBackInStock(pb.ListBackInStockRequest(customer_id="ben", page_token=request.page_token))
    with pytest.raises(InvalidInput):
        await queue.api.ListBackInStock(pb.ListBackInStockRequest())


async def test_what_ended_long_ago_is_deleted(queue: Queue) -> None:
    for name in ("ann", "ben"):
        await queue.subscribe(name)
    await queue.arrive(2)
    await queue.sweep()
    for name in ("ann", "ben"):
        await queue.takes(name)
    await queue.shelf.database.pool.execute(
        "UPDATE subscriptions SET end_time = end_time - interval '91 days' WHERE customer_id = 'ann'"
    )
    await queue.turns.prune()
    assert (await queue.states("ann"), await queue.states("ben")) == ([], ["taken"])
