"""Files taken in through the commands: a product feed and a stock file, each for the first time and again.

The rows are made of the demo's: its words, three variants a product. Once the shop has no stock of what comes, so that
nothing can be shown yet; once it has, so that all of it comes into the window and the search with the feed.
"""

from __future__ import annotations

import asyncio
import csv
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psutil

from deploy.demo_data.generate import gtin13
from deploy.local.imports import COMMANDS
from deploy.local.service import ROOT

from .figures import Ratio, Row
from .machine import Meter, tree
from .rounds import Bench
from .shop import Shop

VARIANTS = 3
GOAL_ROWS_PER_SECOND = 5_000
LOCATION = "bench-1"
SAMPLE_SECONDS = 0.1
HEARING_SECONDS = 1_800
# What the search and the window are read from; the rest are the records.
SEARCH = ("product_words", "search_tokens", "search_rows", "search_prices", "search_counts")

Cells = dict[str, str]


def demo_products() -> list[Cells]:
    """A row of each of the demo's products."""
    with (ROOT / "deploy/demo_data/products.tsv").open(newline="") as file:
        return list({row["item_group_id"]: row for row in csv.DictReader(file, delimiter="\t")}.values())


def write_feed(file: Path, prefix: str, rows: int) -> list[str]:
    """A feed of so many rows; returns its SKUs. Products differ as the demo's do: title of one, text of another."""
    known = demo_products()
    sentences = [sentence for row in known for sentence in row["description"].split(". ")]
    skus: list[str] = []
    with file.open("w", newline="") as opened:
        table = csv.DictWriter(opened, list(known[0]), delimiter="\t", lineterminator="\n")
        table.writeheader()
        for number in count():
            one, other = known[number % len(known)], known[number // len(known) * 7 % len(known)]
            about = f"{sentences[number * 31 % len(sentences)]}. {sentences[number * 17 % len(sentences)]}"
            for variant in range(VARIANTS):
                if len(skus) == rows:
                    return skus
                skus.append(f"{prefix}{number}-{variant}")
                own = {
                    "id": skus[-1],
                    "item_group_id": f"{prefix}{number}",
                    "title": f"{other['brand']} {one['title'].partition(' ')[2]} {number}",
                    "description": about,
                    "brand": other["brand"],
                    "color": other["color"],
                    "size": str(36 + (number + variant) % 10),
                    "gtin": gtin13(len(skus)),
                    "price": f"{20 + number % 150}.95 EUR",
                }
                table.writerow(one | own)
    raise AssertionError


def write_stock(file: Path, skus: Sequence[str]) -> None:
    """A stock file with some of each."""
    lines = (f"{sku}\t{LOCATION}\t{3 + number % 20}\n" for number, sku in enumerate(skus))
    with file.open("w") as opened:
        opened.write("sku\tlocation\tquantity\n")
        opened.writelines(lines)


def import_files(bench: Bench) -> list[Row]:
    """Feed and stock file, in either order."""
    shop = bench.shop
    shop.only("catalog", "inventory")
    with tempfile.TemporaryDirectory() as folder:
        taking = Taking(bench, Path(folder))
        feed, stock, later, early = (Path(folder) / f"{name}.tsv" for name in ("feed", "stock", "later", "early"))
        skus = write_feed(feed, "F", bench.rows)
        write_stock(stock, skus)
        expected = write_feed(later, "L", bench.rows)
        write_stock(early, expected)
        before = taking.disk()
        rows = [
            taking.taken_in("catalog", feed, "product feed, new, not in stock", GOAL_ROWS_PER_SECOND),
            taking.taken_in("catalog", feed, "product feed again, nothing changed", GOAL_ROWS_PER_SECOND),
            taking.taken_in("inventory", stock, "stock file, new", None),
            taking.heard(skus, "window and search built from the stock heard"),
            taking.taken_in("inventory", stock, "stock file again, nothing changed", None),
            taking.taken_in("inventory", early, "stock file of what no feed has brought", None),
            taking.heard(expected, "that stock heard"),
            taking.taken_in("catalog", later, "product feed, new, in stock already", GOAL_ROWS_PER_SECOND),
        ]
        grown = [after - size for size, after in zip(before, taking.disk(), strict=True)]
        thousands = 2 * bench.rows / 1000
        rows.append(
            Row(
                "disk of catalog, all of it in the window",
                (),
                [
                    Ratio("MB a 1,000 rows, in all", grown[0] / 1e6 / thousands),
                    Ratio("MB a 1,000 rows, of the search with its indexes", grown[1] / 1e6 / thousands),
                ],
            )
        )
    return rows


@dataclass
class Peak:
    """The most memory that a process had, in bytes."""

    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Taking:
    """Runs the commands, and what they cost."""

    bench: Bench
    folder: Path
    token_file: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_file", self.folder / "operator")
        self.token_file.touch(mode=0o600)

    @property
    def shop(self) -> Shop:
        return self.bench.shop

    def taken_in(self, service: str, file: Path, title: str, goal: float | None) -> Row:
        """One file, through the service's command."""
        self.token_file.write_text(self.shop.stack.mint("operator"))
        command = [sys.executable, "-m", f"services.{service}", COMMANDS[service], str(file)]
        command += ["--address", self.shop.stack.address(service), "--token-file", str(self.token_file)]
        pid = self.shop.stack.pid(service)
        with self._metered(service) as spent, _peak(pid) as memory:
            began = time.perf_counter()
            client = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert client.stdout
            said = client.stdout.read().strip()
            _, status, used = os.wait4(client.pid, 0)
            client.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - began
        if client.returncode:
            raise RuntimeError(f"{title}: exit code {client.returncode}")
        rows = self.bench.rows
        spent["client"] = used.ru_utime + used.ru_stime
        self.bench.say(f"  {title}: {rows / seconds:,.0f} rows/s ({said})")
        return Row(
            title,
            (),
            [
                Ratio("rows/s", rows / seconds, at_least=goal),
                *_costs(spent, rows),
                Ratio("MiB: most memory of the client", used.ru_maxrss / 1024),
                Ratio("MiB: most memory of the service", memory.bytes / 2**20),
            ],
        )

    def heard(self, skus: Sequence[str], title: str) -> Row:
        """Until catalog has heard the stock of all these."""
        with self._metered("catalog") as spent:
            began = time.perf_counter()
            asyncio.run(self._until_heard(skus[0][0], len(skus)))
            seconds = time.perf_counter() - began
        self.bench.say(f"  {title}: {seconds:.1f} s after the file")
        return Row(title, (), [Ratio("s after the file was taken in", seconds), *_costs(spent, len(skus))])

    def disk(self) -> tuple[int, int]:
        """Bytes of catalog's database, and of the search in it."""
        search = f"SELECT sum(pg_total_relation_size(name::regclass))::bigint FROM unnest(ARRAY{list(SEARCH)}) AS name"
        query = f"SELECT pg_database_size(current_database()) AS all, ({search}) AS search"
        [row] = asyncio.run(self.shop.fetch("catalog", query))
        return row["all"], row["search"]

    async def _until_heard(self, prefix: str, rows: int) -> None:
        async with asyncio.timeout(HEARING_SECONDS):
            while True:
                query = f"SELECT count(*) FROM stock_copy WHERE sku >= '{prefix}' AND sku < '{prefix}~'"
                [[found]] = await self.shop.fetch("catalog", query)
                if found >= rows:
                    return
                await asyncio.sleep(0.5)

    @contextmanager
    def _metered(self, service: str) -> Iterator[dict[str, float]]:
        pids = {"service": lambda: [self.shop.stack.pid(service)], "postgres": tree(self.shop.stack.pid("postgres"))}
        with Meter(pids).measured() as spent:
            yield spent


def _costs(spent: dict[str, float], rows: int) -> list[Ratio]:
    return [
        Ratio(f"CPU ms per 1,000 rows: {part}", spent[part] * 1e6 / rows)
        for part in ("client", "service", "postgres")
        if part in spent
    ]


@contextmanager
def _peak(pid: int) -> Iterator[Peak]:
    peak, ended, process = Peak(), threading.Event(), psutil.Process(pid)

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peak.bytes = max(peak.bytes, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
