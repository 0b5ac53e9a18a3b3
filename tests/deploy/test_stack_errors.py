"""What goes wrong says what, where, and what to do next; and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.local.errors import NotRunning, PartFailed, PortTaken
from deploy.local.ports import DEFAULTS, HOST, Ports
from deploy.local.service import ROOT
from deploy.local.stack import Stack
from deploy.local.supervision import wait_until
from deploy.local.temporary import temporary_stack


def test_a_taken_port_names_port_owner_and_setting() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken) as caught, temporary_stack(("issuer",)) as stack:
            stack.down()
            stack.ports = Ports({**stack.ports.numbers, "issuer": port})
            stack.up()
    text = str(caught.value)
    assert f"port {port}" in text
    assert f"{psutil.Process().name()} (pid {os.getpid()}, in {Path.cwd()})" in text
    assert "SHOP_PORT_ISSUER=<port>" in text


def test_a_refusal_names_all_taken_ports_and_touches_nothing_that_runs() -> None:
    with temporary_stack(("issuer", "envoy")) as stack, socket.socket() as taken, socket.socket() as too:
        for each in (taken, too):
            each.bind((HOST, 0))
            each.listen()
        before, usual = {part: stack.pid(part) for part in stack.wanted}, stack.ports
        assert Ports.remembered(stack.state) == usual.numbers
        moved = {"issuer": taken.getsockname()[1], "envoy": too.getsockname()[1]}
        stack.ports = Ports({**usual.numbers, **moved})
        with pytest.raises(PortTaken) as caught:
            stack.up()
        assert [(port, name) for port, name, _, _ in caught.value.taken] == [
            (moved["issuer"], "issuer"),
            (moved["envoy"], "envoy"),
        ]
        assert {part: stack.pid(part) for part in stack.wanted} == before
        assert Ports.remembered(stack.state) == usual.numbers  # a refused move is not remembered
        # Its own port is not free for another part either.
        stack.ports = Ports({**usual.numbers, "envoy": usual["issuer"]})
        with pytest.raises(PortTaken, match=f"pid {before['issuer']}"):
            stack.up()
        assert {part: stack.pid(part) for part in stack.wanted} == before


def test_a_running_part_moves_to_a_free_port() -> None:
    with temporary_stack(("envoy",)) as stack:
        before = stack.pid("envoy")
        stack.ports = Ports({**stack.ports.numbers, **Ports.free(("envoy",)).numbers})
        stack.up()  # its other port, envoy-admin, is its own
        assert stack.pid("envoy") != before


def test_a_part_that_cannot_start_shows_the_end_of_its_log() -> None:
    # Without its database a service cannot even migrate.
    with pytest.raises(PartFailed) as caught, temporary_stack(("inventory",)):
        pass
    text = str(caught.value)
    assert "inventory migrate ended with code 1" in text
    assert "inventory-migrate.log" in text
    assert "Error" in text


def test_a_setting_moves_a_port() -> None:
    assert Ports.from_environment({})["kafka-controller"] == DEFAULTS["kafka-controller"]
    assert Ports.from_environment({"SHOP_PORT_KAFKA_CONTROLLER": "9093"})["kafka-controller"] == 9093


def test_moved_ports_are_remembered_until_set_otherwise(tmp_path: Path) -> None:
    assert Ports.from_environment({}, Ports.remembered(tmp_path)) == Ports(DEFAULTS)
    Ports.from_environment({"SHOP_PORT_OFFSET": "100"}).remember(tmp_path)
    assert Ports.from_environment({}, Ports.remembered(tmp_path))["kafka"] == DEFAULTS["kafka"] + 100
    assert Ports.from_environment({"SHOP_PORT_KAFKA": "9092"}, Ports.remembered(tmp_path))["kafka"] == 9092
    assert Ports.from_environment({"SHOP_PORT_OFFSET": "0"}, Ports.remembered(tmp_path)) == Ports(DEFAULTS)


def test_an_offset_moves_all_ports_that_are_not_set_apart() -> None:
    moved = Ports.from_environment({"SHOP_PORT_OFFSET": "100", "SHOP_PORT_ENVOY": "8080"})
    assert moved["kafka"] == DEFAULTS["kafka"] + 100
    assert moved["envoy"] == 8080
    with pytest.raises(ValueError, match="SHOP_PORT_OFFSET"):
        Ports.from_environment({"SHOP_PORT_OFFSET": "60000"})


@pytest.mark.parametrize("wrong", ["", "x", "0", "65536", "-1"])
def test_a_setting_that_is_no_port_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match="SHOP_PORT_ENVOY"):
        Ports.from_environment({"SHOP_PORT_ENVOY": wrong})


def test_asking_a_stack_that_is_down_says_how_to_start_it(tmp_path: Path) -> None:
    stack = Stack(Path("/tmp") / f"shop-never-{os.getpid()}", Ports.free(), ("issuer",))
    try:
        assert not stack.is_up()
        with pytest.raises(NotRunning, match="make up"):
            stack.status()
    finally:
        for file in stack.state.iterdir():
            file.unlink()
        stack.state.rmdir()


def test_a_killed_manager_leaves_no_process_and_up_starts_anew() -> None:
    with temporary_stack(("issuer",)) as stack:
        orphan, manager = stack.pid("issuer"), psutil.Process(stack.pid("issuer")).parent()
        assert manager is not None
        manager.kill()
        wait_until(lambda: not manager.is_running(), 10, "the manager survived")
        assert psutil.pid_exists(orphan)
        stack.up()
        assert stack.pid("issuer") != orphan
        assert not psutil.pid_exists(orphan)


def test_a_part_stopped_by_a_signal_is_frozen() -> None:
    with temporary_stack(("issuer",)) as stack:
        process = psutil.Process(stack.pid("issuer"))
        process.suspend()
        try:
            wait_until(lambda: process.status() == psutil.STATUS_STOPPED, 10, "it went on")
            (row,) = [each for each in stack.status() if each.name == "issuer"]
            assert row.state == "frozen"
        finally:
            process.resume()


KILLED = """
from deploy.local.temporary import temporary_stack
with temporary_stack(("issuer",)) as stack:
    print(stack.pid("issuer"), flush=True)
    input()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stack_ends_with_the_process_it_was_started_for(number: signal.Signals) -> None:
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as owner:
        assert owner.stdout is not None
        issuer = psutil.Process(int(owner.stdout.readline()))
        owner.send_signal(number)
        owner.wait(30)
        wait_until(lambda: not issuer.is_running(), 30, "the stack outlived its owner")
