"""``expected_head``: an append, or a rewind, by somebody who has seen the whole log."""

from __future__ import annotations

import asyncio

import pytest

from perdure.errors import EventConflict, VersionMismatch
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import event, say, user


async def test_s9_an_append_to_a_log_that_has_grown_writes_nothing(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    await store.append(key, user("a"), expected_head=0)
    with pytest.raises(VersionMismatch, match="ends at seq 1, not 0") as caught:
        await store.append(key, event("b:m1", state_delta={"n": 1}), expected_head=0)
    assert caught.value.actual == 2
    found = await store.get(key)
    assert (found.head, found.state) == (1, {})
    await store.append(key, event("b:m1", state_delta={"n": 1}), expected_head=1)
    assert (await store.get(key)).state == {"n": 1}


async def test_s9_what_is_no_event_does_not_move_the_head(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await store.update(key, request_id="r1", metadata={"colour": "red"})
    assert (await store.append(key, user("a"), expected_head=0)).seq == 1


async def test_s4_a_retry_of_what_was_appended_finds_it(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    first = await store.append(key, event("a:m1", state_delta={"n": 1}), expected_head=0)
    await store.append(key, user("b"))
    assert (await store.append(key, event("a:m1", state_delta={"n": 1}), expected_head=0)).seq == first.seq
    with pytest.raises(EventConflict):
        await store.append(key, event("a:m1", state_delta={"n": 2}), expected_head=0)


async def test_s9_a_rewind_of_a_log_that_has_grown_writes_nothing(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    await say(store, key, "a")
    await say(store, key, "b")
    with pytest.raises(VersionMismatch):
        await store.rewind(key, before="b", request_id="r1", expected_head=2)
    assert (await store.get(key)).head == 4
    done = await store.rewind(key, before="b", request_id="r1", expected_head=4)
    again = await store.rewind(key, before="b", request_id="r1", expected_head=4)
    assert (again.event.seq, again.repeated) == (done.event.seq, True)


async def test_s9_of_writers_at_once_one_succeeds(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for head in range(5):
        appends = (store.append(key, user(f"w{number}-{head}"), expected_head=head) for number in range(4))
        done = await asyncio.gather(*appends, return_exceptions=True)
        refused = [result for result in done if isinstance(result, BaseException)]
        assert [type(error) for error in refused] == [VersionMismatch] * 3
    assert (await store.get(key)).head == 5
