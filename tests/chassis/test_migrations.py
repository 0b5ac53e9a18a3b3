"""Migrations: each file once, in order, by one process at a time, and never edited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.chassis.database import Database
from services.chassis.migrations import MigrationChanged, migrate, pending


@pytest.fixture
async def url(infrastructure: Stack) -> AsyncIterator[str]:
    """A database with nothing in it but an empty schema of its own."""
    url = infrastructure.database_url("loyalty")
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA IF EXISTS trial CASCADE; CREATE SCHEMA trial")
    yield f"{url}?options=-csearch_path%3Dtrial"
    await connection.execute("DROP SCHEMA trial CASCADE")
    await connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sql = tmp_path / "trial" / "sql"
    sql.mkdir(parents=True)
    (sql / "0001_first.sql").write_text("CREATE TABLE first (id int);")
    return sql


async def test_each_file_is_applied_once_and_in_order(url: str, folder: Path) -> None:
    assert (await migrate(url, folder))[-1] == "trial/0001_first.sql"
    (folder / "0002_second.sql").write_text("ALTER TABLE first ADD COLUMN name text;")
    assert await migrate(url, folder) == ["trial/0002_second.sql"]
    assert await migrate(url, folder) == []


async def test_several_at_once_apply_each_file_once(url: str, folder: Path) -> None:
    applied = await asyncio.gather(*(migrate(url, folder) for _ in range(4)))
    assert [names for names in applied if names] == [["chassis/0001_chassis.sql", "trial/0001_first.sql"]]


async def test_an_edited_file_is_refused(url: str, folder: Path) -> None:
    await migrate(url, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (id bigint);")
    with pytest.raises(MigrationChanged, match=r"0001_first\.sql was edited"):
        await migrate(url, folder)


async def test_a_broken_file_leaves_nothing_behind(url: str, folder: Path) -> None:
    (folder / "0002_broken.sql").write_text("CREATE TABLE second (id int); SELECT nonsense;")
    with pytest.raises(asyncpg.PostgresError):
        await migrate(url, folder)
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'trial'") == 0
    await connection.close()


async def test_what_is_missing_is_named(url: str, folder: Path) -> None:
    database = Database(url, "trial", pool_size=2)
    await database.open()
    assert await pending(database, folder) == ["chassis/0001_chassis.sql", "trial/0001_first.sql"]
    await migrate(url, folder)
    assert await pending(database, folder) == []
    await database.close()
