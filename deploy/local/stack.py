"""One running shop, or a part of it: what `make up`, the demo, the benchmarks and the tests start.

stack = Stack(state, Ports.free(), INFRASTRUCTURE)
stack.up(print_progress)
...
stack.down()
"""

from __future__ import annotations

import fcntl
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from . import envoy, kafka, postgres, service, zipkin
from . import issuer as issuing
from .addresses import NOTHING_EXTERNAL, Addresses, External
from .errors import NotRunning, PartFailed, PortTaken, StackError
from .part import Part
from .ports import SERVICES, Ports, described, is_open, listener, setting
from .supervision import Exit, Program, Supervisor

INFRASTRUCTURE = ("postgres", "kafka", "issuer")
EVERYTHING = ("postgres", "kafka", "zipkin", "issuer", "envoy", *SERVICES)

Progress = Callable[[str, str, float], None]
"""Told (part, what happened, seconds since `up` began)."""


def silent(part: str, what: str, seconds: float) -> None:
    pass


@dataclass(frozen=True)
class Status:
    name: str
    state: str
    pid: int
    seconds: float
    """Since it was started; 0 when it does not run."""
    memory: int
    """Bytes resident, with its child processes; pages they share are counted once."""
    exits: list[Exit]
    """Each time it ended without being told to."""


class Stack(Addresses):
    def __init__(
        self,
        state: Path,
        ports: Ports,
        parts: Sequence[str] = EVERYTHING,
        external: External = NOTHING_EXTERNAL,
        bound_to: int | None = None,
    ) -> None:
        """`bound_to`: a process whose end, however sudden, ends the stack too."""
        super().__init__(state, ports, parts, external)
        self.bound_to = bound_to
        self.supervisor = Supervisor(self.state, service.ROOT)
        self._abort = threading.Event()
        self._replicas: dict[str, Part] = {}

    # -- the whole

    def is_up(self) -> bool:
        """Whether every part has a process; `up` and `await_ready` tell whether it answers."""
        try:
            return all(self.supervisor.info(name)["pid"] for name in self.wanted)
        except NotRunning:
            return False

    def up(self, progress: Progress = silent) -> None:
        """Have every part running and truly ready; what already runs unchanged is left as it is.

        Raises PortTaken when nothing was changed yet; or PartFailed or JarError, and what was started keeps running.
        """
        with self._alone():
            self._up(progress)

    def _up(self, progress: Progress) -> None:
        began = time.monotonic()
        self._abort.clear()
        parts = {part.name: part for part in self._parts()}
        self._refuse_taken_ports(parts)
        self.ports.remember(self.state)
        self.supervisor.start()
        for part in parts.values():
            self.supervisor.set(part.program)
        if "postgres" in self.external.replaced and set(parts) & set(SERVICES):
            postgres.provision(self.database_server_url, self.secrets)

        def tell(part: str, what: str) -> None:
            progress(part, what, time.monotonic() - began)

        with ThreadPoolExecutor(len(parts), thread_name_prefix="up") as pool:
            pending = dict(parts)
            running: dict[Future[None], str] = {}
            try:
                while pending or running:
                    for name in [n for n, part in pending.items() if not self._missing(part, pending, running)]:
                        running[pool.submit(self._bring_up, pending.pop(name), tell)] = name
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        running.pop(done)
                        done.result()
            finally:
                self._abort.set()  # after a failure or Ctrl-C, the others stop waiting

    def down(self) -> None:
        """Stop everything of this stack: the services drain first, then what they stand on."""
        self._abort.set()
        try:
            names = self.supervisor.names()
            stands_on = [name for name in ("postgres", "kafka", "zipkin", "issuer", "watch") if name in names]
            self.supervisor.stop(*(name for name in names if name not in stands_on))
            self.supervisor.stop(*stands_on)
        except NotRunning:
            pass
        self.supervisor.shut_down()

    def status(self) -> list[Status]:
        """Raises NotRunning when nothing is up."""
        return [self._status(name) for name in self.supervisor.names()]

    def memory(self) -> int:
        """Bytes resident of all its processes together; pages they share are counted once."""
        return _memory(int((self.state / "supervisord.pid").read_text()))

    # -- one part

    def pid(self, part: str) -> int:
        """Raises NotRunning when it does not run at the moment."""
        found = int(self.supervisor.info(part)["pid"])
        if not found:
            raise NotRunning(part)
        return found

    def signal(self, part: str, number: signal.Signals) -> None:
        self.supervisor.signal(part, number)

    def stop(self, part: str) -> None:
        """Stop one part; it stays down until `start`."""
        self.supervisor.stop(part)

    def start(self, part: str) -> None:
        """Start one part and wait until it is ready."""
        self.supervisor.begin(part)
        self.await_ready(part)

    def restart(self, part: str) -> None:
        """Stop one part, start it, and wait until it is ready."""
        self.supervisor.info(part)
        self.stop(part)
        self.start(part)

    def await_ready(self, part: str) -> None:
        """Wait until the part answers as it should. Raises PartFailed when it does not in time."""
        self._abort.clear()
        known = {each.name: each for each in self._parts()} | self._replicas
        self._await(known[part], may_die=True)

    def start_replica(self, name: str, **settings: str) -> str:
        """One more process of a service, ready, with ports of its own; returns its address. It ends with the stack.

        `settings` replace those it would run with.
        """
        replica = f"{name}-{sum(1 for each in self._replicas if each.startswith(name)) + 2}"
        free = Ports.free((replica, f"{replica}-metrics"))
        self.ports = Ports({**self.ports.numbers, **free.numbers})
        environment = self.environment(name, replica, f"{replica}-metrics") | settings
        log = self.supervisor.log(f"{replica}-migrate")
        part = service.part(replica, name, environment, log, (), (replica, f"{replica}-metrics"), migrates=False)
        self._replicas[replica] = part
        self.supervisor.set(part.program)
        self.start(replica)
        return self.address(replica)

    # -- inside

    def _parts(self) -> Iterator[Part]:
        if self.bound_to:
            command = [sys.executable, "-m", "deploy.local.watch"]
            command += [str(self.bound_to), str(self.state / "supervisord.pid")]
            yield Part(Program("watch", command), is_ready=lambda: True)
        for name in self.wanted:
            yield self._part(name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A second `up` of the same stack waits for the first, and then finds everything done."""
        with (self.state / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _part(self, name: str) -> Part:
        if name in SERVICES:
            needs = tuple(part for part in ("postgres", "kafka") if part in self.wanted)
            log = self.supervisor.log(f"{name}-migrate")
            return service.part(name, name, self.environment(name), log, needs, (name, f"{name}-metrics"))
        match name:
            case "postgres":
                return postgres.part(self.state, self.ports, self.secrets)
            case "kafka":
                return kafka.part(self.state, self.ports)
            case "zipkin":
                return zipkin.part(self.ports)
            case "issuer":
                return issuing.part(self.state, self.ports)
            case "envoy":
                return envoy.part(self.state, self.ports, service.ROOT / "proto" / "shop.binpb")
        raise StackError(f"there is no part {name!r}; there are {', '.join(EVERYTHING)}")

    def _missing(self, part: Part, pending: Mapping[str, Part], running: Mapping[Future[None], str]) -> bool:
        return any(need in pending or need in running.values() for need in part.needs)

    def _bring_up(self, part: Part, tell: Callable[[str, str], None]) -> None:
        runs = bool(self.supervisor.info(part.name)["pid"])
        if not runs:
            if part.name in SERVICES:
                self._mint_for(part.name)
            part.prepare(lambda what: tell(part.name, what))
            if self._abort.is_set():
                return
            self.supervisor.begin(part.name)
        self._await(part)
        if self._abort.is_set():
            return
        part.finish(lambda what: tell(part.name, what))
        if not runs:
            tell(part.name, "ready")

    def _await(self, part: Part, may_die: bool = False) -> None:
        end = time.monotonic() + part.seconds
        while not self._abort.is_set():
            state = self.supervisor.info(part.name)["statename"]
            if state == "FATAL" or (state in ("BACKOFF", "EXITED") and not may_die):
                raise PartFailed(part.name, "ended instead of starting", self.supervisor.log(part.name))
            try:
                if part.is_ready():
                    return
            except Exception as error:  # anything a part not yet up may answer with
                reason = str(error) or type(error).__name__
            else:
                reason = "it says it is not ready"
            if time.monotonic() > end:
                what = f"was not ready after {part.seconds:.0f} s ({reason.splitlines()[0]})"
                raise PartFailed(part.name, what, self.supervisor.log(part.name))
            time.sleep(0.1)

    def _refuse_taken_ports(self, parts: Mapping[str, Part]) -> None:
        """Before anything is touched: a shop that runs with other ports goes on when it cannot move."""
        running = {info["name"]: int(info["pid"]) for info in self.supervisor.infos() if info["pid"]}
        stays = {name for name in running if name not in parts or self.supervisor.has(parts[name].program)}
        wanted = [name for part in parts.values() if part.name not in stays for name in part.ports]
        taken = {name: listener(self.ports[name]) for name in wanted if is_open(self.ports[name])}
        if not taken:
            return
        kept = {process.pid for name in stays for process in _tree(running[name])}
        # What is ours and does not stay is stopped before its port is taken again.
        leaves = {process.pid for process in self.supervisor.processes()} - kept
        foreign = {name: pid for name, pid in taken.items() if pid not in leaves}
        if foreign:
            raise PortTaken([(self.ports[name], name, described(pid), setting(name)) for name, pid in foreign.items()])

    def _mint_for(self, name: str) -> None:
        file = self.token_file(name)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        draft = file.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(self.mint("service", service=name))
        draft.replace(file)

    def _status(self, name: str) -> Status:
        info = self.supervisor.info(name)
        running = info["pid"] != 0
        return Status(
            name,
            "frozen" if running and _is_frozen(info["pid"]) else info["statename"].lower(),
            info["pid"],
            max(0.0, time.time() - info["start"]) if running else 0.0,
            _memory(info["pid"]) if running else 0,
            self.supervisor.exits(name),
        )


def _memory(pid: int) -> int:
    try:
        return sum(process.memory_full_info().pss for process in _tree(pid))
    except psutil.Error:
        return 0


def _is_frozen(pid: int) -> bool:
    """Whether a signal stopped it: it lives, and answers nobody."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def _tree(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]
