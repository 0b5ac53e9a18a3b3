"""One of the shop's own services as a part: its environment, its migration, its health."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .errors import PartFailed
from .part import Part, Say
from .ports import HOST
from .supervision import Program

ROOT = Path(__file__).parents[2]
PYTHON_PATH = f"{ROOT}:{ROOT / 'proto'}"
DRAIN_SECONDS = 30


def part(
    name: str,
    service: str,
    environment: Mapping[str, str],
    log: Path,
    needs: tuple[str, ...],
    ports: tuple[str, ...],
    migrates: bool = True,
) -> Part:
    """The service, or under another name one more replica of it (which does not migrate)."""
    address = f"{HOST}:{environment['GRPC_PORT']}"
    complete = service_environment(environment)

    def migrate(say: Say) -> None:
        if migrates:
            say("migrating")
            run(service, ["migrate"], complete, log)

    return Part(
        Program(name, [sys.executable, "-m", f"services.{service}"], complete, stop_seconds=DRAIN_SECONDS),
        is_ready=lambda: is_serving(address),
        ports=ports,
        needs=needs,
        prepare=migrate,
    )


def service_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings, and where Python finds the services and the generated code."""
    return {**settings, "PYTHONPATH": PYTHON_PATH, "PYTHONUNBUFFERED": "1"}


def run(service: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
    """Run one of the service's own commands to its end. Raises PartFailed, with the log's last lines, when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"services.{service}", *arguments]
    with log.open("w") as file:
        settings = {**os.environ, **environment}
        done = subprocess.run(command, cwd=ROOT, env=settings, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise PartFailed(f"{service} {' '.join(arguments)}", f"ended with code {done.returncode}", log)


def is_serving(address: str) -> bool:
    """Whether the gRPC server there says of itself as a whole that it serves."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2)  # type: ignore[attr-defined]  # not in its stubs
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
