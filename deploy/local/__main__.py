"""The commands behind `make up`, `down`, `status`, `logs`, `restart`, `token`, `replay` and `import`.

Settings, all from the environment: SHOP_PORT_<PART> moves a port, SHOP_PORT_OFFSET=<n> adds to all of them
(`up` remembers the ports for every later command; an offset of 0 goes back to the usual ones),
SHOP_PARTS starts only the parts it lists, SHOP_DATABASE_SERVER_URL, KAFKA_BOOTSTRAP_SERVERS and
OTEL_EXPORTER_OTLP_ENDPOINT use what runs elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .addresses import External
from .errors import NotRunning, PortTaken, StackError
from .imports import import_file
from .ports import SERVICES, Ports
from .service import ROOT, service_environment
from .stack import EVERYTHING, Stack, Status
from .tokens import ROLES

STATE = ROOT / ".local"
BUDGET_SECONDS, BUDGET_MEGABYTES = 20, 2_500


def local_stack() -> Stack:
    """The stack of `make up`, from the settings of the environment."""
    parts = os.environ.get("SHOP_PARTS", "").replace(",", " ").split()
    ports = Ports.from_environment(os.environ, Ports.remembered(STATE))
    return Stack(STATE, ports, parts or EVERYTHING, External.from_environment())


def up(stack: Stack) -> None:
    already = stack.is_up()
    began = time.monotonic()
    stack.up(lambda part, what, seconds: print(f"{seconds:6.1f} s  {part:<10} {what}", flush=True))
    seconds, megabytes = time.monotonic() - began, stack.memory() / 1e6
    if already:
        print("everything was up already; nothing changed")
    else:
        print(f"up in {seconds:.1f} s (budget, once installed: {BUDGET_SECONDS} s)")
    print(f"{megabytes:,.0f} MB resident in all (budget: {BUDGET_MEGABYTES:,} MB)")
    if "envoy" in stack.wanted:
        print(f"browsers and JSON: {stack.envoy_url}   gRPC with reflection: {stack.address('catalog')} (catalog)")
    if "zipkin" in stack.wanted:
        print(f"traces: {stack.zipkin_url}/zipkin/   more: make status, make logs SERVICE=…, make down")


def status(stack: Stack) -> None:
    rows = stack.status()
    for row in rows:
        print(_line(stack, row))
    print(f"{stack.memory() / 1e6:,.0f} MB resident in all")
    down = [row for row in rows if row.state != "running"]
    if down:
        told = ", ".join(f"{row.name} ({row.state})" for row in down)
        raise StackError(f"not running: {told}. See why: make logs SERVICE={down[0].name}")


def _line(stack: Stack, row: Status) -> str:
    ports = ", ".join(
        f"{said} {stack.ports[name]}".strip()
        for said, name in (
            ("grpc" if row.name in SERVICES else "", row.name),
            *((other, f"{row.name}-{other}") for other in ("metrics", "admin", "controller")),
        )
        if name in stack.ports
    )
    since = f"{row.seconds:,.0f} s" if row.pid else "-"
    text = f"{row.name:<10} {row.state:<9} pid {row.pid or '-':<8} up {since:<10} {row.memory / 1e6:5.0f} MB  {ports}"
    if row.exits:
        last = row.exits[-1]
        text += f"  came back {len(row.exits)}x, last {last.when:%H:%M:%S} ({last.how})"
    return text.rstrip()


def logs(stack: Stack, part: str) -> None:
    log = stack.supervisor.log(part)
    if not log.exists():
        have = sorted(each.stem for each in log.parent.glob("*.log"))
        raise StackError(f"there is no log of {part!r}; there are: {', '.join(have) or 'none, nothing has run yet'}")
    os.execvp("tail", ["tail", "-n", "100", "-F", str(log)])


def restart(stack: Stack, part: str) -> None:
    if part not in EVERYTHING:
        raise StackError(f"there is no part {part!r}; there are {', '.join(EVERYTHING)}")
    began = time.monotonic()
    stack.restart(part)
    print(f"{part} is ready again after {time.monotonic() - began:.1f} s")


def run(stack: Stack, service: str, arguments: Sequence[str]) -> int:
    """One of a service's own commands, in the environment the service has here."""
    command = [sys.executable, "-m", f"services.{service}", *arguments]
    environment = {**os.environ, **service_environment(stack.environment(service))}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def token(stack: Stack, given: argparse.Namespace) -> None:
    named = {"customer_id": given.customer, "agent_id": given.agent, "service": given.service}
    needed = {"customer": "customer_id", "agent": "agent_id", "service": "service"}.get(given.role)
    if needed and not named[needed]:
        setting = needed.removesuffix("_id").upper()
        raise StackError(f"whose? make token ROLE={given.role} {setting}=<id>")
    print(stack.mint(given.role, **{name: value for name, value in named.items() if value}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status"):
        commands.add_parser(name)
    for name in ("logs", "restart"):
        commands.add_parser(name).add_argument("part")
    runs = commands.add_parser("run")
    runs.add_argument("service", choices=SERVICES)
    runs.add_argument("arguments", nargs=argparse.REMAINDER)
    imports = commands.add_parser("import")
    imports.add_argument("service")
    imports.add_argument("file", type=Path)
    imports.add_argument("--locale", default="")
    tokens = commands.add_parser("token")
    tokens.add_argument("role", choices=ROLES)
    for name in ("customer", "agent", "service"):
        tokens.add_argument(f"--{name}")
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of each try before Kafka is ready
    try:
        stack = local_stack()
        match given.command:
            case "up":
                up(stack)
            case "down":
                stack.down()
            case "status":
                status(stack)
            case "logs":
                logs(stack, given.part)
            case "restart":
                restart(stack, given.part)
            case "run":
                return run(stack, given.service, given.arguments)
            case "import":
                return import_file(stack, given.service, given.file, given.locale)
            case "token":
                token(stack, given)
    except (StackError, ValueError) as error:
        print(error, file=sys.stderr)
        if not isinstance(error, NotRunning | PortTaken) and given.command == "up":
            print("What had started keeps running: make up goes on from there, make down stops it.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted. What had started keeps running: make down stops it.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
