"""`make bench`: the shop against bare rulers, as ratios of one run. Options: ARGS="--only list,reserve --rounds 3"."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from deploy.local.errors import StackError
from deploy.local.service import ROOT

from . import load, machine, report
from .figures import Row
from .hiding import commit_to_hidden
from .importing import import_files
from .ordering import place_order
from .reading import get_product, list_first_page
from .reserving import availability, commit, reserve
from .rounds import Bench
from .searching import SMALL, search
from .shop import open_shop
from .upgrading import order_to_upgrade

# In this order: first what needs all services, then what is measured with few.
MEASUREMENTS: Mapping[str, Callable[[Bench], list[Row]]] = {
    "list": list_first_page,
    "product": get_product,
    "hidden": commit_to_hidden,
    "upgrade": order_to_upgrade,
    "order": place_order,
    "reserve": reserve,
    "commit": commit,
    "availability": availability,
    "search": search,
    "import": import_files,
}
# Only when it is named: a million products take their time to make.
NAMED_ONLY = {"search"}


def main() -> int:
    """Returns 0 when everything was measured, whatever came out."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--only", metavar="NAME,…", help=f"some of: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--seconds", type=float, default=2, help="how long each time (default: 2)")
    parser.add_argument("--products", type=int, default=1_000_000, help="searched among (default: 1000000)")
    parser.add_argument("--rows", type=int, default=100_000, help="of a file that is imported (default: 100000)")
    parser.add_argument("--json", type=Path, default=ROOT / ".local" / "bench.json", help="where the figures go")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else [name for name in MEASUREMENTS if name not in NAMED_ONLY]
    if options.products <= SMALL:
        parser.error(f"search compares with {SMALL:,} products: ask for more")
    if unknown := set(names) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    console = Console()
    try:
        load.build()
        _measure(console, [name for name in MEASUREMENTS if name in names], options)
    except (load.Missing, StackError) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    return 0


def _measure(console: Console, names: list[str], options: argparse.Namespace) -> None:
    began, load_before = time.monotonic(), machine.load_average()

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - began:5.0f} s {line}", highlight=False, markup=False)

    rows: list[Row] = []
    with open_shop(lambda part, what, seconds: say(f"{part}: {what}")) as shop:
        bench = Bench(shop, options.rounds, options.seconds, say, options.products, options.rows)
        for name in names:
            say(f"measuring {name}")
            rows += MEASUREMENTS[name](bench)
        say("stopping")
    about = machine.description() | report.noise(shop.elsewhere, load_before, machine.load_average())
    settings = {"rounds": options.rounds, "seconds": options.seconds, "rows": options.rows, "only": names}
    report.write(options.json, report.as_json(rows, about, settings))
    for line in report.lines(rows):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{time.monotonic() - began:.0f} s; CPU used by others meanwhile: {_percent(about)}; {options.json}")


def _percent(about: Mapping[str, object]) -> str:
    median, most = about["cpu_used_elsewhere_median"], about["cpu_used_elsewhere_most"]
    return f"{median:.0%} (median), {most:.0%} (most)" if isinstance(median, float) else "not measured"


if __name__ == "__main__":
    sys.exit(main())
