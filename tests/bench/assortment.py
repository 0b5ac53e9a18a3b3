"""Fills catalog's database with as many products as one likes, in SQL: brands and words that few products share and
words that many do, categories three deep, colours and sizes of which some are everywhere, texts in three languages.

What the texts say is numbered by catalog's own code, part by part. The rows of the search are made for all at once, and
some of them by catalog itself, product by product: both must be the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product as pairs
from pathlib import Path

import asyncpg

from services.catalog.domain.feed import above, category
from services.catalog.domain.sizes import size_order
from services.catalog.domain.words import beginnings, forms_of_text, written
from services.catalog.store import searching
from services.chassis.migrations import migrate

SQL = Path("services/catalog/sql")
COLORS = (  # noqa: SIM905
    "Black White Navy Grey Brown Beige Red Blue Green Olive Cream Burgundy Rust Plum Mustard Sand Cognac Pink Purple"
    " Silver Gold Orange Turquoise Coral Mint Lilac Khaki Ivory Charcoal Teal"
).split()
MATERIALS = ("Leather", "Suede", "Canvas", "Mesh", "Nubuck", "Cotton", "Wool", "Rubber", "Nylon", "Cork")
GENDERS = ("female", "male", "unisex")
# What a leaf of the tree is called in English, German and Czech; from the cheapest to the dearest.
NOUNS = (
    ("Sock", "Socke", "Ponožka"), ("Belt", "Gürtel", "Pásek"), ("T-Shirt", "T-Shirt", "Tričko"),
    ("Cap", "Mütze", "Čepice"), ("Slipper", "Hausschuh", "Bačkora"), ("Sandal", "Sandale", "Sandál"),
    ("Shirt", "Hemd", "Košile"),
    ("Sneaker", "Turnschuh", "Teniska"), ("Loafer", "Mokassin", "Mokasína"), ("Sweater", "Pullover", "Svetr"),
    ("Running Shoe", "Laufschuh", "Běžecká bota"), ("Ankle Boot", "Stiefelette", "Kotníková bota"),
    ("Oxford", "Schnürschuh", "Polobotka"), ("Rain Jacket", "Regenjacke", "Nepromokavá bunda"),
    ("Hiking Boot", "Wanderschuh", "Turistická bota"), ("Winter Boot", "Winterstiefel", "Zimní bota"),
)  # fmt: skip
SYLLABLES = [
    "al",
    "ber",
    "cor",
    "dun",
    "el",
    "fen",
    "gar",
    "hal",
    "is",
    "jor",
    "kel",
    "lum",
    "mor",
    "nim",
    "or",
    "pel",
    "quin",
    "ros",
    "sol",
    "tar",
    "und",
    "vel",
    "wren",
    "yar",
    "zeph",
]
# Different ones of each.
BRANDS, MODELS, RARE_WORDS = 2_000, 3_000, 20_000
LOCALES = ("en", "de", "cs")


@dataclass(frozen=True, slots=True)
class Filled:
    """What it took, in seconds, and what it takes."""

    products: int
    fill_seconds: float
    index_seconds: float
    rows_bytes: int
    index_bytes: int
    database_bytes: int


def made_up(number: int) -> str:
    """A word that looks like one, another for every number."""
    word, number = "", number + len(SYLLABLES)
    while number:
        number, at = divmod(number, len(SYLLABLES))
        word += SYLLABLES[at]
    return word.capitalize()


def categories() -> list[tuple[str, tuple[str, str, str]]]:
    """The leaves of the tree: 3 * 5 * 16, the nouns in all of them."""
    tops = ("Everyday", "Sports", "Occasions")
    middles = ("City", "Outdoor", "Home", "Work", "Travel")
    return [(category(f"{top} > {middle} > {noun[0]}s"), noun) for top, middle, noun in pairs(tops, middles, NOUNS)]


async def fill(url: str, products: int, say: Callable[[str], None]) -> Filled:
    """An empty database of that URL comes to have so many products, three variants each."""
    await migrate(url, SQL)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SET synchronous_commit = off; SET work_mem = '256MB'; SET maintenance_work_mem = '1GB'"
        )
        began = time.monotonic()
        await _number_parts(connection)
        say(f"{products:,} products: records")
        for statement in RECORDS:
            await connection.execute(statement.replace("{products}", str(products)))
        await connection.execute("ANALYZE")
        indexes = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'search_rows' AND indexname NOT IN"
            " ('search_rows_pkey', 'search_rows_product')"
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['indexname']}")
        say(f"{products:,} products: rows of the search")
        for statement in ROWS:
            await connection.execute(statement)
        await _check(connection)
        indexing = time.monotonic()
        say(f"{products:,} products: indexes")
        for index in indexes:
            await connection.execute(index["indexdef"])
        ended = time.monotonic()
        await connection.execute("VACUUM ANALYZE")
        (sizes,) = await connection.fetch(
            "SELECT pg_table_size('search_rows') + pg_table_size('search_prices') AS rows,"
            " pg_indexes_size('search_rows') + pg_indexes_size('search_prices') AS indexes,"
            " pg_database_size(current_database()) AS database"
        )
        return Filled(products, indexing - began, ended - indexing, sizes["rows"], sizes["indexes"], sizes["database"])
    finally:
        await connection.close()


async def _number_parts(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """The parts that texts are put together from, each with its tokens, as tables that live as long as this session."""
    dice = random.Random(20260401)
    leaves = categories()
    keys: set[searching.Key] = set()
    values: set[searching.Key] = {("brand", made_up(n)) for n in range(BRANDS)}
    values |= {("color", each) for each in COLORS} | {("material", each) for each in MATERIALS}
    values |= {("gender", each) for each in GENDERS} | {("age_group", "adult"), ("size_system", "EU")}
    values |= {("currency", "EUR"), ("currency", "CHF")}
    values |= {("size", str(size)) for size in range(34, 50)}
    values |= {("category", path) for leaf, _ in leaves for path in above(leaf)}

    def title(text: str, locale: str) -> set[searching.Key]:
        return {("title", form) for form in forms_of_text(text, locale)} | {
            ("begun", start) for start in beginnings(text)
        }

    parts: dict[str, list[tuple[int, str, set[searching.Key]]]] = {
        "brands": [(n, made_up(n), title(made_up(n), "en")) for n in range(BRANDS)],
        "models": [(n, made_up(BRANDS + n), title(made_up(BRANDS + n), "en")) for n in range(MODELS)],
    }
    for at, locale in enumerate(LOCALES):
        parts[f"nouns_{locale}"] = [(n, noun[at], title(noun[at], locale)) for n, (_, noun) in enumerate(leaves)]
    # Sentences of words that many texts have; and one rare word each.
    common = [made_up(BRANDS + MODELS + n).lower() for n in range(400)]
    sentences = [" ".join(dice.choices(common, [1 / (n + 1) for n in range(400)], k=18)) for _ in range(5_000)]
    parts["sentences"] = [
        (n, text, {("text", form) for form in forms_of_text(text, "en")}) for n, text in enumerate(sentences)
    ]
    rare = [made_up(30_000 + n).lower() for n in range(RARE_WORDS)]
    parts["rare"] = [(n, text, {("text", form) for form in forms_of_text(text, "en")}) for n, text in enumerate(rare)]
    for rows in parts.values():
        for _, text, of_text in rows:
            keys |= of_text | {("written", word) for word in written(text)}
    facts = {
        key: {("fact", form) for form in searching.forms_of_value(searching.own_part(key))}
        if key[0] not in ("brand", "currency")
        else set()
        for key in values
    }
    keys |= set().union(*facts.values())
    tokens = await searching.number(connection, keys, {})
    tokens |= await searching.number(connection, values, {key: [tokens[each] for each in facts[key]] for key in values})
    for name, rows in parts.items():
        await _table(
            connection,
            name,
            [(n, text, _tokens(tokens, of_text)) for n, text, of_text in rows],
        )
    await _table(
        connection,
        "leaves",
        [(n, leaf, [tokens["category", path] for path in above(leaf)]) for n, (leaf, _) in enumerate(leaves)],
    )
    await _table(connection, "brand_tokens", [(n, made_up(n), [tokens["brand", made_up(n)]]) for n in range(BRANDS)])
    await _table(connection, "colors", [(n, each, []) for n, each in enumerate(COLORS)])
    await _table(connection, "materials", [(n, each, []) for n, each in enumerate(MATERIALS)])
    await _table(connection, "sizes", [(n, size_order(str(n)), []) for n in range(34, 50)])


async def _table(
    connection: asyncpg.Connection[asyncpg.Record], name: str, rows: Sequence[tuple[int, str, Sequence[int]]]
) -> None:
    await connection.execute(f"CREATE TEMP TABLE {name} (n int PRIMARY KEY, text text, tokens int[])")
    await connection.copy_records_to_table(name, records=rows)


def _tokens(tokens: dict[searching.Key, int], keys: set[searching.Key]) -> list[int]:
    return sorted(tokens[key] for key in keys)


# `dice(n, salt)`: a number from 0 to 1 that is the same for the same product whenever it is asked for. Squares and
# cubes of it make few numbers frequent.
RECORDS = (
    "CREATE FUNCTION pg_temp.dice(n bigint, salt int) RETURNS float8 LANGUAGE sql IMMUTABLE AS"
    " $$SELECT (hashint8extended(n, salt) & 1073741823) / 1073741824.0$$",
    """
    CREATE TEMP TABLE plan AS SELECT n, 'P' || lpad(n::text, 8, '0') AS product_id,
        floor(pg_temp.dice(n, 1) ^ 3 * 2000)::int AS brand, floor(pg_temp.dice(n, 2) ^ 1.5 * 3000)::int AS model,
        floor(pg_temp.dice(n, 3) ^ 1.5 * 240)::int AS leaf, floor(pg_temp.dice(n, 4) * 5000)::int AS sentence,
        floor(pg_temp.dice(n, 5) * 20000)::int AS rare, floor(pg_temp.dice(n, 6) ^ 3 * 30)::int AS color,
        floor(pg_temp.dice(n, 7) * 3)::int AS gender, floor(pg_temp.dice(n, 8) ^ 2 * 10)::int AS material,
        34 + floor(pg_temp.dice(n, 9) * 13)::int AS size,
        now() - pg_temp.dice(n, 10) * interval '1000 days' AS create_time
    FROM generate_series(1, {products}) AS n
    """,
    """
    INSERT INTO products (product_id, brand, category, listed, version, create_time)
    SELECT p.product_id, b.text, l.text, true, 1, p.create_time
    FROM plan p JOIN brands b ON b.n = p.brand JOIN leaves l ON l.n = p.leaf
    """,
    *(
        f"""
        INSERT INTO product_texts (product_id, locale, title, description)
        SELECT p.product_id, '{locale}', b.text || ' ' || m.text || ' ' || e.text, s.text || ' ' || r.text
        FROM plan p JOIN brands b ON b.n = p.brand JOIN models m ON m.n = p.model JOIN nouns_{locale} e ON e.n = p.leaf
            JOIN sentences s ON s.n = p.sentence JOIN rare r ON r.n = p.rare
        """
        for locale in LOCALES
    ),
    # Three sizes of one colour; of every tenth product the third is another colour. The dearer the leaf, the dearer.
    """
    INSERT INTO variants (sku, product_id, brand, category, color, size, size_order,
        size_system, gender, age_group, gtin, image_link, free, material)
    SELECT p.product_id || '-' || v, p.product_id, b.text, l.text, c.text,
        (p.size + v)::text, s.text, 'EU', (ARRAY['female', 'male', 'unisex'])[1 + p.gender], 'adult', '',
        'https://www.example.org/' || p.product_id || '.jpg', CASE WHEN pg_temp.dice(p.n * 3 + v, 12) < 0.15 AND v > 0
        THEN 0 ELSE 5 END, m.text
    FROM plan p CROSS JOIN generate_series(0, 2) AS v JOIN brands b ON b.n = p.brand JOIN leaves l ON l.n = p.leaf
        JOIN colors c ON c.n = CASE WHEN v = 2 AND p.n % 10 = 0 THEN (p.color + 7) % 30 ELSE p.color END
        JOIN sizes s ON s.n = p.size + v JOIN materials m ON m.n = p.material
    """,
    """
    INSERT INTO current_prices (sku, currency, amount)
    SELECT p.product_id || '-' || v, each.currency,
        round((8 + 12 * (p.leaf % 16) * (0.8 + 0.4 * pg_temp.dice(p.n, 11)))::numeric, 2)
    FROM plan p CROSS JOIN generate_series(0, 2) AS v CROSS JOIN unnest(ARRAY['EUR', 'CHF']) AS each(currency)
    WHERE each.currency = 'EUR' OR p.n % 10 = 7
    """,
    """
    INSERT INTO product_words
        (product_id, number, described, title, text, brand, categories, name, name_de, name_en, name_cs)
    OVERRIDING SYSTEM VALUE
    SELECT p.product_id, p.n, 1, b.tokens || m.tokens || e.tokens || d.tokens || c.tokens, s.tokens || r.tokens,
        bt.tokens[1], l.tokens, lower(b.text || ' ' || m.text), lower(b.text || ' ' || m.text),
        lower(b.text || ' ' || m.text), lower(b.text || ' ' || m.text)
    FROM plan p JOIN brands b ON b.n = p.brand JOIN models m ON m.n = p.model JOIN nouns_en e ON e.n = p.leaf
        JOIN nouns_de d ON d.n = p.leaf JOIN nouns_cs c ON c.n = p.leaf JOIN leaves l ON l.n = p.leaf
        JOIN sentences s ON s.n = p.sentence JOIN rare r ON r.n = p.rare JOIN brand_tokens bt ON bt.n = p.brand
    """,
    # One product in five was ever ordered.
    """
    INSERT INTO product_popularity (product_id, popularity)
    SELECT product_id, 20 + 10 * pg_temp.dice(n, 13) ^ 4 FROM plan WHERE pg_temp.dice(n, 14) < 0.2
    """,
    # Heard until tomorrow, so that no answer has to be confirmed.
    """
    INSERT INTO watermarks (partition_number, as_of, heard_time)
    SELECT n, now() + interval '1 day', now() + interval '1 day' FROM generate_series(0, 5) AS n
    """,
)
# What catalog's own function makes of these records product by product (`_check` compares), for all of them at once.
ROWS = (
    """
    CREATE TEMP TABLE offering AS
    SELECT v.product_id, array_agg(ROW(currency.token, c.amount, size.token, size_system.token, color.token, NULL,
        material.token, gender.token, age_group.token)::search_offer) AS offers,
        array_agg(DISTINCT currency.token) AS currencies, array_agg(DISTINCT size.token) AS sizes,
        array_agg(DISTINCT color.token) AS colors, array_agg(DISTINCT material.token) AS materials,
        array_agg(DISTINCT gender.token) AS genders
    FROM variants v JOIN current_prices c ON c.sku = v.sku
        JOIN search_tokens currency ON currency.kind = 'currency' AND currency.value = c.currency
        JOIN search_tokens size ON size.kind = 'size' AND size.value = v.size
        JOIN search_tokens size_system ON size_system.kind = 'size_system'
        JOIN search_tokens color ON color.kind = 'color' AND color.value = v.color
        JOIN search_tokens material ON material.kind = 'material' AND material.value = v.material
        JOIN search_tokens gender ON gender.kind = 'gender' AND gender.value = v.gender
        JOIN search_tokens age_group ON age_group.kind = 'age_group'
    WHERE v.sellable GROUP BY v.product_id
    """,
    "CREATE TEMP TABLE meanings AS SELECT token, words FROM search_tokens WHERE words <> '{}'",
    "CREATE UNIQUE INDEX ON meanings (token)",
    "ANALYZE offering, meanings",
    """
    INSERT INTO search_rows
    SELECT w.number, w.product_id,
        ARRAY(SELECT DISTINCT unnest(w.title || w.text || f.facts || s.places || o.currencies)),
        w.title, f.facts, w.brand, w.categories, o.currencies, o.offers, coalesce(round(y.popularity * 4), 0),
        p.create_time, w.name, w.name_de, w.name_en, w.name_cs, hashint8(w.number) & 8191, w.described, 0
    FROM product_words w JOIN plan p ON p.n = w.number JOIN offering o ON o.product_id = w.product_id
        LEFT JOIN product_popularity y ON y.product_id = w.product_id
        CROSS JOIN LATERAL (SELECT o.sizes || o.colors || o.materials || o.genders || w.brand || w.categories || (
            SELECT array_agg(token) FROM search_tokens WHERE kind IN ('size_system', 'age_group')) AS places) s
        CROSS JOIN LATERAL (SELECT ARRAY(
            SELECT DISTINCT unnest((SELECT m.words FROM meanings m WHERE m.token = each.token))
            FROM unnest(s.places) AS each(token)) AS facts) f
    ORDER BY w.number
    """,
    """
    INSERT INTO search_prices (currency, number, amount)
    SELECT o.currency, r.number, min(o.amount) FROM search_rows r, unnest(r.offers) o GROUP BY o.currency, r.number
    """,
    """
    INSERT INTO search_counts (currency, token, products)
    SELECT p.currency, p.token, count(*) FROM search_rows r, search_places(r.brand, r.categories, r.offers) p
    GROUP BY p.currency, p.token
    """,
)
ROW = """
SELECT r.product_id, ARRAY(SELECT unnest(r.tokens) ORDER BY 1) AS tokens,
    ARRAY(SELECT unnest(r.facts) ORDER BY 1) AS facts, r.title, r.categories, r.currencies, r.popularity, r.lot,
    ARRAY(SELECT o::text FROM unnest(r.offers) o ORDER BY 1)
FROM search_rows r WHERE r.number % $1 = 0 ORDER BY r.number
"""


async def _check(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Some rows made anew by catalog are the same."""
    some = max(1, await connection.fetchval("SELECT count(*) FROM search_rows") // 100)
    made = await connection.fetch(ROW, some)
    await connection.execute(
        "SELECT refresh_search(ARRAY(SELECT product_id FROM product_words WHERE number % $1 = 0))", some
    )
    if await connection.fetch(ROW, some) != made:
        raise AssertionError("the benchmark makes other rows than catalog does")
