"""Records changed by hand: each use case locks the product, changes it, keeps who did, and refreshes the window."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from services.catalog import publishes, queueing
from services.catalog.domain import editing
from services.catalog.domain.editing import Picture, ProductNotFound, SetPrice, Texts, VariantNotFound
from services.catalog.domain.feed import product_type
from services.catalog.domain.sizes import size_order
from services.catalog.store import feed, records
from services.catalog.store.refreshing import follow_state, refresh
from services.chassis.database import Transaction


@dataclass(frozen=True, slots=True)
class ProductUpdate:
    """What a product is to be; only what the mask names counts."""

    product_id: str
    etag: str
    mask: Collection[str]
    state: str = ""
    brand: str = ""
    product_type: str = ""
    texts: Sequence[Texts] = field(default_factory=tuple)
    media: Sequence[Picture] = field(default_factory=tuple)


async def update_product(tx: Transaction, update: ProductUpdate, shop_locale: str, actor: str) -> None:
    """Raises `ProductNotFound`, `EtagMismatch`, `InvalidInput`, `WrongState`."""
    editing.check_mask(update.mask, editing.PRODUCT_FIELDS, editing.PRODUCT_OUTPUT)
    connection = tx.connection
    current = await records.lock(connection, update.product_id)
    if current is None:
        raise ProductNotFound("there is no such product", product_id=update.product_id)
    editing.check_etag(update.etag, etag(current))
    before, after = {}, {}
    if "state" in update.mask:
        editing.check_move(current["state"], update.state)
        before["state"], after["state"] = current["state"], update.state
        await records.set_state(connection, update.product_id, update.state)
    if "brand" in update.mask:
        before["brand"], after["brand"] = current["brand"], editing.product_text("brand", update.brand)
        await records.set_brand(connection, update.product_id, after["brand"])
    if "product_type" in update.mask:
        category = editing.product_text("product_type", update.product_type)
        before["product_type"], after["product_type"] = product_type(current["category"]), product_type(category)
        await records.set_category(connection, update.product_id, category)
    if "texts" in update.mask:
        texts = editing.checked_texts(update.texts, shop_locale)
        before |= _by_field(await records.texts(connection, update.product_id))
        after |= _by_field(texts)
        await records.say(connection, update.product_id, texts)
    if "media" in update.mask:
        pictures = editing.checked_pictures(update.media)
        known = [Picture(**one) for one in json.loads(current["media"])]
        before["media"], after["media"] = _note_of(known), _note_of(pictures)
        await records.set_pictures(connection, update.product_id, pictures)
    await _finish(tx, update.product_id, "", editing.changed(before, after), actor)
    if after.get("state") == editing.PUBLISHED != before["state"]:
        # What came in while it was not sold was nobody's turn; now it is.
        await queueing.give_turns(tx, await records.free_units(connection, update.product_id))


async def update_variant(
    tx: Transaction, sku: str, values: Mapping[str, str], given_etag: str, shop_locale: str, actor: str
) -> str:
    """Returns the product's id. Raises `VariantNotFound`, `EtagMismatch`, `InvalidInput`."""
    editing.check_mask(values, editing.VARIANT_FIELDS, editing.VARIANT_OUTPUT)
    connection = tx.connection
    current = await _locked_of(tx, sku)
    editing.check_etag(given_etag, etag(current))
    wanted = editing.variant_values(values)
    before = await records.variant(connection, sku, shop_locale)
    changed = editing.changed({name: before[name] for name in wanted}, wanted)
    title = wanted.pop("title", None)
    if title is not None:
        await records.rename(connection, sku, shop_locale, title)
        await connection.execute(feed.DESCRIBE_IN_WORDS, [current["product_id"]], shop_locale, actor, [])
    if "size" in wanted:
        wanted["size_order"] = size_order(wanted["size"])
    if wanted:
        await records.change_variant(connection, sku, wanted)
    named = [(f"texts.{shop_locale}.title" if name == "title" else name, old, new) for name, old, new in changed]
    await _finish(tx, current["product_id"], sku, named, actor)
    return str(current["product_id"])


async def set_price(tx: Transaction, sku: str, price: SetPrice, given_etag: str, actor: str) -> str:
    """Returns the product's id. Raises `VariantNotFound`, `EtagMismatch`, `InvalidInput`."""
    editing.check_price(price)
    current = await _locked_of(tx, sku)
    editing.check_etag(given_etag, etag(current))
    if price.reduced:
        editing.check_reduction(price, await records.regular_at(tx.connection, sku, price))
    before, after = await records.set_price(tx.connection, sku, price)
    field_name = f"prices.{price.currency}{'.reduced' if price.reduced else ''}"
    changed = [(field_name, before, after)] if before != after else []
    await _finish(tx, current["product_id"], sku, changed, actor)
    return str(current["product_id"])


def etag(product: asyncpg.Record) -> str:
    """Names the state of a product's records."""
    return f"r{product['revision']}"


async def _locked_of(tx: Transaction, sku: str) -> asyncpg.Record:
    current = await records.lock_of_sku(tx.connection, sku)
    if current is None:
        raise VariantNotFound("there is no such SKU", sku=sku)
    return current


async def _finish(
    tx: Transaction, product_id: str, sku: str, changed: Sequence[tuple[str, str, str]], actor: str
) -> None:
    if not changed:
        return
    await records.note(tx.connection, product_id, sku, changed, actor)
    await follow_state(tx.connection, [product_id])
    await tx.append(map(publishes.listing_changed, await refresh(tx, [product_id])))


def _by_field(texts: Sequence[Texts]) -> dict[str, str]:
    return {f"texts.{one.locale}.title": one.title for one in texts} | {
        f"texts.{one.locale}.description": one.description for one in texts
    }


def _note_of(pictures: Sequence[Picture]) -> str:
    return json.dumps([{"uri": one.uri, "alternative_text": one.alternative_text} for one in pictures])
