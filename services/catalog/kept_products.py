"""Products as they stand on a page of the window, kept for a moment as bytes.

Of the many products on a page few change before it is made again, and most stand on other pages too. Kept is what all
of an audience (languages, currency) are shown: every variant that may be shown, whatever page it is for. A product goes

- at once when the change feed names it;
- before it could be older than the bound on staleness, by so much that an answer made of it can be kept for its usual
  time: what is kept in `answers` needs to know nothing of what it was made of.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from services.catalog import answers
from services.catalog.freshness import Freshness
from services.catalog.queries import Audience

KEPT_BYTES = 16 * 1024 * 1024
# About what keeping a product takes beside its bytes.
OVERHEAD_BYTES = 500


@dataclass(frozen=True, slots=True)
class _Product:
    body: bytes
    ends: float


@dataclass(eq=False, slots=True)
class Reading:
    """Products that are being read, and which changed since that began; None when it may have been any."""

    as_of: float
    changed: set[str] | None = field(default_factory=set)


class KeptProducts:
    """The products that this process has kept."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        # By product, what was asked for last stands last; then by audience.
        self._products: OrderedDict[str, dict[Audience, _Product]] = OrderedDict()
        self._readings: set[Reading] = set()
        self._bytes = 0

    def find(self, audience: Audience, product_ids: Iterable[str]) -> dict[str, bytes]:
        """Those of the products that are kept and will hold for as long as an answer is kept."""
        until = monotonic() + answers.KEPT_SECONDS
        found: dict[str, bytes] = {}
        for product_id in product_ids:
            kept = self._products.get(product_id, {}).get(audience)
            if kept is not None and kept.ends >= until:
                self._products.move_to_end(product_id)
                found[product_id] = kept.body
        return found

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Around the reading of products from a copy that is within the bound, and keeping them."""
        reading = Reading(self._freshness.as_of)
        self._readings.add(reading)
        try:
            yield reading
        finally:
            self._readings.discard(reading)

    def keep(self, reading: Reading, audience: Audience, product_id: str, body: bytes) -> None:
        """Keeps a product as it was read, unless it changed meanwhile."""
        if reading.changed is None or product_id in reading.changed:
            return
        of_product = self._products.setdefault(product_id, {})
        if (before := of_product.get(audience)) is not None:
            self._bytes -= _size(before)
        of_product[audience] = kept = _Product(body, reading.as_of + self._freshness.bound_seconds)
        self._products.move_to_end(product_id)
        self._bytes += _size(kept)
        while self._bytes > KEPT_BYTES:
            self._drop(next(iter(self._products)))

    def forget(self, product_ids: Collection[str] | None) -> None:
        """These products changed; None: it may have been any."""
        for reading in self._readings:
            if product_ids is None:
                reading.changed = None
            elif reading.changed is not None:
                reading.changed.update(product_ids)
        for product_id in list(self._products) if product_ids is None else product_ids:
            self._drop(product_id)

    def _drop(self, product_id: str) -> None:
        self._bytes -= sum(map(_size, self._products.pop(product_id, {}).values()))


def _size(kept: _Product) -> int:
    return len(kept.body) + OVERHEAD_BYTES
