"""Random lives of sessions: after each move the memory has what is live, and of what was rewound nothing."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from perdure.types import Event, Passage, SessionKey
from storage import memory, remembering
from storage.sessions import SessionStore
from tests.conformance.events import answer, user
from tests.conformance.watch import query

MOVES = 60

Place = tuple[str, str, datetime | None]
"""A session's id, an event's, and its time."""


class Walk:
    """A few sessions of one user, and what happens to them."""

    def __init__(self, store: SessionStore, key: SessionKey, numbers: random.Random) -> None:
        self._store = store
        self._numbers = numbers
        self._keys = [replace(key, session_id=f"s{number}") for number in range(2)]
        self._exports: list[list[str]] = []
        self._moves = 0
        self.done: list[str] = []
        """For whoever reads a failure."""

    async def step(self) -> None:
        """One move."""
        moves: list[Callable[[SessionKey], Awaitable[Any]]] = [
            *[self._talk, self._remember, self._rewind] * 5,
            *[self._come_back] * 2,
            *(self._end, self._fork, self._delete, self._import, self._forget),
        ]
        self._moves += 1
        move, key = self._numbers.choice(moves), self._numbers.choice(self._keys)
        self.done.append(f"{move.__name__} {key.session_id}")
        await move(key)

    async def _talk(self, key: SessionKey) -> None:
        name = f"i{self._moves}"
        await self._store.begin_turn(key, user(name, f"red {name}"), epoch=None, reopen=True)
        await self._store.append(key, answer(name, f"green {name}"))

    async def _remember(self, key: SessionKey) -> None:
        if await self._is_there(key):
            await self._store.remember(key)

    async def _rewind(self, key: SessionKey) -> None:
        """A redo, too: the markers of rewinds are invocations."""
        if not await self._is_there(key):
            return
        session = await self._store.get(key)
        names = [event.invocation_id for event in session.events][-6:]
        if names and session.ended_at is None:
            redo = [event.invocation_id for event in session.events if event.rewind]
            before = self._numbers.choice(redo if redo and self._moves % 2 else names)
            await self._store.rewind(key, before=before, request_id=f"r{self._moves}")

    async def _end(self, key: SessionKey) -> None:
        if await self._is_there(key):
            await self._store.end(key, remember=True)

    async def _fork(self, key: SessionKey) -> None:
        free = [each for each in self._keys if not await self._is_there(each)]
        if free and await self._is_there(key):
            await self._store.fork(key, free[0])

    async def _delete(self, key: SessionKey) -> None:
        await self._store.delete(key)

    async def _import(self, key: SessionKey) -> None:
        if self._exports and not await self._is_there(key):
            await self._store.import_session(self._numbers.choice(self._exports), key=key)

    async def _come_back(self, key: SessionKey) -> None:
        """From a backup that is up to date."""
        if await self._is_there(key):
            self._exports.append([line async for line in self._store.export(key)])
            await self._store.delete(key)
            await self._store.import_session(self._exports[-1], key=key)

    async def _forget(self, key: SessionKey) -> None:
        await self._store.forget(key)

    async def _is_there(self, key: SessionKey) -> bool:
        return any(each.key == key for each in await self._sessions())

    async def _sessions(self) -> list[Any]:
        return list((await self._store.list_sessions("counter", "ada")).sessions)

    async def check(self) -> None:
        """What a search finds is what the log has."""
        logs = {each.key.session_id: await self._store.log(each.key) for each in await self._sessions()}
        rows = await query(self._store._db, "SELECT session_id, upto FROM memories")
        upto: dict[str, int | None] = {row["session_id"]: row["upto"] for row in rows}
        held = {(each.session_id, each.event_id, each.said_at) for each in await self._held()}
        for name, reached in upto.items():
            dead = {_place(name, event) for event in logs.get(name, []) if not event.live}
            assert not held & dead, f"what was rewound in {name}"
            if reached is not None:
                assert name in logs
                said = {
                    _place(name, event)
                    for event in logs[name]
                    if event.live and event.text and event.seq <= reached
                }
                assert {place for place in held if place[0] == name} == said
        assert {place[0] for place in held} <= set(upto), "what has no record is remembered by nobody"

    async def _held(self) -> list[Passage]:
        """All of them, and what a search gives of them is each once."""
        ids = [row["id"] for row in await query(self._store._db, "SELECT id FROM memory_passages")]
        held = await self._store._db.read(lambda conn: memory.passages_of(conn, "counter", "ada", ids))
        found = await self._store.search_memory("counter", "ada", "red green", limit=100)
        assert sorted({_said(each) for each in held.values()}) == sorted(_said(each) for each in found)
        return list(held.values())


def _said(passage: Passage) -> tuple[str, datetime, str]:
    return passage.event_id, passage.said_at, passage.text


def _place(session_id: str, event: Event) -> Place:
    return session_id, event.id, event.created_at


async def test_s32_s37_what_was_rewound_is_in_no_memory(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "AT_ONCE", 3)
    walk = Walk(store, key, random.Random(1))
    try:
        for _ in range(MOVES):
            await walk.step()
            await walk.check()
    except BaseException:
        print("\n".join(walk.done))
        raise
