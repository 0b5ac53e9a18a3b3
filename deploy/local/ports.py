"""Which loopback port each part listens on, and who sits on it if it is not us."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from .errors import OFFSET

HOST = "127.0.0.1"
SERVICES = ("inventory", "catalog", "shipping", "loyalty", "contact")

# Below the range from which the kernel lends ports to outgoing connections, so that none is in use by chance.
DEFAULTS: Mapping[str, int] = {
    "postgres": 15432,
    "kafka": 19092,
    "kafka-controller": 19093,
    "zipkin": 19411,
    "issuer": 18081,
    "envoy": 18080,
    "envoy-admin": 18090,
    **{service: 15051 + number for number, service in enumerate(SERVICES)},
    **{f"{service}-metrics": 16051 + number for number, service in enumerate(SERVICES)},
}
FREE_RANGE = range(20_000, 32_000)
MEMORY = "ports.json"


def setting(name: str) -> str:
    """The environment setting that moves a port: `kafka-controller` -> `SHOP_PORT_KAFKA_CONTROLLER`."""
    return "SHOP_PORT_" + name.upper().replace("-", "_")


@dataclass(frozen=True)
class Ports:
    numbers: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    def __contains__(self, name: str) -> bool:
        return name in self.numbers

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, remembered: Mapping[str, int] = DEFAULTS
    ) -> Ports:
        """The ports of `make up`: as set, else as remembered of the last `up`, else the fixed ones; an offset counts
        from the fixed ones. Raises ValueError naming a setting that is no port number."""
        usual = {**DEFAULTS, **remembered}
        if OFFSET in environment:
            usual = {name: port + _offset(environment) for name, port in DEFAULTS.items()}
        return cls({name: _number(setting(name), environment, usual[name]) for name in DEFAULTS})

    @classmethod
    def remembered(cls, state: Path) -> Mapping[str, int]:
        """The ports of the last `up` with this state; none before the first."""
        file = state / MEMORY
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def remember(self, state: Path) -> None:
        """For the commands after `up`, which are given no settings."""
        draft = (state / MEMORY).with_suffix(".new")
        draft.write_text(json.dumps({name: self[name] for name in DEFAULTS}, indent=1))
        draft.replace(state / MEMORY)

    @classmethod
    def free(cls, names: Iterable[str] = DEFAULTS) -> Ports:
        """A free port for each name, tried just now."""
        wanted = tuple(names)
        taken: list[socket.socket] = []
        try:
            for port in random.sample(FREE_RANGE, len(FREE_RANGE)):
                if len(taken) == len(wanted):
                    break
                probe = socket.socket()
                try:
                    probe.bind((HOST, port))
                    taken.append(probe)
                except OSError:
                    probe.close()
            return cls({name: probe.getsockname()[1] for name, probe in zip(wanted, taken, strict=True)})
        finally:
            for probe in taken:
                probe.close()


def _offset(environment: Mapping[str, str]) -> int:
    value = environment.get(OFFSET, "0")
    most = 65_535 - max(DEFAULTS.values())
    if not value.isdecimal() or int(value) > most:
        raise ValueError(f"{OFFSET} is {value!r}, but must be a number from 0 to {most}")
    return int(value)


def _number(name: str, environment: Mapping[str, str], default: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal() or not 0 < int(value) < 65_536:
        raise ValueError(f"{name} is {value!r}, but must be a port number from 1 to 65535")
    return int(value)


def is_open(port: int) -> bool:
    """Whether something on this machine accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def listener(port: int) -> int | None:
    """The process that listens on the port; None when it is another user's, or gone meanwhile."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port:
                return connection.pid
    return None


def described(pid: int | None) -> str:
    """Who that is, as `python (pid 123, in /its/working/folder)`."""
    try:
        if pid is not None:
            process = psutil.Process(pid)
            name = process.name()
            with contextlib.suppress(psutil.AccessDenied):
                return f"{name} (pid {pid}, in {process.cwd()})"
            return f"{name} (pid {pid})"
    except psutil.Error:
        pass  # gone meanwhile
    return "a process of another user"
