"""The beginning and end of turns, epochs, and whole sessions' beginning and end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perdure.errors import (
    EventConflict,
    InvocationRewound,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    StaleEpoch,
    VersionMismatch,
)
from perdure.types import SessionKey
from storage.sessions import SessionStore, Turn
from tests.conformance.events import answer, asked, content, event, say, sequence, summary, user


async def test_the_first_turn_makes_the_session_in_one_commit(store: SessionStore, key: SessionKey) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    session = await store.get(key)
    assert turn == Turn(epoch=1, seq=1, done=None)
    assert (session.version, session.epoch, session.head) == (1, 1, 1)
    assert (session.state, session.metadata, session.ended_at) == ({}, {}, None)


async def test_the_first_turn_finds_a_created_session(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": 1}, metadata={"device": "phone"})
    await store.begin_turn(key, replace(user("i1"), state_delta={"m": 2}), epoch=None)
    session = await store.get(key)
    assert (session.version, session.state) == (2, {"n": 1, "m": 2})
    assert session.metadata == {"device": "phone"}


async def test_a_new_chain_takes_over_and_the_old_one_is_refused(
    store: SessionStore, key: SessionKey
) -> None:
    old = await store.begin_turn(key, user("i1"), epoch=None)
    await store.append(key, answer("i1"), epoch=old.epoch)
    same = await store.begin_turn(key, user("i2"), epoch=old.epoch)
    assert same.epoch == old.epoch
    new = await store.begin_turn(key, user("i3"), epoch=None)
    assert new.epoch == old.epoch + 1
    with pytest.raises(StaleEpoch):
        await store.append(key, answer("i2"), epoch=old.epoch)
    with pytest.raises(StaleEpoch):
        await store.begin_turn(key, user("i4"), epoch=old.epoch)
    assert await sequence(store, key) == ["i1:user", "i1:m1", "i2:user", "i3:user"]


async def test_s63_a_turn_begun_again_writes_nothing(store: SessionStore, key: SessionKey) -> None:
    first = await store.begin_turn(key, user("i1"), epoch=None)
    for epoch in (None, first.epoch, 99):
        assert await store.begin_turn(key, user("i1"), epoch=epoch) == first
    stored = await store.append(key, answer("i1"), epoch=first.epoch)
    again = await store.begin_turn(key, user("i1"), epoch=None)
    assert again == replace(first, done=stored)
    assert (await store.get(key)).version == 2


async def test_a_turn_that_waits_for_a_call_is_not_done(store: SessionStore, key: SessionKey) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    await store.append(key, asked("i1"))
    assert (await store.begin_turn(key, user("i1"), epoch=None)).done is None
    response = {"functionResponse": {"name": "increment", "response": {}}}
    await store.append(key, event("i1:t1.0", content={"role": "user", "parts": [response]}))
    assert (await store.begin_turn(key, user("i1"), epoch=None)).done is None
    last = await store.append(key, replace(answer("i1"), id="i1:m2"), epoch=turn.epoch)
    await store.append(key, summary("i1", 1, 4))
    assert (await store.begin_turn(key, user("i1"), epoch=None)).done == last


async def test_s63_the_end_of_a_turn_is_found_by_its_message(store: SessionStore, key: SessionKey) -> None:
    assert await store.ending(key, "i1") is None
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    joining = replace(user("i2"), invocation_id="i1", meta={"joined": "i2"})
    await store.append(key, joining, epoch=turn.epoch)
    assert await store.ending(key, "i1") is None, "it has not ended"
    last = await store.append(key, answer("i1"), epoch=turn.epoch)
    await store.append(key, summary("i1", 1, 3))
    for message_id in ("i1", "i2"):
        said, ended = await store.ending(key, message_id) or (None, None)
        assert said is not None
        assert (said.id, ended) == (f"{message_id}:user", last)
    await store.begin_turn(key, user("i3"), epoch=turn.epoch)
    await store.interrupt(key, "i3", epoch=turn.epoch, reason="cancelled")
    _, ended = await store.ending(key, "i3") or (None, None)
    assert ended is not None
    assert ended.id == "i3:end"
    await store.rewind(key, before="i1", request_id="r1")
    assert [await store.ending(key, message_id) for message_id in ("i1", "i2", "i3")] == [None] * 3


async def test_s63_an_ended_session_still_answers_for_its_turns(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1")
    await store.end(key)
    done = (await store.begin_turn(key, user("i1"), epoch=None)).done
    assert done is not None
    assert done.id == "i1:m1"


async def test_s64_a_rewound_message_is_told_so_and_not_run_again(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1")
    await say(store, key, "i2")
    await store.rewind(key, before="i2", request_id="r1")
    version = (await store.get(key)).version
    with pytest.raises(InvocationRewound, match="i2"):
        await store.begin_turn(key, user("i2"), epoch=None)
    assert (await store.get(key)).version == version
    await store.rewind(key, before="r1", request_id="r2")
    assert (await store.begin_turn(key, user("i2"), epoch=None)).done is not None


async def test_an_invocation_under_another_message_is_refused(store: SessionStore, key: SessionKey) -> None:
    await store.begin_turn(key, user("i1", "hello"), epoch=None)
    with pytest.raises(EventConflict, match="i1"):
        await store.begin_turn(key, user("i1", "good bye"), epoch=None)
    await store.update(key, request_id="u1", state={"n": 1})
    with pytest.raises(EventConflict, match="u1"):
        await store.begin_turn(key, user("u1"), epoch=None)


async def test_s51_end_is_idempotent_and_reopening_is_on_purpose(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1", delta={"n": 1, "app:a": 2})
    epoch = (await store.get(key)).epoch
    ended = await store.end(key)
    assert ended.ended_at is not None
    assert (ended.state, ended.epoch) == ({"n": 1, "app:a": 2}, epoch + 1)
    assert await store.end(key) == ended == replace(await store.get(key), events=[])
    with pytest.raises(SessionEnded):
        await store.begin_turn(key, user("i2"), epoch=None)
    with pytest.raises(SessionEnded):
        await store.rewind(key, before="i1", request_id="r1")
    with pytest.raises(SessionEnded):
        await store.update(key, request_id="u1", state={"n": 2})
    assert (await store.get(key)).version == ended.version
    turn = await store.begin_turn(key, user("i2"), epoch=None, reopen=True)
    session = await store.get(key)
    assert (session.ended_at, session.epoch) == (None, turn.epoch)
    assert session.version == ended.version + 1


async def test_an_interrupt_marks_the_turn_and_fences_it(store: SessionStore, key: SessionKey) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    error = {"type": "X", "message": "y"}
    epoch = await store.interrupt(key, "i1", epoch=turn.epoch, reason="cancel", error=error)
    assert epoch == turn.epoch + 1
    with pytest.raises(StaleEpoch):
        await store.append(key, answer("i1"), epoch=turn.epoch)
    session = await store.get(key)
    marker = session.events[-1]
    assert (marker.id, marker.author, marker.error) == ("i1:end", "perdure", error)
    assert marker.meta == {"interrupted": True, "final": True, "reason": "cancel"}
    assert (session.version, session.epoch) == (2, epoch)
    for again in (turn.epoch, None):
        assert await store.interrupt(key, "i1", epoch=again, reason="again") == epoch
    assert (await store.get(key)).version == 2
    assert (await store.begin_turn(key, user("i1"), epoch=None)).done == marker


async def test_an_interrupt_before_the_turn_began_stops_it(store: SessionStore, key: SessionKey) -> None:
    epoch = await store.interrupt(key, "i1", epoch=None, reason="cancel")
    session = await store.get(key)
    assert (session.version, session.epoch, epoch) == (1, 1, 1)
    late = await store.begin_turn(key, user("i1"), epoch=None)
    assert late.done is not None
    assert (late.done.id, late.seq, late.epoch) == ("i1:end", 1, epoch)
    assert await sequence(store, key) == ["i1:end"]


async def test_an_interrupt_after_the_answer_writes_nothing_and_moves_the_epoch_once(
    store: SessionStore, key: SessionKey
) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    await store.append(key, answer("i1"), epoch=turn.epoch)
    for _ in range(3):
        assert await store.interrupt(key, "i1", epoch=turn.epoch, reason="cancel") == turn.epoch + 1
    assert await sequence(store, key) == ["i1:user", "i1:m1"]


async def test_a_late_interrupt_is_refused(store: SessionStore, key: SessionKey) -> None:
    old = await store.begin_turn(key, user("i1"), epoch=None)
    await store.begin_turn(key, user("i2"), epoch=None)
    with pytest.raises(StaleEpoch):
        await store.interrupt(key, "i1", epoch=old.epoch, reason="cancel")
    assert await sequence(store, key) == ["i1:user", "i2:user"]


async def test_an_interrupt_of_a_rewound_turn_changes_nothing(store: SessionStore, key: SessionKey) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    done = await store.rewind(key, before="i1", request_id="r1")
    for epoch in (turn.epoch, None):
        assert await store.interrupt(key, "i1", epoch=epoch, reason="cancel") == done.epoch
    assert await sequence(store, key) == ["r1:rewind"]


async def test_s23_a_deleted_session_is_not_made_again_by_what_is_left_of_it(
    store: SessionStore, key: SessionKey
) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    await store.delete(key)
    for late in (
        store.append(key, answer("i1"), epoch=turn.epoch),
        store.begin_turn(key, user("i2"), epoch=turn.epoch),
        store.interrupt(key, "i1", epoch=turn.epoch, reason="cancel"),
        store.stage_artifact(key, "a.txt", b"", "text/plain", event_id="i1:t1.0"),
    ):
        with pytest.raises(SessionNotFound):
            await late


async def test_s13_a_turn_of_a_deleted_session_cannot_write_into_its_successor(
    store: SessionStore, key: SessionKey
) -> None:
    old = await store.begin_turn(key, user("i1"), epoch=None)
    await store.delete(key)
    created = await store.create(key)
    assert created.epoch > old.epoch
    with pytest.raises(StaleEpoch):
        await store.append(key, answer("i1"), epoch=old.epoch)
    new = await store.begin_turn(key, user("i2"), epoch=None)
    assert new.epoch > created.epoch
    assert await sequence(store, key) == ["i2:user"]


async def test_s12_create_of_a_taken_id(store: SessionStore, key: SessionKey) -> None:
    created = await store.create(key, state={"n": 1})
    with pytest.raises(SessionExists, match="counter/ada/s1"):
        await store.create(key, state={"n": 2, "app:n": 3})
    assert await store.get(key) == created


async def test_s21_the_same_id_under_two_users_never_mixes(store: SessionStore, key: SessionKey) -> None:
    bob = replace(key, user_id="bob")
    await say(store, key, "i1", delta={"n": "ada"}, artifact=("f.txt", b"ada"))
    await say(store, bob, "i1", delta={"n": "bob"}, artifact=("f.txt", b"bob"))
    for each in (key, bob):
        session = await store.get(each)
        assert session.key == each
        assert session.state == {"n": each.user_id}
        assert len(session.events) == 3
        assert (await store.load_artifact(each, "f.txt"))[1] == each.user_id.encode()
        assert len((await store.list_sessions("counter", each.user_id)).sessions) == 1
    await store.rewind(bob, before="i1", request_id="r1")
    await store.delete(bob)
    assert (await store.get(key)).state == {"n": "ada"}
    assert len(await store.list_artifacts(key)) == 1


async def test_s22_delete_leaves_nothing_of_the_session(store: SessionStore, key: SessionKey) -> None:
    bob = replace(key, user_id="bob")
    delta = {"n": 1, "user:u": 2, "app:a": 3}
    await store.create(key, metadata={"secret": "x"})
    await say(store, key, "i1", delta=delta, artifact=("f.txt", b"x"))
    version = await store.stage_artifact(key, "user:u.txt", b"u", "text/plain", event_id="i2:x")
    await store.append(key, event("i2:x", artifact_delta={"user:u.txt": version}))
    await say(store, bob, "i1")
    await store.delete(key)
    await store.delete(key)
    with pytest.raises(SessionNotFound):
        await store.get(key)
    assert (await store.list_sessions("counter", "ada")).sessions == []
    again = await store.create(key)
    assert (again.state, again.metadata, again.head) == ({"user:u": 2, "app:a": 3}, {}, 0)
    assert [item.name for item in await store.list_artifacts(key)] == ["user:u.txt"]
    assert await store.log(key) == []
    assert len((await store.get(bob)).events) == 2


async def test_s9_a_version_that_does_not_match(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": 1})
    with pytest.raises(VersionMismatch, match="version 1, not 7") as caught:
        await store.update(key, request_id="u1", state={"n": 2}, metadata={"a": 1}, expected_version=7)
    assert caught.value.actual == 1
    session = await store.get(key)
    assert (session.version, session.state, session.metadata, session.head) == (1, {"n": 1}, {}, 0)
    updated = await store.update(key, request_id="u1", state={"n": 2}, expected_version=1)
    assert (updated.version, updated.state) == (2, {"n": 2})


async def test_update_of_state_is_an_event_and_can_be_rewound(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": 1, "gone": 1}, metadata={"a": 1, "b": [1]})
    updated = await store.update(
        key, request_id="u1", state={"n": 2, "gone": None}, metadata={"a": None, "c": {"x": 1.5}}
    )
    assert (updated.state, updated.metadata) == ({"n": 2}, {"b": [1], "c": {"x": 1.5}})
    assert updated.version == 2
    assert await store.update(key, request_id="u1", state={"n": 2, "gone": None}) == updated
    with pytest.raises(EventConflict):
        await store.update(key, request_id="u1", state={"n": 3})
    [recorded] = await store.log(key)
    assert (recorded.id, recorded.author, recorded.invocation_id) == ("u1:update", "perdure", "u1")
    await store.rewind(key, before="u1", request_id="r1")
    session = await store.get(key)
    assert (session.state, session.metadata) == ({"n": 1, "gone": 1}, updated.metadata)


async def test_update_of_metadata_is_no_event(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    updated = await store.update(key, request_id="u1", metadata={"a": 1})
    assert (updated.version, updated.head, updated.metadata) == (2, 0, {"a": 1})
    assert (await store.update(key, request_id="u2")).version == 2
    await store.end(key)
    assert (await store.update(key, request_id="u3", metadata={"b": 2})).metadata == {"a": 1, "b": 2}


async def test_the_users_content_is_kept_as_given(store: SessionStore, key: SessionKey) -> None:
    given = content("hello")
    await store.begin_turn(key, replace(user("i1"), content=given), epoch=None)
    assert (await store.get(key)).events[0].content == given


async def test_metadata_comes_back_with_its_types(store: SessionStore, key: SessionKey) -> None:
    metadata = {"int": 1, "float": 1.0, "big": 1e16, "huge": -1.7e308, "tiny": 5e-324, "text": "1e+16"}
    metadata |= {"deep": {"list": [1e300, True, None, 10**40, {"e+": "e+"}]}}
    created = await store.create(key, metadata=metadata)
    loaded = (await store.get(key)).metadata
    assert created.metadata == loaded == metadata
    assert {name: repr(value) for name, value in loaded.items()} == {
        name: repr(value) for name, value in metadata.items()
    }


async def test_s22_a_successor_may_use_the_event_ids_of_a_deleted_session(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1", artifact=("user:a", b"old"))
    await store.stage_artifact(key, "user:a", b"staged", "text/plain", event_id="i2:t1.0")
    await store.delete(key)
    await say(store, key, "i1", artifact=("user:a", b"new"))
    found, data = await store.load_artifact(key, "user:a")
    assert (found.version, data) == (2, b"new")
    assert (await store.load_artifact(key, "user:a", version=1))[1] == b"old"


async def test_s64_a_turn_that_was_rewound_in_its_midst_is_not_run_again(
    store: SessionStore, key: SessionKey
) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    await store.update(key, request_id="u1", state={"n": 1})
    await store.append(key, asked("i1"), epoch=turn.epoch)
    done = await store.rewind(key, before="u1", request_id="r1")
    assert await sequence(store, key) == ["i1:user", "r1:rewind"]
    with pytest.raises(InvocationRewound):
        await store.begin_turn(key, user("i1"), epoch=None)
    assert await store.interrupt(key, "i1", epoch=None, reason="cancel") == done.epoch


async def test_s60_a_turn_that_another_has_overtaken_is_over(store: SessionStore, key: SessionKey) -> None:
    """Its workflow is gone; going on with it would answer a conversation that has moved on."""
    await store.begin_turn(key, user("lost"), epoch=None)
    await store.append(key, event("lost:x"))
    await say(store, key, "i2")
    for _ in range(2):
        found = await store.begin_turn(key, user("lost"), epoch=None)
        assert found.done is not None
        assert (found.done.id, found.done.meta["reason"]) == ("lost:end", "overtaken")
    assert [each.id for each in await store.log(key)][-1] == "lost:end"


async def test_what_is_written_behind_the_end_of_a_turn_does_not_open_it(
    store: SessionStore, key: SessionKey
) -> None:
    """Who carries no epoch may do so; the turn has its end all the same, and gets no second one."""
    await store.begin_turn(key, user("cancelled"), epoch=None)
    await store.interrupt(key, "cancelled", epoch=1, reason="cancel")
    await say(store, key, "answered")
    for name in ("cancelled", "answered"):
        await store.append(key, event(f"{name}:late"))
    await say(store, key, "after")
    for name, end in (("cancelled", "cancelled:end"), ("answered", "answered:m1")):
        found = await store.begin_turn(key, user(name), epoch=None)
        assert found.done is not None
        assert found.done.id == end
        epoch = await store.interrupt(key, name, epoch=None, reason="cancel")
        assert epoch == found.epoch
    assert [each.id for each in await store.log(key)][-1] == "after:m1"
