"""The process manager of one stack: supervisor, on a unix socket in the stack's state directory.

One file per part in `parts/`, so that a part can be added to, or changed in, a running stack without touching the rest.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from .errors import NotRunning, StackError

# A unix socket's path has at most 107 bytes, everywhere on Linux.
LONGEST_SOCKET = 107
MARK = "SHOP_STACK"  # in the environment of every process of a stack, with its state directory
EXITED = re.compile(r"^(\S+ \S+),\d+ \w+ exited: (\S+) \((.*?)(; not expected|; expected)?\)")

_MAIN = """\
[supervisord]
pidfile = {state}/supervisord.pid
logfile = {state}/log/supervisord.log
logfile_maxbytes = 5MB
logfile_backups = 1
childlogdir = {state}/log
loglevel = info
umask = 027

{user}
[unix_http_server]
file = {socket}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[include]
files = {state}/parts/*.ini
"""

_PART = """\
[program:{name}]
command = {command}
directory = {directory}
environment = {environment}
autostart = false
autorestart = true
startsecs = 1
startretries = 30
stopsignal = {stop_signal}
stopwaitsecs = {stop_seconds}
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


@dataclass(frozen=True)
class Program:
    """One long-running process, as the manager needs to know it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 20


@dataclass(frozen=True)
class Exit:
    """One time a part ended without having been told to."""

    when: datetime
    how: str


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        # Called by the transport for its one connection; a transport serves one call.
        self.close()
        connection = _UnixConnection(self.path)
        self._connection = host, connection  # so that closing the proxy closes it
        return connection


class Supervisor:
    def __init__(self, state: Path, directory: Path) -> None:
        self.state, self.directory = state, directory
        self.socket = state / "supervisor.sock"
        if len(str(self.socket)) > LONGEST_SOCKET:
            raise StackError(
                f"the path {self.socket} is too long for a socket: work in a directory with a shorter path"
            )

    # -- the manager itself

    def is_running(self) -> bool:
        try:
            return bool(self._call("getState")["statecode"] == 1)
        except NotRunning:
            return False

    def start(self) -> None:
        """Start the manager, without any part, unless it runs."""
        if self.is_running():
            return
        self.end_leftovers()
        (self.state / "log").mkdir(parents=True, exist_ok=True)
        (self.state / "parts").mkdir(exist_ok=True)
        for old in (self.state / "parts").glob("*.ini"):
            old.unlink()
        (self.state / "log" / "supervisord.log").unlink(missing_ok=True)  # `exits` are those of this run
        main = self.state / "supervisord.conf"
        user = "user = root\n" if os.geteuid() == 0 else ""  # else it warns that it was not told to drop rights
        main.write_text(_MAIN.format(user=user, state=_escaped(str(self.state)), socket=_escaped(str(self.socket))))
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(main)]
        done = subprocess.run(command, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(f"the process manager did not start: {done.stdout}{done.stderr}".strip())
        wait_until(self.is_running, 10, "the process manager did not answer")

    def shut_down(self) -> None:
        """Stop the manager and whatever still runs under it."""
        with contextlib.suppress(NotRunning):
            process = psutil.Process(self._call("getPID"))
            self._call("shutdown")
            process.wait(60)
        self.end_leftovers()

    def end_leftovers(self) -> None:
        """End processes of this very stack whose manager was killed; nobody else's."""
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        for process in psutil.wait_procs(left, timeout=10)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Every process of this very stack, also of a manager that was killed."""
        return [process for process in psutil.process_iter() if _mark(process) == str(self.state)]

    # -- its parts

    def set(self, program: Program) -> bool:
        """Make a part known, or take over its new form (it is stopped then). True when anything changed."""
        if self.has(program):
            return False
        file = self._file(program.name)
        if file.exists():
            self.forget(program.name)
        file.touch(mode=0o600)
        file.write_text(self._described(program))
        self._call("reloadConfig")
        self._call("addProcessGroup", program.name)
        return True

    def has(self, program: Program) -> bool:
        """Whether the part is known in this very form."""
        file = self._file(program.name)
        return file.exists() and file.read_text() == self._described(program)

    def _file(self, name: str) -> Path:
        return self.state / "parts" / f"{name}.ini"

    def _described(self, program: Program) -> str:
        text = _PART.format(
            name=program.name,
            command=_escaped(" ".join(_quoted(word) for word in program.command)),
            directory=_escaped(str(self.directory)),
            environment=",".join(
                f'{key}="{_escaped(value)}"' for key, value in {**program.environment, MARK: str(self.state)}.items()
            ),
            stop_signal=program.stop_signal,
            stop_seconds=program.stop_seconds,
            log=_escaped(str(self.log(program.name))),
        )
        if program.user:
            text += f"user = {program.user}\n"
        return text

    def forget(self, name: str) -> None:
        """Stop a part and take it out."""
        self.stop(name)
        self._file(name).unlink(missing_ok=True)
        self._call("reloadConfig")
        with contextlib.suppress(xmlrpc.client.Fault):
            self._call("removeProcessGroup", name)

    def begin(self, name: str) -> None:
        """Start a part without waiting for anything."""
        with _ignoring("ALREADY_STARTED"):
            self._call("startProcess", name, False)

    def stop(self, *names: str) -> None:
        """Stop parts, all at once; returns when they have ended."""
        for name in names:
            with _ignoring("NOT_RUNNING", "BAD_NAME"):
                self._call("stopProcess", name, False)
        wait_until(
            lambda: not any(self.info(name)["pid"] for name in names if name in self.names()),
            60,
            f"{', '.join(names)} did not stop",
        )

    def signal(self, name: str, number: signal.Signals) -> None:
        self._call("signalProcess", name, number.name.removeprefix("SIG"))

    def info(self, name: str) -> dict[str, Any]:
        """Supervisor's own record: pid (0 when it does not run), statename, start (seconds since the epoch)."""
        try:
            found: dict[str, Any] = self._call("getProcessInfo", name)
        except xmlrpc.client.Fault:
            raise NotRunning(name) from None
        return found

    def infos(self) -> list[dict[str, Any]]:
        """The record of every part; none when the manager does not run."""
        with contextlib.suppress(NotRunning):
            return list(self._call("getAllProcessInfo"))
        return []

    def names(self) -> list[str]:
        return [each["name"] for each in self._call("getAllProcessInfo")]

    def log(self, name: str) -> Path:
        return self.state / "log" / f"{name}.log"

    def exits(self, name: str) -> list[Exit]:
        """Every time the part ended by itself since this log began, oldest first."""
        file = self.state / "log" / "supervisord.log"
        found = (EXITED.match(line) for line in (file.read_text().splitlines() if file.exists() else ()))
        return [Exit(datetime.fromisoformat(m[1]), m[3]) for m in found if m and m[2] == name]

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            with xmlrpc.client.ServerProxy("http://localhost", transport=_UnixTransport(self.socket)) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, http.client.HTTPException):
            raise NotRunning("the stack") from None


def wait_until(true: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Poll until `true()` holds. Raises StackError(otherwise) when it does not in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise StackError(otherwise)
        time.sleep(0.05)


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word or ";" in word else word


@contextlib.contextmanager
def _ignoring(*faults: str) -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if not any(name in fault.faultString for name in faults):
            raise
