"""Options take effect, and what is no option is an error."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import storage.engine
from perdure.errors import InvalidOption, StorageUnavailable
from perdure.types import SessionKey
from storage.engine import parse_url
from storage.options import StoreOptions
from storage.sessions import SessionStore
from tests.conformance.conftest import NewDatabase
from tests.conformance.events import event
from tests.conformance.watch import query, until


@pytest.mark.parametrize(
    "options",
    [
        {"poolsize": 5},
        {"pool_size": 0},
        {"pool_size": "5"},
        {"pool_size": True},
        {"max_overflow": -1},
        {"pool_idle_timeout": 0},
        {"pool_idle_timeout": float("nan")},
        {"pool_idle_timeout": "10"},
        {"pool_pre_ping": 1},
        {"sqlite_synchronous": "OFF"},
    ],
)
async def test_s52_what_is_no_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        await SessionStore.open("sqlite://", "memory://x", options=options)


async def test_s52_options_may_be_given_as_an_object() -> None:
    store = await SessionStore.open("sqlite://", "memory://x", options=StoreOptions(pool_size=2))
    await store.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_s52_the_pool_has_the_size_asked_for(new_database: NewDatabase, kind: str) -> None:
    options = {"pool_size": 2, "max_overflow": 1}
    store = await SessionStore.open(await new_database(kind), "memory://x", options=options)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            if isinstance(store._db.engine, AsyncEngine):
                await stack.enter_async_context(store._db.engine.connect())
            else:
                stack.enter_context(store._db.engine.sync_engine.connect())
        fourth = asyncio.create_task(store.get(SessionKey(app="a", user_id="u", session_id="s")))
        done, _ = await asyncio.wait([fourth], timeout=0.3)
        assert not done, "a fourth connection was opened"
    await asyncio.wait([fourth])
    assert "SessionNotFound" in repr(fourth.exception())
    status = store._db.engine.sync_engine.pool.status()
    assert status.startswith("Pool size: 2  Connections in pool: 2")
    await store.close()


async def test_s52_on_postgres_the_server_counts_them(new_database: NewDatabase) -> None:
    url = await new_database("postgres")
    key = SessionKey(app="a", user_id="u", session_id="s")
    store = await SessionStore.open(url, "memory://x", options={"pool_size": 3, "max_overflow": 4})
    await store.create(key)
    await asyncio.gather(*(store.append(key, event(f"i{n}:x")) for n in range(40)))
    watcher = await asyncpg.connect(url)
    mine = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'perdure'"

    async def three_are_left() -> bool:
        return bool(await watcher.fetchval(f"SELECT count(*) = 3 {mine}"))

    await until(three_are_left)  # the process behind a connection that was closed ends a little later
    await store.close()
    await watcher.close()


async def backend_pid(store: SessionStore) -> int:
    """Which server process the next connection of the pool belongs to."""
    [row] = await query(store._db, "SELECT pg_backend_pid() AS pid")
    return int(row["pid"])


async def test_s52_an_idle_connection_is_replaced(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(storage.engine, "monotonic", lambda: clock[0])
    url = await new_database("postgres")
    store = await SessionStore.open(url, "memory://x", options={"pool_size": 1, "pool_idle_timeout": 60})
    first = await backend_pid(store)
    clock[0] += 59
    assert await backend_pid(store) == first
    clock[0] += 59
    assert await backend_pid(store) == first, "it was used in between"
    clock[0] += 61
    assert await backend_pid(store) != first
    await store.close()


@pytest.mark.parametrize("ping", [True, False])
async def test_s52_a_connection_that_the_server_closed_is_noticed_before_use(
    new_database: NewDatabase, ping: bool
) -> None:
    url = await new_database("postgres")
    options = {"pool_size": 1, "max_overflow": 0, "pool_pre_ping": ping}
    store = await SessionStore.open(url, "memory://x", options=options)
    key = SessionKey(app="a", user_id="u", session_id="s")
    await store.create(key)
    pid = await backend_pid(store)
    killer = await asyncpg.connect(url)
    assert await killer.fetchval("SELECT pg_terminate_backend($1, 60000)", pid)
    await killer.close()
    if not ping:
        with pytest.raises(StorageUnavailable):
            await store.append(key, event("i1:x"))
    assert (await store.append(key, event("i1:x"))).seq == 1
    await store.close()


async def test_s52_a_connection_that_rested_is_pinged(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(storage.engine, "monotonic", lambda: clock[0])
    store = await SessionStore.open(await new_database("postgres"), "memory://x", options={"pool_size": 1})
    first = await backend_pid(store)
    clock[0] += 5
    broken = asyncpg.exceptions.ConnectionDoesNotExistError("connection was closed")

    async def fail(*_: Any, **__: Any) -> None:
        raise broken

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "fetchrow", fail)
        assert await backend_pid(store) != first
    await store.close()


@pytest.mark.parametrize(("level", "number"), [("NORMAL", 1), ("FULL", 2)])
async def test_s52_sqlite_syncs_as_asked(new_database: NewDatabase, level: str, number: int) -> None:
    url = await new_database("sqlite")
    store = await SessionStore.open(url, "memory://x", options={"sqlite_synchronous": level})
    assert await query(store._db, "PRAGMA synchronous") == [{"synchronous": number}]
    assert await query(store._db, "PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    await store.close()


@pytest.mark.parametrize("url", ["mysql://h/d", "nonsense", "", "http://x", "oracle://u:geheim@h/d"])
async def test_a_database_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        await SessionStore.open(url, "memory://x")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense://x", "://", ""])
async def test_an_artifacts_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidOption, match="artifacts url"):
        await SessionStore.open("sqlite://", url)


def test_urls_get_our_drivers() -> None:
    assert parse_url("sqlite:///a/b.db").render_as_string() == "sqlite+pysqlite:///a/b.db"
    for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        url = parse_url(f"{scheme}://u:p@h:5/d?sslmode=require")
        assert url.render_as_string(False) == "postgresql+asyncpg://u:p@h:5/d?ssl=require"


async def test_a_sqlite_file_is_made_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "perdure.db"
    store = await SessionStore.open(f"sqlite:///{path}", "memory://x", migrate=True)
    await store.close()
    assert path.exists()


async def test_a_store_in_memory_is_gone_when_closed(key: SessionKey) -> None:
    first = await SessionStore.open("sqlite://", "memory://x")
    second = await SessionStore.open("sqlite://", "memory://x")
    await first.create(key)
    await second.create(key)
    await first.close()
    assert (await second.get(key)).version == 1
    await second.close()


async def test_what_is_on_disk_is_there_after_closing(new_database: NewDatabase, key: SessionKey) -> None:
    for kind in ("sqlite", "postgres"):
        url = await new_database(kind)
        first = await SessionStore.open(url, "memory://x")
        created = await first.create(key, state={"n": 1})
        await first.close()
        second = await SessionStore.open(url, "memory://x")
        assert await second.get(key) == created
        await second.close()
