"""The floor under the store: the same by hand, through the same driver, with the same durability.

An append is one transaction of two statements over two bare tables: insert the event as one
JSON text under a primary key, and update the session's row. It locks nothing, checks nothing,
keeps no state and has no index but the primary keys. It is there twice: statement by
statement through asyncpg and aiosqlite, and handed over at once, which is the least there can
be: one statement for PostgreSQL, one thread for SQLite. The reads are our own rows by hand,
in one snapshot, their JSON decoded.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import count
from typing import Any

import aiosqlite
import asyncpg

from bench.store_fill import APP, CONTENT, LIST_APP, USER

__all__ = ["Floor", "PostgresFloor", "SqliteFloor"]

TABLES = (
    "CREATE TABLE floor_sessions (id TEXT PRIMARY KEY, head BIGINT NOT NULL)",
    "CREATE TABLE floor_events (session_id TEXT NOT NULL, seq BIGINT NOT NULL, event TEXT NOT NULL, "
    "PRIMARY KEY (session_id, seq))",
)
INSERT_EVENT = "INSERT INTO floor_events (session_id, seq, event) VALUES ($1, $2, $3)"
UPDATE_ROW = "UPDATE floor_sessions SET head = $1 WHERE id = $2"
AT_ONCE = f"WITH made AS ({INSERT_EVENT}) UPDATE floor_sessions SET head = $2 WHERE id = $1"
INSERT_ROW = "INSERT INTO floor_sessions (id, head) VALUES ($1, 0)"
ROW = "SELECT * FROM sessions WHERE app = $1 AND user_id = $2 AND id = $3"
STATE = "SELECT key, value FROM state WHERE app = $1 AND user_id = $2 AND session_id = $3"
EVENTS = (
    "SELECT * FROM events WHERE app = $1 AND user_id = $2 AND session_id = $3 AND seq > $4 AND seq <= $5 "
    "ORDER BY seq"
)
PAGE = "SELECT * FROM sessions WHERE app = $1 ORDER BY updated_at DESC, user_id DESC, id DESC LIMIT $2"
JSON_OF_EVENT = ("content", "state_delta", "state_undo")
JSON_OF_SESSION = ("projection", "metadata")


class Floor(ABC):
    """What every database has: sessions are made on first use."""

    def __init__(self) -> None:
        self._seqs = count(1)

    @abstractmethod
    async def start(self, sessions: Sequence[str]) -> None:
        """Connect, and make the bare tables and the rows of these sessions."""

    @abstractmethod
    async def append(self, session: str) -> None:
        """One transaction: insert an event, update a row."""

    @abstractmethod
    async def append_at_once(self, session: str) -> None:
        """The same in one round trip, or in one thread."""

    @abstractmethod
    async def read(self, session: str, first: int, last: int) -> None:
        """A session with its state and the events from one seq to another."""

    @abstractmethod
    async def page(self, limit: int) -> None:
        """The sessions changed last."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    def _event(self) -> tuple[int, str]:
        seq = next(self._seqs)
        return seq, json.dumps({"id": f"event-{seq}", "content": CONTENT, "state_delta": {"counter": seq}})


class PostgresFloor(Floor):
    """By asyncpg."""

    def __init__(self, url: str, connections: int) -> None:
        super().__init__()
        self._url = url
        self._connections = connections
        self._pool: Any = None

    async def start(self, sessions: Sequence[str]) -> None:
        self._pool = await asyncpg.create_pool(
            self._url, min_size=self._connections, max_size=self._connections
        )
        async with self._pool.acquire() as connection:
            for table in TABLES:
                await connection.execute(table)
            await connection.executemany(INSERT_ROW, [(name,) for name in sessions])

    async def append(self, session: str) -> None:
        seq, event = self._event()
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(INSERT_EVENT, session, seq, event)
            await connection.execute(UPDATE_ROW, seq, session)

    async def append_at_once(self, session: str) -> None:
        seq, event = self._event()
        async with self._pool.acquire() as connection:
            await connection.execute(AT_ONCE, session, seq, event)

    async def read(self, session: str, first: int, last: int) -> None:
        owner = (APP, USER, session)
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            row = await connection.fetchrow(ROW, *owner)
            values = await connection.fetch(STATE, *owner)
            events = await connection.fetch(EVENTS, *owner, first - 1, last)
        _decode([row], JSON_OF_SESSION)
        _decode(values, ("value",))
        _decode(events, JSON_OF_EVENT)

    async def page(self, limit: int) -> None:
        async with self._pool.acquire() as connection:
            _decode(await connection.fetch(PAGE, LIST_APP, limit), JSON_OF_SESSION)

    async def close(self) -> None:
        await self._pool.close()


class SqliteFloor(Floor):
    """By aiosqlite: one connection, for which callers queue; and by sqlite3, another one."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._queue = asyncio.Lock()
        self._connection: Any = None
        self._blocking = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
        self._blocking.execute("PRAGMA synchronous = FULL")

    async def start(self, sessions: Sequence[str]) -> None:
        self._connection = await aiosqlite.connect(self._path, isolation_level=None, timeout=60)
        self._connection.row_factory = aiosqlite.Row
        await self._connection.execute("PRAGMA synchronous = FULL")
        for table in TABLES:
            await self._connection.execute(table)
        await self._connection.executemany(_marks(INSERT_ROW), [(name,) for name in sessions])

    async def append(self, session: str) -> None:
        seq, event = self._event()
        async with self._queue:
            await self._connection.execute("BEGIN IMMEDIATE")
            await self._connection.execute(_marks(INSERT_EVENT), (session, seq, event))
            await self._connection.execute(_marks(UPDATE_ROW), (seq, session))
            await self._connection.execute("COMMIT")

    async def append_at_once(self, session: str) -> None:
        seq, event = self._event()
        await asyncio.to_thread(self._append, session, seq, event)

    def _append(self, session: str, seq: int, event: str) -> None:
        self._blocking.execute("BEGIN IMMEDIATE")
        self._blocking.execute(_marks(INSERT_EVENT), (session, seq, event))
        self._blocking.execute(_marks(UPDATE_ROW), (seq, session))
        self._blocking.execute("COMMIT")

    async def read(self, session: str, first: int, last: int) -> None:
        owner = (APP, USER, session)
        async with self._queue:
            await self._connection.execute("BEGIN")
            row = await self._connection.execute_fetchall(_marks(ROW), owner)
            values = await self._connection.execute_fetchall(_marks(STATE), owner)
            events = await self._connection.execute_fetchall(_marks(EVENTS), (*owner, first - 1, last))
            await self._connection.execute("COMMIT")
        _decode(row, JSON_OF_SESSION)
        _decode(values, ("value",))
        _decode(events, JSON_OF_EVENT)

    async def page(self, limit: int) -> None:
        async with self._queue:
            rows = await self._connection.execute_fetchall(_marks(PAGE), (LIST_APP, limit))
        _decode(rows, JSON_OF_SESSION)

    async def close(self) -> None:
        await self._connection.close()
        self._blocking.close()


def _marks(statement: str) -> str:
    """SQLite's own spelling of numbered parameters."""
    return statement.replace("$", "?")


def _decode(rows: Sequence[Any], names: Sequence[str]) -> None:
    """Give back what a caller could use; that it is dropped changes nothing of the cost."""
    for row in rows:
        found = dict(row)
        for name in names:
            if found[name] is not None:
                found[name] = json.loads(found[name])
