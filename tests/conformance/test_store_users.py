"""What an app has of a user beside sessions, when the user is deleted."""

from __future__ import annotations

from dataclasses import replace

from perdure.types import SessionKey
from storage.blob_keys import prefix_of
from storage.sessions import SessionStore
from tests.conformance.events import content, event, user
from tests.conformance.watch import stored

BOB = SessionKey(app="counter", user_id="bob", session_id="s1")
ADA_ELSEWHERE = SessionKey(app="other", user_id="ada", session_id="s1")
TABLES = ("sessions", "events", "state", "artifacts", "memories", "memory_passages")


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
    await store.remember(key)


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
