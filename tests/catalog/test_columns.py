"""Columns of rows that travel as one text each arrive as they were."""

from __future__ import annotations

from decimal import Decimal

import pytest

from services.catalog.domain.feed import check
from services.catalog.store.columns import SEPARATOR, column, split
from services.chassis.database import Database


@pytest.mark.parametrize("values", [[], [""], ["", ""], ["a", "", "b"], ["", "žluť, {x} \\ \"q\" 'n' NULL"]])
async def test_texts_arrive_as_they_were(database: Database, values: list[str]) -> None:
    assert await database.pool.fetchval(f"SELECT {split(1)}", column(values)) == values


async def test_of_others_an_empty_value_is_none(database: Database) -> None:
    found = await database.pool.fetchval(f"SELECT {split(1, 'numeric')}", column(["", "1.50", ""]))
    assert found == [None, Decimal("1.50"), None]


def test_no_text_of_a_feed_has_the_separator_in_it() -> None:
    row = {"id": "a", "title": f"a{SEPARATOR}b", "price": "1.00 EUR", "brand": f"a{SEPARATOR}b"}
    found = check(row)
    assert isinstance(found, list)
    assert {field for field, _ in found} == {"title", "brand"}
