"""The context query: what it reads, what it need not read again, and that both come to the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.context_cache import ContextCache
from bench.store_fill import fill
from perdure.errors import SessionNotFound
from perdure.types import Json, SessionKey
from storage import reading
from storage.sessions import Context, SessionStore
from tests.conformance.conftest import Backend
from tests.conformance.events import answer, change, content, say, summary, user
from tests.conformance.watch import statements

BIG = 1_000_000


async def read(store: SessionStore, key: SessionKey, **how: Any) -> tuple[Context, list[str]]:
    """A context and the statements that it took."""
    seen: list[str] = []
    with statements(store, seen):
        context = await store.context(key, **how)
    return context, seen


async def work_of(store: SessionStore, key: SessionKey) -> int:
    """What reading a context makes the database do: rows on PostgreSQL, steps of its machine on SQLite."""

    async def rows(conn: AsyncConnection) -> int:
        await reading.context(conn, key, state_keys=["counter"], known=None)
        counted = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
        return int((await conn.execute(text(counted))).scalar_one())

    if not store._db.sqlite:
        return await store._db.read(rows)
    taken: list[int] = []

    def count(_conn: Any, cursor: Any, *_: Any) -> None:
        cursor.connection.set_progress_handler(lambda: taken.append(1), 1)

    engine = store._db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        await store.context(key, state_keys=["counter"])
    finally:
        event.remove(engine, "before_cursor_execute", count)
    return len(taken)


async def talk(store: SessionStore, key: SessionKey, *names: str) -> None:
    """Turns of one epoch, of two events each."""
    for name in names:
        await store.append(key, user(name))
        await store.append(key, answer(name))


async def summed_up(store: SessionStore, key: SessionKey, head: int) -> None:
    """A summary of all but the last ten events."""
    await store.append(key, summary(f"sum{head}", 1, head, tail=head - 9))


@pytest.mark.parametrize("backend_name", ["sqlite", "postgres"])
async def test_s45_at_10000_events_a_context_costs_what_it_does_at_50(backend: Backend) -> None:
    values: Mapping[str, Json] = {f"k{number}": number for number in range(100)}
    await fill(backend.url, {"short": (50, values), "long": (10_000, values)})
    store = await backend.open()
    key = SessionKey(app="bench", user_id="someone", session_id="short")
    short, long = key, replace(key, session_id="long")
    await summed_up(store, short, 50)
    await summed_up(store, long, 10_000)
    small, large = await read(store, short), await read(store, long)
    assert [len(context.events) for context, _ in (small, large)] == [10, 10]
    assert len(small[1]) == len(large[1])
    costs = [await work_of(store, each) for each in (short, long)]
    assert 0 < costs[1] <= 2 * costs[0], costs


async def test_s45_only_the_named_keys_of_the_state_are_read(store: SessionStore, key: SessionKey) -> None:
    given: dict[str, Json] = {"big": "x" * BIG, "n": 1, "user:n": 2, "app:n": 3, "user:big": "x" * BIG}
    await store.create(key, state=given)
    await store.create(replace(key, user_id="bob"), state={"user:n": 7, "n": 8})
    names = ["n", "user:n", "app:n", "temp:n", "user:none"]
    context = await store.context(key, state_keys=names)
    assert context.session.state == {"n": 1, "user:n": 2, "app:n": 3}
    assert (await store.context(key)).session.state == given
    nothing, seen = await read(store, key, state_keys=())
    assert nothing.session.state == {}
    assert not [statement for statement in seen if "FROM state" in statement], "no key, no statement"
    assert (await store.context(key, state_keys=[f"k{n}" for n in range(2_500)])).session.state == {}


async def test_what_is_known_is_not_read_again(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await talk(store, key, *(f"i{number}" for number in range(1, 21)))
    known, whole = await read(store, key, state_keys=())
    assert len(whole) == 3
    again, seen = await read(store, key, state_keys=(), known=known)
    assert (again, len(seen)) == (known, 1)
    await talk(store, key, "i21")
    more, seen = await read(store, key, state_keys=(), known=known)
    assert len(seen) == 2
    assert more == await store.context(key, state_keys=())
    assert [item.seq for item in more.events] == list(range(1, 43))
    assert all(one is other for one, other in zip(more.events, known.events, strict=False))


async def test_a_summary_among_what_is_new_trims_what_is_known(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await talk(store, key, *(f"i{number}" for number in range(1, 11)))
    known = await store.context(key)
    made = await store.append(key, summary("i10", 1, 18, tail=17))
    await talk(store, key, "i11")
    context, seen = await read(store, key, known=known, state_keys=())
    assert (context.summary, [item.seq for item in context.events]) == (made, [17, 18, 19, 20, 22, 23])
    assert len(seen) == 2
    last = await store.append(key, summary("i11", 1, 22, tail=2))
    context = await store.context(key, known=context)
    assert context == await store.context(key), "a tail that begins earlier needs what was trimmed"
    assert (context.summary, context.events[0].seq) == (last, 2)


async def test_much_that_is_new_is_read_from_its_summary_on(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    known = await store.context(key)
    await talk(store, key, *(f"i{number}" for number in range(1, 41)))
    more, seen = await read(store, key, known=known, state_keys=())
    assert (len(more.events), len(seen)) == (80, 3)
    await store.append(key, summary("i40", 1, 78, tail=79))
    whole, seen = await read(store, key, known=known, state_keys=())
    assert [item.seq for item in whole.events] == [79, 80]
    assert len(seen) == 4


Move = Callable[[SessionStore, SessionKey], Awaitable[object]]


async def _rewind(store: SessionStore, key: SessionKey) -> None:
    await store.rewind(key, before="i2", request_id="r1")


async def _redo(store: SessionStore, key: SessionKey) -> None:
    await _rewind(store, key)
    await store.rewind(key, before="r1", request_id="r2")


async def _interrupt(store: SessionStore, key: SessionKey) -> None:
    turn = await store.begin_turn(key, user("i9"), epoch=None)
    await store.interrupt(key, "i9", epoch=turn.epoch, reason="cancel")


async def _fork_over(store: SessionStore, key: SessionKey) -> None:
    other = replace(key, session_id="other")
    await store.fork(key, other, before="i3")
    await store.delete(key)
    await store.fork(other, key)
    await say(store, key, "new")


async def _begin_again(store: SessionStore, key: SessionKey) -> None:
    await store.delete(key)
    for name in ("j1", "j2", "j3"):
        await say(store, key, name)


async def _import_over(store: SessionStore, key: SessionKey) -> None:
    await store.rewind(key, before="i3", request_id="r1")
    lines = [line async for line in store.export(key)]
    await store.delete(key)
    await store.import_session(lines)


async def _end_and_go_on(store: SessionStore, key: SessionKey) -> None:
    await store.end(key)
    await store.begin_turn(key, user("i9"), epoch=None, reopen=True)


async def _summaries(store: SessionStore, key: SessionKey) -> None:
    await store.append(key, summary("i1", 1, 2))
    await store.append(key, summary("i2", 1, 4, tail=3))
    await store.rewind(key, before="i3", request_id="r1")


@pytest.mark.parametrize(
    "move", [_rewind, _redo, _interrupt, _fork_over, _begin_again, _import_over, _end_and_go_on, _summaries]
)
async def test_s32_whatever_happened_meanwhile_the_cache_changes_nothing(
    store: SessionStore, key: SessionKey, move: Move
) -> None:
    for number in range(1, 4):
        await say(store, key, f"i{number}", delta={"n": number})
    caches = [ContextCache(store, size=size) for size in (BIG, BIG, 0)]
    for cache in caches:
        await cache.read(key, state_keys=["n"])
    await move(store, key)
    for turn in ("after1", "after2"):
        now = await store.context(key, state_keys=["n"])
        assert [await cache.read(key, state_keys=["n"]) for cache in caches] == [now] * 3
        await store.append(key, answer(turn))
        assert await caches[0].read(key, state_keys=["n"]) == await store.context(key, state_keys=["n"])


async def test_state_is_never_remembered(store: SessionStore, key: SessionKey) -> None:
    other = replace(key, session_id="other")
    await say(store, key, "i1")
    cache = ContextCache(store, size=BIG)
    await cache.read(key, state_keys=["user:n"])
    await say(store, other, "i1")
    await change(store, other, "i1", delta={"user:n": 5})
    assert (await cache.read(key, state_keys=["user:n"])).session.state == {"user:n": 5}
    assert (await cache.read(key, state_keys=())).session.state == {}


@pytest.mark.parametrize("backend_name", ["memory"])
async def test_the_cache_is_bounded_by_sessions_and_by_bytes(store: SessionStore, key: SessionKey) -> None:
    keys = [replace(key, session_id=f"s{number}") for number in range(5)]
    for each in keys:
        await store.create(each)
        await store.append(each, replace(user("i1"), content=content("x" * 1_000)))

    async def reread(cache: ContextCache, which: SessionKey) -> int:
        seen: list[str] = []
        with statements(store, seen):
            await cache.read(which, state_keys=())
        return len(seen)

    few = ContextCache(store, size=BIG, sessions=2)
    for each in keys:
        await few.read(each, state_keys=())
    assert len(few) == 2
    assert [await reread(few, each) for each in (keys[4], keys[3], keys[0])] == [1, 1, 3]
    assert [await reread(few, each) for each in (keys[3], keys[4])] == [1, 3], "the one used last stays"

    one = ContextCache(store, size=BIG)
    await one.read(keys[0], state_keys=())
    small = ContextCache(store, size=int(2.5 * one.size))
    for each in keys:
        await small.read(each, state_keys=())
    assert (len(small), small.size) == (2, 2 * one.size)
    await store.append(keys[4], replace(user("i2"), content=content("x" * BIG)))
    await small.read(keys[4], state_keys=())
    assert (len(small), small.size) == (1, one.size), "one that is larger than all is not kept"
    assert await reread(small, keys[3]) == 1

    await store.delete(keys[3])
    with pytest.raises(SessionNotFound):
        await small.read(keys[3], state_keys=())
    assert (len(small), small.size) == (0, 0)


@pytest.mark.parametrize("backend_name", ["memory"])
async def test_the_size_that_grew_is_the_size_of_the_whole(store: SessionStore, key: SessionKey) -> None:
    grown = ContextCache(store, size=BIG)
    await store.create(key)
    for number in range(1, 12):
        await talk(store, key, f"i{number}")
        if number % 4 == 0:
            head = (await store.get(key, max_events=0)).head
            await store.append(key, summary(f"i{number}", 1, head, tail=head - 2))
        await grown.read(key, state_keys=())
        fresh = ContextCache(store, size=BIG)
        await fresh.read(key, state_keys=())
        assert grown.size == fresh.size > 0
