"""Makes `products.tsv` (Google Merchant Center convention), its translations and `stock.tsv`, always the same ones.

    python -m deploy.demo_data.generate

The feed's `availability` is wrong in places on purpose: stock decides what is listed, never the feed. The translations
have titles and descriptions, and prices in the currency of their country.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from deploy.demo_data import assortment, translations
from deploy.demo_data.assortment import Audience, Kind

T = TypeVar("T")

HERE = Path(__file__).parent
SEED = 20260401
LOCATIONS = ("vienna-1", "brno-1", "leipzig-1")
SITE = "https://www.example.org"
GTIN_PREFIX = "952"  # GS1's own, for examples

SOLD_OUT_PRODUCTS = 0.06
SOLD_OUT_VARIANTS = 0.14
WRONG_AVAILABILITY = 0.07
LAST_PAIRS = 0.02
CHILDRENS_PRICE = 0.6
CROWNS_FOR_A_EURO = 25


class Variant(NamedTuple):
    """One row of the feed; the names are the feed's columns."""

    id: str
    item_group_id: str
    title: str
    description: str
    link: str
    price: str
    brand: str
    color: str
    size: str
    size_system: str
    gender: str
    age_group: str
    gtin: str
    availability: str
    image_link: str
    product_type: str
    material: str
    condition: str


class Translated(NamedTuple):
    """One row of a translation; the names are the feed's columns."""

    id: str
    title: str
    description: str
    price: str


class Wording(NamedTuple):
    """What a product's texts are made of, in English."""

    name: str
    noun: str
    audience: str
    material: str
    occasion: str
    trait: str
    fit: str


Stock = dict[str, dict[str, int]]
"""SKU -> location -> pieces; a location that is not there has never had any."""


class Dice:
    """Chance that falls the same on every Python: only `random()` is promised not to change between versions."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def number(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.number(0, len(choices) - 1)]


def gtin13(number: int) -> str:
    """GTIN-13 of the number-th article, with its check digit."""
    digits = f"{GTIN_PREFIX}{number:09d}"
    odd, even = sum(map(int, digits[::2])), sum(map(int, digits[1::2]))
    return f"{digits}{-(odd + 3 * even) % 10}"


def products(dice: Dice) -> tuple[list[Variant], dict[str, Wording]]:
    """All variants, those of a product together; and the wording of each product by its id."""
    variants: list[Variant] = []
    wordings: dict[str, Wording] = {}
    names: set[str] = set()
    number = 0
    for kind in assortment.KINDS:
        for _ in range(kind.products):
            number += 1
            made, wordings[f"P{number:04d}"] = _product(dice, kind, f"P{number:04d}", names, len(variants))
            variants += made
    return variants, wordings


def _product(dice: Dice, kind: Kind, group: str, names: set[str], made: int) -> tuple[list[Variant], Wording]:
    audience = dice.pick(kind.audiences)
    brand, model = _name(dice, names)
    material = dice.pick(kind.materials)
    title = f"{brand} {model} {audience.title}{kind.noun}"
    description, occasion, trait, fit = _description(dice, kind, material)
    wording = Wording(f"{brand} {model}", kind.noun, audience.title, material, occasion, trait, fit)
    share = 1 if audience.age_group == "adult" else CHILDRENS_PRICE
    price = f"{int(dice.number(kind.cheapest, kind.dearest) * share)}.{dice.pick(('95', '90', '00'))} EUR"
    slug = title.lower().replace("'", "").replace(" ", "-")
    colors = {dice.pick(assortment.COLORS) for _ in range(dice.pick((1, 1, 1, 2)))}
    sizes = _sizes(dice, audience)
    variants: list[Variant] = []
    for color in sorted(colors):
        code = "".join(word[:3] for word in color.upper().split())
        for size in sizes:
            sku = f"{group}-{code}-{size}"
            variants.append(
                Variant(
                    id=sku,
                    item_group_id=group,
                    title=title,
                    description=description,
                    link=f"{SITE}/{slug}?sku={sku}",
                    price=price,
                    brand=brand,
                    color=color,
                    size=size,
                    size_system="EU",
                    gender=audience.gender,
                    age_group=audience.age_group,
                    gtin=gtin13(made + len(variants) + 1),
                    availability="in_stock",
                    image_link=f"{SITE}/images/{group}-{code}.jpg",
                    product_type=kind.path,
                    material=material,
                    condition="new",
                )
            )
    return variants, wording


def _name(dice: Dice, taken: set[str]) -> tuple[str, str]:
    while True:
        brand, model = dice.pick(assortment.BRANDS), dice.pick(assortment.MODELS)
        if f"{brand} {model}" not in taken:
            taken.add(f"{brand} {model}")
            return brand, model


def _sizes(dice: Dice, audience: Audience) -> tuple[str, ...]:
    """A run of neighbouring sizes."""
    count = min(dice.number(4, 6), len(audience.sizes))
    first = dice.number(0, len(audience.sizes) - count)
    return audience.sizes[first : first + count]


def _description(dice: Dice, kind: Kind, material: str) -> tuple[str, str, str, str]:
    """The text, and of what it is made: occasion, trait, fit."""
    shoe = "> Shoes >" in kind.path
    fit, fit_long = dice.pick(assortment.SHOE_FITS if shoe else assortment.CLOTHES_FITS)
    template = dice.pick(assortment.OPENINGS)
    occasion = dice.pick(assortment.WALKS if shoe else assortment.DAYS)
    opening = template.format(
        material=material, material_first=material.capitalize(), noun=kind.noun.lower(), occasion=occasion
    )
    closing_template = dice.pick(assortment.CLOSINGS)
    trait = dice.pick(kind.traits)
    return f"{opening} {closing_template.format(trait=trait, fit=fit, fit_long=fit_long)}", occasion, trait, fit


def translated(variants: Sequence[Variant], wordings: dict[str, Wording], locale: str) -> list[Translated]:
    """The same assortment in another language, in the same order."""
    place = translations.LANGUAGES[locale]
    rows = []
    for variant in variants:
        words = wordings[variant.item_group_id]
        noun = translations.NOUNS[words.noun][place]
        description = translations.TEMPLATES[place].format(
            noun=noun,
            material=translations.MATERIALS[words.material][place],
            occasion=translations.OCCASIONS[words.occasion][place],
            trait=translations.TRAITS[words.trait][place],
            fit=translations.FITS[words.fit][place],
        )
        title = f"{words.name} {noun}{translations.AUDIENCES[words.audience][place]}"
        price = _in_crowns(variant.price) if locale == "cs" else variant.price
        rows.append(Translated(variant.id, title, description, price))
    return rows


def _in_crowns(euros: str) -> str:
    """In whole tens, as prices in crowns are."""
    cents = int(euros.removesuffix(" EUR").replace(".", ""))
    return f"{(cents * CROWNS_FOR_A_EURO + 500) // 1000 * 10}.00 CZK"


def stock_of(variants: Sequence[Variant], dice: Dice) -> Stock:
    """Pieces per location: some products and some sizes sold out, everything else at least two, then the last pairs."""
    gone = {group for group in sorted({v.item_group_id for v in variants}) if dice.chance(SOLD_OUT_PRODUCTS)}
    stock: Stock = {}
    for variant in variants:
        if variant.item_group_id in gone or dice.chance(SOLD_OUT_VARIANTS):
            # Sold out is told in two ways: a row that says 0, or no row at all.
            stock[variant.id] = {dice.pick(LOCATIONS): 0} if dice.chance(0.5) else {}
        else:
            places = [place for place in LOCATIONS if dice.chance(0.6)] or [dice.pick(LOCATIONS)]
            stock[variant.id] = {place: dice.number(2, 15) for place in places}
    for variant in _with_alternatives(variants, stock):
        if dice.chance(LAST_PAIRS):
            stock[variant.id] = {dice.pick(LOCATIONS): 1}
    return stock


def last_pairs(stock: Stock) -> list[str]:
    """SKUs of which exactly one piece is left anywhere."""
    return [sku for sku, places in stock.items() if sum(places.values()) == 1]


def in_stock(stock: Stock, sku: str) -> bool:
    """Whether any location has a piece."""
    return sum(stock.get(sku, {}).values()) > 0


def _with_alternatives(variants: Sequence[Variant], stock: Stock) -> list[Variant]:
    """Variants in stock whose customer, told that the last pair is gone, can be offered something.

    That is two other sizes of the product, and two other products of the same category, size and wearer.
    """
    alike: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    siblings: dict[str, set[str]] = defaultdict(set)
    for variant in variants:
        if in_stock(stock, variant.id):
            alike[_likeness(variant)].add(variant.item_group_id)
            siblings[variant.item_group_id].add(variant.size)
    return [
        variant
        for variant in variants
        if in_stock(stock, variant.id)
        and len(siblings[variant.item_group_id] - {variant.size}) >= 2
        and len(alike[_likeness(variant)] - {variant.item_group_id}) >= 2
    ]


def _likeness(variant: Variant) -> tuple[str, str, str, str]:
    return variant.product_type, variant.size, variant.gender, variant.age_group


def files() -> dict[str, str]:
    """All files by name, as they are committed."""
    dice = Dice(SEED)
    variants, wordings = products(dice)
    stock = stock_of(variants, dice)
    feed = [_with_availability(variant, in_stock(stock, variant.id), dice) for variant in variants]
    rows = [(sku, place, str(pieces)) for sku, places in stock.items() for place, pieces in places.items()]
    return {
        "products.tsv": _tsv(Variant._fields, feed),
        "stock.tsv": _tsv(("sku", "location", "quantity"), rows),
        **{
            f"products.{locale}.tsv": _tsv(Translated._fields, translated(variants, wordings, locale))
            for locale in translations.LANGUAGES
        },
    }


def _with_availability(variant: Variant, there: bool, dice: Dice) -> Variant:
    said = there != dice.chance(WRONG_AVAILABILITY)
    return variant._replace(availability="in_stock" if said else "out_of_stock")


def _tsv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in [header, *rows])


def main() -> None:
    """Write all files beside this script and say what is in them."""
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {text.count(chr(10)) - 1} rows, {len(text.encode()) // 1000} kB")


if __name__ == "__main__":
    main()
