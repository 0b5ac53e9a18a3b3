"""Real parts for tests: started once per session, on free ports, with their own state, beside any `make up`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.ports import Ports
from deploy.local.stack import EVERYTHING, INFRASTRUCTURE, Stack


@pytest.fixture(scope="session")
def infrastructure() -> Iterator[Stack]:
    """PostgreSQL, Kafka and the token issuer. `database_url(service)`, `kafka_bootstrap`, `mint(role)` lead to them."""
    with stack(INFRASTRUCTURE) as running:
        yield running


@pytest.fixture(scope="session")
def shop() -> Iterator[Stack]:
    """The whole shop: every part, and the five services behind Envoy."""
    with stack(EVERYTHING) as running:
        yield running


@contextmanager
def stack(parts: Sequence[str]) -> Iterator[Stack]:
    """A stack of these parts, gone afterwards whatever happens: also on Ctrl-C, and when this process is killed."""
    # Not pytest's own folder: its path is too long for a socket. A kept one stays readable after a failure.
    state = Path(tempfile.mkdtemp(prefix="shop-"))
    state.chmod(0o711)  # PostgreSQL runs unprivileged below it when the tests run as root
    made = Stack(state, Ports.free(), parts, bound_to=os.getpid())
    ended = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped CI job tears down, too
    try:
        made.up()
        yield made
    finally:
        signal.signal(signal.SIGTERM, ended)
        made.down()
        shutil.rmtree(state, ignore_errors=True)
