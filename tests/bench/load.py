"""The load client (Go, in `loadclient/`): built once, run for each load, kept open for probes."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf.message import Message

from deploy.local.service import ROOT

from .figures import Run

SOURCE = Path(__file__).parent / "loadclient"
BINARY = ROOT / ".cache" / "bench" / "loadclient"
GO_VERSION = "1.19"


class Missing(Exception):
    """Something the benchmarks need is not on this machine; the text says what to install."""


def build() -> Path:
    """The client's program, built when its source is newer. Raises `Missing` without Go, or when it does not build."""
    sources = [file for file in SOURCE.iterdir() if file.is_file()]
    if BINARY.exists() and BINARY.stat().st_mtime > max(file.stat().st_mtime for file in sources):
        return BINARY
    if shutil.which("go") is None:
        raise Missing(
            f"make bench drives its load with a small Go program: install Go {GO_VERSION} or newer"
            " (Debian: apt-get install golang-go) and have `go` on the PATH"
        )
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-trimpath", "-o", str(BINARY), "."]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"the load client does not build (go build in {SOURCE.relative_to(ROOT)}):\n{done.stderr}")
    return BINARY


@dataclass(frozen=True, slots=True)
class Target:
    """A method of a server, and who calls it."""

    address: str
    # "shop.catalog.v1.CatalogService/ListProducts"
    method: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def at(self, address: str) -> Target:
        """The same call to another server."""
        return Target(address, self.method, self.headers)


@dataclass(frozen=True, slots=True)
class Load:
    """How to send: callers that each wait for their answer, over some connections."""

    callers: int = 16
    connections: int = 4
    # Stop beginning calls after that, or when every request was sent once: what comes first.
    seconds: float | None = None
    # Begin again at the first request instead.
    again: bool = False
    # Calls begun per second; unset: as many as the callers can.
    rate: float | None = None


def send(target: Target, requests: Sequence[Message | bytes], load: Load) -> Run:
    """Sends requests. The run's CPU is that of the client itself, as "client"."""
    run, _ = _send(target, requests, load, keep_answers=False)
    return run


def answers(target: Target, requests: Sequence[Message | bytes], load: Load) -> list[bytes]:
    """The answers to requests sent once, in their order. Raises RuntimeError when one failed."""
    run, found = _send(target, requests, load, keep_answers=True)
    if run.failures:
        raise RuntimeError(f"{target.method}: {dict(run.failures)}")
    return found


def _send(
    target: Target, requests: Sequence[Message | bytes], load: Load, *, keep_answers: bool
) -> tuple[Run, list[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        file, kept = Path(folder) / "requests", Path(folder) / "answers"
        file.write_bytes(framed(requests))
        command = [str(build()), "load", "-address", target.address, "-method", f"/{target.method}"]
        command += ["-requests", str(file), "-callers", str(load.callers), "-connections", str(load.connections)]
        for name, value in target.headers.items():
            command += ["-header", f"{name}: {value}"]
        if load.seconds is not None:
            command += ["-seconds", str(load.seconds)]
        if load.again:
            command.append("-cycle")
        if load.rate is not None:
            command += ["-rate", str(load.rate)]
        if keep_answers:
            command += ["-answers", str(kept)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the load client failed: {done.stderr.strip()}")
        result = json.loads(done.stdout)
        failures = dict(result["failures"])
        if failures and not result["micros"]:
            raise RuntimeError(f"{target.method}: every call failed: {result['sample_failure']}")
        run = Run(result["seconds"], result["micros"], {"client": result["cpu_seconds"]}, failures)
        return run, unframed(kept.read_bytes()) if keep_answers else []


def framed(messages: Iterable[Message | bytes]) -> bytes:
    """Messages as the client reads them: each with its length before it (4 bytes, big endian)."""
    parts = []
    for message in messages:
        body = message if isinstance(message, bytes) else message.SerializeToString()
        parts += [struct.pack(">I", len(body)), body]
    return b"".join(parts)


def unframed(data: bytes) -> list[bytes]:
    """The messages in what `framed` made."""
    messages, position = [], 0
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        messages.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    return messages


@dataclass(frozen=True, slots=True)
class Seen:
    """When something was asked for, answered, and then seen: seconds since the epoch, by this machine's clock."""

    sent: float
    answered: float
    answer: bytes
    seen: float
    polls: int


class Prober:
    """A client that does something and then asks until it shows. Use with `with`."""

    def __enter__(self) -> Prober:
        self._process = subprocess.Popen([str(build()), "probe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)  # closes its input, at whose end it ends

    def until(
        self,
        watch: tuple[Target, Message],
        needle: bytes,
        *,
        present: bool,
        act: tuple[Target, Message] | None = None,
        timeout_seconds: float = 10,
        pause_seconds: float = 0,
    ) -> Seen:
        """Acts, then watches until the answer has the needle, or has it not. Raises TimeoutError when it does not.

        Asks again after `pause_seconds`: by so much may it be seen late.
        """
        asked = {
            "act": _asked(*act) if act else None,
            "watch": _asked(*watch),
            "needle": base64.b64encode(needle).decode(),
            "present": present,
            "timeout_seconds": timeout_seconds,
            "pause_seconds": pause_seconds,
        }
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        if found["error"]:
            raise TimeoutError(found["error"])
        answer = base64.b64decode(found["answer"] or "")
        return Seen(found["sent"] / 1e6, found["answered"] / 1e6, answer, found["seen"] / 1e6, found["polls"])


def _asked(target: Target, request: Message) -> dict[str, Any]:
    return {
        "address": target.address,
        "method": f"/{target.method}",
        "headers": [f"{name}: {value}" for name, value in target.headers.items()],
        "body": base64.b64encode(request.SerializeToString()).decode(),
    }
