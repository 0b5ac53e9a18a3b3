"""What a storefront asks, read from its request: checked, and in our own words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from google.type.money_pb2 import Money

from services.catalog.domain.feed import category
from services.catalog.queries import Audience
from services.catalog.search.asking import ATTRIBUTES, Order, Question
from services.catalog.search.conditions import Nearness
from services.catalog.search.listing import Place
from services.chassis import pages
from services.chassis.errors import InvalidInput
from services.chassis.values import from_money
from shop.catalog.v1 import catalog_pb2 as pb

ORDERS = {
    pb.PRODUCT_ORDER_RELEVANCE: Order.RELEVANCE,
    pb.PRODUCT_ORDER_PRICE_ASCENDING: Order.PRICE_ASCENDING,
    pb.PRODUCT_ORDER_PRICE_DESCENDING: Order.PRICE_DESCENDING,
    pb.PRODUCT_ORDER_NEWEST: Order.NEWEST,
    pb.PRODUCT_ORDER_POPULARITY: Order.POPULARITY,
    pb.PRODUCT_ORDER_NAME: Order.NAME,
}
# What the key of a place is made of in a page token.
KINDS: dict[Order, tuple[type, ...]] = {
    Order.RELEVANCE: (int, int),
    Order.POPULARITY: (int,),
    Order.NEWEST: (datetime,),
    Order.NAME: (str,),
    Order.PRICE_ASCENDING: (str,),
    Order.PRICE_DESCENDING: (str,),
}
BY_PRICE = (Order.PRICE_ASCENDING, Order.PRICE_DESCENDING)
# Written in small letters in the feed's convention.
IN_SMALL_LETTERS = ("gender", "age_group")
_AMOUNT = re.compile(r"[0-9]{1,30}([.][0-9]{1,30})?")
NANOS = 1_000_000_000


def question(request: pb.ListProductsRequest, audience: Audience) -> Question:
    """Raises `InvalidInput` for each field that is wrong."""
    query = request.query.strip()
    if request.order_by == pb.PRODUCT_ORDER_RELEVANCE and not query:
        raise InvalidInput([("order_by", "by relevance needs a query")])
    usual = Order.RELEVANCE if query else Order.POPULARITY
    minimum, maximum = _range(request.price_range, audience.currency)
    return Question(
        audience, query, _filters(request.filters), minimum, maximum, order=ORDERS.get(request.order_by, usual)
    )


def place(request: pb.ListProductsRequest, order: Order) -> tuple[str, Place | None]:
    """What the pages before were searched for instead of the query, and where they end. Raises `InvalidInput`."""
    position = pages.position(request, (str, *KINDS[order], int))
    if position is None:
        return "", None
    instead, *key, number = position
    if order in BY_PRICE:
        if not _AMOUNT.fullmatch(key[0]):
            raise pages.wrong_token()
        key = [Decimal(key[0])]
    if order is Order.RELEVANCE and key[0] not in set(Nearness):
        raise pages.wrong_token()
    return instead, Place(tuple(key), number)


def token(request: pb.ListProductsRequest, instead: str, last: Place) -> str:
    """The token of the page that goes on after a place."""
    return pages.token(request, (instead, *map(_part, last.key), last.number))


def _part(part: int | str | Decimal | datetime) -> int | str | datetime:
    return format(part, "f") if isinstance(part, Decimal) else part


def _filters(wanted: Iterable[pb.Filter]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    values: dict[str, tuple[str, ...]] = {}
    for number, one in enumerate(wanted):
        field = f"filters[{number}].attribute"
        if one.attribute not in ATTRIBUTES:
            raise InvalidInput([(field, f"must be one of {', '.join(ATTRIBUTES)}")], reason="UNKNOWN_ATTRIBUTE")
        if one.attribute in values:
            raise InvalidInput([(field, "stands twice; one of several values is asked for by naming them together")])
        values[one.attribute] = tuple(_value(one.attribute, value) for value in one.values)
    return tuple(values.items())


def _value(attribute: str, written: str) -> str:
    """A value in the spelling in which it is kept."""
    if attribute == "category":
        return category(written)
    value = " ".join(written.split())
    return value.lower() if attribute in IN_SMALL_LETTERS else value


def _range(wanted: pb.PriceRange, currency: str) -> tuple[Decimal | None, Decimal | None]:
    problems: list[tuple[str, str]] = []

    def amount(name: str, money: Money | None) -> Decimal | None:
        if money is None:
            return None
        if money.currency_code != currency:
            problems.append((f"price_range.{name}.currency_code", f"must be that of the request, {currency}"))
        if money.units < 0 or not 0 <= money.nanos < NANOS:
            problems.append((f"price_range.{name}", "must be an amount of 0 or more"))
        return from_money(money)

    minimum = amount("minimum", wanted.minimum if wanted.HasField("minimum") else None)
    maximum = amount("maximum", wanted.maximum if wanted.HasField("maximum") else None)
    if minimum is not None and maximum is not None and minimum > maximum and not problems:
        problems.append(("price_range.minimum", "is more than the maximum"))
    if problems:
        raise InvalidInput(problems)
    return minimum, maximum
