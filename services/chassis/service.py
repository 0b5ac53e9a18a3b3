"""A service from start to stop: what is built in which order, and how it ends.

A service declares itself as a `Service` and calls `run`. `python -m services.<name>` serves; `migrate` prepares the
database and the topics; `replay TOPIC` handles its dead letters again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import uvloop

from services.chassis import dead_letters, logs, settings, telemetry
from services.chassis.access import TokenVerifier
from services.chassis.brokers import Brokers
from services.chassis.consumption import Consumption
from services.chassis.database import OUTAGES, Database
from services.chassis.errors import Unavailable
from services.chassis.facts import Hears, Topic
from services.chassis.grpc_server import GrpcServer, Servicer
from services.chassis.kafka import ensure_topics
from services.chassis.migrations import MigrationChanged, migrate, pending
from services.chassis.relay import Relay, Watermark

log = logging.getLogger(__name__)
AWAY: tuple[type[BaseException], ...] = (*OUTAGES, Unavailable)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a service builds its application from."""

    settings: Any
    database: Database
    telemetry: telemetry.Telemetry


class App(Protocol):
    """The application object of a service: what its servicers, consumers and background work stand on."""

    @property
    def servicers(self) -> Sequence[Servicer]:
        """What it answers over gRPC."""

    @property
    def background(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """What runs as long as the service does; started again when it fails."""

    async def ready(self) -> None:
        """Returns once the service may answer."""

    async def close(self) -> None:
        """Gives back what `build` opened."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service, declared."""

    name: str
    settings: type[settings.ServiceSettings]
    sql: Path
    publishes: Sequence[Topic]
    hears: Sequence[Hears]
    build: Callable[[Runtime], App]
    watermark: Watermark | None = None
    # Further commands: name -> (help, coroutine function of the remaining arguments, returning an exit code).
    commands: Mapping[str, tuple[str, Callable[[Sequence[str]], Coroutine[Any, Any, int]]]] = field(
        default_factory=dict
    )


def run(service: Service) -> None:
    """Runs the command of the command line, and ends the process with its exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{service.name}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="answer until told to stop (the default)")
    commands.add_parser("migrate", help="prepare the database and the topics, then end")
    replay = commands.add_parser("replay", help="handle the dead letters of a topic again")
    replay.add_argument("topic")
    replay.add_argument("--drop", metavar="FACT_ID", help="give this one up instead")
    for name, (text, _) in service.commands.items():
        commands.add_parser(name, help=text, add_help=False)
    given, rest = parser.parse_known_args()
    if given.command in service.commands:
        sys.exit(asyncio.run(service.commands[given.command][1](rest)))
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    loaded = settings.load(service.settings)
    logs.configure(service.name, loaded.log_level)
    if given.command == "migrate":
        try:
            asyncio.run(prepare(service, loaded))
        except MigrationChanged as refusal:
            sys.exit(str(refusal))
    elif given.command == "replay":
        sys.exit(asyncio.run(_replay(service, loaded, given.topic, given.drop)))
    else:
        uvloop.run(serve(service, loaded))


async def prepare(service: Service, loaded: settings.ServiceSettings) -> None:
    """Brings the schema and the topics to what this version needs. Safe to run at any time, by several at once."""
    applied, _ = await asyncio.gather(
        migrate(loaded.database_url, service.sql),
        ensure_topics(Brokers.of(loaded), service.publishes),
    )
    log.info("prepared", extra={"migrations": applied, "topics": [topic.name for topic in service.publishes]})


async def serve(service: Service, loaded: settings.ServiceSettings) -> None:
    """Answers until SIGTERM or SIGINT, then drains: no new calls, calls in hand, messages in hand, connections."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    observed = telemetry.start(service.name, loaded)
    database = Database(loaded.database_url, service.name, pool_size=loaded.database_pool_size)
    app = service.build(Runtime(loaded, database, observed))
    relay = Relay(database, Brokers.of(loaded), watermark=service.watermark, meter=observed.meter)
    database.wake_relay = relay.wake
    consumption = Consumption(service.name, database, Brokers.of(loaded), service.hears, app, meter=observed.meter)
    server = GrpcServer(loaded, observed, TokenVerifier(loaded), app.servicers)
    await server.start()
    await _open(database, service.sql, stop)
    # What is built by now stays: the collector need not look at it again, nor so often at what calls leave behind.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)
    tasks = [
        asyncio.create_task(_keep_running(work, name))
        for name, work in [
            ("relay", relay.run),
            ("consumption", consumption.start),
            *((getattr(work, "__qualname__", "background"), work) for work in app.background),
        ]
    ]
    ready = asyncio.create_task(_get_ready(app, server))
    await stop.wait()
    log.info("stopping")
    ready.cancel()
    await server.stop()
    await consumption.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(ready, *tasks, return_exceptions=True)
    await app.close()
    await database.close()
    await asyncio.to_thread(observed.stop)
    log.info("stopped")


async def _get_ready(app: App, server: GrpcServer) -> None:
    await _keep_running(app.ready, "getting ready")
    await server.set_serving(True)
    log.info("serving")


async def _open(database: Database, sql: Path, stop: asyncio.Event) -> None:
    """Waits for the database, and for the migrations of this version: both may come after us."""
    while not stop.is_set():
        try:
            await database.open()
            missing = await pending(database, sql)
        except AWAY as error:
            missing = [f"the database: {type(error).__name__}"]
        if not missing:
            return
        log.warning("waiting", extra={"for": missing})
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)
    raise SystemExit(0)


async def _keep_running(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Runs background work; when it fails, says so and starts it again a second later."""
    while True:
        try:
            await work()
        except Unavailable as refusal:
            log.warning("background work waits", extra={"work": name, "reason": refusal.reason})
        except Exception:
            log.exception("background work failed", extra={"work": name})
        else:
            return
        await asyncio.sleep(1)


async def _replay(service: Service, loaded: settings.ServiceSettings, topic: str, drop: str | None) -> int:
    observed = telemetry.start(service.name, loaded, metrics_endpoint=False)
    database = Database(loaded.database_url, service.name, pool_size=2)
    await database.open()
    app = service.build(Runtime(loaded, database, observed))
    try:
        return await dead_letters.replay(
            service.name, database, Brokers.of(loaded), service.hears, app, topic, drop=drop
        )
    finally:
        await app.close()
        await database.close()
        await asyncio.to_thread(observed.stop)
