"""Search among a million products: what each kind of question costs, beside the same among ten thousand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from google.protobuf.message import Message

from services.catalog.domain.feed import product_type
from shop.catalog.v1 import catalog_pb2 as catalog
from tests.relevance import LOOKED_AT, judged
from tests.relevance import measure as measure_relevance

from .assortment import BRANDS, COLORS, MODELS, NOUNS, Filled, categories, fill, made_up
from .figures import Measured, Ratio, Row
from .load import Load, answers
from .rounds import Bench, Contestant, measure
from .rulers.process import Ruler

SMALL = 10_000
# Different questions of each kind, so that nothing that is kept for a moment answers them.
DIFFERENT = 40
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of question, some of each."""

    title: str
    method: str
    questions: Sequence[Message]
    # What the 95th percentile may be, in milliseconds.
    p95: float | None = 60


def kinds() -> list[Kind]:
    """What shoppers ask, each time something else."""
    dice = random.Random(20260401)

    def brand() -> str:
        return made_up(int(dice.random() ** 3 * BRANDS))

    def filters(**values: str) -> list[catalog.Filter]:
        return [catalog.Filter(attribute=name, values=[value]) for name, value in values.items()]

    def asked(title: str, *questions: catalog.ListProductsRequest, p95: float | None = 60) -> Kind:
        return Kind(title, "ListProducts", questions, p95)

    def times(make: object) -> list[catalog.ListProductsRequest]:
        return [make() for _ in range(DIFFERENT)]  # type: ignore[operator]

    leaves = [product_type(leaf) for leaf, _ in categories()]
    dear = [leaf for leaf, noun in zip(leaves, [noun for _, noun in categories()], strict=True) if noun == NOUNS[-1]]

    def search(query: str) -> catalog.ListProductsRequest:
        return catalog.ListProductsRequest(query=query, facets=True)

    return [
        asked("first page", catalog.ListProductsRequest(), p95=None),
        asked("first page with counts", catalog.ListProductsRequest(facets=True)),
        asked(
            "narrow: size, colour and brand",
            *times(
                lambda: catalog.ListProductsRequest(
                    filters=filters(size=str(dice.randint(36, 46)), color=dice.choice(COLORS), brand=brand()),
                    facets=True,
                )
            ),
        ),
        asked(
            "middling: category, size and colour",
            *times(
                lambda: catalog.ListProductsRequest(
                    filters=filters(
                        category=dice.choice(leaves).rpartition(" > ")[0],
                        size=str(dice.randint(36, 46)),
                        color=dice.choice(COLORS),
                    ),
                    facets=True,
                )
            ),
        ),
        asked(
            "broad: top category and gender",
            *times(
                lambda: catalog.ListProductsRequest(
                    filters=filters(
                        category=dice.choice(leaves).partition(" > ")[0],
                        gender=dice.choice(("female", "male", "unisex")),
                        size=str(dice.randint(36, 46)),
                    ),
                    order_by=catalog.PRODUCT_ORDER_NEWEST,
                    facets=True,
                )
            ),
        ),
        asked(
            "against the order: the dearest kind, cheapest first",
            *times(
                lambda: catalog.ListProductsRequest(
                    filters=filters(category=dice.choice(dear), gender=dice.choice(("female", "male", "unisex"))),
                    order_by=catalog.PRODUCT_ORDER_PRICE_ASCENDING,
                    facets=True,
                )
            ),
        ),
        asked(
            "a common word", *(search(each) for each in ("sneaker", "boot", "sandal", "loafer", "slipper", "jacket"))
        ),
        asked("a common word and a brand", *times(lambda: search(f"{brand()} {dice.choice(NOUNS)[0]}"))),
        asked("a rare word", *times(lambda: search(made_up(30_000 + dice.randrange(20_000))))),
        asked("a typing error", *times(lambda: search(_misspelt(made_up(BRANDS + dice.randrange(MODELS)), dice)))),
        asked(
            "German", *(search(each) for each in ("turnschuhe", "wanderschuhe rot", "regenjacke", "schwarze sandalen"))
        ),
        asked("Czech", *(search(each) for each in ("tenisky", "turistická bota", "černý sandál", "pánské polobotky"))),
        Kind(
            "suggestions",
            "SuggestProducts",
            [
                catalog.SuggestProductsRequest(prefix=made_up(dice.randrange(BRANDS))[: dice.randint(2, 6)])
                for _ in range(DIFFERENT)
            ],
        ),
        Kind("categories", "ListCategories", [catalog.ListCategoriesRequest()]),
    ]


def search(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    large = bench.products
    filled = {products: asyncio.run(_filled(bench, products)) for products in dict.fromkeys((SMALL, large))}
    with Ruler("window", filled[SMALL][0]) as small, Ruler("window", filled[large][0]) as ours:
        for kind in kinds():
            answer = _look(ours, kind)
            _look(small, kind)
            contestants = {large: _asking(bench, ours, kind), SMALL: _asking(bench, small, kind)}
            measured = measure(bench, {f"{products:,} products": each for products, each in contestants.items()})
            note = f"{len(kind.questions)} questions; {answer['shown']:.0f} shown, {answer['total']:,.0f} in all"
            rows.append(Row(kind.title, measured, _ratios(kind, *measured), note))
        memory = ours.ask("memory")["bytes"] / MEGABYTE
    rows.append(_size_row(filled[large][1], memory))
    rows.append(_relevance(bench))
    return rows


def _asked(kind: Kind) -> dict[str, Any]:
    return {"method": kind.method, "questions": [each.SerializeToString().hex() for each in kind.questions]}


def _look(ruler: Ruler, kind: Kind) -> dict[str, Any]:
    return ruler.ask("look", **_asked(kind))


def _asking(bench: Bench, ruler: Ruler, kind: Kind) -> Contestant:
    return lambda _: bench.shop.measured([ruler.pid], lambda: ruler.run("ask", seconds=bench.seconds, **_asked(kind)))


def _ratios(kind: Kind, large: Measured, small: Measured) -> list[Ratio]:
    p95 = Ratio("ms: p95", large.milliseconds(95), at_most=kind.p95)
    if kind.title != "first page":
        return [p95]
    cost = large.milliseconds(50) / small.milliseconds(50)
    return [Ratio("times the median time among 10,000", cost, at_most=1.2), p95]


def _size_row(filled: Filled, memory: float) -> Row:
    note = (
        f"{filled.products:,} products; rows of the search {filled.rows_bytes / MEGABYTE:,.0f} MB, their indexes"
        f" {filled.index_bytes / MEGABYTE:,.0f} MB, the whole database {filled.database_bytes / MEGABYTE:,.0f} MB;"
        f" filled in {filled.fill_seconds:,.0f} s"
    )
    return Row(
        "what it takes",
        (),
        [
            Ratio("MB: the process that was asked", memory, at_most=300),
            Ratio("s: its indexes built", filled.index_seconds),
        ],
        note,
    )


def _relevance(bench: Bench) -> Row:
    """The judged queries, asked of the shop with the demo's goods."""
    target = bench.shop.target(
        "catalog", "shop.catalog.v1.CatalogService/ListProducts", "customer", customer_id="bench"
    )

    async def ask(query: str, locale: str) -> Sequence[str]:
        request = catalog.ListProductsRequest(query=query, locale=locale, page_size=LOOKED_AT)
        (body,) = await asyncio.to_thread(answers, target, [request], Load(callers=1, connections=1))
        return [product.product_id for product in catalog.ListProductsResponse.FromString(body).products]

    found = asyncio.run(measure_relevance(judged(), ask))
    return Row(
        "relevance over the demo's goods",
        (),
        [
            Ratio("MRR", found.mrr, at_least=0.95),
            Ratio("success@5", found.success_at_5, at_least=0.95),
            Ratio("nDCG@10", found.ndcg_at_10),
        ],
        f"{found.queries} judged queries in three languages;"
        f" not among the first five: {', '.join(found.failed) or 'none'}",
    )


async def _filled(bench: Bench, products: int) -> tuple[str, Filled]:
    """A database of its own with so many products, on the shop's server."""
    server = bench.shop.stack.database_server_url
    name = f"search_{products}"
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
    finally:
        await admin.close()
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    return url, await fill(url, products, bench.say)


def _misspelt(word: str, dice: random.Random) -> str:
    at = dice.randrange(1, len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
