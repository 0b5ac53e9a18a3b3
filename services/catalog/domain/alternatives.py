"""What is like something, how near it is, and why, in plain words. The same question gives the same answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.catalog.domain.feed import CATEGORY_SEPARATOR

# Prices this near are nearly the same.
NEARLY = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class Article:
    """What counts when one variant is compared with another. An empty text is not known and is never alike."""

    product_id: str
    sku: str
    category: str
    brand: str
    color: str
    size: str
    gender: str
    # None: not sold in the currency, so no price is near.
    price: Decimal | None
    currency: str
    width: str = ""
    material: str = ""


@dataclass(frozen=True, slots=True)
class Likeness:
    """One variant compared with what was wanted."""

    wanted: Article
    found: Article

    @property
    def distance(self) -> tuple[object, ...]:
        """Sorts the nearest first: size and gender, category, brand, colour, width, material, price; then the SKU."""
        return (
            not self.same_size,
            not self.same_gender,
            -self.shared_categories,
            not self.same_brand,
            not self.same_color,
            not self._same(self.wanted.width, self.found.width),
            not self._same(self.wanted.material, self.found.material),
            abs(self.dearer),
            self.found.sku,
        )

    @property
    def same_size(self) -> bool:
        return self._same(self.wanted.size, self.found.size)

    @property
    def same_gender(self) -> bool:
        return self._same(self.wanted.gender, self.found.gender)

    @property
    def same_brand(self) -> bool:
        return self._same(self.wanted.brand, self.found.brand)

    @property
    def same_color(self) -> bool:
        return self._same(self.wanted.color, self.found.color)

    @property
    def shared_categories(self) -> int:
        """How many steps from the root the categories of both have in common."""
        shared = 0
        for one, other in zip(_steps(self.wanted), _steps(self.found), strict=False):
            if one != other:
                break
            shared += 1
        return shared

    @property
    def dearer(self) -> Decimal:
        """By how much it costs more than what was wanted; 0 where that has no price."""
        if self.found.price is None or self.wanted.price is None:
            return Decimal(0)
        return self.found.price - self.wanted.price

    def reasons(self) -> list[str]:
        """Why it was chosen; never empty."""
        found = []
        if self.same_size:
            found.append(f"the same size, {self.found.size}")
        if self.same_gender:
            found.append(f"made for the same people: {self.found.gender}")
        if self.shared_categories:
            found.append(f"of the same kind: {_steps(self.wanted)[self.shared_categories - 1]}")
        if self.same_brand:
            found.append(f"by {self.found.brand} as well")
        if self.same_color:
            found.append(f"the same colour, {self.found.color}")
        if self._same(self.wanted.width, self.found.width):
            found.append(f"as wide: {self.found.width}")
        if self._same(self.wanted.material, self.found.material):
            found.append(f"of {self.found.material} as well")
        if self.wanted.price is not None:
            if abs(self.dearer) <= self.wanted.price * NEARLY:
                found.append("for nearly the same price")
            elif self.dearer < 0:
                found.append(f"for {-self.dearer} {self.found.currency} less")
        return found or ["in stock now"]

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return bool(one) and one.casefold() == other.casefold()


def nearest(wanted: Article, in_stock: Iterable[Article], most: int) -> Sequence[Likeness]:
    """The nearest other products, nearest first, each by its nearest variant."""
    best: dict[str, Likeness] = {}
    for found in in_stock:
        if found.product_id == wanted.product_id or found.currency != wanted.currency:
            continue
        likeness = Likeness(wanted, found)
        known = best.get(found.product_id)
        if known is None or likeness.distance < known.distance:
            best[found.product_id] = likeness
    return sorted(best.values(), key=lambda likeness: likeness.distance)[:most]


def _steps(article: Article) -> list[str]:
    return [step for step in article.category.split(CATEGORY_SEPARATOR) if step]
