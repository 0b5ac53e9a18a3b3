"""The shop that is measured: a whole stack of its own, filled, with the tokens and the meters of the benchmarks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from google.protobuf.message import Message

from deploy.local.demo.__main__ import fill
from deploy.local.ports import SERVICES
from deploy.local.stack import EVERYTHING, Progress, Stack
from deploy.local.temporary import temporary_stack
from shop.inventory.v1 import inventory_pb2 as inventory

from .figures import Run
from .load import Load, Target, answers
from .machine import Meter, Pids, busy_seconds, tree, used_seconds
from .recording import Recording, recorder

# No Envoy: what it costs is not ours to make faster.
PARTS = tuple(part for part in EVERYTHING if part != "envoy")
LOCATION = "bench-1"
# Units that no run uses up.
PLENTY = 1_000_000
COPY = "_bare"


class Shop:
    """A running stack. Its services may be stopped and started as a measurement needs."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._stopped: set[str] = set()
        # Of each run so far: which part of all cores somebody else used meanwhile.
        self.elsewhere: list[float] = []

    # -- calls

    def target(self, called: str, method: str, role: str, **claims: str) -> Target:
        """A method of a service, called with a token of that role."""
        headers = {"authorization": f"Bearer {self.stack.mint(role, **claims)}"}
        return Target(self.stack.address(called), method, headers)

    def as_shipping(self, method: str) -> Target:
        """A method of inventory, called as shipping calls it."""
        return self.target("inventory", f"shop.inventory.v1.InventoryService/{method}", "service", service="shipping")

    def ask(self, target: Target, request: Message) -> bytes:
        """One answer."""
        return answers(target, [request], Load(callers=1, connections=1))[0]

    @cached_property
    def deaf_catalog(self) -> str:
        """The address of a replica of catalog that hears nothing from Kafka: it owns no partition, and cannot."""
        return self.stack.start_replica("catalog", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")

    # -- what is there

    @cached_property
    def plenty(self) -> list[str]:
        """SKUs that never run out, sorted: all of them at one location."""
        rows = asyncio.run(
            self.fetch("catalog", "SELECT sku FROM variants ORDER BY md5(sku) LIMIT 600")  # spread over the catalog
        )
        skus = sorted(row["sku"] for row in rows)
        receipts = [
            inventory.ReceiveStockRequest(request_id=new_id("req"), sku=sku, location=LOCATION, quantity=PLENTY)
            for sku in skus
        ]
        receive = self.target("inventory", "shop.inventory.v1.InventoryService/ReceiveStock", "operator")
        answers(receive, receipts, Load(callers=8))
        return skus

    async def fetch(self, service: str, query: str) -> list[asyncpg.Record]:
        """Rows of a service's database."""
        connection = await asyncpg.connect(self.database_url(service))
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    # -- databases

    def database_url(self, name: str) -> str:
        """The URL of any database, as the owner of the server."""
        return urlunsplit(urlsplit(self.stack.database_server_url)._replace(path=f"/{name}"))

    def copy_url(self, service: str) -> str:
        """The URL of the copy that the bare transactions write, with the service's own role."""
        parts = urlsplit(self.stack.database_url(service))
        return urlunsplit(parts._replace(path=f"/{service}{COPY}"))

    def copy_database(self, *services: str) -> None:
        """Makes the copies, as the databases are now. The services are stopped meanwhile."""
        self.stack.supervisor.stop(*services)
        asyncio.run(self._copy(services))
        self._start(services)

    async def _copy(self, services: Sequence[str]) -> None:
        admin = await asyncpg.connect(self.stack.database_server_url)
        try:
            for service in services:
                await admin.execute(f"DROP DATABASE IF EXISTS {service}{COPY} WITH (FORCE)")
                await admin.execute(f"CREATE DATABASE {service}{COPY} TEMPLATE {service} OWNER {service}")
        finally:
            await admin.close()

    def recorded(self, call: Callable[[], object], *services: str) -> dict[str, Recording]:
        """What one call writes into the databases of some services."""
        return asyncio.run(_record(services, self.database_url, call))

    # -- which services run

    def only(self, *wanted: str) -> None:
        """Has just these services running."""
        leaving = [service for service in SERVICES if service not in wanted and service not in self._stopped]
        if leaving:
            self.stack.supervisor.stop(*leaving)
            self._stopped |= set(leaving)
        self._start(self._stopped & set(wanted))

    def all(self) -> None:
        """Has all services running."""
        self.only(*SERVICES)

    def _start(self, services: Collection[str]) -> None:
        with ThreadPoolExecutor() as pool:
            for started in [pool.submit(self.stack.start, service) for service in services]:
                started.result()
        self._stopped -= set(services)

    # -- meters

    def measured(self, servers: Sequence[str | int], action: Callable[[], Run]) -> Run:
        """A run with the CPU seconds of its servers (services, or pids, together), of PostgreSQL, Kafka and Zipkin.

        Without servers the CPU is not of interest; how busy others keep the machine is noted always.
        """
        pids = [self.stack.pid(server) if isinstance(server, str) else server for server in servers]
        parts: dict[str, Pids] = {"server": lambda: pids}
        parts |= {part: tree(self.stack.pid(part)) for part in ("postgres", "kafka", "zipkin")}
        top = int((self.stack.state / "supervisord.pid").read_text())
        began = time.perf_counter()
        all_busy, ours = busy_seconds(), used_seconds(os.getpid()) + used_seconds(top)
        with Meter(parts).measured() as spent:
            run = action()
        all_busy, ours = busy_seconds() - all_busy, used_seconds(os.getpid()) + used_seconds(top) - ours
        share = (all_busy - ours) / (time.perf_counter() - began) / (os.cpu_count() or 1)
        self.elsewhere.append(min(1.0, max(0.0, share)))
        if not servers:
            return replace(run, cpu={})
        return replace(run, cpu={**spent, **{part: seconds for part, seconds in run.cpu.items() if part == "client"}})


async def _record(
    services: Sequence[str], url_of: Callable[[str], str], call: Callable[[], object]
) -> dict[str, Recording]:
    """One recorder inside of the other, and the call inside of all."""
    if not services:
        await asyncio.to_thread(call)
        return {}
    async with recorder(url_of(services[0])) as noted:
        others = await _record(services[1:], url_of, call)
        return {services[0]: await noted.recording(), **others}


@contextmanager
def open_shop(progress: Progress) -> Iterator[Shop]:
    """A whole shop, filled with the demo's goods, gone afterwards."""
    # Limits that no load reaches, so that what they cost is measured, too.
    os.environ |= {"GRPC_CALLER_RATE": "1000000", "GRPC_VISITOR_RATE": "1000000"}
    with temporary_stack(PARTS, progress) as stack:
        fill(stack)
        yield Shop(stack)


def new_id(kind: str) -> str:
    """A fresh id, such as req_3f2a…"""
    return f"{kind}_{uuid4().hex}"
