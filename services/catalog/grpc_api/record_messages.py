"""Records as messages."""

from __future__ import annotations

import json
from collections.abc import Iterable

import asyncpg

from services.catalog.domain.feed import product_type
from services.catalog.editing import etag
from services.catalog.record_queries import Record
from services.chassis.values import to_money, to_timestamp
from shop.catalog.v1 import catalog_pb2
from shop.catalog.v1 import records_pb2 as pb

_PREFIX = "PRODUCT_STATE_"


def state_name(state: pb.ProductState.ValueType) -> str:
    """A state as it is kept."""
    return pb.ProductState.Name(state).removeprefix(_PREFIX)


def record_message(record: Record) -> pb.ProductRecord:
    """A product as it is kept, with all that belongs to it."""
    product = record.product
    return pb.ProductRecord(
        product_id=product["product_id"],
        state=pb.ProductState.Value(_PREFIX + product["state"]),
        brand=product["brand"],
        product_type=product_type(product["category"]),
        texts=[
            pb.ProductTexts(locale=one["locale"], title=one["title"], description=one["description"])
            for one in record.texts
        ],
        media=[catalog_pb2.Media(**one) for one in json.loads(product["media"])],
        variants=[_variant(one, record.prices.get(one["sku"], ())) for one in record.variants],
        etag=etag(product),
        create_time=to_timestamp(product["create_time"]),
        update_time=to_timestamp(product["update_time"]),
    )


def change_message(row: asyncpg.Record) -> pb.ProductChange:
    """Who changed what."""
    return pb.ProductChange(
        change_id=row["change_id"],
        product_id=row["product_id"],
        sku=row["sku"],
        field=row["field"],
        before=row["before"],
        after=row["after"],
        actor=row["actor"],
        change_time=to_timestamp(row["change_time"]),
    )


def _variant(row: asyncpg.Record, prices: Iterable[asyncpg.Record]) -> pb.VariantRecord:
    return pb.VariantRecord(
        sku=row["sku"],
        product_id=row["product_id"],
        title=row["title"],
        color=row["color"],
        size=row["size"],
        size_system=row["size_system"],
        width=row["width"],
        material=row["material"],
        gender=row["gender"],
        age_group=row["age_group"],
        gtin=row["gtin"],
        image_link=row["image_link"],
        prices=map(_price, prices),
        free=row["free"],
    )


def _price(row: asyncpg.Record) -> pb.Price:
    return pb.Price(
        amount=to_money(row["amount"], row["currency"]),
        start_time=to_timestamp(row["start_time"]) if row["start_time"] else None,
        end_time=to_timestamp(row["end_time"]) if row["end_time"] else None,
        reduced=row["reduced"],
    )
