"""What products are found by, made from the records; inside a transaction, under the locks of the products."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.catalog.domain.alphabet import sort_key
from services.catalog.domain.feed import above
from services.catalog.domain.spelling import misspelt
from services.catalog.domain.words import STEMMERS, beginnings, fold, forms_of_text, written
from services.catalog.store.columns import column, split
from services.chassis.database import Connection

# Any number, the same for every process: new words are numbered by one transaction at a time.
TOKENS_LOCK = 5_309_103
SUM_LOCK = 5_309_104
# After so long an order counts half as much. Counted from any time before all orders.
HALF_LIFE = timedelta(days=14)
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)

# Adds powers of two as the logarithms they are kept as.
ORDER = """
INSERT INTO product_popularity AS known (product_id, popularity)
SELECT v.product_id, $3::float8 + ln(sum(told.units)::float8) / ln(2::float8)
FROM unnest($1::text[], $2::bigint[]) AS told(sku, units) JOIN variants v ON v.sku = told.sku GROUP BY v.product_id
ON CONFLICT (product_id) DO UPDATE SET popularity = greatest(known.popularity, excluded.popularity)
    + ln(1 + exp(-abs(known.popularity - excluded.popularity) * ln(2::float8))) / ln(2::float8)
RETURNING product_id
"""
UNDESCRIBED = """
SELECT p.product_id FROM products p
WHERE NOT EXISTS (SELECT FROM product_words w WHERE w.product_id = p.product_id) ORDER BY p.product_id LIMIT $1
"""
SUM = """
WITH several AS (SELECT currency, token FROM search_counts GROUP BY currency, token HAVING count(*) > 1), gone AS (
    DELETE FROM search_counts c USING several s WHERE c.currency = s.currency AND c.token = s.token RETURNING c.*
)
INSERT INTO search_counts (currency, token, products)
SELECT currency, token, sum(products) FROM gone GROUP BY currency, token HAVING sum(products) <> 0
"""

# What a token stands for: a kind, and a word or value.
Key = tuple[str, str]
VALUES = ("size", "size_system", "color", "width", "material", "gender", "age_group")

OTHER = """
SELECT p.product_id, p.brand, p.category, now.source FROM products p
    LEFT JOIN product_words w ON w.product_id = p.product_id
    CROSS JOIN LATERAL (SELECT search_source(p.product_id) AS source OFFSET 0) now
WHERE p.product_id = ANY($1::text[]) AND w.described IS DISTINCT FROM now.source ORDER BY p.product_id
"""
TEXTS = """
SELECT product_id, locale, title, description FROM product_texts WHERE product_id = ANY($1::text[]) ORDER BY locale
"""
VALUES_OF = f"""
SELECT DISTINCT kind, value FROM variants v CROSS JOIN LATERAL (
    VALUES {", ".join(f"('{name}', v.{name})" for name in VALUES)}) each(kind, value)
WHERE v.product_id = ANY($1::text[]) AND value <> ''
"""
KNOWN = f"""
SELECT t.kind, t.value, t.token FROM search_tokens t
JOIN unnest({split(1)}, {split(2)}) AS asked(kind, value) ON asked.kind = t.kind AND asked.value = t.value
"""
NUMBER = f"""
INSERT INTO search_tokens (kind, value, misspelt, words)
SELECT kind, value, string_to_array(misspelt, ' '), string_to_array(words, ' ')::int[]
FROM unnest({split(1)}, {split(2)}, {split(3)}, {split(4)}) AS new(kind, value, misspelt, words)
ON CONFLICT DO NOTHING
"""
DESCRIBE = """
INSERT INTO product_words (product_id, described, brand, title, text, categories, name, name_de, name_en, name_cs)
SELECT product_id, described, brand, string_to_array(title, ' ')::int[], string_to_array(text, ' ')::int[],
    string_to_array(categories, ' ')::int[], name, name_de, name_en, name_cs
FROM unnest($1::text[], $2::bigint[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[])
    AS new(product_id, described, brand, title, text, categories, name, name_de, name_en, name_cs)
ON CONFLICT (product_id) DO UPDATE SET (described, brand, title, text, categories, name, name_de, name_en, name_cs)
    = (excluded.described, excluded.brand, excluded.title, excluded.text, excluded.categories, excluded.name,
        excluded.name_de, excluded.name_en, excluded.name_cs)
"""


@dataclass(slots=True)
class _Texts:
    """A product as its texts say: by which words it is found, as tokens are numbered."""

    titles: dict[str, str] = field(default_factory=dict)
    title: set[Key] = field(default_factory=set)
    text: set[Key] = field(default_factory=set)
    written: set[str] = field(default_factory=set)

    def read_title(self, title: str, forms: Iterable[str]) -> None:
        self.title |= {("title", form) for form in forms}
        self.text |= {("begun", letters) for letters in beginnings(title)}
        self.written |= written(title)

    def read_text(self, text: str, locale: str) -> None:
        self.text |= {("text", form) for form in forms_of_text(text, locale)}
        self.written |= written(text)


async def order(connection: Connection, units: Mapping[str, int], time: datetime) -> None:
    """So many units of each SKU were ordered at that time; their products are locked by the caller."""
    skus = sorted(units)
    rows = await connection.fetch(ORDER, skus, [units[sku] for sku in skus], (time - BEGINNING) / HALF_LIFE)
    if rows:
        await refresh_search(connection, [row["product_id"] for row in rows])


async def undescribed(connection: Connection, limit: int) -> list[str]:
    """Products whose texts nobody has read yet: those from before there was a search, or all after it was emptied."""
    return [row["product_id"] for row in await connection.fetch(UNDESCRIBED, limit)]


async def sum_counts(connection: Connection) -> None:
    """Makes one row of each count of what was added to it since; one process at a time."""
    if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", SUM_LOCK):
        await connection.execute(SUM)


async def refresh_search(connection: Connection, product_ids: Sequence[str]) -> None:
    """Makes these products found by what is kept of them now, and counted where they stand."""
    await describe(connection, product_ids)
    await connection.execute("SELECT refresh_search($1)", product_ids)


async def describe(connection: Connection, product_ids: Sequence[str]) -> None:
    """Reads the texts and values of those whose are others than before."""
    others = await connection.fetch(OTHER, product_ids)
    if not others:
        return
    ids = [row["product_id"] for row in others]
    texts: dict[str, _Texts] = {product_id: _Texts() for product_id in ids}
    for row in await connection.fetch(TEXTS, ids):
        of_product, locale = texts[row["product_id"]], row["locale"]
        of_product.titles[locale] = row["title"]
        of_product.read_title(row["title"], forms_of_text(row["title"], locale))
        of_product.read_text(row["description"], locale)
    for row in others:
        texts[row["product_id"]].read_title(row["brand"], forms_of_value(row["brand"]))
    values = {(row["kind"], row["value"]) for row in await connection.fetch(VALUES_OF, ids)}
    values |= {("brand", row["brand"]) for row in others if row["brand"]}
    values |= {("category", path) for row in others for path in above(row["category"])}
    facts = {key: {("fact", form) for form in forms_of_value(own_part(key))} for key in values if key[0] != "brand"}
    words = set[Key]().union(*facts.values(), *(each.title for each in texts.values()))
    words |= set[Key]().union(*(each.text for each in texts.values()))
    all_written = set[str]().union(*(each.written for each in texts.values()))
    all_written |= {word for key in facts for word in written(own_part(key))}
    tokens = await number(connection, words | {("written", word) for word in all_written}, {})
    tokens |= await number(connection, values, {key: _tokens(tokens, facts.get(key, ())) for key in values})
    rows = [
        (
            row["product_id"],
            row["source"],
            tokens.get(("brand", row["brand"]), 0),
            _joined(_tokens(tokens, texts[row["product_id"]].title)),
            _joined(_tokens(tokens, texts[row["product_id"]].text)),
            _joined(_tokens(tokens, (("category", path) for path in above(row["category"])))),
            *(_name(texts[row["product_id"]].titles, language) for language in ("", *STEMMERS)),
        )
        for row in others
    ]
    await connection.execute(DESCRIBE, *map(list, zip(*rows, strict=True)))


async def number(connection: Connection, keys: Collection[Key], words: Mapping[Key, Iterable[int]]) -> dict[Key, int]:
    """The tokens of these, new ones numbered. `words` are those of the words of values."""
    known = await _known(connection, keys)
    missing = sorted(set(keys) - known.keys())
    if missing:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", TOKENS_LOCK)
        await connection.execute(
            NUMBER,
            column(kind for kind, _ in missing),
            column(value for _, value in missing),
            column(" ".join(misspelt(fold(value))) if kind == "written" else "" for kind, value in missing),
            column(_joined(words.get(key, ())) for key in missing),
        )
        known |= await _known(connection, missing)
    return known


def forms_of_value(value: str) -> set[str]:
    """The forms of a value's words. Which language it is in nobody says, so those of all."""
    return set().union(*(forms_of_text(value, language) for language in STEMMERS))


async def _known(connection: Connection, keys: Collection[Key]) -> dict[Key, int]:
    rows = await connection.fetch(KNOWN, column(kind for kind, _ in keys), column(value for _, value in keys))
    return {(kind, value): token for kind, value, token in rows}


def own_part(key: Key) -> str:
    """A value as it is read; of a category its last step, as those above it have tokens of their own."""
    kind, value = key
    return value.removesuffix(" > ").rpartition(" > ")[2] if kind == "category" else value


def _tokens(tokens: Mapping[Key, int], keys: Iterable[Key]) -> list[int]:
    return sorted(tokens[key] for key in keys)


def _joined(tokens: Iterable[int]) -> str:
    return " ".join(map(str, tokens))


def _name(titles: Mapping[str, str], language: str) -> str:
    """The title that readers of a language are shown, as it sorts among others."""
    for wanted in (language, *STEMMERS):
        for locale, title in titles.items():
            if wanted and locale.partition("-")[0] == wanted:
                return sort_key(title, language)
    return sort_key(next(iter(titles.values()), ""), language)
