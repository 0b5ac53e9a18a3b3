"""PostgreSQL over TLS. The tests' server speaks none, so one in front of it does, as a connection pooler would."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from deploy.local.stack import Stack
from services.chassis.database import Database
from services.chassis.migrations import migrate
from tests.chassis.certificates import Authority, Mounted

HERE = "127.0.0.1"
ASKS_FOR_TLS = bytes.fromhex("0000000804d2162f")


@asynccontextmanager
async def in_front(server: str, secret: Mounted) -> AsyncIterator[tuple[str, list[str | None]]]:
    """Yields a URL of what speaks TLS for the server, and what each session was encrypted with."""
    place = urlsplit(server)
    sessions: list[str | None] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        behind = None
        try:
            first = await reader.readexactly(8)
            if first == ASKS_FOR_TLS:
                writer.write(b"S")
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(secret.file("tls.crt"), secret.file("tls.key"))
                await writer.start_tls(context)
                first = b""
            cipher = writer.get_extra_info("cipher")
            sessions.append(cipher[1] if cipher else None)
            inner, behind = await asyncio.open_connection(place.hostname, place.port)
            behind.write(first)
            await asyncio.gather(_pass_on(reader, behind), _pass_on(inner, writer))
        except OSError:
            pass  # one of them left
        finally:
            writer.close()
            if behind is not None:
                behind.close()

    listening = await asyncio.start_server(serve, HERE, 0)
    port = listening.sockets[0].getsockname()[1]
    credentials = place.netloc.rpartition("@")[0]
    try:
        yield urlunsplit(place._replace(netloc=f"{credentials}@{HERE}:{port}")), sessions
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while content := await reader.read(65_536):
        writer.write(content)
        await writer.drain()
    writer.close()


async def answered(url: str) -> int:
    """Through all that a service does with its URL: the pool, and the session of its locks."""
    database = Database(url, "inventory", pool_size=2)
    await database.open()
    try:
        async with database.connect() as session:
            return int(await database.pool.fetchval("SELECT 40")) + int(await session.fetchval("SELECT 2"))
    finally:
        await database.close()


async def test_a_url_that_asks_for_it_is_spoken_to_over_tls_only(infrastructure: Stack, tmp_path: Path) -> None:
    authority = Authority()
    secret = Mounted(tmp_path / "tls", authority.issue(HERE))
    async with in_front(infrastructure.database_url("inventory"), secret) as (url, sessions):
        verified = f"{url}?sslmode=verify-full&sslrootcert={secret.file('ca.crt')}"
        assert await answered(verified) == 42
        assert await migrate(verified, tmp_path / "none") is not None
        assert len(sessions) >= 3
        assert set(sessions) <= {"TLSv1.3", "TLSv1.2"}


async def test_the_environment_says_it_for_all_urls_that_say_nothing(
    infrastructure: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = Mounted(tmp_path / "tls", Authority().issue(HERE))
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", secret.file("ca.crt"))
    async with in_front(infrastructure.database_url("inventory"), secret) as (url, sessions):
        assert await answered(url) == 42
        assert None not in sessions
    with pytest.raises(ConnectionError):
        await answered(infrastructure.database_url("inventory"))  # it speaks no TLS


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_server_one_does_not_know_is_told_nothing(infrastructure: Stack, tmp_path: Path, wrong: str) -> None:
    authority = Authority()
    secret = Mounted(tmp_path / "tls", authority.issue(HERE if wrong == "authority" else "elsewhere"))
    trusted = Mounted(tmp_path / "trusted", {"ca.crt": (Authority() if wrong == "authority" else authority).pem})
    async with in_front(infrastructure.database_url("inventory"), secret) as (url, sessions):
        with pytest.raises(ssl.SSLCertVerificationError):
            await answered(f"{url}?sslmode=verify-full&sslrootcert={trusted.file('ca.crt')}")
        assert sessions == []


async def test_new_connections_trust_a_renewed_authority(infrastructure: Stack, tmp_path: Path) -> None:
    before, after = Authority(), Authority()
    secret = Mounted(tmp_path / "tls", before.issue(HERE))
    async with in_front(infrastructure.database_url("inventory"), secret) as (url, _):
        database = Database(f"{url}?sslmode=verify-full&sslrootcert={secret.file('ca.crt')}", "inventory", pool_size=2)
        await database.open()
        secret.replace(after.issue(HERE))
        await database.pool.expire_connections()  # as when the server was restarted
        assert await database.pool.fetchval("SELECT 1") == 1
        await database.close()
