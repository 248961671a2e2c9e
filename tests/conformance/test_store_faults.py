"""All or nothing: each operation is broken at each of its statements, and then done again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from perdure.types import SessionKey
from storage.sessions import SessionStore, SessionUpdate
from tests.conformance.conftest import NewDatabase
from tests.conformance.events import asked, content, event, say, summary, user
from tests.conformance.watch import Broken, breaking, stored

KEY = SessionKey(app="counter", user_id="ada", session_id="s1")
NEW = SessionKey(app="counter", user_id="ada", session_id="new")
OTHER = SessionKey(app="counter", user_id="ada", session_id="other")

Operation = Callable[[SessionStore], Awaitable[Any]]

DELTA = {"n": 5, "added": 1, "gone": None, "app:a": 1, "app:gone": None, "user:u": 2}

OPERATIONS: dict[str, Operation] = {
    "append": lambda store: store.append(
        KEY, event("i9:x", state_delta=DELTA), expect={"n": 2, "app:gone": 1}
    ),
    "append with artifacts": lambda store: store.append(
        KEY, event("staged:x", artifact_delta={"f": 3, "user:f": 1}, state_delta={"n": 6})
    ),
    "append of a summary": lambda store: store.append(KEY, summary("i2", 1, 3)),
    "begin a turn": lambda store: store.begin_turn(KEY, user("i9"), epoch=None),
    "begin the first turn": lambda store: store.begin_turn(NEW, user("i9"), epoch=None),
    "interrupt": lambda store: store.interrupt(KEY, "running", epoch=None, reason="cancel"),
    "interrupt before the first turn": lambda store: store.interrupt(NEW, "i9", epoch=None, reason="cancel"),
    "rewind": lambda store: store.rewind(KEY, before="i2", request_id="r9", interrupt="running"),
    "redo": lambda store: store.rewind(KEY, before="r1", request_id="r9"),
    "create": lambda store: store.create(NEW, state={"n": 1, "app:new": 2}, metadata={"a": 1}),
    "fork": lambda store: store.fork(KEY, "new", before="running"),
    "update": lambda store: store.update(KEY, request_id="u9", state=DELTA, metadata={"a": 1}),
    "batch update": lambda store: store.batch_update(
        [
            SessionUpdate(key=OTHER, request_id="u9", state=DELTA),
            SessionUpdate(key=KEY, request_id="u9", state=DELTA, metadata={"a": 1}),
        ],
        atomic=True,
    ),
    "end": lambda store: store.end(KEY),
    "end and remember": lambda store: store.end(KEY, remember=True),
    "remember": lambda store: store.remember(KEY),
    "delete": lambda store: store.delete(KEY),
    "stage": lambda store: store.stage_artifact(KEY, "f", b"new", "text/plain", event_id="i9:x"),
    "stage again": lambda store: store.stage_artifact(KEY, "f", b"again", "text/plain", event_id="staged:x"),
}

AT_ONCE = ("append", "begin a turn")
"""What PostgreSQL does by its function."""

BREAK_AT = """
CREATE SEQUENCE changes;
CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('changes') = {at} THEN
        RAISE 'change {at}: % %', tg_op, tg_table_name;
    END IF;
    RETURN NULL;
END
$$;
"""


@asynccontextmanager
async def breaking_rows(url: str, at: int) -> AsyncIterator[None]:
    """Let change number ``at`` (from 1) of a row fail, whichever table it is in, within the server."""
    connection = await asyncpg.connect(url)
    await connection.execute(BREAK_AT.format(at=at))
    for table in ("sessions", "events", "state"):
        await connection.execute(
            f"CREATE TRIGGER break AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION break()"
        )
    try:
        yield
    finally:
        await connection.execute("DROP SEQUENCE changes; DROP FUNCTION break CASCADE")
        await connection.close()


async def prepare(store: SessionStore) -> None:
    """A session with a past: turns, a rewind, artifacts committed and staged, a turn that runs."""
    await store.create(KEY, state={"gone": 1, "app:gone": 1}, metadata={"m": 1})
    await store.create(OTHER)
    await say(store, KEY, "i1", delta={"n": 1}, artifact=("f", b"1"))
    await say(store, KEY, "i2", delta={"n": 2}, artifact=("f", b"2"))
    await say(store, KEY, "i3", delta={"n": 3, "more": 3})
    await store.rewind(KEY, before="i3", request_id="r1")
    await store.stage_artifact(KEY, "f", b"3", "text/plain", event_id="staged:x")
    await store.stage_artifact(KEY, "user:f", b"3", "text/plain", event_id="staged:x")
    await store.begin_turn(KEY, user("running"), epoch=None)
    await store.append(KEY, asked("running"))
    # What a rewind takes out of the memory goes with all the rest, or not at all.
    await store.remember(KEY)
    await store.append(KEY, event("running:x", content=content("more")))


@pytest.mark.parametrize("name", OPERATIONS)
async def test_s6_s34_all_or_nothing(store: SessionStore, name: str) -> None:
    operation = OPERATIONS[name]
    await prepare(store)
    before = await stored(store)
    broken = 0
    while True:
        try:
            with breaking(store, broken + 1):
                await operation(store)
            break
        except Broken:
            broken += 1
            assert await stored(store) == before, f"statement {broken} of {name}"
    if name in AT_ONCE and store._db.engine.dialect.name == "postgresql":
        assert broken == 0, "it is one statement to the driver; test_s6_within_the_function breaks that"
    else:
        assert broken >= 3, "the operation sends at least a lock, a write and a commit"
    after = await stored(store)
    assert after != before
    if name not in ("create", "fork"):
        await operation(store)
        assert await stored(store) == after, "done again, it changes nothing more"


@pytest.mark.parametrize(("name", "changes"), [("append", 8), ("begin a turn", 2)])
async def test_s6_within_the_function_it_is_all_or_nothing(
    new_database: NewDatabase, name: str, changes: int
) -> None:
    """On PostgreSQL, where the statements of an append cannot be broken from outside: its changes can."""
    url = await new_database("postgres")
    store = await SessionStore.open(url, "memory://faults", options={"pool_size": 1})
    await prepare(store)
    before = await stored(store)
    for at in range(1, changes + 1):
        async with breaking_rows(url, at):
            with pytest.raises(asyncpg.RaiseError, match=f"change {at}:"):
                await OPERATIONS[name](store)
            assert await stored(store) == before
    async with breaking_rows(url, changes + 1):
        await OPERATIONS[name](store)
    assert await stored(store) != before
    await store.close()


async def test_s34_a_rewind_that_broke_is_done_whole_afterwards(store: SessionStore) -> None:
    await prepare(store)
    with pytest.raises(Broken), breaking(store, 8):
        await OPERATIONS["rewind"](store)
    await OPERATIONS["rewind"](store)
    session = await store.get(KEY)
    assert session.state == {"gone": 1, "app:gone": 1, "n": 1}
    assert [item.id for item in session.events] == ["i1:user", "i1:t1.0", "i1:m1", "r9:rewind"]
    assert [item.version for item in await store.list_artifacts(KEY)] == [1]
