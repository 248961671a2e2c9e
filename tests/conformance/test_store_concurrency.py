"""Several writers at once, in one process and in several."""

from __future__ import annotations

import asyncio
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import EventConflict, PerdureError, SessionExists, StaleEpoch
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from tests.conformance.conftest import Backend, NewDatabase
from tests.conformance.events import answer, event, say, user

ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore

async def main(url, name):
    store = await SessionStore.open(url, "memory://x", options={"pool_size": 3})
    key = SessionKey(app="counter", user_id="ada", session_id="s1")
    async def one(n):
        id = f"{name}-{n}"
        delta = {id: n, f"app:{id}": n, "app:last": id}
        await store.append(key, Event(id=id, invocation_id=name, author="agent", state_delta=delta))
    for n in range(0, 100, 5):
        await asyncio.gather(*(one(n + m) for m in range(5)))
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_s10_three_processes_lose_no_append(
    kind: str, new_database: NewDatabase, key: SessionKey
) -> None:
    url = await new_database(kind)
    store = await SessionStore.open(url, "memory://x")
    await store.create(key)
    command = [sys.executable, "-W", "error", "-c", WRITER, url]
    processes = [await asyncio.create_subprocess_exec(*command, name, cwd=ROOT) for name in "abc"]
    codes = [await process.wait() for process in processes]
    session = await store.get(key)
    await store.close()
    assert codes == [0, 0, 0]
    assert (session.head, session.version, len(session.events)) == (300, 301, 300)
    assert [item.seq for item in session.events] == list(range(1, 301))
    written = {f"{name}-{n}": n for name in "abc" for n in range(100)}
    assert {name: value for name, value in session.state.items() if ":" not in name} == written
    shared = {name.removeprefix("app:"): value for name, value in session.state.items() if ":" in name}
    assert shared.pop("last") in written
    assert shared == written


async def test_s1_appends_at_once_get_dense_seqs(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    stored = await asyncio.gather(*(store.append(key, event(f"i{n}:x")) for n in range(40)))
    assert sorted(item.seq for item in stored) == list(range(1, 41))
    assert (await store.get(key)).version == 41


async def test_s4_one_event_appended_many_times_at_once_is_one(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    once = event("i1:x", state_delta={"n": 1}, content={"parts": []})
    stored = await asyncio.gather(*(store.append(key, once) for _ in range(20)))
    assert all(item == stored[0] for item in stored)
    session = await store.get(key)
    assert (session.head, session.version) == (1, 2)


async def test_s4_of_two_contents_under_one_id_one_wins(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    contents: list[Event] = [event("i1:x", meta={"n": n}) for n in range(10)]
    outcomes = await asyncio.gather(*(store.append(key, each) for each in contents), return_exceptions=True)
    assert sum(isinstance(each, EventConflict) for each in outcomes) == 9
    assert sum(isinstance(each, Event) for each in outcomes) == 1
    both = await asyncio.gather(*(store.append(key, each, first_wins=True) for each in contents))
    assert {each.meta["n"] for each in both} == {(await store.get(key)).events[0].meta["n"]}


async def test_s11_sessions_that_set_their_own_app_keys_keep_them_all(
    store: SessionStore, key: SessionKey
) -> None:
    keys = [replace(key, session_id=f"s{n}", user_id=f"u{n % 4}") for n in range(20)]

    async def one(number: int) -> None:
        delta = {f"app:{number}": number, f"user:{number}": number, "app:all": number, "n": number}
        await say(store, keys[number], "i1", delta=delta)

    await asyncio.gather(*(one(number) for number in range(20)))
    state = (await store.get(keys[5])).state
    assert {name for name in state if name.startswith("app:")} == {
        "app:all",
        *(f"app:{n}" for n in range(20)),
    }
    assert {name for name in state if name.startswith("user:")} == {f"user:{n}" for n in (1, 5, 9, 13, 17)}


async def test_s11_shared_keys_in_any_order_do_not_deadlock(store: SessionStore, key: SessionKey) -> None:
    """Each append sets some keys and removes others; opposite orders would wait for each other."""
    names = [f"app:{letter}" for letter in "abcdef"]
    keys = [replace(key, session_id=f"s{n}") for n in range(6)]
    for each in keys:
        await store.create(each)

    async def one(number: int) -> None:
        for turn in range(8):
            order = names if (number + turn) % 2 else names[::-1]
            delta = {name: None if (place + turn) % 3 == 0 else number for place, name in enumerate(order)}
            await store.append(keys[number], event(f"i{turn}:x", state_delta=delta))

    await asyncio.gather(*(one(number) for number in range(6)))


async def test_s11_an_append_waits_for_no_other_session(new_database: NewDatabase, key: SessionKey) -> None:
    """On PostgreSQL: while another session's row and an app key are locked by somebody."""
    store = await SessionStore.open(await new_database("postgres"), "memory://x")
    other = replace(key, session_id="s2")
    for each in (key, other):
        await store.create(each, state={"app:locked": 1})

    async def hold(conn: AsyncConnection) -> Event:
        await conn.execute(text("SELECT * FROM sessions WHERE id = 's2' FOR UPDATE"))
        await conn.execute(text("SELECT * FROM state WHERE key = 'app:locked' FOR UPDATE"))
        appended = store.append(key, event("i1:x", state_delta={"n": 1, "app:other": 2}))
        return await asyncio.wait_for(appended, timeout=60)

    assert (await store._db.write(hold, awaits=True)).seq == 1
    await store.close()


async def test_s12_of_creates_at_once_one_wins(store: SessionStore, key: SessionKey) -> None:
    creates = (store.create(key, state={"n": n, f"app:{n}": n}) for n in range(8))
    outcomes = await asyncio.gather(*creates, return_exceptions=True)
    assert sum(isinstance(each, SessionExists) for each in outcomes) == 7
    session = await store.get(key)
    winner = session.state["n"]
    assert (session.version, session.state) == (1, {"n": winner, f"app:{winner}": winner})


async def test_first_turns_at_once_make_one_session(store: SessionStore, key: SessionKey) -> None:
    turns = await asyncio.gather(*(store.begin_turn(key, user(f"i{n}"), epoch=None) for n in range(8)))
    assert sorted(turn.epoch for turn in turns) == list(range(1, 9))
    assert sorted(turn.seq for turn in turns) == list(range(1, 9))


async def test_s63_a_turn_begun_many_times_at_once_begins_once(store: SessionStore, key: SessionKey) -> None:
    turns = await asyncio.gather(*(store.begin_turn(key, user("i1"), epoch=None) for _ in range(10)))
    assert all(turn == turns[0] for turn in turns)
    assert (await store.get(key)).version == 1


async def test_s13_s35_no_write_of_a_rewound_turn_comes_after_the_marker(
    store: SessionStore, key: SessionKey
) -> None:
    """Whatever the timing: an append is before the marker and dead, or refused."""
    await say(store, key, "i0")
    for number in range(1, 9):
        turn = await store.begin_turn(key, user(f"i{number}"), epoch=None)
        appends = [
            store.append(key, event(f"i{number}:x{n}", state_delta={f"k{n}": number}), epoch=turn.epoch)
            for n in range(6)
        ]
        calls = [*appends[:3], store.rewind(key, before=f"i{number}", request_id=f"r{number}"), *appends[3:]]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(
            not isinstance(each, BaseException) or isinstance(each, StaleEpoch) for each in outcomes
        ), outcomes
        session = await store.get(key)
        assert session.state == {}
        assert [item.id for item in session.events] == [
            "i0:user",
            "i0:m1",
            *(f"r{n}:rewind" for n in range(1, number + 1)),
        ]


async def test_s29_a_rewind_sent_many_times_at_once_happens_once(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1", delta={"n": 1})
    rewinds = (store.rewind(key, before="i1", request_id="r1") for _ in range(8))
    outcomes = await asyncio.gather(*rewinds)
    assert sum(not each.repeated for each in outcomes) == 1
    assert len({each.epoch for each in outcomes}) == 1


async def test_a_reader_sees_one_moment(backend: Backend, key: SessionKey) -> None:
    """State and events of one read belong together while a writer goes on."""
    store = await backend.open()
    await store.create(key, state={"n": 0})

    async def write() -> None:
        for number in range(1, 60):
            await store.append(key, event(f"i{number}:x", state_delta={"n": number, "m": number}))

    async def read() -> None:
        while (session := await store.get(key)).head < 59:
            assert session.state.get("n") == session.state.get("m", 0) == len(session.events) == session.head
            context = await store.context(key)
            assert context.session.state["n"] == len(context.events)

    await asyncio.gather(write(), read(), read())


async def test_a_cancelled_call_leaves_the_store_usable(store: SessionStore, key: SessionKey) -> None:
    """It is done or not done; what it held is let go at once, though its traceback is kept."""
    await store.create(key)
    await say(store, key, "i0")
    outcomes: list[Event | BaseException] = []
    for number in itertools.count():
        # At least one is to be done before its cancel comes, on the slowest disk, too.
        if number >= 60 and any(isinstance(outcome, Event) for outcome in outcomes):
            break
        task = asyncio.create_task(store.append(key, event(f"i{number}:x", state_delta={"n": number})))
        for _ in range(number % 30 if number < 60 else number):
            await asyncio.sleep(0.0002 if number % 2 else 0)
        task.cancel()
        [outcome] = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), timeout=60)
        outcomes.append(outcome)
        assert isinstance(outcome, Event | asyncio.CancelledError), outcome
    assert len({type(outcome) for outcome in outcomes}) == 2, "the test never hit"
    await asyncio.wait_for(store.append(key, answer("last")), timeout=60)
    session = await store.get(key)
    assert session.head == session.version - 1 == len(session.events)
    changed = [item.state_delta["n"] for item in session.events if item.state_delta]
    assert session.state.get("n") == (changed[-1] if changed else None)


async def test_s23_delete_while_others_append(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    appends = [store.append(key, event(f"i{n}:x", state_delta={"n": n})) for n in range(10)]
    outcomes = await asyncio.gather(*appends[:5], store.delete(key), *appends[5:], return_exceptions=True)
    assert all(not isinstance(each, BaseException) or isinstance(each, PerdureError) for each in outcomes)
    created = await store.create(key)
    assert (created.state, created.head) == ({}, 0)
    assert await store.log(key) == []
