"""An append has a quick way and a general one: what is stored, answered and refused is the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

import storage.append
import storage.sessions
import storage.turns
from perdure.errors import PerdureError
from perdure.state import MISSING
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import answer, event, user
from tests.conformance.watch import stored

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
STATE = {"n": 1, "f": 1.0, "nested": {"b": [1, None], "a": "é"}, "gone": True, "app:a": 1, "user:u": 2}

Write = Callable[[SessionStore, SessionKey], Awaitable[Any]]


def at(event_id: str, **fields: Any) -> Event:
    """An event whose time does not depend on when the test runs."""
    return event(event_id, created_at=NOON, **fields)


def append(delta: dict[str, Any] | None = None, **options: Any) -> Write:
    """An append of a new event."""
    return lambda store, key: store.append(key, at("new:x", state_delta=delta or {}), **options)


def begin(invocation_id: str, **options: Any) -> Write:
    """The beginning of a turn."""
    return lambda store, key: store.begin_turn(
        key, replace(user(invocation_id), created_at=NOON), **{"epoch": None, **options}
    )


async def ended(store: SessionStore, key: SessionKey) -> None:
    await store.end(key)


async def rewound(store: SessionStore, key: SessionKey) -> None:
    await store.rewind(key, before="i2", request_id="r1")


@dataclass(frozen=True)
class Case:
    """A write, and what happened to the session before it."""

    write: Write
    first: Write | None = None


CASES = {
    "nothing but an event": Case(append()),
    "all its fields": Case(
        lambda store, key: store.append(
            key,
            at(
                "new:x",
                branch="a.b",
                content={"role": "model", "parts": [{"text": "é\u2028"}]},
                usage={"totalTokenCount": 3},
                error={"type": "X", "message": "y"},
                meta={"final": True, "n": [1, 1.0, None]},
            ),
        )
    ),
    "a key that is set": Case(append({"n": 2})),
    "keys of each kind": Case(append({"n": None, "new": {"a": None}, "f": 1, "nested": [], "none": None})),
    "shared keys": Case(append({"n": 2, "app:a": None, "user:u": 3, "app:new": 1})),
    "101 keys": Case(append({f"k{n}": n for n in range(101)} | {"n": None})),
    "what is expected": Case(
        append({"n": 2, "new": 1}, expect={"n": 1, "new": MISSING, "other": 5, "app:a": 7})
    ),
    "the same in another order": Case(append({"nested": 0}, expect={"nested": {"a": "é", "b": [1, None]}})),
    "an int for a float": Case(append({"f": 2}, expect={"f": 1})),
    "a key that changed": Case(append({"n": 3, "new": 1}, expect={"n": 0})),
    "a key that is gone": Case(append({"new": 1}, expect={"new": 1})),
    "a key that appeared": Case(append({"n": None}, expect={"n": MISSING})),
    "the right epoch": Case(append({"n": 2}, epoch=2)),
    "a stale epoch": Case(append({"n": 2}, epoch=1)),
    "an epoch of a session that ended": Case(append({"n": 2}, epoch=2), ended),
    "a session that ended": Case(append({"n": 2}), ended),
    "a session that was rewound": Case(append({"n": 2, "gone": None}), rewound),
    "what is there already": Case(
        append({"n": 2}), lambda store, key: store.append(key, at("new:x", state_delta={"n": 2}))
    ),
    "what is there with other content": Case(
        append({"n": 2}), lambda store, key: store.append(key, at("new:x", state_delta={"n": 3}))
    ),
    "the first to come": Case(
        append({"n": 2}, first_wins=True),
        lambda store, key: store.append(key, at("new:x", state_delta={"n": 3})),
    ),
    "a turn that takes over": Case(begin("i9")),
    "a turn of this epoch": Case(begin("i9", epoch=2)),
    "a turn of a stale epoch": Case(begin("i9", epoch=1)),
    "a turn of a session that ended": Case(begin("i9"), ended),
    "a turn that opens it again": Case(begin("i9", reopen=True), ended),
    "a turn that opens it again with an epoch": Case(begin("i9", reopen=True, epoch=3), ended),
    "a turn that opens it again with a stale one": Case(begin("i9", reopen=True, epoch=2), ended),
    "a turn that was begun": Case(begin("i9"), begin("i9")),
    "a turn that was answered": Case(
        begin("i2"), lambda store, key: store.append(key, replace(answer("i2"), created_at=NOON))
    ),
    "a turn that was rewound": Case(begin("i2"), rewound),
    "a turn whose id is another's": Case(
        begin("i9"),
        lambda store, key: store.append(key, replace(at("i9:user"), invocation_id="other")),
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_s6_s17_both_ways_of_an_append_are_one(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    quick = await outcome(store, replace(key, app="quick"), CASES[name])

    async def never(*_: object, **__: object) -> None:
        return None

    for module in (storage.sessions, storage.turns):
        monkeypatch.setattr(module, "append_plainly", never)
    monkeypatch.setattr(storage.sessions, "append_at_once", never)
    monkeypatch.setattr(storage.turns, "append_at_once", never)
    assert quick == await outcome(store, replace(key, app="general"), CASES[name])


@pytest.mark.parametrize("name", ["nothing but an event", "keys of each kind", "a turn that takes over"])
async def test_the_quick_way_is_taken(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def never(*_: object, **__: object) -> None:
        raise AssertionError("the general way was taken")

    case = CASES[name]
    await prepare(store, key, case)
    monkeypatch.setattr(storage.append, "append", never)
    monkeypatch.setattr(storage.turns, "append_event", never)
    await case.write(store, key)


async def prepare(store: SessionStore, key: SessionKey, case: Case) -> None:
    """A session at epoch 2, and what the case wants first."""
    await store.create(key, state=STATE)
    for invocation_id in ("i1", "i2"):
        await store.begin_turn(key, user(invocation_id), epoch=None)
    if case.first is not None:
        await case.first(store, key)


async def outcome(store: SessionStore, key: SessionKey, case: Case) -> tuple[Any, ...]:
    """What a write answers or raises, and all that is stored after it, but for its times and the app."""
    await prepare(store, key, case)
    try:
        done = await case.write(store, key)
    except PerdureError as error:
        done = (type(error), str(error).replace(key.app, ""))
    rows = {
        table: [[plain(value) for value in row if value != key.app] for row in rows if key.app in row]
        for table, rows in (await stored(store)).items()
    }
    return done, rows


def plain(value: Any) -> Any:
    """A value whose type counts when it is compared; of times only the one that was given."""
    if isinstance(value, datetime):
        return value if value == NOON else datetime
    return repr(value)
