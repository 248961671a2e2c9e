"""What an app has of a user beside sessions, when the user is deleted."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import SessionNotFound
from perdure.types import SessionKey
from storage import lifecycle, remembering
from storage.blob_keys import prefix_of
from storage.sessions import SessionStore
from tests.conformance.events import content, event, user
from tests.conformance.watch import stored, wait_for_a_lock

BOB = SessionKey(app="counter", user_id="bob", session_id="s1")
ADA_ELSEWHERE = SessionKey(app="other", user_id="ada", session_id="s1")
TABLES = ("sessions", "events", "state", "artifacts", "memories", "memory_passages", "memory_requests")


async def used(store: SessionStore, key: SessionKey) -> None:
    """A session that has left something in every table, and messages and drafts beside it."""
    await store.begin_turn(key, user("i1", "red"), epoch=None)
    versions = {
        name: await store.stage_artifact(key, name, name.encode(), "text/plain", event_id="i1:t1.0")
        for name in ("f", "user:f")
    }
    delta = {"own": 1, "user:a": 1, "user:b": 2, "app:c": 3}
    await store.append(key, event("i1:t1.0", state_delta=delta, artifact_delta=versions))
    await store.stage_artifact(key, "user:staged", b"staged", "text/plain", event_id="i2:t1.0")
    await store.leave_message(key, "m1", content("left"))
    await store.remember(key, request_id="r1")


async def owned(store: SessionStore, key: SessionKey) -> dict[str, int]:
    """How many rows there are of a user, by table, and how many blobs."""
    rows = await stored(store)
    found = {
        table: len([row for row in rows[table] if key.app in row and key.user_id in row]) for table in TABLES
    }
    return {**found, "blobs": len(await store._blobs.keys(prefix_of(key)))}


async def test_nothing_of_a_deleted_user_is_left(store: SessionStore, key: SessionKey) -> None:
    for mine in (key, replace(key, session_id="s2"), BOB, ADA_ELSEWHERE):
        await used(store, mine)
    assert all((await owned(store, key)).values())
    others = [await owned(store, each) for each in (BOB, ADA_ELSEWHERE)]
    for session_id in ("s1", "s2"):
        await store.delete(replace(key, session_id=session_id))
    left = await owned(store, key)
    assert {name for name, count in left.items() if count} == {
        *("state", "artifacts", "memories", "memory_passages", "blobs")
    }, "what is the user's is no session's"
    assert await store.delete_shared("counter", "ada") == (True, 2)
    assert not any((await owned(store, key)).values())
    assert await store.delete_shared("counter", "ada") == (False, 0)
    assert [await owned(store, each) for each in (BOB, ADA_ELSEWHERE)] == others
    assert (await store.get(BOB)).state["app:c"] == 3


async def test_a_session_that_is_there_keeps_its_own(store: SessionStore, key: SessionKey) -> None:
    """Bytes that it names stay, also where a ``user:`` artifact had the same."""
    await used(store, key)
    same = await store.stage_artifact(key, "g", b"user:f", "text/plain", event_id="i1:t1.1")
    await store.append(key, event("i1:t1.1", artifact_delta={"g": same}))
    await store.delete_shared("counter", "ada")
    assert (await store.load_artifact(key, "g"))[1] == b"user:f"
    assert (await store.load_artifact(key, "f"))[1] == b"f"
    state = (await store.get(key)).state
    assert (state["own"], state.get("user:a")) == (1, None)
    assert [item.name for item in await store.list_artifacts(key)] == ["f", "g"]


class Pause:
    """Where a transaction stands still, until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.go_on.wait()


async def wait_for_a_writer(store: SessionStore) -> None:
    """Until a write waits for another one's end: on Postgres for a row, on SQLite for its turn."""
    if not store._db.sqlite:
        await wait_for_a_lock(store)
        return
    turns = store._db._turnstile
    async with asyncio.timeout(30):
        while True:
            if turns._waiters:  # asyncio shows it nowhere else
                return
            await asyncio.sleep(0.01)


async def delete_user(store: SessionStore, key: SessionKey) -> int:
    """What ``Runner.delete_user`` does in the store; of how many sessions something was remembered."""
    await store.delete(key)
    there, remembered = await store.delete_shared(key.app, key.user_id)
    while there:
        there, more = await store.delete_shared(key.app, key.user_id)
        remembered += more
    return remembered


@pytest.mark.parametrize("backend_name", ["sqlite", "postgres"])
async def test_a_first_remember_that_commits_before_the_delete_is_deleted_with_the_user(
    store: SessionStore, key: SessionKey
) -> None:
    await store.begin_turn(key, user("i1", "red"), epoch=None)
    pause = Pause()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.remember(key, confirm=pause))
        await pause.reached.wait()
        deleting = tasks.create_task(delete_user(store, key))
        await wait_for_a_writer(store)
        pause.go_on.set()
    assert deleting.result() == 1
    assert not any((await owned(store, key)).values())


@pytest.mark.parametrize("backend_name", ["sqlite", "postgres"])
async def test_a_first_remember_that_comes_behind_the_delete_leaves_nothing(
    store: SessionStore, key: SessionKey
) -> None:
    """It has read the session, and waits for its row while that is deleted."""
    await store.begin_turn(key, user("i1", "red"), epoch=None)
    ready = (await store._db.read(lambda conn: remembering.read_part(conn, key))).prepared()
    pause = Pause()

    async def delete(conn: AsyncConnection) -> bool:
        done = await lifecycle.delete(conn, key)
        await pause()
        return done

    async with asyncio.TaskGroup() as tasks:
        deleting = tasks.create_task(store._db.write(delete, awaits=True))
        await pause.reached.wait()
        adding = tasks.create_task(_refused(store, key, ready))
        await wait_for_a_writer(store)
        pause.go_on.set()
    assert (deleting.result(), adding.result()) == (True, True)
    assert await delete_user(store, key) == 0
    assert not any((await owned(store, key)).values())


async def _refused(store: SessionStore, key: SessionKey, ready: remembering.Ready) -> bool:
    with pytest.raises(SessionNotFound):
        await store._db.write(lambda conn: remembering.add(conn, key, ready))
    return True


async def test_a_first_remember_between_whose_parts_the_user_is_deleted_leaves_nothing(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has put in goes with the user, and it does not go on."""
    monkeypatch.setattr(remembering, "AT_ONCE", 1)
    for name in ("red", "blue"):
        await store.begin_turn(key, user(name, name), epoch=None)
    read = store._next_part
    deleted: list[int] = []

    async def next_part(mine: SessionKey) -> remembering.Part:
        if (await owned(store, key))["memory_passages"]:
            deleted.append(await delete_user(store, key))
        return await read(mine)

    monkeypatch.setattr(store, "_next_part", next_part)
    with pytest.raises(SessionNotFound):
        await store.remember(key)
    assert deleted == [1]
    assert not any((await owned(store, key)).values())
