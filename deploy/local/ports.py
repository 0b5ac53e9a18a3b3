"""Which loopback port each part listens on, and who sits on it if it is not us."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

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
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Ports:
        """The fixed ports of `make up`. Raises ValueError naming a setting that is no port number."""
        return cls({name: _number(setting(name), environment, port) for name, port in DEFAULTS.items()})

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


def owner(port: int) -> str:
    """Who listens on the port, as `name (pid 123)`."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass  # the owner is gone meanwhile, or another user's
    return "a process of another user"
