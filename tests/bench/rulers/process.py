"""A ruler runs in a process of its own: it is told what to do, one JSON a line, and answers with what it saw."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import uvloop

from deploy.local.service import PYTHON_PATH, ROOT

from ..figures import Run

Answer = Mapping[str, Any]
Command = Callable[..., Awaitable[Answer]]
# What a ruler says once it is ready, its commands, and how it is closed.
Obeying: TypeAlias = tuple[Answer, Mapping[str, Command], Callable[[], Awaitable[None]]]


class Ruler:
    """A running ruler. Use with `with`; `module` is one of this package, `given` what it is set up with."""

    def __init__(self, module: str, given: Any) -> None:
        self._module, self._given = module, given

    def __enter__(self) -> Ruler:
        with tempfile.NamedTemporaryFile(suffix=".given") as file:
            file.write(pickle.dumps(self._given))
            file.flush()
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.{self._module}", file.name],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": PYTHON_PATH},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            # What it says of itself once it is ready, such as its address.
            self.ready = self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)  # closes its input, at whose end it ends

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Has it do something; raises RuntimeError when it ends instead of answering."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def run(self, command: str, **arguments: Any) -> Run:
        """Has it measure something."""
        answer = self.ask(command, **arguments)
        return Run(answer["seconds"], answer["micros"], {"server": answer["cpu_seconds"]})

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the ruler {self._module} ended with code {self._process.wait(5)}")
        return dict(json.loads(line))


def obey(
    setup: Callable[[Any], Awaitable[tuple[Answer, Mapping[str, Command], Callable[[], Awaitable[None]]]]],
) -> None:
    """The main program of a ruler, which `setup` prepares from what it was given."""
    given = pickle.loads(Path(sys.argv[1]).read_bytes())

    async def main() -> None:
        ready, commands, close = await setup(given)
        print(json.dumps(ready), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            arguments = json.loads(line)
            print(json.dumps(await commands[arguments.pop("command")](**arguments)), flush=True)
        await close()

    uvloop.run(main())


async def timed(
    work: Callable[[int], Awaitable[object]], first: int, callers: int, *, calls: int | None, seconds: float | None
) -> Answer:
    """Runs `work(number)` from `first` on, by some callers at once, until the calls or the seconds are used up."""
    micros: list[int] = []
    numbers = iter(range(first, first + calls)) if calls is not None else iter(range(first, 1 << 31))
    cpu, began = time.process_time(), time.perf_counter()
    end = began + (seconds if seconds is not None else 3600)

    async def caller() -> None:
        for number in numbers:
            start = time.perf_counter()
            if start > end:
                return
            await work(number)
            micros.append(int((time.perf_counter() - start) * 1e6))

    await asyncio.gather(*(caller() for _ in range(callers)))
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu, "micros": micros}
