"""A service in the stack: migrated first, given its settings and token, awaited, restarted, and run more than once."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from deploy.local import service
from deploy.local.stack import Stack
from deploy.local.supervision import wait_until
from deploy.local.temporary import temporary_stack

# A service reduced to what the stack relies on.
STAND_IN = """
import json, os, pathlib, signal, sys, threading
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

here = pathlib.Path(__file__).parent
if sys.argv[1:] == ["migrate"]:
    (here / "migrated").write_text("yes")
    sys.exit()
assert (here / "migrated").exists(), "served before it was migrated"
(here / f"settings-{os.environ['GRPC_PORT']}").write_text(json.dumps(dict(os.environ)))
checks = health.HealthServicer()
server = grpc.server(futures.ThreadPoolExecutor(4))
health_pb2_grpc.add_HealthServicer_to_server(checks, server)
server.add_insecure_port(f"127.0.0.1:{os.environ['GRPC_PORT']}")
server.start()
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
stopped.wait()
server.stop(None)
(here / "drained").write_text("yes")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root") / "services" / "contact"
    folder.mkdir(parents=True)
    (folder / "__main__.py").write_text(STAND_IN)
    return folder


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(service.ROOT))
        patch.setattr(service, "PYTHON_PATH", "")
        patch.setattr(service, "ROOT", folder.parents[1])
        with temporary_stack(("contact",)) as stack:
            yield stack


def settings(folder: Path, address: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / f"settings-{address.rpartition(':')[2]}").read_text())
    return found


def test_it_is_told_where_everything_is(stack: Stack, folder: Path) -> None:
    told = settings(folder, stack.address("contact"))
    assert told["DATABASE_URL"] == stack.database_url("contact")
    assert told["KAFKA_BOOTSTRAP_SERVERS"] == stack.kafka_bootstrap
    assert told["INVENTORY_ADDRESS"] == stack.address("inventory")
    assert told["JWKS_URL"].startswith(told["TOKEN_ISSUER"])
    assert told["PERSONAL_DATA_KEYS"]


def test_its_token_names_it(stack: Stack, folder: Path) -> None:
    token = Path(settings(folder, stack.address("contact"))["SERVICE_TOKEN_FILE"])
    claims = jwt.decode(token.read_text(), options={"verify_signature": False})
    assert (claims["role"], claims["service"], claims["aud"]) == ("service", "contact", "shop")
    assert token.stat().st_mode & 0o077 == 0


def test_a_replica_has_ports_of_its_own_and_the_same_settings(stack: Stack, folder: Path) -> None:
    address = stack.start_replica("contact")
    assert service.is_serving(address)
    ours, theirs = settings(folder, stack.address("contact")), settings(folder, address)
    different = {name for name in ours if ours[name] != theirs.get(name)}
    assert {"GRPC_PORT", "METRICS_PORT"} <= different
    assert not different & {"DATABASE_URL", "SERVICE_TOKEN_FILE", "CONTACT_ADDRESS"}
    assert {"contact", "contact-2"} <= {each.name for each in stack.status()}


def test_it_comes_back_when_killed(stack: Stack) -> None:
    before = stack.pid("contact")
    stack.signal("contact", signal.SIGKILL)
    wait_until(lambda: stack.supervisor.info("contact")["pid"] not in (0, before), 10, "it did not come back")
    stack.await_ready("contact")
    assert service.is_serving(stack.address("contact"))


def test_a_restart_drains_first(stack: Stack, folder: Path) -> None:
    (folder / "drained").unlink(missing_ok=True)
    before = stack.pid("contact")
    stack.restart("contact")
    assert (folder / "drained").exists()
    assert stack.pid("contact") != before
    assert service.is_serving(stack.address("contact"))


def test_a_stopped_part_stays_down_until_started(stack: Stack) -> None:
    stack.stop("contact")
    assert not stack.is_up()
    stack.start("contact")
    assert stack.is_up()
