"""Migrations: they make the schema that the code declares, once, whoever else is at it."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from embedded.postgres import PostgresServer
from perdure.errors import InvalidOption
from storage import migrate
from storage.engine import Database
from storage.options import StoreOptions
from storage.schema import metadata
from storage.sessions import SessionStore
from tests.conformance.conftest import NewDatabase
from tests.conformance.watch import query

_numbers = itertools.count(1)

ROOT = Path(__file__).parents[2]

VIEW = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE name = 'live_events'",
    "postgres": "SELECT pg_get_viewdef('live_events')",
}


FULL_TEXT = {
    "sqlite": "SELECT type, name, sql FROM sqlite_master WHERE name LIKE 'memory_words%'"
    " OR type = 'trigger' ORDER BY name",
    "postgres": "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'memory_passages' ORDER BY 1",
}


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def empty(kind: str, postgres: PostgresServer, tmp_path: Path) -> str:
    """The URL of a database with nothing in it."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    return await postgres.create_database(f"empty_{next(_numbers)}")


async def look(url: str, sql: str) -> list[tuple[Any, ...]]:
    database = await Database.open(url, StoreOptions())
    rows = [tuple(row.values()) for row in await query(database, sql)]
    await database.close()
    return rows


async def test_the_migrated_schema_is_the_declared_one(new_database: NewDatabase, kind: str) -> None:
    database = await Database.open(await new_database(kind), StoreOptions())

    def differences(connection: Connection) -> Any:
        def is_here(item: Any, name: str | None, *_: Any) -> bool:
            if (name or "").startswith(("memory_words", "memory_passages_by_words")):
                return False  # test_the_migrated_full_text_is_the_declared_one
            return getattr(item, "info", {}).get("only") in (None, connection.dialect.name)

        options = {"compare_type": True, "compare_server_default": True, "include_object": is_here}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert await database.read(lambda conn: conn.run_sync(differences)) == []
    await database.close()


async def test_the_migrated_view_is_the_declared_one(
    new_database: NewDatabase, kind: str, empty: str
) -> None:
    declared = await Database.open(empty, StoreOptions())
    await declared.write(lambda conn: conn.run_sync(metadata.create_all))
    await declared.close()
    migrated = await new_database(kind)
    [(theirs,)], [(ours,)] = await look(empty, VIEW[kind]), await look(migrated, VIEW[kind])
    assert theirs.split() == ours.split()
    for url in (empty, migrated):
        assert await look(url, "SELECT one, value FROM epoch_floor") == [(1, 0)]


async def test_the_migrated_full_text_is_the_declared_one(
    new_database: NewDatabase, kind: str, empty: str
) -> None:
    declared = await Database.open(empty, StoreOptions())
    await declared.write(lambda conn: conn.run_sync(metadata.create_all))
    await declared.close()
    ours = await look(await new_database(kind), FULL_TEXT[kind])
    assert len(ours) >= 4
    assert await look(empty, FULL_TEXT[kind]) == ours


def test_the_revisions_are_those_that_alembic_finds() -> None:
    scripts = ScriptDirectory(str(migrate.FOLDER))
    assert [script.revision for script in scripts.walk_revisions()] == [*reversed(migrate.revisions())]


async def test_an_upgrade_of_what_is_up_to_date_changes_nothing(empty: str) -> None:
    for _ in range(3):
        await migrate.upgrade(empty)
    assert await look(empty, "SELECT version_num FROM alembic_version") == [(migrate.revisions()[-1],)]
    store = await SessionStore.open(empty, "memory://x")
    await store.close()


async def test_upgrades_at_once_in_one_process(empty: str) -> None:
    opened = [SessionStore.open(empty, "memory://x", migrate=True) for _ in range(6)]
    for store in await asyncio.gather(*opened):
        await store.close()
    assert await look(empty, "SELECT version_num FROM alembic_version") == [(migrate.revisions()[-1],)]


async def test_upgrades_at_once_in_several_processes(empty: str) -> None:
    program = "import asyncio, sys; from storage.migrate import upgrade; asyncio.run(upgrade(sys.argv[1]))"
    command = [sys.executable, "-W", "error", "-c", program, empty]
    processes = [await asyncio.create_subprocess_exec(*command, cwd=ROOT) for _ in range(4)]
    assert [await process.wait() for process in processes] == [0, 0, 0, 0]
    assert await look(empty, "SELECT version_num FROM alembic_version") == [(migrate.revisions()[-1],)]


async def test_a_database_that_was_not_migrated_is_refused(empty: str) -> None:
    with pytest.raises(InvalidOption, match="no tables of Perdure's; run `perdure db upgrade`"):
        await SessionStore.open(empty, "memory://x")


async def test_a_database_of_a_newer_release_is_taken(empty: str) -> None:
    """While a release is rolled out, the old one meets the schema of the new one."""
    await migrate.upgrade(empty)
    database = await Database.open(empty, StoreOptions())
    newer = text("UPDATE alembic_version SET version_num = '9999'")
    await database.write(lambda conn: conn.execute(newer))
    await database.close()
    store = await SessionStore.open(empty, "memory://x")
    await store.close()


async def test_a_migration_that_fails_leaves_nothing(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = migrate.run

    def run(connection: Connection) -> None:
        real(connection)
        raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(migrate, "run", run)
        with pytest.raises(RuntimeError):
            await migrate.upgrade(empty)
    with pytest.raises(InvalidOption, match="no tables"):
        await SessionStore.open(empty, "memory://x")
    await migrate.upgrade(empty)
