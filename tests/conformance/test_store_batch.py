"""Batches of updates: each on its own, or all or nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from perdure.errors import (
    EventConflict,
    InvalidContent,
    InvalidOption,
    SessionEnded,
    SessionNotFound,
    VersionMismatch,
)
from perdure.types import SessionKey
from storage.sessions import SessionStore, SessionUpdate
from tests.conformance.events import event
from tests.conformance.watch import stored


@pytest.fixture
async def keys(store: SessionStore, key: SessionKey) -> list[SessionKey]:
    """Four sessions."""
    made = [replace(key, session_id=f"s{number}") for number in range(4)]
    for each in made:
        await store.create(each, state={"n": 0}, metadata={"kept": 1})
    return made


def change(key: SessionKey, /, **fields: Any) -> SessionUpdate:
    """A change of a session under the request id ``u1``."""
    return SessionUpdate(**{"key": key, "request_id": "u1", **fields})


@pytest.mark.parametrize("atomic", [False, True])
async def test_s49_every_item_is_done_and_has_its_outcome(
    store: SessionStore, keys: list[SessionKey], atomic: bool
) -> None:
    updates = [
        change(each, state={"n": n, "user:u": n}, metadata={"m": n}) for n, each in enumerate(keys[::-1])
    ]
    outcomes = await store.batch_update(updates, atomic=atomic)
    assert [outcome.key for outcome in outcomes] == keys[::-1]
    for number, outcome in enumerate(outcomes):
        assert outcome.error is None
        assert outcome.session is not None
        assert (outcome.session.version, outcome.session.metadata) == (2, {"kept": 1, "m": number})
        now = await store.get(outcome.key)
        assert now.state == {"n": number, "user:u": 3}, "the last in the list wins"
        assert [item.id for item in now.events] == ["u1:update"]
    before = await stored(store)
    again = await store.batch_update(updates, atomic=atomic)
    assert all(outcome.error is None for outcome in again)
    assert await stored(store) == before


async def test_s49_one_that_is_refused_does_not_keep_the_others(
    store: SessionStore, key: SessionKey, keys: list[SessionKey]
) -> None:
    missing = replace(key, session_id="missing")
    await store.end(keys[1])
    outcomes = await store.batch_update(
        [
            change(keys[0], state={"n": 1}),
            change(missing, state={"n": 1}),
            change(keys[1], state={"n": 1}),
            change(keys[2], state={"n": 1}, expected_version=7),
            change(keys[3], state={"n": float("inf")}),
            change(replace(key, session_id=""), state={"n": 1}),
        ]
    )
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        SessionNotFound,
        SessionEnded,
        VersionMismatch,
        InvalidContent,
        InvalidContent,
    ]
    assert [outcome.session is None for outcome in outcomes] == [False, *[True] * 5]
    assert [(await store.get(each)).state["n"] for each in keys] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"key": SessionKey(app="counter", user_id="ada", session_id="missing")}, SessionNotFound),
        ({"expected_version": 7}, VersionMismatch),
        ({"state": {"n": float("nan")}}, InvalidContent),
        ({"request_id": "taken"}, EventConflict),
    ],
)
async def test_s49_all_or_nothing(
    store: SessionStore, keys: list[SessionKey], bad: dict[str, Any], error: type[Exception]
) -> None:
    await store.update(keys[2], request_id="taken", state={"n": "before"})
    before = await stored(store)
    good = {"state": {"n": 1, "app:a": 1}, "metadata": {"m": 1}}
    updates = [change(keys[0], **good), change(keys[2], **{**good, **bad}), change(keys[1], **good)]
    with pytest.raises(error):
        await store.batch_update(updates, atomic=True)
    assert await stored(store) == before


@pytest.mark.parametrize("atomic", [False, True])
async def test_s49_a_session_named_twice_is_refused(
    store: SessionStore, keys: list[SessionKey], atomic: bool
) -> None:
    before = await stored(store)
    updates = [change(keys[0], state={"n": 1}), change(keys[1]), change(keys[0], request_id="u2")]
    with pytest.raises(InvalidOption, match="counter/ada/s0 twice"):
        await store.batch_update(updates, atomic=atomic)
    assert await stored(store) == before


@pytest.mark.parametrize("atomic", [False, True])
async def test_s49_an_empty_batch(store: SessionStore, atomic: bool) -> None:
    assert await store.batch_update([], atomic=atomic) == []


async def test_s49_batches_in_opposite_order_do_not_deadlock(
    store: SessionStore, keys: list[SessionKey]
) -> None:
    """Nor with turns that set the shared keys one after the other."""
    names = ["app:a", "app:b", "user:c", "user:d"]

    async def batches(order: list[SessionKey], label: str) -> None:
        for number in range(10):
            updates = [
                change(each, request_id=f"{label}{number}", state={names[place]: label, "n": label})
                for place, each in enumerate(order)
            ]
            await store.batch_update(updates, atomic=True)

    async def turns(key: SessionKey) -> None:
        for number in range(10):
            delta = dict.fromkeys(names[::-1], None if number % 3 == 0 else number)
            await store.append(key, event(f"{key.session_id}-{number}:x", state_delta=delta))

    apart = replace(keys[0], session_id="apart")
    await store.create(apart)
    async with asyncio.timeout(60):
        await asyncio.gather(batches(keys, "forth"), batches(keys[::-1], "back"), turns(apart))
    for each in keys:
        session = await store.get(each)
        assert (session.version, session.head) == (21, 20)
    assert len({(await store.get(each)).state["n"] for each in keys}) == 1, "each batch is whole"


async def test_s49_a_batch_may_span_users_and_apps(store: SessionStore, key: SessionKey) -> None:
    keys = [key, replace(key, user_id="bob"), replace(key, app="other")]
    for each in keys:
        await store.create(each)
    updates = [change(each, state={"user:u": n, "app:a": n}) for n, each in enumerate(keys)]
    await store.batch_update(updates, atomic=True)
    assert [(await store.get(each)).state for each in keys] == [
        {"user:u": 0, "app:a": 1},
        {"user:u": 1, "app:a": 1},
        {"user:u": 2, "app:a": 2},
    ]
