"""Migrations: the SQL files of the chassis, then those of the service, each once and in the order of their names.

Our own forty lines, since the kept libraries each bring a second PostgreSQL driver. A file that was applied is never
edited: its digest is kept and compared.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import asyncpg

from services.chassis.database import Database

CHASSIS = Path(__file__).parent / "sql"
# Any number, the same for every process: only one migrates at a time.
LOCK = 5_309_001


class MigrationChanged(Exception):
    """A file that was applied before has other content now."""


async def migrate(url: str, folder: Path) -> list[str]:
    """Applies what is missing, all in one transaction, and returns the names of what was applied.

    Raises `MigrationChanged` when an applied file was edited.
    """
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            # A migration that cannot have its locks soon gives way, rather than stop everybody behind it.
            await connection.execute("SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '10min'")
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations ("
                " name text PRIMARY KEY, digest text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now())"
            )
            applied = {row["name"]: row["digest"] for row in await connection.fetch("SELECT * FROM migrations")}
            new = []
            for file in files(folder):
                name = _name(file)
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                if name not in applied:
                    await connection.execute(file.read_text())
                    await connection.execute("INSERT INTO migrations (name, digest) VALUES ($1, $2)", name, digest)
                    new.append(name)
                elif applied[name] != digest:
                    raise MigrationChanged(f"{name} was edited after it was applied: write a new file instead")
            return new
    finally:
        await connection.close()


async def pending(database: Database, folder: Path) -> list[str]:
    """The files that this version needs and that are not applied yet. Raises `Unavailable`."""
    try:
        applied = {row["name"] for row in await database.fetch("SELECT name FROM migrations")}
    except asyncpg.UndefinedTableError:
        applied = set()
    return [name for name in map(_name, files(folder)) if name not in applied]


def files(folder: Path) -> list[Path]:
    """The files that make the schema of a service, in the order they are applied."""
    return [*sorted(CHASSIS.glob("*.sql")), *sorted(folder.glob("*.sql"))]


def _name(file: Path) -> str:
    return f"{file.parent.parent.name}/{file.name}"
