"""The demo data is what its script makes, follows the feed's convention, and has the stock the story needs."""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from deploy.demo_data import generate

Row = dict[str, str]


def read(name: str) -> list[Row]:
    with (generate.HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))


@pytest.fixture(scope="module")
def feed() -> list[Row]:
    return read("products.tsv")


@pytest.fixture(scope="module")
def pieces() -> dict[str, int]:
    """Pieces of each SKU over all locations."""
    found: Counter[str] = Counter()
    for row in read("stock.tsv"):
        found[row["sku"]] += int(row["quantity"])
    return found


def test_making_it_again_gives_the_same_files() -> None:
    for name, text in generate.files().items():
        assert (generate.HERE / name).read_bytes() == text.encode(), f"run python -m deploy.demo_data.generate: {name}"


def test_the_script_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "HERE", tmp_path)
    generate.main()
    assert {file.name for file in tmp_path.iterdir()} == {
        "products.tsv",
        "products.de.tsv",
        "products.cs.tsv",
        "stock.tsv",
    }


def test_it_is_large_enough_to_be_real_and_small_enough_to_be_kept(feed: list[Row]) -> None:
    assert len({row["item_group_id"] for row in feed}) >= 300
    assert len(feed) >= 1500
    assert sum((generate.HERE / name).stat().st_size for name in ("products.tsv", "stock.tsv")) < 1_500_000


def test_every_field_is_filled_and_well_formed(feed: list[Row]) -> None:
    for row in feed:
        assert all(row.values()), row
        assert re.fullmatch(r"[!-~]{1,64}", row["id"])
        assert re.fullmatch(r"\d+\.\d{2} EUR", row["price"])
        assert row["gender"] in ("female", "male", "unisex")
        assert row["age_group"] in ("adult", "kids", "toddler")
        assert row["size_system"] == "EU"
        assert row["availability"] in ("in_stock", "out_of_stock")
        assert row["product_type"].startswith("Apparel & Accessories > ")
        assert row["link"].startswith("https://www.example.org/")
        assert row["image_link"].startswith("https://www.example.org/")
        assert len(row["title"]) <= 150, "the convention's limit"


def test_ids_and_gtins_are_unique_and_check_digits_hold(feed: list[Row]) -> None:
    for column in ("id", "gtin"):
        assert len({row[column] for row in feed}) == len(feed)
    for row in feed:
        digits = [int(digit) for digit in row["gtin"]]
        assert len(digits) == 13
        assert (sum(digits[::2]) + 3 * sum(digits[1::2])) % 10 == 0


def test_variants_of_a_product_share_what_is_the_products_and_differ_in_what_is_theirs(feed: list[Row]) -> None:
    groups = defaultdict(list)
    for row in feed:
        groups[row["item_group_id"]].append(row)
    for rows in groups.values():
        for column in ("title", "description", "brand", "gender", "age_group", "product_type", "material"):
            assert len({row[column] for row in rows}) == 1
        assert len({(row["color"], row["size"]) for row in rows}) == len(rows)


def test_the_shop_is_varied(feed: list[Row]) -> None:
    products = {row["item_group_id"]: row for row in feed}.values()
    shoes = [row for row in products if "> Shoes >" in row["product_type"]]
    assert 0.7 < len(shoes) / len(products) < 0.9, "known for shoes, and sells some clothes"
    assert len({row["description"] for row in products}) > 0.9 * len(products)
    assert all(row["description"].count(". ") == 1 for row in products), "two sentences"
    for column, least in {"brand": 12, "color": 12, "size": 40, "product_type": 15, "price": 100}.items():
        assert len({row[column] for row in feed}) >= least


def test_stock_is_of_known_articles_in_known_places_once_each(feed: list[Row]) -> None:
    rows = read("stock.tsv")
    assert {row["sku"] for row in rows} <= {row["id"] for row in feed}
    assert {row["location"] for row in rows} == set(generate.LOCATIONS)
    assert len({(row["sku"], row["location"]) for row in rows}) == len(rows)
    assert all(int(row["quantity"]) >= 0 for row in rows)


def test_a_part_is_sold_out_and_some_products_wholly(feed: list[Row], pieces: dict[str, int]) -> None:
    gone = {row["id"] for row in feed if not pieces.get(row["id"])}
    assert 0.1 < len(gone) / len(feed) < 0.3
    assert gone & pieces.keys(), "told by a row with 0"
    assert gone - pieces.keys(), "and by no row at all"
    products = {row["item_group_id"] for row in feed}
    listed = {row["item_group_id"] for row in feed if row["id"] not in gone}
    assert 10 <= len(products - listed) <= 40


def test_the_feed_is_wrong_about_stock_both_ways(feed: list[Row], pieces: dict[str, int]) -> None:
    wrong = Counter(
        row["availability"] for row in feed if (row["availability"] == "in_stock") != bool(pieces.get(row["id"]))
    )
    assert wrong["in_stock"] >= 10
    assert wrong["out_of_stock"] >= 50


def test_last_pairs_have_other_sizes_and_alternatives(feed: list[Row], pieces: dict[str, int]) -> None:
    there = [row for row in feed if pieces.get(row["id"])]
    last = [row for row in there if pieces[row["id"]] == 1]
    assert len(last) >= 10
    assert sum("> Shoes >" in row["product_type"] for row in last) >= 10
    rows_of = Counter(row["sku"] for row in read("stock.tsv"))
    for row in last:
        assert rows_of[row["id"]] == 1, "in exactly one place"
        others = {o["size"] for o in there if o["item_group_id"] == row["item_group_id"]} - {row["size"]}
        assert len(others) >= 2
        alike = {
            other["item_group_id"]
            for other in there
            if (other["product_type"], other["size"]) == (row["product_type"], row["size"])
        }
        assert len(alike - {row["item_group_id"]}) >= 2


@pytest.mark.parametrize(("locale", "currency"), [("de", "EUR"), ("cs", "CZK")])
def test_a_translation_has_the_same_assortment_in_its_own_words_and_currency(
    feed: list[Row], locale: str, currency: str
) -> None:
    rows = read(f"products.{locale}.tsv")
    assert [row["id"] for row in rows] == [row["id"] for row in feed]
    for row, english in zip(rows, feed, strict=True):
        assert all(row.values()), row
        assert row["description"] != english["description"]
        assert "{" not in row["title"] + row["description"]
        assert row["title"].startswith(english["brand"])
        assert len(row["title"]) <= 150, "the convention's limit"
        assert re.fullmatch(rf"\d+\.\d{{2}} {currency}", row["price"])


def test_variants_of_a_product_are_translated_alike(feed: list[Row]) -> None:
    products = {row["id"]: row["item_group_id"] for row in feed}
    for locale in ("de", "cs"):
        texts = defaultdict(set)
        for row in read(f"products.{locale}.tsv"):
            texts[products[row["id"]]].add((row["title"], row["description"], row["price"]))
        assert all(len(found) == 1 for found in texts.values())
