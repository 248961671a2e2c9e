"""Messages that have joined a turn: sent again as a turn of their own, they are answered by that turn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perdure.errors import EventConflict, InvocationNotFound, InvocationRewound, StaleEpoch
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import answer, asked, sequence, user


def joined(message_id: str, invocation_id: str, text: str = "hello") -> Event:
    """A message as an event of the turn that it has joined."""
    return replace(user(message_id, text), invocation_id=invocation_id, meta={"joined": message_id})


async def begun(store: SessionStore, key: SessionKey) -> int:
    """The turn i1, which i2 has joined; its epoch."""
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    await store.append(key, asked("i1"), epoch=turn.epoch)
    event = replace(joined("i2", "i1"), state_delta={"mood": "good"})
    await store.append(key, event, epoch=turn.epoch, first_wins=True)
    return turn.epoch


async def test_s63_a_message_that_joined_is_answered_by_the_turn(
    store: SessionStore, key: SessionKey
) -> None:
    epoch = await begun(store, key)
    done = await store.append(key, replace(answer("i1"), id="i1:m2"), epoch=epoch)
    said = replace(user("i2"), state_delta={"mood": "good"})
    for at in (None, epoch):
        turn = await store.begin_turn(key, said, epoch=at)
        assert (turn.done, turn.epoch) == (done, epoch)
    await store.end(key)
    assert (await store.begin_turn(key, said, epoch=None)).done == done
    stored = await store.event(key, "i2:user")
    assert stored is not None
    assert (await store.begin_turn(key, stored, epoch=None)).done == done, "as one that was too large is sent"
    with pytest.raises(EventConflict):
        await store.begin_turn(key, user("i2", "something else"), epoch=None)
    assert await sequence(store, key) == ["i1:user", "i1:m1", "i2:user", "i1:m2"]


async def test_a_turn_that_was_lost_after_a_message_joined_goes_on_under_its_own_id(
    store: SessionStore, key: SessionKey
) -> None:
    epoch = await begun(store, key)
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    assert (turn.done, turn.epoch) == (None, epoch), "what joined did not overtake it"


async def test_a_turn_that_was_lost_is_over_for_who_asks_for_what_joined_it(
    store: SessionStore, key: SessionKey
) -> None:
    await begun(store, key)
    stored = await store.event(key, "i2:user")
    assert stored is not None
    turn = await store.begin_turn(key, stored, epoch=None)
    assert turn.done is not None
    assert (turn.done.id, turn.done.meta["reason"]) == ("i1:end", "overtaken")
    again = await store.begin_turn(key, user("i1"), epoch=None)
    assert again.done == turn.done


async def test_s64_a_message_that_joined_a_turn_which_was_rewound(
    store: SessionStore, key: SessionKey
) -> None:
    epoch = await begun(store, key)
    await store.append(key, replace(answer("i1"), id="i1:m2"), epoch=epoch)
    with pytest.raises(InvocationNotFound, match="joined invocation i1"):
        await store.rewind(key, before="i2", request_id="r0")
    await store.rewind(key, before="i1", request_id="r1")
    assert (await store.get(key)).state == {}
    with pytest.raises(InvocationRewound):
        await store.begin_turn(key, replace(user("i2"), state_delta={"mood": "good"}), epoch=None)
    await store.rewind(key, before="r1", request_id="r2")
    assert (await store.get(key)).state == {"mood": "good"}


async def test_s13_what_joins_too_late_is_refused(store: SessionStore, key: SessionKey) -> None:
    epoch = await begun(store, key)
    await store.interrupt(key, "i1", epoch=epoch, reason="cancelled")
    with pytest.raises(StaleEpoch):
        await store.append(key, joined("i3", "i1"), epoch=epoch, first_wins=True)
    turn = await store.begin_turn(key, user("i3"), epoch=None)
    assert turn.done is None, "so it is a turn of its own"
