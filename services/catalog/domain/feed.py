"""A row of a product feed (Google Merchant Center's columns), checked.

`id`, `title` and `price` are needed. `item_group_id` makes variants one product; without it a row is a product of its
own. `availability` is never believed: stock decides. Of a feed in another language than the shop's own only `id`, the
texts and the prices are read, and `price` may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import TypeVar

from services.catalog.domain.currencies import DECIMALS
from services.catalog.domain.sizes import size_order

T = TypeVar("T")

REQUIRED = ("id", "title", "price")
REQUIRED_OF_TRANSLATIONS = ("id", "title")
# The longest text of each column, in characters.
TEXTS = {
    "title": 500,
    "description": 10_000,
    "brand": 200,
    "color": 100,
    "size": 100,
    "size_system": 20,
    "width": 50,  # our own: the convention has none
    "material": 200,
    "gender": 50,
    "age_group": 50,
    "product_type": 750,
    "google_product_category": 750,
}
PRICES = ("price", "sale_price", "sale_price_effective_date")
LINKS = ("image_link", "additional_image_link")
USED = frozenset(("id", "item_group_id", "gtin", *PRICES, *LINKS, *TEXTS))
NEVER_BELIEVED = "availability"
# Known, and of no use here; nothing is said about them.
PASSED_OVER = frozenset(
    (
        "adult",
        "bundle",
        "condition",
        "identifier_exists",
        "is_bundle",
        "link",
        "mobile_link",
        "mpn",
        "multipack",
        "shipping",
        "shipping_label",
        "shipping_weight",
        "size_type",
        "tax",
    )
)
CATEGORY_SEPARATOR = " > "
# The longest path of a category, in bytes of UTF-8, with its separators: it stands in indexes, beside other values.
CATEGORY_BYTES = 1000
MOST_IMAGES = 50
DEAREST = 10**9

_ID = re.compile(r"[!-~]{1,64}")
_PRICE = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))? ([A-Z]{3})")
_GTIN = re.compile(r"[0-9]{8}|[0-9]{12,14}")
_LINK = re.compile(r"https?://[!-~]{1,1990}", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Wrong(Exception):
    """What is wrong with one field."""


@dataclass(frozen=True, slots=True)
class FeedPrice:
    """What a row says about money: the price, and a reduction with its period. None is since ever, or for ever."""

    amount: Decimal
    currency: str
    sale_amount: Decimal | None = None
    sale_start: datetime | None = None
    sale_end: datetime | None = None


@dataclass(frozen=True, slots=True)
class FeedVariant:
    """One good row. Of a translation only the SKU, texts and price are read."""

    sku: str
    title: str
    description: str
    price: FeedPrice | None
    product_id: str = ""
    brand: str = ""
    category: str = ""
    color: str = ""
    size: str = ""
    size_order: str = ""
    size_system: str = ""
    width: str = ""
    material: str = ""
    gender: str = ""
    age_group: str = ""
    gtin: str = ""
    image_link: str = ""
    additional_image_link: str = ""


Problems = list[tuple[str, str]]
EVER: tuple[datetime | None, datetime | None] = (None, None)


class _Row:
    """A row being read: what is wrong with its fields is gathered."""

    def __init__(self, fields: Mapping[str, str], required: Sequence[str]) -> None:
        self._fields = fields
        self._required = required
        self.problems: Problems = []

    def read(self, column: str, rule: Callable[[str], T], default: T) -> T:
        written = self._fields.get(column)
        if written is None or not (written := written.strip()):
            if column in self._required:
                self.problems.append((column, "is missing"))
            return default
        try:
            return rule(written)
        except Wrong as wrong:
            self.problems.append((column, str(wrong)))
            return default

    def price(self) -> FeedPrice | None:
        price = self.read("price", _price, None)
        sale = self.read("sale_price", _price, None)
        start, end = self.read("sale_price_effective_date", _period, EVER)
        if price is None:
            if sale and not self.problems:
                self.problems.append(("sale_price", "needs a price that it reduces"))
            return None
        if sale is None:
            return FeedPrice(*price)
        if sale[1] != price[1]:
            self.problems.append(("sale_price", f"must be in {price[1]}, as the price is"))
        elif sale[0] > price[0]:
            self.problems.append(("sale_price", f"must not be more than the price, {price[0]} {price[1]}"))
        elif sale[0] == price[0]:  # common in feeds, and no reduction
            return FeedPrice(*price)
        return FeedPrice(*price, sale[0], start, end)


def check(fields: Mapping[str, str]) -> FeedVariant | Problems:
    """The row's variant, or each (field, reason) that is wrong with it."""
    row = _Row(fields, REQUIRED)
    read = row.read
    sku = read("id", _id, "")
    price = row.price()
    texts = {column: read(column, _TEXT_RULES[column], "") for column in TEXTS}
    variant = FeedVariant(
        sku=sku,
        product_id=read("item_group_id", _id, sku),
        title=texts["title"],
        description=texts["description"],
        price=price,
        brand=texts["brand"],
        category=category(texts["product_type"] or _named(texts["google_product_category"])),
        color=texts["color"],
        size=texts["size"],
        size_order=size_order(texts["size"]),
        size_system=texts["size_system"].upper(),
        width=texts["width"],
        material=texts["material"],
        gender=texts["gender"].lower(),
        age_group=texts["age_group"].lower(),
        gtin=read("gtin", gtin, ""),
        image_link=read("image_link", link, ""),
        additional_image_link=read("additional_image_link", _links, ""),
    )
    return row.problems or variant


def check_translation(fields: Mapping[str, str]) -> FeedVariant | Problems:
    """As `check`, of a row of a feed in another language than the shop's own."""
    row = _Row(fields, REQUIRED_OF_TRANSLATIONS)
    variant = FeedVariant(
        sku=row.read("id", _id, ""),
        title=row.read("title", _TEXT_RULES["title"], ""),
        description=row.read("description", _TEXT_RULES["description"], ""),
        price=row.price(),
    )
    return row.problems or variant


def column_name(written: str) -> str:
    """A column's name however its header is spelled: `Item Group ID` is `item_group_id`."""
    return "_".join(written.strip().lower().replace("_", " ").split())


@lru_cache(maxsize=4096)
def category(product_type: str) -> str:
    """A path such as `Apparel > Shoes` in one spelling, each part followed by the separator: `Apparel > Shoes > `.

    So all below a category begin with it, and `Shoes` does not begin `Shoestrings`.
    """
    parts = [" ".join(part.split()) for part in product_type.split(">")]
    return "".join(part + CATEGORY_SEPARATOR for part in parts if part)


def above(category: str) -> list[str]:
    """A category and all above it, from the root, each as `category` writes it."""
    steps = category.split(CATEGORY_SEPARATOR)[:-1]
    return [CATEGORY_SEPARATOR.join(steps[:count]) + CATEGORY_SEPARATOR for count in range(1, len(steps) + 1)]


def product_type(category: str) -> str:
    """The path as people write it."""
    return category.removesuffix(CATEGORY_SEPARATOR)


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise Wrong("must be 1 to 64 printable ASCII characters without spaces")
    return text


@lru_cache(4096)
def _text(text: str, *, most: int) -> str:
    if _CONTROLS.search(text):
        raise Wrong("has a control character or a byte that is not in the file's encoding")
    if len(text) > most:
        raise Wrong(f"is longer than {most} characters")
    return " ".join(text.split())


def _path(text: str, *, most: int) -> str:
    text = _text(text, most=most)
    if len(category(text).encode()) > CATEGORY_BYTES:
        raise Wrong(f"is longer than {CATEGORY_BYTES} bytes")
    return text


CATEGORIES = ("product_type", "google_product_category")
# Feeds repeat themselves. Of the long texts only those of the last rows are kept: variants of a product come together.
_TEXT_RULES = {
    column: lru_cache(8 if column in ("title", "description") else 4096)(
        partial(_path if column in CATEGORIES else _text, most=most)
    )
    for column, most in TEXTS.items()
}


def text_rule(column: str) -> Callable[[str], str]:
    """What brings a text of this column into its usual spelling, or raises `Wrong`."""
    return _TEXT_RULES[column]


def _named(google_product_category: str) -> str:
    """The path of Google's category; its number alone says nothing to people."""
    return "" if google_product_category.isdigit() else google_product_category


@lru_cache(maxsize=4096)
def _price(text: str) -> tuple[Decimal, str] | None:
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


def gtin(text: str) -> str:
    """A GTIN with the right check digit. Raises `Wrong`."""
    digits = text.replace(" ", "").replace("-", "")
    if not _GTIN.fullmatch(digits):
        raise Wrong("must be 8, 12, 13 or 14 digits")
    # From the right, every second digit counts three times.
    if (sum(map(int, digits[::-2])) + 3 * sum(map(int, digits[-2::-2]))) % 10:
        raise Wrong("the check digit is wrong")
    return digits


def link(text: str) -> str:
    """The address of a picture. Raises `Wrong`."""
    if not _LINK.fullmatch(text):
        raise Wrong("must be an http or https address of at most 2000 characters")
    return text


def _links(text: str) -> str:
    links = [one.strip() for one in text.split(",") if one.strip()]
    if len(links) > MOST_IMAGES:
        raise Wrong(f"must be at most {MOST_IMAGES} addresses, separated by commas")
    return ",".join(map(link, links))


@lru_cache(maxsize=4096)
def _period(text: str) -> tuple[datetime | None, datetime | None]:
    """Such as 2026-12-01T00:00+0100/2026-12-24T18:00+0100; either may be missing. Without a zone a time is in UTC."""
    begins, slash, ends = text.partition("/")
    try:
        start, end = (_instant(part.strip()) for part in (begins, ends))
    except (ValueError, OverflowError):
        slash = ""
    if not slash:
        raise Wrong("must be two times such as 2026-12-01T00:00+0100/2026-12-24T18:00+0100")
    if start and end and end <= start:
        raise Wrong("ends before it begins")
    return start, end


def _instant(text: str) -> datetime | None:
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
