"""Records changed by hand: what may be changed, to what, and from which state to which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from services.catalog.domain import feed
from services.catalog.domain.currencies import DECIMALS
from services.catalog.domain.locales import canonical
from services.chassis.errors import Conflict, InvalidInput, NotFound, NotNow

DRAFT, PUBLISHED, DISCONTINUED = "DRAFT", "PUBLISHED", "DISCONTINUED"
# A draft was never sold, so it cannot be sold no longer; and links to what was sold stay open.
MOVES = {DRAFT: {PUBLISHED}, PUBLISHED: {DRAFT, DISCONTINUED}, DISCONTINUED: {PUBLISHED}}

PRODUCT_FIELDS = ("state", "brand", "product_type", "texts", "media")
PRODUCT_OUTPUT = ("product_id", "variants", "etag", "create_time", "update_time")
VARIANT_OUTPUT = ("sku", "product_id", "prices", "free")

Problems = list[tuple[str, str]]


class ProductNotFound(NotFound):
    """There is no such product."""

    reason = "PRODUCT_NOT_FOUND"


class VariantNotFound(NotFound):
    """There is no such SKU."""

    reason = "VARIANT_NOT_FOUND"


class EtagMismatch(Conflict):
    """The product moved on since the caller read it."""

    reason = "ETAG_MISMATCH"


class WrongState(NotNow):
    """From the state in which the product is, that one cannot be reached."""

    reason = "WRONG_STATE"


@dataclass(frozen=True, slots=True)
class Texts:
    """What a product is called in one language."""

    locale: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An additional picture or film, and what is to be seen."""

    uri: str
    alternative_text: str


@dataclass(frozen=True, slots=True)
class SetPrice:
    """A price as it is to be; None is since ever, or for ever."""

    amount: Decimal
    currency: str
    start_time: datetime | None
    end_time: datetime | None
    reduced: bool


def check_etag(given: str, current: str) -> None:
    """Raises `EtagMismatch`. An empty one goes with any."""
    if given and given != current:
        raise EtagMismatch("the product has changed since; read it again", etag=current, given=given)


def check_move(state: str, wanted: str) -> None:
    """Raises `WrongState`, or `InvalidInput` for what is no state. To stay is no move."""
    if wanted not in MOVES:
        raise InvalidInput([("product.state", f"must be one of {', '.join(MOVES)}")])
    if wanted != state and wanted not in MOVES[state]:
        raise WrongState(f"a product cannot go from {state} to {wanted}", state=state, wanted=wanted)


def check_mask(paths: Collection[str], changeable: Collection[str], output_only: Collection[str]) -> None:
    """Raises `InvalidInput` with each path that cannot be changed, or for none at all."""
    if not paths:
        raise InvalidInput([("update_mask", f"must name what changes: {', '.join(changeable)}")])
    problems: Problems = []
    for path in paths:
        if path in output_only:
            problems.append(("update_mask", f"{path} is output only"))
        elif path not in changeable:
            problems.append(("update_mask", f"{path} is no field that can be changed: {', '.join(changeable)}"))
    if problems:
        raise InvalidInput(problems)


def _size_system(text: str) -> str:
    return feed.text_rule("size_system")(text).upper()


def _lower(column: str, text: str) -> str:
    return feed.text_rule(column)(text).lower()


VARIANT_FIELDS: Mapping[str, Callable[[str], str]] = {
    "title": feed.text_rule("title"),
    "color": feed.text_rule("color"),
    "size": feed.text_rule("size"),
    "size_system": _size_system,
    "width": feed.text_rule("width"),
    "material": feed.text_rule("material"),
    "gender": partial(_lower, "gender"),
    "age_group": partial(_lower, "age_group"),
    "gtin": feed.gtin,
    "image_link": feed.link,
}


def variant_values(values: Mapping[str, str]) -> dict[str, str]:
    """The new value of each field in its usual spelling; empty is allowed but for the title. Raises `InvalidInput`."""
    problems: Problems = []
    found = {name: _read(f"variant.{name}", text, VARIANT_FIELDS[name], problems) for name, text in values.items()}
    if "title" in found and not found["title"] and not problems:
        problems.append(("variant.title", "must not be empty"))
    _raise(problems)
    return found


def product_text(name: str, text: str) -> str:
    """Brand or product_type in its usual spelling. Raises `InvalidInput`."""
    problems: Problems = []
    found = _read(f"product.{name}", text, feed.text_rule(name), problems)
    _raise(problems)
    return feed.category(found) if name == "product_type" else found


def checked_texts(given: Iterable[Texts], shop_locale: str) -> list[Texts]:
    """Texts in their usual spelling, by language. Raises `InvalidInput`."""
    problems: Problems = []
    found: dict[str, Texts] = {}
    for number, one in enumerate(given):
        place = f"product.texts[{number}]"
        locale = canonical(one.locale)
        if locale in found:
            problems.append((f"{place}.locale", f"{locale} is there already"))
        title = _read(f"{place}.title", one.title, feed.text_rule("title"), problems)
        description = _read(f"{place}.description", one.description, feed.text_rule("description"), problems)
        if not title and not problems:
            problems.append((f"{place}.title", "must not be empty"))
        found[locale] = Texts(locale, title, description)
    if shop_locale not in found:
        problems.append(("product.texts", f"must have one in the shop's own language, {shop_locale}"))
    _raise(problems)
    return list(found.values())


def checked_pictures(given: Iterable[Picture]) -> list[Picture]:
    """Pictures, each once. Raises `InvalidInput`."""
    problems: Problems = []
    found: dict[str, Picture] = {}
    for number, one in enumerate(given):
        place = f"product.media[{number}]"
        # As links are written in a feed, where commas stand between them.
        uri = _read(f"{place}.uri", one.uri.replace(",", "%2C"), feed.link, problems)
        if uri in found:
            problems.append((f"{place}.uri", "is there already"))
        found[uri] = Picture(uri, " ".join(one.alternative_text.split()))
    _raise(problems)
    return list(found.values())


def check_price(price: SetPrice) -> None:
    """Raises `InvalidInput` for an amount or a period that is none."""
    problems: Problems = []
    decimals = DECIMALS.get(price.currency)
    if decimals is None:
        problems.append(("price.amount.currency_code", f"{price.currency or 'nothing'} is no currency of ISO 4217"))
    elif price.amount != round(price.amount, decimals):
        problems.append(("price.amount", f"{price.currency} has {decimals} decimals"))
    if not 0 < price.amount < feed.DEAREST:
        problems.append(("price.amount", f"must be more than 0 and less than {feed.DEAREST}"))
    if price.start_time and price.end_time and price.end_time <= price.start_time:
        problems.append(("price.end_time", "must be after start_time"))
    _raise(problems)


def check_reduction(price: SetPrice, regular: Decimal | None) -> None:
    """Against the price that holds when the reduction begins. Raises `InvalidInput`."""
    if regular is None:
        raise InvalidInput([("price.reduced", f"there is no price in {price.currency} to reduce when it begins")])
    if price.amount >= regular:
        raise InvalidInput([("price.amount", f"must be less than {regular}, the price without the reduction")])


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> Sequence[tuple[str, str, str]]:
    """What differs, as (field, before, after); what is not there is empty."""
    names = sorted(before.keys() | after.keys())
    fields = ((name, before.get(name, ""), after.get(name, "")) for name in names)
    return [field for field in fields if field[1] != field[2]]


def _read(field: str, text: str, rule: Callable[[str], str], problems: Problems) -> str:
    text = text.strip()
    try:
        return rule(text) if text else ""
    except feed.Wrong as wrong:
        problems.append((field, str(wrong)))
        return ""


def _raise(problems: Problems) -> None:
    if problems:
        raise InvalidInput(problems)
