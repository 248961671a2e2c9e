"""The database behind a store: one code path, two engines, two kinds of transaction.

``write()`` is a transaction that may lock and change; ``read()`` sees one snapshot and
changes nothing. The hazards, and what is done about them here:

- SQLite: Python's driver opens transactions late and as readers, and a reader that turns
  writer fails at once when somebody else wrote meanwhile. So the driver's own transactions
  are off, and writers say ``BEGIN IMMEDIATE``. Its busy handler polls, unfairly; so the
  writers of one process queue in a lock and only processes meet at the file.
- SQLite and cancellation: SQLAlchemy closes the connection of a cancelled task, but SQLite
  keeps one with an unfinished statement open, locks and all, until the last reference to
  its cursor is gone; and those sit in tracebacks. The whole database would stand still. So
  on SQLite a cancellation waits until the transaction, which is short, is over.
- SQLite in memory: the last connection that closes takes the database with it. So it is a
  named one that a second, idle connection holds open.
- SQLAlchemy quotes a failed statement's parameters in its error, which goes into logs: they
  are the conversation, so that is off.
- PostgreSQL: SQLAlchemy's pre-ping costs three round trips a transaction. A connection whose
  socket is closed is seen for nothing, and only one that rested is pinged.
"""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from sqlalchemy import AsyncAdaptedQueuePool, Connection, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from perdure.errors import InvalidOption
from storage.options import StoreOptions
from storage.storable import dumps_exactly, loads

__all__ = ["Database", "Work", "parse_url"]

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
"""What is done in one transaction, given its connection."""

BUSY_TIMEOUT = 60.0
"""Seconds that a SQLite writer waits for the writers of other processes."""
RESTED = 1.0
"""Seconds without use after which a PostgreSQL connection is pinged before the next one."""
OLDEST_SQLITE = (3, 36, 0)
"""Databases in memory that several connections share came with it."""


def parse_url(url: str) -> URL:
    """The SQLAlchemy URL for a plain database URL, with our driver in it.

    Args:
        url: ``sqlite:///path``, ``sqlite://`` (in memory) or ``postgresql://user:password@host/db``.

    Raises:
        InvalidOption: no URL, or of a database that Perdure does not run on.
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise InvalidOption(
            "the database url is no URL; give sqlite:///path or postgresql://user:password@host/database"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+aiosqlite")
    if backend in ("postgresql", "postgres"):
        query = dict(parsed.query)
        if "sslmode" in query:
            query["ssl"] = query.pop("sslmode")
        return parsed.set(drivername="postgresql+asyncpg", query=query)
    raise InvalidOption(f"Perdure runs on sqlite and postgresql, not on {backend!r}; change the database url")


class Database:
    """An engine with a pool. Make it with :meth:`open`; it belongs to the event loop it was opened in."""

    def __init__(self, engine: AsyncEngine, keeper: sqlite3.Connection | None = None) -> None:
        self.engine = engine
        self.sqlite = engine.dialect.name == "sqlite"
        self._keeper = keeper
        self._writer = engine.execution_options(perdure_write=True)
        self._reader = (
            engine
            if self.sqlite
            else engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )
        self._turnstile = asyncio.Lock()

    @property
    def in_memory(self) -> bool:
        """Whether the database goes when this object does."""
        return self._keeper is not None

    @classmethod
    async def open(cls, url: str, options: StoreOptions) -> Database:
        """Connect nothing yet, but prepare the pool; a SQLite file is created and put in WAL mode.

        Raises:
            InvalidOption: a URL or a SQLite library that Perdure cannot run on.
        """
        parsed = parse_url(url)
        if parsed.get_backend_name() == "postgresql":
            return cls(_postgres(parsed, options))
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise InvalidOption(
                f"Python's SQLite is {sqlite3.sqlite_version}, Perdure needs 3.36 or later; "
                "use a newer Python, or PostgreSQL"
            )
        if parsed.database in (None, "", ":memory:"):
            return cls._in_memory()
        path = Path(str(parsed.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_use_wal, path)
        return cls(_sqlite(parsed, options))

    @classmethod
    def _in_memory(cls) -> Database:
        name = f"file:/perdure-{uuid.uuid4().hex}"
        keeper = sqlite3.connect(f"{name}?vfs=memdb", uri=True, check_same_thread=False)
        url = URL.create("sqlite+aiosqlite", database=name, query={"vfs": "memdb", "uri": "true"})
        return cls(_sqlite(url, StoreOptions(pool_size=1, max_overflow=0), pool_timeout=None), keeper)

    async def write(self, work: Work[T]) -> T:
        """Do work in a transaction that may change rows: all of it is committed or, on any error, none."""
        if not self.sqlite:
            return await _within(self._writer, work)
        async with self._turnstile:
            return await _to_the_end(_within(self._writer, work))

    async def read(self, work: Work[T]) -> T:
        """Do work in a transaction that changes nothing, and whose statements all see one snapshot."""
        if not self.sqlite:
            return await _within(self._reader, work)
        return await _to_the_end(_within(self._reader, work))

    async def close(self) -> None:
        """Close every connection. A database in memory is gone after it."""
        await self.engine.dispose()
        if self._keeper is not None:
            self._keeper.close()


async def _within(engine: AsyncEngine, work: Work[T]) -> T:
    async with engine.begin() as connection:
        return await work(connection)


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work, and only when it is done be cancelled, if somebody asked for that meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not task.cancelled():
        task.exception()  # seen: what became of it does not matter to a caller that is gone
        raise cancelled
    return task.result()


def _sqlite(url: URL, options: StoreOptions, **pool: Any) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=options.pool_size,
        max_overflow=options.max_overflow,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None},
        **pool,
    )
    _replace_idle(engine, options)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous = {options.sqlite_synchronous}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("perdure_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgres(url: URL, options: StoreOptions) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=options.pool_size,
        max_overflow=options.max_overflow,
        hide_parameters=True,
        json_serializer=dumps_exactly,
        json_deserializer=loads,
        connect_args={
            "server_settings": {"application_name": "perdure"},
            "prepared_statement_cache_size": 200,
        },
    )
    _replace_idle(engine, options)
    return engine


def _replace_idle(engine: AsyncEngine, options: StoreOptions) -> None:
    """Have connections that were idle too long, or whose server is gone, replaced when they are next used."""
    ping = options.pool_pre_ping and engine.dialect.name == "postgresql"

    @event.listens_for(engine.sync_engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["rested_since"] = monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def test(connection: Any, record: Any, _proxy: Any) -> None:
        rested = monotonic() - record.info.get("rested_since", monotonic())
        if rested > options.pool_idle_timeout:
            raise exc.DisconnectionError("idle for too long")
        if not ping:
            return
        if connection.driver_connection.is_closed():
            raise exc.DisconnectionError("closed by the server")
        if rested > RESTED:
            try:
                connection.ping()
            except engine.dialect.loaded_dbapi.Error as error:
                raise exc.DisconnectionError("no answer to a ping") from error


def _use_wal(path: Path) -> None:
    """Put a SQLite file in WAL mode, which it then keeps.

    The busy time-out does not cover this switch, so processes that open a new file together
    collide here; each tries again until the file is in WAL mode, by whoever's hand.
    """
    deadline = monotonic() + BUSY_TIMEOUT
    pause = 0.005
    while True:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > deadline:
                raise
            sleep(pause)
        finally:
            connection.close()
