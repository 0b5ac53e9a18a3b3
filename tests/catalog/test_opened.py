"""A direct link still opens what is sold out: marked so, with the same size of something else, and with other shops."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest

from services.catalog import queries
from services.catalog.domain.alternatives import Article, nearest
from services.catalog.grpc_api import ReferralApi
from services.chassis.access import Caller, acting_as
from services.chassis.database import Database
from services.chassis.errors import InvalidInput, NotFound
from services.chassis.requests import RequestIdReused
from services.chassis.validation import checker
from shop.access.v1.access_pb2 import ROLE_AGENT
from shop.catalog.v1 import catalog_pb2 as pb
from shop.catalog.v1 import referrals_pb2 as referrals
from tests.catalog.conftest import Shelf

AGENT = Caller(ROLE_AGENT, "agt_1", "agent:agt_1", agent_id="agt_1")


def referral_api(shelf: Shelf) -> ReferralApi:
    api = dict(shelf.app.servicers)["shop.catalog.v1.ReferralService"]
    assert isinstance(api, ReferralApi)
    return api


async def refer(shelf: Shelf, shop_name: str, **about: str) -> referrals.Referral:
    """An agent writes down another shop."""
    request = referrals.AddReferralRequest(
        **{"request_id": uuid4().hex, "shop_name": shop_name, "uri": f"https://{len(shop_name)}.example/", **about}
    )
    with acting_as(AGENT):
        return (await referral_api(shelf).AddReferral(request)).referral


async def open_product(shelf: Shelf, product_id: str, **more: str) -> pb.GetProductResponse:
    return await shelf.storefront.GetProduct(pb.GetProductRequest(product_id=product_id, **more))


def likes(answer: pb.GetProductResponse) -> list[str]:
    return [each.product.product_id for each in answer.alternatives]


def shops(answer: pb.GetProductResponse) -> list[str]:
    return [each.shop_name for each in answer.elsewhere]


@pytest.fixture
async def shoes(shelf: Shelf) -> Shelf:
    """A shoe in two sizes, of which one is left, and others like it in one size each."""
    kind = {"product_type": "Wear > Shoes", "color": "red", "gender": "male", "brand": "Acme"}
    await shelf.feed(
        {"id": "a-41", "item_group_id": "a", "size": "41", **kind},
        {"id": "a-42", "item_group_id": "a", "size": "42", **kind},
        *({"id": f"{name}-{size}", "item_group_id": name, "size": size, **kind} for name, size in OTHERS),
    )
    await shelf.stock(**{"a-41": 0, "a-42": 1, **{f"{name}-{size}": 1 for name, size in OTHERS}})
    await refer(shelf, "Brand Shop", brand="ACME")
    await refer(shelf, "Own Shop", product_id="a")
    return shelf


OTHERS = [(f"small-{number}", "41") for number in range(6)] + [(f"big-{number}", "42") for number in range(6)]


async def test_what_is_in_stock_needs_nothing_else(shoes: Shelf) -> None:
    for more in ({}, {"sku": "a-42"}):
        answer = await open_product(shoes, "a", **more)
        assert [variant.sku for variant in answer.product.variants] == ["a-42"]
        assert (likes(answer), shops(answer), answer.product.sold_out) == ([], [], False)


async def test_a_size_that_is_gone_has_others_of_its_size_though_the_product_has_other_sizes(shoes: Shelf) -> None:
    answer = await open_product(shoes, "a", sku="a-41")
    assert [variant.sku for variant in answer.product.variants] == ["a-42"]
    assert not answer.product.sold_out
    assert likes(answer) == [f"small-{number}" for number in range(5)]
    assert all("the same size, 41" in each.reasons for each in answer.alternatives)
    assert shops(answer) == ["Own Shop", "Brand Shop"]


async def test_a_sku_of_another_product_is_as_none(shoes: Shelf) -> None:
    for sku in ("small-1-41", "nothing"):
        answer = await open_product(shoes, "a", sku=sku)
        assert (likes(answer), shops(answer)) == ([], [])


async def test_a_sold_out_product_opens_with_the_size_that_was_looked_for(shoes: Shelf) -> None:
    await shoes.stock(**{"a-42": 0})
    answer = await open_product(shoes, "a", sku="a-41")
    assert (answer.product.sold_out, answer.product.discontinued) == (True, False)
    assert not answer.product.variants
    assert likes(answer) == [f"small-{number}" for number in range(5)]
    assert shops(answer) == ["Own Shop", "Brand Shop"]


async def test_a_product_of_one_size_needs_no_word_of_it(shoes: Shelf) -> None:
    await shoes.stock(**{"small-3-41": 0})
    answer = await open_product(shoes, "small-3")
    assert answer.product.sold_out
    assert all("the same size, 41" in each.reasons for each in answer.alternatives)
    assert len(answer.alternatives) == 5


async def test_a_discontinued_product_opens_with_others_and_other_shops(shoes: Shelf) -> None:
    await shoes.database.pool.execute(
        "UPDATE products SET state = 'DISCONTINUED', listed = false WHERE product_id = 'a'"
    )
    await shoes.database.pool.execute("UPDATE variants SET published = false WHERE product_id = 'a'")
    for stale in (False, True):
        if stale:
            await shoes.be_stale()
        answer = await open_product(shoes, "a", sku="a-41")
        assert (answer.product.discontinued, answer.product.sold_out) == (True, True)
        assert not answer.product.variants
        assert likes(answer) == [f"small-{number}" for number in range(5)]
        assert shops(answer) == ["Own Shop", "Brand Shop"]


async def test_a_draft_does_not_open(shoes: Shelf) -> None:
    await shoes.database.pool.execute("UPDATE products SET state = 'DRAFT', listed = false WHERE product_id = 'a'")
    await shoes.database.pool.execute("UPDATE variants SET published = false WHERE product_id = 'a'")
    with pytest.raises(NotFound):
        await open_product(shoes, "a")
    with pytest.raises(NotFound):
        await shoes.storefront.ListAlternatives(pb.ListAlternativesRequest(sku="a-41"))


async def test_past_the_bound_a_size_that_went_unheard_has_others_too(shoes: Shelf) -> None:
    await shoes.be_stale()
    shoes.inventory.put("a-42", 0)
    shoes.inventory.put("big-0-42", 0)
    answer = await open_product(shoes, "a", sku="a-42")
    assert answer.product.sold_out
    assert likes(answer) == [f"big-{number}" for number in range(1, 6)]


# -- likeness


def article(sku: str, **more: Any) -> Article:
    whole: dict[str, Any] = {
        "product_id": sku,
        "sku": sku,
        "category": "Wear > Shoes > ",
        "brand": "Acme",
        "color": "red",
        "size": "42",
        "gender": "male",
        "price": Decimal(100),
        "currency": "EUR",
        "width": "wide",
        "material": "leather",
        **more,
    }
    return Article(**whole)


def test_width_and_material_come_after_colour_and_before_price_and_are_told() -> None:
    found = nearest(
        article("wanted"),
        [
            article("linen", material="linen"),
            article("narrow", width="narrow"),
            article("dear", price=Decimal(900)),
            article("blue", color="blue"),
        ],
        5,
    )
    assert [each.found.sku for each in found] == ["dear", "linen", "narrow", "blue"]
    assert {"as wide: wide", "of leather as well"} <= set(found[0].reasons())
    assert "of leather as well" not in found[1].reasons()


class Explaining:
    """A database that says how it would look for something instead."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.plans: list[str] = []

    async def fetch(self, query: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        rows = await self._database.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF) {query}", *arguments)
        self.plans.append("\n".join(row[0] for row in rows))
        return []


@pytest.mark.parametrize("currency", ["EUR", "CHF"])
async def test_what_half_a_shop_is_like_is_looked_at_in_part(shelf: Shelf, currency: str) -> None:
    """Also in a currency that hardly anything has a price in."""
    await shelf.feed({"id": "p", "size": "42", "gender": "male", "product_type": "Wear > Shoes", "brand": "Acme"})
    await shelf.stock(p=1)
    pool = shelf.database.pool
    await pool.execute(
        "INSERT INTO variants (sku, product_id, brand, category, color, size, size_order, size_system, gender,"
        " age_group, gtin, image_link, free) SELECT 'v' || n, 'p', 'Acme', category, color, size, size_order,"
        " size_system, gender, age_group, gtin, image_link, 1 FROM variants, generate_series(1, 20000) AS n"
        " WHERE sku = 'p'"
    )
    await pool.execute(
        "INSERT INTO current_prices (sku, currency, amount) SELECT 'v' || n, 'EUR', n"
        " FROM generate_series(1, 20000) AS n"
    )
    await pool.execute("ANALYZE variants, current_prices")
    explaining = Explaining(shelf.database)
    wanted = article("other", currency=currency)
    await queries.near(cast(Database, explaining), wanted, 20)
    await queries.around(cast(Database, explaining), wanted, 20)
    assert len(explaining.plans) == 4
    for plan in explaining.plans:
        assert "Seq Scan" not in plan, plan
        read = [float(line.split("rows=")[1].split()[0]) for line in plan.splitlines() if "rows=" in line]
        assert max(read) <= queries.LOOKED_AT, plan


# -- other shops


async def test_those_of_the_product_come_first_and_each_shop_once(shoes: Shelf) -> None:
    await refer(shoes, "brand shop", product_id="a", uri="https://own.example/")
    await refer(shoes, "Late Shop", brand="acme")
    answer = await open_product(shoes, "a", sku="a-41")
    assert [(each.shop_name, each.product_id, each.brand) for each in answer.elsewhere] == [
        ("brand shop", "a", ""),
        ("Own Shop", "a", ""),
        ("Late Shop", "", "acme"),
    ]
    assert answer.elsewhere[0].uri == "https://own.example/"
    # Who found it is none of a customer's business.
    assert not any(each.agent_id for each in answer.elsewhere)


async def test_the_same_shop_for_the_same_thing_is_replaced(shoes: Shelf) -> None:
    first = await refer(shoes, "Corner", product_id="a")
    second = await refer(shoes, "CORNER ", product_id="a", uri="http://new.example/", note="ask for Eva's shelf")
    assert second.referral_id == first.referral_id
    with acting_as(AGENT):
        listed = await referral_api(shoes).ListReferrals(referrals.ListReferralsRequest(product_id="a"))
    assert listed.referrals[0].uri == "http://new.example/"
    assert [each.shop_name for each in listed.referrals] == ["CORNER", "Own Shop", "Brand Shop"]
    assert {each.agent_id for each in listed.referrals} == {"agt_1"}


async def test_a_repeat_is_one_referral_and_one_that_is_removed_is_gone(shoes: Shelf) -> None:
    first = await refer(shoes, "Corner", product_id="a", request_id="refer-once")
    assert await refer(shoes, "Corner", product_id="a", request_id="refer-once") == first
    with pytest.raises(RequestIdReused):
        await refer(shoes, "Other", product_id="a", request_id="refer-once")
    with acting_as(AGENT):
        for _ in range(2):
            request = referrals.RemoveReferralRequest(request_id=uuid4().hex, referral_id=first.referral_id)
            await referral_api(shoes).RemoveReferral(request)
    assert "Corner" not in shops(await open_product(shoes, "a", sku="a-41"))


async def test_pages_go_through_all_of_a_product_and_its_brand_once(shoes: Shelf) -> None:
    for number in range(3):
        await refer(shoes, f"Product {number}", product_id="a")
        await refer(shoes, f"Brand {number}", brand="Acme")
    seen: list[str] = []
    request = referrals.ListReferralsRequest(product_id="a", page_size=3)
    with acting_as(AGENT):
        while True:
            page = await referral_api(shoes).ListReferrals(request)
            seen += [each.shop_name for each in page.referrals]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        of_brand = await referral_api(shoes).ListReferrals(referrals.ListReferralsRequest(brand="aCme"))
    brand = ["Brand 2", "Brand 1", "Brand 0", "Brand Shop"]
    assert seen == ["Product 2", "Product 1", "Product 0", "Own Shop", *brand]
    assert [each.shop_name for each in of_brand.referrals] == brand


async def test_wrong_input_is_named(shoes: Shelf) -> None:
    wrong: list[dict[str, Any]] = [{}, {"brand": " "}, {"brand": "Acme", "product_id": "a"}]
    for about in wrong:
        with pytest.raises(InvalidInput) as refused:
            await refer(shoes, "Corner", **about)
        assert refused.value.reason == "BRAND_OR_PRODUCT"
        assert [field for field, _ in refused.value.fields] == ["brand", "product_id"]
        with acting_as(AGENT), pytest.raises(InvalidInput):
            await referral_api(shoes).ListReferrals(referrals.ListReferralsRequest(**about))
    with pytest.raises(NotFound):
        await refer(shoes, "Corner", product_id="nothing")
    with pytest.raises(InvalidInput):
        await refer(shoes, "  ", product_id="a")


@pytest.mark.parametrize("uri", ["javascript:alert(1)", "ftp://files.example/", "//no.example", "https://a b", ""])
def test_only_web_addresses_are_taken(uri: str) -> None:
    check = checker(referrals.AddReferralRequest)
    assert check is not None
    good = {"request_id": "request-1", "brand": "Acme", "shop_name": "Corner"}
    check(referrals.AddReferralRequest(uri="https://corner.example/acme", **good))
    with pytest.raises(InvalidInput, match="uri"):
        check(referrals.AddReferralRequest(uri=uri, **good))
