"""A row of a product feed (Google Merchant Center's columns), checked.

`id`, `title` and `price` are needed. `item_group_id` makes variants one product; without it a row is a product of its
own. `availability` is never believed: stock decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TypeVar

from services.catalog.domain.currencies import DECIMALS
from services.catalog.domain.sizes import size_order

T = TypeVar("T")

REQUIRED = ("id", "title", "price")
# The longest text of each column, in characters.
TEXTS = {
    "title": 500,
    "description": 10_000,
    "brand": 200,
    "color": 100,
    "size": 100,
    "size_system": 20,
    "gender": 50,
    "age_group": 50,
    "product_type": 750,
}
USED = (*REQUIRED, "item_group_id", "gtin", "image_link", *(column for column in TEXTS if column not in REQUIRED))
NEVER_BELIEVED = "availability"
CATEGORY_SEPARATOR = " > "

_ID = re.compile(r"[!-~]{1,64}")
_PRICE = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))? ([A-Z]{3})")
_GTIN = re.compile(r"[0-9]{8}|[0-9]{12,14}")
_LINK = re.compile(r"https?://[!-~]{1,1990}", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Wrong(Exception):
    """What is wrong with one field."""


@dataclass(frozen=True, slots=True)
class FeedVariant:
    """One good row."""

    sku: str
    product_id: str
    title: str
    description: str
    brand: str
    category: str
    price: Decimal
    currency: str
    color: str
    size: str
    size_order: str
    size_system: str
    gender: str
    age_group: str
    gtin: str
    image_link: str


def column_name(written: str) -> str:
    """A column's name however its header is spelled: `Item Group ID` is `item_group_id`."""
    return "_".join(written.strip().lower().replace("_", " ").split())


def check(fields: Mapping[str, str]) -> FeedVariant | list[tuple[str, str]]:
    """The row's variant, or each (field, reason) that is wrong with it."""
    problems: list[tuple[str, str]] = []

    def read(column: str, rule: Callable[[str], T], default: T) -> T:
        written = fields.get(column, "").strip()
        try:
            if not written:
                if column in REQUIRED:
                    raise Wrong("is missing")
                return default
            return rule(written)
        except Wrong as wrong:
            problems.append((column, str(wrong)))
            return default

    sku = read("id", _id, "")
    price, currency = read("price", _price, (Decimal(), ""))
    texts = {column: read(column, partial(_text, most=most), "") for column, most in TEXTS.items()}
    variant = FeedVariant(
        sku=sku,
        product_id=read("item_group_id", _id, sku),
        title=texts["title"],
        description=texts["description"],
        brand=texts["brand"],
        category=category(texts["product_type"]),
        price=price,
        currency=currency,
        color=texts["color"],
        size=texts["size"],
        size_order=size_order(texts["size"]),
        size_system=texts["size_system"],
        gender=texts["gender"].lower(),
        age_group=texts["age_group"].lower(),
        gtin=read("gtin", _gtin, ""),
        image_link=read("image_link", _link, ""),
    )
    return problems or variant


def category(product_type: str) -> str:
    """A path such as `Apparel > Shoes` in one spelling, each part followed by the separator: `Apparel > Shoes > `.

    So all below a category begin with it, and `Shoes` does not begin `Shoestrings`.
    """
    parts = [" ".join(part.split()) for part in product_type.split(">")]
    return "".join(part + CATEGORY_SEPARATOR for part in parts if part)


def product_type(category: str) -> str:
    """The path as people write it."""
    return category.removesuffix(CATEGORY_SEPARATOR)


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise Wrong("must be 1 to 64 printable ASCII characters without spaces")
    return text


def _text(text: str, *, most: int) -> str:
    if _CONTROLS.search(text):
        raise Wrong("has a control character or a byte that is not in the file's encoding")
    if len(text) > most:
        raise Wrong(f"is longer than {most} characters")
    return " ".join(text.split())


def _price(text: str) -> tuple[Decimal, str]:
    found = _PRICE.fullmatch(" ".join(text.split()))
    if not found:
        raise Wrong('must be an amount and a currency such as "129.95 EUR"')
    units, decimals, currency = found.groups()
    if currency not in DECIMALS:
        raise Wrong(f"{currency} is no currency of ISO 4217")
    if len(decimals or "") > DECIMALS[currency]:
        raise Wrong(f"{currency} has {DECIMALS[currency]} decimals, not {len(decimals)}")
    amount = Decimal(f"{units}.{decimals or 0}")
    if not amount:
        raise Wrong("must be more than 0")
    return amount, currency


def _gtin(text: str) -> str:
    digits = text.replace(" ", "").replace("-", "")
    if not _GTIN.fullmatch(digits):
        raise Wrong("must be 8, 12, 13 or 14 digits")
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    if weighted % 10:
        raise Wrong("the check digit is wrong")
    return digits


def _link(text: str) -> str:
    if not _LINK.fullmatch(text):
        raise Wrong("must be an http or https address of at most 2000 characters")
    return text
