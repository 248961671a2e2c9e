"""What model calls took: counted with the events that tell of it, and never taken back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from perdure.types import Event, SessionKey, Spent
from storage.sessions import SessionStore
from tests.conformance.events import answer, content, event, say, summary, user


def paid(event_id: str, tokens: int, nano_usd: int, **more: object) -> Event:
    """An answer that took something; with a state delta or an artifact it goes another way."""
    usage = {"promptTokenCount": tokens, "totalTokenCount": tokens}
    meta = {"step": 1, "spent": {"nano_usd": nano_usd}}
    return event(event_id, content=content("done", "model"), usage=usage, meta=meta, **more)


async def spent(store: SessionStore, key: SessionKey) -> Spent:
    return (await store.get(key, max_events=0)).spent


async def test_what_events_took_is_in_the_session_once_each(store: SessionStore, key: SessionKey) -> None:
    assert (await store.create(key)).spent == Spent()
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    assert await spent(store, key) == Spent()
    await store.append(key, paid("i1:m1", 100, 7), epoch=turn.epoch)
    await store.append(key, paid("i1:m2", 10, 1, state_delta={"n": 1, "user:n": 2}), epoch=turn.epoch)
    assert await spent(store, key) == Spent(tokens=110, nano_usd=8, model_calls=2)
    await store.append(key, paid("i1:m1", 100, 7), epoch=turn.epoch)
    await store.append(key, paid("i1:m1", 5, 5), epoch=turn.epoch, first_wins=True)
    assert await spent(store, key) == Spent(tokens=110, nano_usd=8, model_calls=2), "a retry takes nothing"
    version = await store.stage_artifact(key, "f", b"x", "x/y", event_id="i1:t")
    await store.append(key, paid("i1:t", 1, 1, artifact_delta={"f": version}), epoch=turn.epoch)
    await store.append(key, replace(summary("i1", 1, 2), usage={"totalTokenCount": 50}))
    assert await spent(store, key) == Spent(tokens=161, nano_usd=9, model_calls=4)
    assert (await store.context(key)).session.spent == await spent(store, key)
    [listed] = (await store.list_sessions(key.app)).sessions
    assert listed.spent == await spent(store, key)


async def test_a_rewind_takes_back_no_money_and_a_fork_begins_at_nothing(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1")
    await store.append(key, paid("i2:m1", 100, 7))
    sums = await spent(store, key)
    await store.rewind(key, before="i2", request_id="r1")
    assert await spent(store, key) == sums == Spent(tokens=100, nano_usd=7, model_calls=1)
    await store.rewind(key, before="r1", request_id="r2")
    assert await spent(store, key) == sums, "redo pays nothing again"
    fork = await store.fork(key, "fork")
    assert fork.spent == (await store.get(fork.key)).spent == Spent()
    await store.append(fork.key, paid("i3:m1", 1, 2))
    assert await spent(store, fork.key) == Spent(tokens=1, nano_usd=2, model_calls=1)
    assert await spent(store, key) == sums


async def test_an_import_brings_it_back(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await store.append(key, paid("i1:m1", 100, 7))
    await store.rewind(key, before="i1", request_id="r1")
    lines = [line async for line in store.export(key)]
    there = await store.import_session(lines, key=replace(key, session_id="there"))
    assert there.spent == await spent(store, there.key) == Spent(tokens=100, nano_usd=7, model_calls=1)


async def test_appends_at_once_are_all_counted(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await asyncio.gather(*(store.append(key, paid(f"i{n}:m1", n, 1)) for n in range(12)))
    assert await spent(store, key) == Spent(tokens=66, nano_usd=12, model_calls=12)


@pytest.mark.parametrize("odd", [None, "7", 1.5, -1, True, 2**60, {"a": 1}])
async def test_what_is_no_count_counts_nothing(store: SessionStore, key: SessionKey, odd: object) -> None:
    await store.create(key)
    await store.append(key, replace(answer("i1"), usage={"totalTokenCount": odd}, meta={"spent": odd}))
    await store.append(key, event("i2:x", meta={"spent": {"tokens": odd, "nano_usd": odd, "model_calls": 3}}))
    assert await spent(store, key) == Spent(model_calls=4)
