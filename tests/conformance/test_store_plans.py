"""No hot query scans a table, and an append asks for no more than it needs.

The store's own methods are run and what they send is looked at, so no query escapes. On
PostgreSQL the server tells the plan of every statement that it carried out, also of those
within a function (auto_explain); on SQLite each statement is explained again.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import literal, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from embedded.postgres import PostgresServer
from perdure.agenttool import child_session_id
from perdure.state import MISSING
from perdure.types import SessionKey
from storage.migrate import upgrade
from storage.schema import artifacts, events, memories, memory_passages, sessions, state
from storage.sessions import SessionStore
from storage.words import owner_word
from tests.conformance.events import event, user
from tests.conformance.watch import statements

KEY = SessionKey(app="counter", user_id="ada", session_id="s1")
TABLES = ("sessions", "events", "state", "artifacts", "memories", "memory_passages")
MANY = 3_000
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EXPLAIN = {
    "client_min_messages": "log",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
}

Operation = Callable[[SessionStore], Awaitable[Any]]


async def append_again(store: SessionStore) -> None:
    once = event("n9:again", state_delta={"n": 1})
    await store.append(KEY, once)
    await store.append(KEY, once)


async def save(store: SessionStore) -> None:
    version = await store.stage_artifact(KEY, "f9", b"x", "text/plain", event_id="n9:t1.0")
    await store.append(KEY, event("n9:t1.0", artifact_delta={"f9": version}))
    await store.list_artifacts(KEY)
    await store.load_artifact(KEY, "f9")


async def pages(store: SessionStore) -> None:
    for user_id in (None, "ada"):
        page = await store.list_sessions("counter", user_id, limit=20)
        await store.list_sessions("counter", user_id, limit=20, cursor=page.next_cursor)


DELTA = {"k5": 1, "k7": None, "new": 2, "app:k5": 1, "user:k5": 1, "user:k7": None}

OPERATIONS: dict[str, Operation] = {
    "append": lambda store: store.append(KEY, event("n9:x")),
    "append with keys": lambda store: store.append(
        KEY, event("n9:x", state_delta=DELTA), expect={"k5": 5, "app:k5": 5}
    ),
    "append of what is there": append_again,
    "a save": save,
    "begin a turn": lambda store: store.begin_turn(KEY, user("n9"), epoch=None),
    "begin a turn again": lambda store: store.begin_turn(KEY, user("i5"), epoch=None),
    "begin a first turn": lambda store: store.begin_turn(
        replace(KEY, session_id="new"), user("n9"), epoch=None
    ),
    "interrupt": lambda store: store.interrupt(KEY, "n9", epoch=None, reason="cancel"),
    "last 50": lambda store: store.get(KEY, max_events=50),
    "time travel": lambda store: store.get(KEY, before="i2990", max_events=50),
    "context": lambda store: store.context(KEY),
    "by id": lambda store: store.event(KEY, "i7:x"),
    "snapshot": lambda store: store.snapshot(KEY, ["i7:x", "i8:x", "none"]),
    "a page of the log": lambda store: store.log(KEY, after=500, limit=50),
    "list": pages,
    "children": lambda store: store.children(KEY),
    "find": lambda store: store.find_sessions("counter", {"n": 77}),
    "rewind": lambda store: store.rewind(KEY, before="i2900", request_id="r9"),
    "update": lambda store: store.update(KEY, request_id="u9", state=DELTA, metadata={"a": 1}),
    "fork": lambda store: store.fork(KEY, "fork", before="i20"),
    "end": lambda store: store.end(KEY),
    "delete": lambda store: store.delete(replace(KEY, session_id="s5")),
    "remember": lambda store: store.remember(KEY),
    "search memory": lambda store: store.search_memory("counter", "ada", "word 77, or whale"),
    "search memory by vectors": lambda store: store.search_memory(
        "counter", "ada", "word 77", model="m", near=[1.0, 0.0]
    ),
    "vectors": lambda store: store.keep_vectors(replace(KEY, session_id="s2"), "m", [(77, [1.0, 0.0])]),
    "what lacks vectors": lambda store: store.lacking_vectors(replace(KEY, session_id="s2"), "n", 10),
    "forget a session": lambda store: store.forget(replace(KEY, session_id="s2")),
    "forget what was said": lambda store: store.forget(replace(KEY, session_id="s2"), seq=7),
    "forget a user": lambda store: store.forget_user("counter", "u7"),
}


@pytest.fixture(scope="module")
async def filled(
    postgres: PostgresServer, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Databases with thousands of sessions, of which one is long and has a thousand keys; to be copied."""
    path = tmp_path_factory.mktemp("plans") / "filled.db"
    shutil.copy(sqlite_template, path)
    urls = {"sqlite": f"sqlite:///{path}", "postgres": await postgres.create_database("plans_template")}
    await upgrade(urls["postgres"])
    for url in urls.values():
        store = await SessionStore.open(url, "memory://plans")
        await store._db.write(fill)
        await store.close()
    return urls


@pytest.fixture(params=["sqlite", "postgres"])
async def url(
    request: pytest.FixtureRequest, filled: dict[str, str], postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[str]:
    """A copy of one of them."""
    if request.param == "sqlite":
        shutil.copy(filled["sqlite"].removeprefix("sqlite:///"), tmp_path / "plans.db")
        yield f"sqlite:///{tmp_path}/plans.db"
        return
    server = await asyncpg.connect(postgres.url)
    await server.execute("CREATE DATABASE plans TEMPLATE plans_template")
    yield postgres.url_of("plans")
    await server.execute("DROP DATABASE plans WITH (FORCE)")
    await server.close()


@pytest.fixture
async def store(url: str) -> AsyncIterator[SessionStore]:
    """A store on it, with one connection."""
    store = await SessionStore.open(url, "memory://plans", options={"pool_size": 1, "max_overflow": 0})
    yield store
    await store.close()


async def fill(conn: AsyncConnection) -> None:
    """Rows as the store would have made them, and what the planners count."""
    numbers = range(1, MANY + 1)
    whose = {"app": "counter", "user_id": "ada", "session_id": "s1"}
    times = {"created_at": NOON, "updated_at": NOON}
    row = {"version": 1, "epoch": 1, "projection": [[1, None]], **times}
    await conn.execute(
        sessions.insert(),
        [
            {"app": "counter", "user_id": "ada" if n == 1 else f"u{n % 50}", "id": f"s{n}", **row}
            | {"head": MANY if n == 1 else 0, "metadata": {"n": n}}
            for n in numbers
        ],
    )
    said = {"author": "agent", "content": {"role": "model", "parts": []}, "created_at": NOON}
    await conn.execute(
        events.insert(),
        [
            {**whose, "seq": n, "event_id": f"i{n}:x", "invocation_id": f"i{n}", **said}
            | {"state_undo": {f"k{n}": None} if n % 10 == 0 else None}
            | {"compaction": {"start": 1, "end": n - 1, "tail": n} if n % 1000 == 0 else None}
            for n in numbers
        ],
    )
    # Other sessions have most of the events, as they would: what reads the whole of one reads a part.
    for other in ("s2", "s3", "s4", "s5"):
        names = [column.name for column in events.columns]
        taken = [literal(other) if name == "session_id" else events.c[name] for name in names]
        copy = select(*taken).where(events.c.session_id == "s1")
        await conn.execute(events.insert().from_select(names, copy))
    shared = ({"app": "counter", "user_id": "", "session_id": ""}, {**whose, "session_id": ""})
    mine = [{**whose, "key": f"k{n}", "value": n} for n in range(1000)]
    for place, prefix in zip(shared, ("app:", "user:"), strict=True):
        mine += [{**place, "key": f"{prefix}k{n}", "value": n} for n in range(50)]
    others = [{**whose, "user_id": f"u{n}", "key": f"k{n}", "value": n} for n in range(MANY)]
    await conn.execute(state.insert(), mine + others)
    saved = {
        "version": 1,
        "ordinal": 0,
        "blob": "b",
        "mime_type": "text/plain",
        "size": 1,
        "created_at": NOON,
    }
    await conn.execute(
        artifacts.insert(),
        [
            {**whose, "user_id": "ada" if n < 50 else f"u{n}", "name": f"f{n}", "origin": "s1"}
            | {"event_id": f"i{n}:x", "seq": n, **saved}
            for n in numbers
        ],
    )
    await _fill_memory(conn)
    for table in TABLES:
        await conn.execute(text(f"ANALYZE {table}"))


async def _fill_memory(conn: AsyncConnection) -> None:
    """A thousand passages of the user's, and ten thousand of fifty others."""
    users = ["ada"] * 1_000 + [f"u{n % 50}" for n in range(10_000)]
    places = [{"app": "counter", "user_id": each, "session_id": "s2"} for each in users]
    said = {"part": 0, "invocation_id": "i", "author": "user", "said_at": NOON, "text": "said"}
    await conn.execute(
        memory_passages.insert(),
        [
            {**place, **said, "seq": n, "event_id": f"e{n}", "embedding": [1.0, n], "embedding_model": "m"}
            | {"words": f"{owner_word('counter', place['user_id'])} word {n % 100}"}
            for n, place in enumerate(places)
        ],
    )
    records = [{**place, "upto": 20_000, "remembered_at": NOON} for place in places[999:1_050]]
    others = [{**records[-1], "session_id": f"o{n}"} for n in range(MANY)]
    await conn.execute(memories.insert(), records + others)


async def forget_counts(conn: AsyncConnection) -> None:
    """As PostgreSQL is before it has counted the passages for the first time."""
    await conn.exec_driver_sql("DELETE FROM pg_statistic WHERE starelid = 'memory_passages'::regclass")
    await conn.exec_driver_sql(
        "UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE starts_with(relname, 'memory_passages')"
    )


class Plans:
    """Collects how the statements that a store sends meanwhile are carried out."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._sent: list[tuple[str, Any]] = []
        self.scans: list[str] = []
        self.nodes: list[dict[str, Any]] = []

    async def __aenter__(self) -> Plans:
        engine = self._store._db.engine
        if isinstance(engine, AsyncEngine):
            await self._each(self._listen)
        else:
            sqlalchemy_event.listen(engine.sync_engine, "before_cursor_execute", self._note)
        return self

    async def __aexit__(self, *_: object) -> None:
        engine = self._store._db.engine
        if isinstance(engine, AsyncEngine):
            await self._each(self._leave)
            return
        sqlalchemy_event.remove(engine.sync_engine, "before_cursor_execute", self._note)
        await self._store._db.read(self._explain)

    async def _each(self, act: Callable[[Any], Awaitable[None]]) -> None:
        """Do something with the one connection of the pool."""

        async def work(conn: AsyncConnection) -> None:
            await act((await conn.get_raw_connection()).driver_connection)

        await self._store._db.write(work)

    async def _listen(self, connection: Any) -> None:
        await connection.execute("LOAD 'auto_explain'")
        for name, value in EXPLAIN.items():
            await connection.execute(f"SET {name} = {value}")
        connection.add_log_listener(self._told)

    async def _leave(self, connection: Any) -> None:
        for name in EXPLAIN:
            await connection.execute(f"RESET {name}")
        connection.remove_log_listener(self._told)

    def _told(self, _connection: Any, message: Any) -> None:
        found = re.search(r"plan:\n(\{.*\})", message.message, re.DOTALL)
        if found:
            plan = json.loads(found[1])
            self._look(plan["Plan"], plan["Query Text"])

    def _look(self, node: dict[str, Any], query: str) -> None:
        self.nodes.append(node)
        conditions = {"Index Cond", "TID Cond", "Recheck Cond"}
        if node.get("Relation Name") in TABLES and "Scan" in node["Node Type"] and not conditions & set(node):
            self.scans.append(f"{node['Node Type']} of {node['Relation Name']}: {query}")
        for inner in node.get("Plans", []):
            self._look(inner, query)

    def _note(self, _conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
            self._sent.append((statement, parameters))

    async def _explain(self, conn: AsyncConnection) -> None:
        for statement, given in self._sent:
            parameters = given[0] if isinstance(given, list) else given
            for row in await conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
                named = re.findall(rf"\b({'|'.join(TABLES)})(?: AS)? (\w+)", statement)
                tables = {**{table: table for table in TABLES}, **{alias: table for table, alias in named}}
                how, what, *_ = row.detail.split()
                self.nodes.append({"Detail": row.detail, "Table": tables.get(what)})
                # ANY is a walk through all values of a column that the query does not name.
                if (how == "SCAN" or "ANY(" in row.detail) and what in tables:
                    self.scans.append(f"{row.detail}: {statement}")


@pytest.mark.parametrize("name", OPERATIONS)
async def test_s20_s36_s45_no_hot_query_scans_a_table(store: SessionStore, name: str) -> None:
    async with Plans(store) as plans:
        await OPERATIONS[name](store)
    assert plans.nodes, "no plan was seen"
    assert plans.scans == []


BAD = {
    "no index": "SELECT * FROM events WHERE author = 'agent'",
    "not its first column": "SELECT * FROM sessions WHERE id = 's1'",
    "an expression": "UPDATE state SET value = '1' WHERE app || user_id = 'x'",
    "an alias": "SELECT * FROM artifacts AS a WHERE a.blob = 'c'",
    "an alias without AS": "SELECT * FROM artifacts a WHERE a.blob = 'c'",
    "all of a table": "UPDATE events SET author = 'nobody'",
}


@pytest.mark.parametrize("name", BAD)
async def test_a_query_that_scans_is_caught(store: SessionStore, name: str) -> None:
    async with Plans(store) as plans:
        await store._db.write(lambda conn: conn.exec_driver_sql(BAD[name]))
    assert len(plans.scans) == 1


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_a_scan_within_a_function_is_caught(store: SessionStore) -> None:
    script = "DO $$ BEGIN PERFORM FROM events WHERE author = 'nobody'; END $$"
    async with Plans(store) as plans:
        await store._db.write(lambda conn: conn.exec_driver_sql(script))
    assert [scan.split(":")[0] for scan in plans.scans] == ["Seq Scan of events"]


@pytest.mark.parametrize("counted", [True, False])
async def test_a_search_reads_no_passage_of_another_user(store: SessionStore, counted: bool) -> None:
    """Of 11,000 passages that all have the word, no more than the user's thousand are looked at for each.

    Also for many words, and before the planner knows what is there.
    """
    query = " ".join(["word", *(str(number) for number in range(31))])
    if not counted and isinstance(store._db.engine, AsyncEngine):
        await store._db.write(forget_counts)
    async with Plans(store) as plans:
        found = await store.search_memory("counter", "ada", query, limit=100)
    assert len(found) == 100
    if isinstance(store._db.engine, AsyncEngine):
        reads = [node for node in plans.nodes if node.get("Relation Name") == "memory_passages"]
        assert reads
        told = [node.get("Join Filter", "") + node.get("Filter", "") for node in plans.nodes]
        assert not any("tsvector" in filtered for filtered in told), "the index is asked, not each passage"
        for node in reads:
            looked_at = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            assert looked_at + node.get("Rows Removed by Index Recheck", 0) <= 1_000
    else:
        details = [node["Detail"] for node in plans.nodes]
        searched = [detail for detail in details if "memory_words" in detail]
        assert len(searched) == 2, "the words are counted, and weighed"
        assert all(":M" in detail for detail in searched), "by MATCH, and not row by row"


async def test_the_children_of_a_session_are_a_range_of_its_users_key(store: SessionStore) -> None:
    """Of sixty sessions of that user, those are read whose ids begin so; also by a plan for any session."""
    key = SessionKey(app="counter", user_id="u7", session_id="s57")
    await store.create(replace(key, session_id=child_session_id("s57", "scout", "m1:t1.0")))
    for _ in range(8):
        async with Plans(store) as plans:
            assert len(await store.children(key)) == 1
    if isinstance(store._db.engine, AsyncEngine):
        [node] = [node for node in plans.nodes if node.get("Relation Name") == "sessions"]
        assert "id" in node["Index Cond"].replace("user_id", "")
        assert (node["Actual Rows"], node.get("Rows Removed by Filter", 0)) == (1, 0)
    else:
        [detail] = [node["Detail"] for node in plans.nodes if node["Table"] == "sessions"]
        assert "app=? AND user_id=? AND id>? AND id<?" in detail


async def test_s20_an_append_reads_no_key_but_its_own(store: SessionStore) -> None:
    """In a session with a thousand keys, also where the plan was made for one with none."""
    delta = {"k5": 1, "k7": None, "new": 2}
    for number in range(8):
        async with Plans(store) as plans:
            await store.append(KEY, event(f"n9:x{number}", state_delta=delta))
    if isinstance(store._db.engine, AsyncEngine):
        reads = [
            node for node in plans.nodes if node.get("Relation Name") == "state" and "Index Cond" in node
        ]
        assert reads
        for node in reads:
            assert "key" in node["Index Cond"]
            assert node["Actual Rows"] * node["Actual Loops"] <= len(delta)
            assert not node.get("Rows Removed by Filter")
    else:
        details = [node["Detail"] for node in plans.nodes if node["Table"] == "state"]
        assert len(details) >= 2, "a look-up of the keys, and a removal"
        assert all("key=?" in detail for detail in details)


class Wire:
    """A proxy before a database server that counts how often the client speaks and waits for an answer."""

    def __init__(self, url: str) -> None:
        self._to = make_url(url)
        self._answered = True
        self.round_trips = 0

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Of the database, through the proxy."""
        port = self._server.sockets[0].getsockname()[1]
        return self._to.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection(self._to.host, self._to.port)
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump(reader, theirs[1], asks=True))
            pumps.create_task(self._pump(theirs[0], writer, asks=False))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asks: bool) -> None:
        while data := await reader.read(65536):
            self.round_trips += asks and self._answered
            self._answered = not asks
            writer.write(data)
        writer.close()


@pytest.mark.parametrize("delta", [{}, {"n": 1}, DELTA])
@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_an_append_is_one_round_trip_on_postgres(url: str, delta: dict[str, Any]) -> None:
    """Nothing else crosses the wire either, such as BEGIN or COMMIT, once the statement is prepared."""
    async with Wire(url) as wire:
        store = await SessionStore.open(wire.url, "memory://x", options={"pool_size": 1})
        first = await store.append(KEY, event("n8:y", state_delta=delta))
        expect = {name: MISSING if value is None else value for name, value in first.state_delta.items()}
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.append(KEY, event("n9:x", state_delta=delta), expect=expect),
            lambda: store.append(KEY, event("n9:z", state_delta=delta), epoch=1),
            lambda: store.begin_turn(KEY, user("n10"), epoch=None),
        ]
        for call in calls:
            seen: list[str] = []
            before = wire.round_trips
            with statements(store, seen):
                await call()
            assert seen == [], "it went through SQLAlchemy, as what is no plain case does"
            assert wire.round_trips - before == 1
        await store.event(KEY, "n9:x")
        assert wire.round_trips - before > 2, "the wire is not watched"
        await store.close()
