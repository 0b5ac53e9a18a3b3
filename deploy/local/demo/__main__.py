"""`make demo`: fills the running shop with its goods, plays the story, and prints where everything is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from ..__main__ import local_stack
from ..errors import StackError
from ..service import ROOT
from ..stack import Stack
from .story import StepFailed, told

DATA = ROOT / "deploy" / "demo_data"


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
    """Takes in the product feed and the stock file. Running it again changes nothing. Raises `StepFailed`."""
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "operator"
        token.touch(mode=0o600)
        token.write_text(stack.mint("operator"))
        for service, command, file in (
            ("catalog", "import-products", DATA / "products.tsv"),
            ("inventory", "import-stock", DATA / "stock.tsv"),
        ):
            done = subprocess.run(
                [
                    *(sys.executable, "-m", f"services.{service}", command, str(file)),
                    *("--address", stack.address(service), "--token-file", str(token)),
                ],
                cwd=ROOT,
                check=False,
            )
            if done.returncode:
                raise StepFailed(f"import of {file.name}", f"exit code {done.returncode}")


async def play(stack: Stack) -> None:
    """Plays the story and says where to look further."""
    async with told(stack, lambda line: print(line, flush=True)) as story:
        await story.play()
        trace_id = story.spans[0].trace_id
    print(f"""
The shop keeps running. Where everything is:
  this journey:   {stack.zipkin_url}/zipkin/?annotationQuery=journey.id%3D{story.journey_id}
  its first trace {stack.zipkin_url}/zipkin/traces/{trace_id}
  JSON API:       curl -s -X POST {stack.envoy_url}/shop.catalog.v1.CatalogService/ListProducts \\
                    -H 'content-type: application/json' -d '{{"pageSize": 2}}'
  gRPC:           {stack.address("catalog")} (catalog, with reflection); the others: make status
  metrics:        http://{stack.address("catalog").split(":")[0]}:{stack.ports["catalog-metrics"]}/metrics (catalog)
  a token:        make token ROLE=customer CUSTOMER={story.customer_id}
  to stop it:     make down""")


if __name__ == "__main__":
    sys.exit(main())
