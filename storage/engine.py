"""The database behind a store: one code path, two engines, two kinds of transaction.

``write()`` is a transaction that may lock and change; ``read()`` sees one snapshot and
changes nothing. The hazards, and what is done about them here:

- SQLite: Python's driver opens transactions late and as readers, and a reader that turns
  writer fails at once when somebody else wrote meanwhile. So the driver's own transactions
  are off, and writers say ``BEGIN IMMEDIATE``. Its busy handler polls, unfairly; so the
  writers of one process queue in a lock and only processes meet at the file.
- SQLite and threads: its driver blocks, and a thread has each transaction from its beginning
  to its end (:mod:`storage.threaded`). Nothing can stop that thread, so a cancellation waits
  until the transaction, which is short, is over: what was cancelled holds no lock.
- SQLite in memory: the last connection that closes takes the database with it. So it is a
  named one that a second, idle connection holds open.
- SQLAlchemy quotes a failed statement's parameters in its error, which goes into logs: they
  are the conversation, so that is off.
- An outage is raised as a typed error that says what to do (:mod:`storage.outages`). Who is
  cut off from the answer to a commit does not know whether it was done; so every write has
  an id under which it can be done again.
- PostgreSQL: SQLAlchemy's pre-ping costs three round trips a transaction. A connection whose
  socket is closed is seen for nothing, and only one that rested is pinged.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from perdure.errors import InvalidOption
from storage.options import StoreOptions
from storage.outages import READ_ONLY, sqlstate_of, typed_outages
from storage.storable import dumps_exactly, loads
from storage.threaded import ThreadedEngine, Work
from storage.threads import to_the_end

__all__ = ["Database", "Work", "parse_url"]

T = TypeVar("T")

BUSY_TIMEOUT = 60.0
"""Seconds that a SQLite writer waits for the writers of other processes."""
OWN = "PD"
"""Begins the SQLSTATE of what our own functions raise."""
RESTED = 1.0
"""Seconds without use after which a PostgreSQL connection is pinged before the next one."""
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""Seconds, and milliseconds, until a server that vanished with its machine is noticed: about a minute, where
the system's own numbers are a quarter of an hour while something was sent, and hours while we wait."""
ANSWERS_WITHIN = 10.0
"""Seconds after which a connection for notifications that does not answer is taken for dead."""
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
        return parsed.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        query = dict(parsed.query)
        if "sslmode" in query:
            query["ssl"] = query.pop("sslmode")
        return parsed.set(drivername="postgresql+asyncpg", query=query)
    raise InvalidOption(f"Perdure runs on sqlite and postgresql, not on {backend!r}; change the database url")


class Database:
    """An engine with a pool. Make it with :meth:`open`; it belongs to the event loop it was opened in."""

    def __init__(
        self, engine: AsyncEngine | ThreadedEngine, keeper: sqlite3.Connection | None = None
    ) -> None:
        self.engine = engine
        self.sqlite = isinstance(engine, ThreadedEngine)
        self._keeper = keeper
        if isinstance(engine, AsyncEngine):
            self._reader = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._committing = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._turnstile = asyncio.Lock()

    @property
    def in_memory(self) -> bool:
        """Whether the database goes when this object does."""
        return self._keeper is not None

    @property
    def name(self) -> str:
        """What tells this database from others on this machine."""
        url = self.engine.url
        return str(url if self.in_memory or not self.sqlite else Path(str(url.database)).resolve())

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
        url = URL.create("sqlite+pysqlite", database=name, query={"vfs": "memdb", "uri": "true"})
        return cls(_sqlite(url, StoreOptions(pool_size=1, max_overflow=0), pool_timeout=None), keeper)

    async def write(self, work: Work[T], *, awaits: bool = False) -> T:
        """Do work in a transaction that may change rows: all of it is committed or, on any error, none.

        Args:
            work: what is done.
            awaits: it awaits other things than its connection.
        """
        if isinstance(self.engine, AsyncEngine):
            return await _within(self.engine, work, files=awaits)
        run: Callable[..., Awaitable[T]] = self.engine.step_by_step if awaits else self.engine.transact
        with typed_outages(files=awaits):
            async with self._turnstile:
                return await to_the_end(run(work, perdure_write=True))

    async def write_at_once(self, statement: str, values: Sequence[Any]) -> Any:
        """Send PostgreSQL one statement that is a transaction of its own, without BEGIN and COMMIT.

        It goes straight to the driver: on its way through SQLAlchemy it would cost a fifth more.

        Returns:
            The row that it answers.

        Raises:
            asyncpg.PostgresError: what the statement itself raised.
        """
        with typed_outages():
            async with self._committing.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                try:
                    return await driver.fetchrow(statement, *values)
                except BaseException as error:
                    if not (sqlstate_of(error) or "").startswith(OWN):
                        # Nobody knows what it is good for now; SQLAlchemy would have found out.
                        await connection.invalidate()
                    raise

    async def read(self, work: Work[T]) -> T:
        """Do work in a transaction that changes nothing, and whose statements all see one snapshot."""
        if isinstance(self.engine, AsyncEngine):
            return await _within(self._reader, work)
        with typed_outages():
            return await to_the_end(self.engine.transact(work))

    async def connect_apart(self) -> Any:
        """An asyncpg connection to the PostgreSQL that is nobody else's, nor the pool's.

        Its statements time out, and its commits do not wait for the disk: it is for
        notifications, not for what must last.
        """
        assert isinstance(self.engine, AsyncEngine), "SQLite has no notifications"
        dialect = self.engine.dialect
        _, given = dialect.create_connect_args(self.engine.url)
        for name in [name for name in given if name.startswith("prepared_statement_")]:
            del given[name]  # SQLAlchemy's own
        settings = {"application_name": "perdure feed", "synchronous_commit": "off"}
        more = {"server_settings": settings, "command_timeout": ANSWERS_WITHIN}
        return await asyncpg.connect(**{**given, **more})

    async def close(self) -> None:
        """Close every connection. A database in memory is gone after it."""
        await self.engine.dispose()
        if self._keeper is not None:
            self._keeper.close()


async def _within(engine: AsyncEngine, work: Work[T], *, files: bool = False) -> T:
    async with AsyncExitStack() as stack:
        with typed_outages():
            connection = await stack.enter_async_context(engine.connect())
        with typed_outages(files=files):
            async with connection.begin():
                return await work(connection)


def _sqlite(url: URL, options: StoreOptions, **pool: Any) -> ThreadedEngine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=options.pool_size,
        max_overflow=options.max_overflow,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None, "check_same_thread": False},
        **pool,
    )
    _replace_idle(engine, options)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous = {options.sqlite_synchronous}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("perdure_write")
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    return ThreadedEngine(engine, options.pool_size + options.max_overflow)


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
    _replace_idle(engine.sync_engine, options)
    _notice_loss(engine.sync_engine)
    return engine


def _notice_loss(engine: Engine) -> None:
    """Have connections given up whose server is gone without a word, or is the primary no more."""

    @event.listens_for(engine, "connect")
    def listen(connection: Any, _record: Any) -> None:
        line = connection.driver_connection._transport.get_extra_info("socket")
        if line.family not in (socket.AF_INET, socket.AF_INET6):
            return
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    @event.listens_for(engine, "handle_error")
    def leave(context: Any) -> None:
        if sqlstate_of(context.original_exception) == READ_ONLY:
            # The address may lead to another server by now.
            context.is_disconnect = True


def _replace_idle(engine: Engine, options: StoreOptions) -> None:
    """Have connections that were idle too long, or whose server is gone, replaced when they are next used."""
    ping = options.pool_pre_ping and engine.dialect.name == "postgresql"

    @event.listens_for(engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["rested_since"] = monotonic()

    @event.listens_for(engine, "checkout")
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
