"""`make demo`: fills the running shop with its goods, plays the story, and prints where everything is."""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from ..__main__ import local_stack
from ..errors import StackError
from ..imports import import_file
from ..service import ROOT
from ..stack import Stack
from .story import StepFailed, told

DATA = ROOT / "deploy" / "demo_data"
TRANSLATIONS = ("de", "cs")


def main() -> int:
    """Returns 0 when every step came true."""
    stack = local_stack()
    try:
        fill(stack)
        asyncio.run(play(stack))
    except (StepFailed, StackError) as failure:
        print(f"\n{failure}\nSee make status, and make logs SERVICE=…", file=sys.stderr)
        return 1
    return 0


def fill(stack: Stack) -> None:
    """Takes in the product feed, then its translations and the stock file at once. Run again, it changes nothing.

    Raises `StepFailed`.
    """
    _import(stack, "catalog", "products.tsv")
    with ThreadPoolExecutor() as pool:
        rest = [pool.submit(_import, stack, "catalog", f"products.{locale}.tsv", locale) for locale in TRANSLATIONS]
        rest.append(pool.submit(_import, stack, "inventory", "stock.tsv"))
    for imported in rest:
        imported.result()


def _import(stack: Stack, service: str, name: str, locale: str = "") -> None:
    code = import_file(stack, service, DATA / name, locale)
    if code:
        raise StepFailed(f"import of {name}", f"exit code {code}")


async def play(stack: Stack) -> None:
    """Plays the story and says where to look further."""
    async with told(stack, lambda line: print(line, flush=True)) as story:
        await story.play()
        first, now = story.spans[0], time.time_ns() // 10**6
        # Zipkin's page shows the ten newest traces of the last quarter of an hour, unless told more.
        search = f"annotationQuery=journey.id%3D{story.journey_id}&limit=500"
        search += f"&lookback=range&startTs={first.start // 1000 - 1000}&endTs={now}"
    print(f"""
The shop keeps running. Where everything is:
  this journey:   {stack.zipkin_url}/zipkin/?{search}
  its first trace {stack.zipkin_url}/zipkin/traces/{first.trace_id}
  JSON API:       curl -s -X POST {stack.envoy_url}/shop.catalog.v1.CatalogService/ListProducts \\
                    -H 'content-type: application/json' -d '{{"pageSize": 2}}'
  gRPC:           .venv/bin/buf curl --protocol grpc --http2-prior-knowledge --reflect -d '{{"pageSize": 2}}' \\
                    http://{stack.address("catalog")}/shop.catalog.v1.CatalogService/ListProducts
                  (that is catalog; the others' ports: make status)
  metrics:        http://{stack.address("catalog").split(":")[0]}:{stack.ports["catalog-metrics"]}/metrics (catalog)
  a token:        make token ROLE=customer CUSTOMER={story.customer_id}
  to stop it:     make down""")


if __name__ == "__main__":
    sys.exit(main())
