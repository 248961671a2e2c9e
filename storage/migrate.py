"""Bring a database to the schema of this release. Safe when several processes do it at once.

All revisions run in one transaction, behind a lock that the others wait for: an advisory
lock on PostgreSQL, the write lock on SQLite. Whoever comes second finds nothing to do.
Migrations expand before they contract: the release before must run on the new schema. So
there is no way down, and none is needed.

Alembic keeps its context in module variables, so two upgrades in one process would trip
over each other. Hence the thread of its own, with a lock and an event loop of its own. And it
is slow to import, so a process that finds its database up to date does without it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidOption
from storage.engine import Database
from storage.options import StoreOptions

__all__ = ["check", "revisions", "upgrade"]

log = logging.getLogger("perdure.storage")

FOLDER = Path(__file__).parent / "migrations"
LOCK = 5_724_880_201_126
"""The advisory lock of migrations; any number that nobody else on the server uses."""

_one_at_a_time = threading.Lock()


async def upgrade(url: str) -> None:
    """Create what is missing in a database, or bring an older one up to date.

    Raises:
        InvalidOption: the URL is not of a database that Perdure runs on.
    """
    await asyncio.to_thread(_upgrade_in_thread, url)


async def check(database: Database) -> None:
    """Refuse a database that this release cannot use. One that a newer release migrated is fine.

    Raises:
        InvalidOption: it was never migrated, or lacks revisions that this release needs.
    """
    current = await database.read(lambda conn: conn.run_sync(_current))
    known = revisions()
    if current == known[-1] or (current is not None and current not in known):
        return
    where = database.engine.url.render_as_string(hide_password=True)
    state = "has no tables of Perdure's" if current is None else f"is at revision {current}"
    raise InvalidOption(f"database {where} {state}; run `perdure db upgrade` first")


def revisions() -> Sequence[str]:
    """Those of this release, in order: each is a file whose name begins with it."""
    return sorted(file.name.partition("_")[0] for file in (FOLDER / "versions").glob("[0-9]*.py"))


def run(connection: Connection) -> None:
    """Run the missing revisions in the transaction that ``connection`` is in."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)

    def missing(revision: object, _context: object) -> object:
        return scripts._upgrade_revs("head", revision)  # type: ignore[arg-type]  # alembic's own, as in command.upgrade

    environment = EnvironmentContext(config, scripts, fn=missing, destination_rev="head")
    environment.config.attributes["connection"] = connection
    with environment:
        scripts.run_env()


def _upgrade_in_thread(url: str) -> None:
    with _one_at_a_time:
        asyncio.run(_upgrade(url))


async def _upgrade(url: str) -> None:
    database = await Database.open(url, StoreOptions(pool_size=1, max_overflow=0))
    try:
        before, after = await database.write(_run_locked)
    finally:
        await database.close()
    if before != after:
        log.info("migrated the database from %s to %s", before, after)


async def _run_locked(conn: AsyncConnection) -> tuple[str | None, str | None]:
    if conn.dialect.name == "postgresql":
        await conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    before = await conn.run_sync(_current)
    await conn.run_sync(run)
    return before, await conn.run_sync(_current)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    current: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return current
