"""An old database full of data is brought to today's schema, and the release before goes on writing to it.

The data is what today's store writes of the story that the docs tell: turns, state in three
scopes, files, a rewind, a redo and a fork. Its rows are put into a database of each older
schema, with the columns that that one has.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect

from embedded.postgres import PostgresServer
from perdure.types import SessionKey, Spent
from storage import migrate
from storage.engine import Database
from storage.options import StoreOptions
from storage.schema import metadata
from storage.sessions import SessionStore
from tests.conformance import story
from tests.conformance.events import answer, user

_numbers = itertools.count(1)

REVISIONS = sorted(file.name[:4] for file in (migrate.FOLDER / "versions").glob("[0-9]*.py"))
OLD = REVISIONS[:-1]

Tables = Mapping[str, Sequence[Mapping[str, Any]]]
"""The rows of each table, by column."""


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def urls(kind: str, postgres: PostgresServer, tmp_path: Path) -> tuple[str, str]:
    """Of two databases with nothing in them."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/new.db", f"sqlite:///{tmp_path}/old.db"
    number = next(_numbers)
    return await postgres.create_database(f"new_{number}"), await postgres.create_database(f"old_{number}")


def to(revision: str) -> Any:
    """What :func:`storage.migrate.run` does, up to an older revision."""

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrate.FOLDER))
        scripts = ScriptDirectory.from_config(config)

        def missing(current: object, _context: object) -> object:
            return scripts._upgrade_revs(revision, current)  # type: ignore[arg-type]  # as in storage.migrate

        environment = EnvironmentContext(config, scripts, fn=missing, destination_rev=revision)
        environment.config.attributes["connection"] = connection
        with environment:
            scripts.run_env()

    return run


def reflected(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection)
    return found


def dump(connection: Connection) -> Tables:
    return {
        table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
        for table in metadata.sorted_tables
    }


def fill(tables: Tables) -> Any:
    """Insert rows as the release of that schema would: only what it knows of."""

    def work(connection: Connection) -> None:
        known = reflected(connection).tables
        for table in metadata.sorted_tables:
            rows = tables.get(table.name, ())
            if table.name not in known or table.name == "epoch_floor" or not rows:
                continue
            columns = set(known[table.name].columns.keys())
            plain = [{name: value for name, value in row.items() if name in columns} for row in rows]
            connection.execute(table.insert(), plain)

    return work


def shape(connection: Connection) -> dict[tuple[str, str], tuple[str, bool, bool]]:
    """Each column: its type, whether it may be null, and whether it has a default."""
    looked = inspect(connection)
    return {
        (table, column["name"]): (
            str(column["type"]),
            bool(column["nullable"]),
            column["default"] is not None,
        )
        for table in looked.get_table_names()
        for column in looked.get_columns(table)
    }


async def run(url: str, work: Any) -> Any:
    database = await Database.open(url, StoreOptions())
    try:
        return await database.write(lambda conn: conn.run_sync(work))
    finally:
        await database.close()


def of_session(tables: Tables, before: str, after: str) -> Tables:
    """A session's rows, under another id."""
    return {
        name: [
            {**row, column: after}
            for row in rows
            for column in ("id", "session_id")
            if row.get(column) == before
        ]
        for name, rows in tables.items()
    }


async def read(store: SessionStore, key: SessionKey) -> list[object]:
    """All that a session is, but for what it has spent: the releases before did not count that."""
    session = replace(await store.get(key), spent=Spent())
    files = [(row.name, row.version) for row in await store.list_artifacts(key)]
    bytes_ = [(await store.load_artifact(key, name))[1] for name, _ in files]
    context = await store.context(key)
    context = replace(context, session=replace(context.session, spent=Spent()))
    return [session, await store.log(key), context, files, bytes_]


@pytest.mark.parametrize("revision", OLD)
async def test_an_old_database_full_of_data_is_upgraded(
    urls: tuple[str, str], tmp_path: Path, revision: str
) -> None:
    new_url, old_url = urls
    artifacts = f"file://{tmp_path}/artifacts"
    source = await SessionStore.open(new_url, artifacts, migrate=True)
    await story.play(source)
    fork = SessionKey(app=story.KEY.app, user_id=story.KEY.user_id, session_id="path-b")
    expected = [await read(source, key) for key in (story.KEY, fork)]
    tables = await run(new_url, dump)
    await source.close()

    await run(old_url, to(revision))
    await run(old_url, fill(tables))
    before = await run(old_url, shape)
    await migrate.upgrade(old_url)
    after = await run(old_url, shape)

    store = await SessionStore.open(old_url, artifacts)
    assert [await read(store, key) for key in (story.KEY, fork)] == expected
    turn = await store.begin_turn(story.KEY, user("next"), epoch=None)
    await store.append(story.KEY, answer("next"), epoch=turn.epoch)
    await store.rewind(story.KEY, before="next", request_id="back")
    assert (await store.get(story.KEY, max_events=0)).state == expected[0][0].state  # type: ignore[attr-defined]  # a Session

    # Expand before contract: what the release before knows of is there as it was, and asks for no more.
    assert {column: after.get(column) for column in before} == before
    new = {column: after[column] for column in after if column not in before}
    old_tables = {table for table, _ in before}
    asks = [
        column
        for column, (_, nullable, default) in new.items()
        if column[0] in old_tables and not (nullable or default)
    ]
    assert asks == [], "a new column without a default would refuse what the release before writes"
    await run(old_url, fill(of_session(tables, "main", "by-the-release-before")))
    copied = SessionKey(app=story.KEY.app, user_id=story.KEY.user_id, session_id="by-the-release-before")
    log = [event.id for event in await store.log(copied)]
    assert log == [event.id for event in expected[0][1]]  # type: ignore[attr-defined]  # a list of events
    await store.close()
