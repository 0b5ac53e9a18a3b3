"""What goes wrong, on purpose: parts of a running shop are killed, frozen, cut off. Everything is counted."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.local.errors import NotRunning
from deploy.local.stack import Stack

from .auditor import audit
from .load import Load

BACK_SECONDS = 60.0


class Faults:
    """Injects faults into one stack."""

    def __init__(self, stack: Stack) -> None:
        self.injected: Counter[str] = Counter()
        self._stack = stack

    async def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends the process of a part without any warning; returns when the supervisor has brought it back."""
        self.injected[f"{number.name} {part}"] += 1
        old = self._stack.pid(part)
        self._stack.signal(part, number)
        deadline = time.monotonic() + BACK_SECONDS
        while await asyncio.to_thread(self._pid, part) in (0, old):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{part} was not brought back")
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self._stack.await_ready, part)

    @asynccontextmanager
    async def frozen(self, *parts: str, seconds: float) -> AsyncIterator[None]:
        """Parts stand still for at least so long, and as long as the block runs; then they go on where they were."""
        began = time.monotonic()
        for part in parts:
            self.injected[f"frozen {part}"] += 1
            self._stack.signal(part, signal.SIGSTOP)
        try:
            yield
            # The fault is this long: it has to outlast the time-outs it is meant to outlast.
            await asyncio.sleep(began + seconds - time.monotonic())
        finally:
            for part in parts:
                self._stack.signal(part, signal.SIGCONT)

    @asynccontextmanager
    async def stopped(self, part: str, seconds: float) -> AsyncIterator[None]:
        """A part is down for at least so long, and as long as the block runs; then it is started again."""
        self.injected[f"stopped {part}"] += 1
        await asyncio.to_thread(self._stack.stop, part)
        began = time.monotonic()
        try:
            yield
            await asyncio.sleep(began + seconds - time.monotonic())
        finally:
            await asyncio.to_thread(self._stack.start, part)

    def _pid(self, part: str) -> int:
        try:
            return self._stack.pid(part)
        except NotRunning:
            return 0


async def conclude(stack: Stack, load: Load, faults: Faults) -> None:
    """Prints what happened, and fails if the shop did not keep its word."""
    injected = ", ".join(f"{fault} {times}x" for fault, times in faults.injected.items())
    print(f"\nfaults: {injected}")
    print("\n".join(load.record.lines()))
    assert not load.record.untyped, f"{len(load.record.untyped)} answers without a type: {load.record.untyped[:5]}"
    assert not load.record.gave_up, f"{load.record.gave_up} calls were never answered"
    errors = errors_logged(stack)
    assert not errors, f"errors of ours in the logs: {errors}"
    findings = await audit(stack, load.record.told)
    print("\n".join(findings.lines()))
    assert not findings.problems, "\n".join(findings.lines())


def errors_logged(stack: Stack) -> Counter[tuple[str, str, str]]:
    """What our own code logged as errors: who, what, and the last line of the stack. An outage is none."""
    found: Counter[tuple[str, str, str]] = Counter()
    for file in (stack.state / "log").glob("*.log"):
        for line in file.read_text(errors="replace").splitlines():
            if '"level": "ERROR"' in line and '"logger": "services.' in line:
                entry = json.loads(line)
                found[file.stem, entry["message"], entry.get("stack", "").rstrip().rpartition("\n")[2]] += 1
    return found
