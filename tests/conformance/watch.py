"""See, count or break the statements that a store sends, and see all that it stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.engine import Database
from storage.schema import metadata
from storage.sessions import SessionStore

__all__ = ["Broken", "breaking", "last_words", "query", "statements", "stored", "until", "wait_for_a_lock"]


class Broken(Exception):
    """What a test makes a statement raise, as if the process had died there."""


@contextmanager
def statements(store: SessionStore, seen: list[str]) -> Iterator[None]:
    """Collect the statements sent meanwhile, without BEGIN and COMMIT."""
    with _each(store, lambda statement: None if statement == "COMMIT" else seen.append(statement)):
        yield


@contextmanager
def breaking(store: SessionStore, at: int) -> Iterator[None]:
    """Let statement number ``at`` (from 1; COMMIT counts) fail before it is sent."""
    count = 0

    def check(statement: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise Broken(f"statement {at}: {statement}")

    with _each(store, check):
        yield


async def stored(store: SessionStore) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""

    async def work(conn: AsyncConnection) -> dict[str, list[tuple[Any, ...]]]:
        tables = {}
        for table in metadata.sorted_tables:
            rows = await conn.execute(select(table).order_by(*table.primary_key.columns))
            tables[table.name] = [tuple(row) for row in rows]
        return tables

    return await store._db.read(work)


async def query(database: Database, sql: str) -> list[dict[str, Any]]:
    """The rows of a query, by the names of their columns."""

    async def work(conn: AsyncConnection) -> list[dict[str, Any]]:
        return [dict(row._mapping) for row in await conn.execute(text(sql))]

    return await database.read(work)


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Until it is true."""
    async with asyncio.timeout(60):
        while True:
            if await look():
                return
            await asyncio.sleep(0.01)


async def wait_for_a_lock(store: SessionStore) -> None:
    """Until somebody waits for one."""

    async def waits(conn: AsyncConnection) -> bool:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool((await conn.exec_driver_sql(query)).scalar_one())

    await until(lambda: store._db.read(waits))


@contextmanager
def _each(store: SessionStore, act: Callable[[str], None]) -> Iterator[None]:
    engine = store._db.engine.sync_engine

    def statement(_conn: Any, _cursor: Any, sent: str, *_: Any) -> None:
        if not sent.startswith("BEGIN"):
            act(sent)

    def commit(_conn: Any) -> None:
        act("COMMIT")

    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "commit", commit)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", statement)
        event.remove(engine, "commit", commit)


def last_words(connection: Any) -> None:
    """Give asyncpg what a server sends that shuts down, and nothing of what comes after that."""
    said = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
    connection._protocol.data_received(b"E" + (len(said) + 4).to_bytes(4, "big") + said)
