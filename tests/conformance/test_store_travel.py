"""Time travel: a session as it was before an invocation, read without changing it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perdure.errors import (
    ArtifactNotFound,
    InvalidOption,
    InvocationNotFound,
    InvocationRewound,
    SessionNotFound,
)
from perdure.types import Session, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import event, say, sequence
from tests.conformance.watch import statements, stored


async def looked(store: SessionStore, key: SessionKey, before: str | None = None) -> tuple[object, ...]:
    """All that a rewind would bring back, artifacts with their bytes."""
    session: Session = await store.get(key, before=before)
    files = [
        (item, (await store.load_artifact(key, item.name, before=before))[1])
        for item in await store.list_artifacts(key, before=before)
    ]
    return list(session.events), dict(session.state), session.head, list(session.projection), files


async def test_s46_a_session_as_it_was_before_every_invocation(store: SessionStore, key: SessionKey) -> None:
    """Markers are invocations too: before a rewind, the session is what that rewind undid."""
    await store.create(key, state={"start": 1})
    past: dict[str, tuple[object, ...]] = {}

    async def turn(invocation: str, number: int) -> None:
        past[invocation] = await looked(store, key)
        delta = {"n": number, f"only{number}": number, "start": None if number == 2 else number}
        await say(store, key, invocation, delta=delta, artifact=("f.txt", b"%d" % number))

    async def rewind(before: str, request: str) -> None:
        past[request] = await looked(store, key)
        await store.rewind(key, before=before, request_id=request)

    for number in range(1, 4):
        await turn(f"i{number}", number)
    await rewind("i2", "r1")
    await turn("i4", 4)
    await rewind("r1", "r2")
    await turn("i5", 5)
    await rewind("i3", "r3")
    await turn("i6", 6)
    live = list(dict.fromkeys(item.invocation_id for item in (await store.get(key)).events))
    assert live == ["i1", "i2", "r3", "i6"]
    for invocation in live:
        assert await looked(store, key, invocation) == past[invocation], invocation
    await rewind("r3", "r4")
    for invocation in ("i1", "i2", "i3", "r2", "i5", "r4"):
        assert await looked(store, key, invocation) == past[invocation], invocation


async def test_s46_windows_of_the_past(store: SessionStore, key: SessionKey) -> None:
    for number in range(1, 6):
        await say(store, key, f"i{number}", delta={"n": number})
    await store.rewind(key, before="i2", request_id="r1")
    await say(store, key, "i6", delta={"n": 6})

    async def seqs(max_events: int | None = None, after: int | None = None) -> list[int]:
        session = await store.get(key, before="i6", max_events=max_events, after=after)
        assert session.state == {"n": 1}
        return [item.seq for item in session.events]

    assert await seqs() == [1, 2, 3, 16]
    assert await seqs(max_events=0) == []
    assert await seqs(max_events=2) == [3, 16]
    assert await seqs(after=2) == [3, 16]
    assert await seqs(after=16) == []


async def test_s46_a_look_at_the_past_changes_nothing(store: SessionStore, key: SessionKey) -> None:
    for number in range(1, 4):
        await say(store, key, f"i{number}", delta={"n": number}, artifact=("f", b"x"))
    before = await stored(store)
    seen: list[str] = []
    with statements(store, seen):
        await store.get(key, before="i2")
        await store.list_artifacts(key, before="i2")
    assert await stored(store) == before
    assert all(each.startswith("SELECT") for each in seen)


async def test_s26_what_is_shared_is_shown_as_it_is_now(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"app:a": 1}, metadata={"m": 1})
    await say(store, key, "i1", delta={"app:a": 2, "user:u": 2, "n": 2}, artifact=("user:f", b"2"))
    await store.update(key, request_id="u1", metadata={"m": 2})
    session = await store.get(key, before="i1")
    assert (session.state, session.metadata) == ({"app:a": 2, "user:u": 2}, {"m": 2})
    assert [item.name for item in await store.list_artifacts(key, before="i1")] == ["user:f"]


async def test_s28_before_the_first_invocation_there_is_the_initial_state(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key, state={"n": 0})
    await say(store, key, "i1", delta={"n": 1})
    session = await store.get(key, before="i1")
    assert (session.state, session.events, session.head) == ({"n": 0}, [], 0)
    assert session.projection == [[1, None]]


async def test_s33_a_version_saved_later_is_not_there_yet(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1", artifact=("f", b"one"))
    await say(store, key, "i2", artifact=("f", b"two"))
    found, data = await store.load_artifact(key, "f", before="i2")
    assert (found.version, data) == (1, b"one")
    for version, before in ((2, "i2"), (None, "i1")):
        with pytest.raises(ArtifactNotFound):
            await store.load_artifact(key, "f", version=version, before=before)


async def test_s27_the_errors_are_those_of_a_rewind(store: SessionStore, key: SessionKey) -> None:
    for number in range(1, 4):
        await say(store, key, f"i{number}")
    await store.rewind(key, before="i2", request_id="r1")
    with pytest.raises(InvocationNotFound, match="i9"):
        await store.get(key, before="i9")
    for look in (store.get(key, before="i3"), store.list_artifacts(key, before="i3")):
        with pytest.raises(InvocationRewound, match="i3"):
            await look
    with pytest.raises(SessionNotFound):
        await store.get(replace(key, session_id="s9"), before="i1")
    with pytest.raises(InvalidOption):
        await store.get(key, before="i1", max_events=-1)


async def test_time_travel_into_an_ended_session(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await store.append(key, event("i1:x", state_delta={"n": 1}))
    await store.append(key, event("i2:x", state_delta={"n": 2}))
    await store.end(key)
    assert (await store.get(key, before="i2")).state == {"n": 1}
    assert await sequence(store, key) == ["i1:x", "i2:x"]
