"""Find: an app's sessions by what their metadata says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidContent, InvalidOption
from perdure.types import Json, JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import event

VALUES: dict[str, Json] = {
    "null": None,
    "true": True,
    "false": False,
    "one": 1,
    "zero": 0,
    "text one": "1",
    "text true": "true",
    "text null": "null",
    "empty": "",
    "half": 0.5,
    "tenth": 0.1,
    "huge": 10**30,
    "one more": 10**30 + 1,
    "long": 2**63 - 1,
    "longer": 2**63,
    "list": [1, 2],
    "list the other way": [2, 1],
    "longer list": [1, 2, 3],
    "list of texts": ["1", "2"],
    "nothing": [],
    "object": {"a": 1, "b": {"c": None}},
    "larger object": {"a": 1, "b": {"c": None, "d": 1}},
    "empty object": {},
    "script": "Grüße, 世界 🌍",
    "quotes": 'a "quoted" \\ back\nslash',
}


async def found(store: SessionStore, metadata: JsonObject, *, app: str = "counter") -> set[str]:
    """The ids of all that is found."""
    page = await store.find_sessions(app, metadata, limit=1000)
    assert page.next_cursor is None
    return {item.key.session_id for item in page.sessions}


async def test_s48_equality_is_typed(store: SessionStore, key: SessionKey) -> None:
    for name, value in VALUES.items():
        await store.create(replace(key, session_id=name), metadata={"k": value, "other": name})
    await store.create(replace(key, session_id="without"), metadata={"K": 1})
    for name, value in VALUES.items():
        assert await found(store, {"k": value}) == {name}, name
        assert await found(store, {"k": value, "other": name}) == {name}
        assert await found(store, {"k": value, "other": "no"}) == set()
    assert await found(store, {"k": 1.0}) == {"one"}, "a number is its value"
    assert await found(store, {"k": {"b": {"c": None}, "a": 1}}) == {"object"}, "keys have no order"


async def test_s48_all_must_hold(store: SessionStore, key: SessionKey) -> None:
    for number in range(12):
        metadata = {"half": number % 2, "third": str(number % 3), "n": number}
        await store.create(replace(key, session_id=f"s{number}"), metadata=metadata)
    assert await found(store, {"half": 0}) == {f"s{n}" for n in range(0, 12, 2)}
    assert await found(store, {"half": 0, "third": "0"}) == {"s0", "s6"}
    assert await found(store, {"half": 0, "third": "0", "n": 6}) == {"s6"}
    assert await found(store, {"half": 0, "third": 0}) == set()
    assert await found(store, {"half": 0, "missing": None}) == set()
    assert len(await found(store, {})) == 12


@pytest.mark.parametrize("name", ["a.b", "$", "$.a", 'quo"te', "back\\slash", "new\nline", "ä", "", "'", "%"])
async def test_s48_any_key_can_be_found(store: SessionStore, key: SessionKey, name: str) -> None:
    await store.create(key, metadata={name: "x", "a": {"b": "y"}})
    await store.create(replace(key, session_id="s2"), metadata={"a": {"b": "x"}, "k": "x"})
    assert await found(store, {name: "x"}) == {"s1"}
    assert await found(store, {name: "y"}) == set()


async def test_s48_scoped_to_the_app_and_to_the_user_if_asked(store: SessionStore, key: SessionKey) -> None:
    bob = replace(key, user_id="bob")
    for each in (key, bob, replace(key, app="other")):
        await store.create(each, metadata={"k": 1})
    page = await store.find_sessions("counter", {"k": 1})
    assert [item.key for item in page.sessions] == [bob, key]
    page = await store.find_sessions("counter", {"k": 1}, user_id="ada")
    assert [item.key for item in page.sessions] == [key]
    assert await found(store, {"k": 1}, app="nobody") == set()


async def test_s48_what_is_changed_or_deleted_is_found_as_it_is_now(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key, metadata={"k": 1, "l": 1})
    await store.update(key, request_id="u1", metadata={"k": 2, "l": None})
    assert await found(store, {"k": 1}) == await found(store, {"l": 1}) == set()
    assert await found(store, {"k": 2}) == {"s1"}
    await store.fork(key, "s2")
    assert await found(store, {"k": 2}) == {"s1", "s2"}
    await store.delete(key)
    assert await found(store, {"k": 2}) == {"s2"}


async def test_s48_pages_newest_first(store: SessionStore, key: SessionKey) -> None:
    keys = [replace(key, session_id=f"s{number:02}", user_id=f"u{number % 2}") for number in range(20)]
    for number, each in enumerate(keys):
        await store.create(each, state={"n": 1}, metadata={"third": number % 3, "nested": {"n": number % 2}})
    await store.append(keys[3], event("i1:x"))
    wanted = [keys[3], *(each for each in reversed(keys[::3]) if each != keys[3])]
    for limit in (1, 2, 3, 7, 50):
        seen: list[SessionKey] = []
        cursor = None
        while True:
            page = await store.find_sessions("counter", {"third": 0}, limit=limit, cursor=cursor)
            assert all((item.state, item.events) == ({}, []) for item in page.sessions)
            seen += [item.key for item in page.sessions]
            cursor = page.next_cursor
            if cursor is None:
                break
            assert len(page.sessions) == limit
        assert seen == wanted, limit
    page = await store.find_sessions("counter", {"nested": {"n": 0}, "third": 0}, limit=2, user_id="u0")
    assert [item.key.session_id for item in page.sessions] == ["s18", "s12"]


async def test_s48_what_makes_no_sense_is_refused(store: SessionStore) -> None:
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidOption, match="limit"):
            await store.find_sessions("counter", {"k": 1}, limit=limit)
    with pytest.raises(InvalidOption, match="cursor"):
        await store.find_sessions("counter", {"k": 1}, cursor="x")
    for bad in ({"k": float("nan")}, {"k": "\0"}, {"\ud800": 1}):
        with pytest.raises(InvalidContent, match="find"):
            await store.find_sessions("counter", bad)


FILL = {
    "sqlite": """
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000)
        INSERT INTO sessions (app, user_id, id, version, epoch, head, projection, metadata,
                              created_at, updated_at)
        SELECT 'counter', 'u', 's' || n, 1, 0, 0, '[[1,null]]', json_object('n', n),
               '2026-01-01T00:00:00.000000+00:00', '2026-01-01T00:00:00.000000+00:00' FROM numbers""",
    "postgresql": """
        INSERT INTO sessions (app, user_id, id, version, epoch, head, projection, metadata,
                              created_at, updated_at)
        SELECT 'counter', 'u', 's' || n, 1, 0, 0, '[[1,null]]', jsonb_build_object('n', n), now(), now()
          FROM generate_series(1, 3000) AS n""",
}


async def test_s48_an_index_is_used(store: SessionStore) -> None:
    """On PostgreSQL for the metadata, on SQLite for the app; no table is scanned."""
    kind = store._db.engine.dialect.name

    async def fill(conn: AsyncConnection) -> None:
        await conn.execute(text(FILL[kind]))
        await conn.execute(text("ANALYZE sessions"))

    await store._db.write(fill)
    sent: list[tuple[str, Any]] = []
    engine = store._db.engine.sync_engine

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    sqlalchemy_event.listen(engine, "before_cursor_execute", note)
    page = await store.find_sessions("counter", {"n": 77})
    sqlalchemy_event.remove(engine, "before_cursor_execute", note)
    assert [item.key.session_id for item in page.sessions] == ["s77"]
    [(statement, parameters)] = [each for each in sent if each[0].startswith("SELECT")]

    async def explain(conn: AsyncConnection) -> str:
        how = "EXPLAIN" if kind == "postgresql" else "EXPLAIN QUERY PLAN"
        plan = await conn.exec_driver_sql(f"{how} {statement}", parameters)
        return "\n".join(str(tuple(row)) for row in plan)

    plan = await store._db.read(explain)
    assert ("sessions_by_metadata" if kind == "postgresql" else "sessions_by_app (app=?)") in plan
    assert "Seq Scan" not in plan
    assert "SCAN sessions" not in plan
