"""What a move does in a store and in the model of it at once, and what it may be refused for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import pytest
from hypothesis.stateful import RuleBasedStateMachine

from perdure.errors import PerdureError, SessionEnded, VersionMismatch
from perdure.state import is_temp
from perdure.types import Event, Json, SessionKey
from storage.sessions import SessionStore, SessionUpdate
from tests.conformance.events import event, user
from tests.conformance.model import SessionModel, World

__all__ = ["Moves"]

T = TypeVar("T")

_numbers = itertools.count(1)


class Moves(RuleBasedStateMachine):
    """A store and a model that are moved together."""

    store: SessionStore
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.moves = 0
        apps = [f"app{next(_numbers)}" for _ in range(2)]
        self.slots = [
            SessionKey(app=app, user_id=user_id, session_id=session_id)
            for session_id in ("s", "t", "u")
            for app in apps
            for user_id in ("ada", "bob")
        ]
        self.touched: SessionKey = self.slots[0]

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def pick(self, number: int) -> SessionModel:
        """One of the sessions that there are, one that is new if there is none."""
        self.moves += 1
        if not self.world.sessions:
            self.created(self.slot(0), {}, {})
        sessions = list(self.world.sessions.values())
        self.touched = sessions[number % len(sessions)].key
        return self.world.sessions[self.touched]

    def slot(self, number: int) -> SessionKey:
        return self.slots[number % len(self.slots)]

    @contextmanager
    def refused(self, error: type[PerdureError] | None) -> Iterator[None]:
        """What is within is refused with this error, or if it is None goes through."""
        if error is None:
            yield
            return
        with pytest.raises(error) as raised:
            yield
        assert type(raised.value) is error

    def created(self, key: SessionKey, state: dict[str, Json], metadata: dict[str, Json]) -> None:
        made = self.run(self.store.create(key, state=state, metadata=metadata))
        self.world.create(key, state, metadata, made.epoch, made.created_at)

    def begin(self, session: SessionModel, name: str, reopen: bool = False) -> int:
        turn = self.run(self.store.begin_turn(session.key, user(name), epoch=None, reopen=reopen))
        stored = self.run(self.store.event(session.key, f"{name}:user"))
        assert stored == self.world.append(session, user(name), time_of(stored))
        session.version, session.epoch, session.ended = session.version + 1, session.epoch + 1, False
        assert (turn.epoch, turn.seq, turn.done) == (session.epoch, session.head, None)
        return turn.epoch

    def appended(self, session: SessionModel, made: Event, **options: Any) -> None:
        stored = self.run(self.store.append(session.key, made, **options))
        assert stored == self.world.append(session, made, stored.created_at)
        session.version += 1

    def staged(
        self, session: SessionModel, name: str, files: Sequence[tuple[str, bytes]]
    ) -> Mapping[str, int]:
        """Save files for an event; what it is to name."""
        saved: dict[str, int] = {}
        counts: dict[str, int] = {}
        for file, data in files:
            ordinal = counts[file] = counts.get(file, -1) + 1
            call = self.store.stage_artifact(session.key, file, data, "x/y", event_id=name, ordinal=ordinal)
            saved[file] = self.run(call)
            assert saved[file] == self.world.stage(session, name, file, ordinal, data)
        return saved

    def rewound(self, session: SessionModel, before: str, running: str | None = None) -> None:
        request = f"r{self.moves}"
        with self.refused(SessionEnded if session.ended else None):
            done = self.run(
                self.store.rewind(session.key, before=before, request_id=request, interrupt=running)
            )
            if running is not None:
                self.ended_by(session, running, "rewind")
            assert done.event == self.world.rewind(session, before, request, done.event.created_at)
            session.version += 1
            session.epoch += 1
            assert (done.epoch, done.repeated) == (session.epoch, False)

    def ended_by(self, session: SessionModel, name: str, reason: str) -> None:
        """The marker of an end that the store made."""
        stored = self.run(self.store.event(session.key, f"{name}:end"))
        meta = {"interrupted": True, "final": True, "reason": reason}
        marker = event(f"{name}:end", author="perdure", meta=meta)
        made = self.world.append(session, marker, time_of(stored))
        assert stored is not None
        assert replace(stored, live=True) == made

    def change(
        self, session: SessionModel, delta: dict[str, Json], metadata: dict[str, Json], off: int | None
    ) -> SessionUpdate:
        expected = None if off is None else session.version + off
        request = f"u{self.moves}"
        return SessionUpdate(
            key=session.key, request_id=request, state=delta, metadata=metadata, expected_version=expected
        )

    def why_not(self, session: SessionModel, change: SessionUpdate) -> type[PerdureError] | None:
        if change.expected_version not in (None, session.version):
            return VersionMismatch
        return (
            SessionEnded if session.ended and any(not is_temp(name) for name in change.state or ()) else None
        )

    def updated(self, session: SessionModel, change: SessionUpdate) -> None:
        delta = {name: value for name, value in (change.state or {}).items() if not is_temp(name)}
        if delta:
            stored = self.run(self.store.event(session.key, f"{change.request_id}:update"))
            made = event(f"{change.request_id}:update", author="perdure", state_delta=delta)
            assert stored == self.world.append(session, made, time_of(stored))
        if change.metadata:
            merged = {**session.metadata, **change.metadata}
            session.metadata = {name: value for name, value in merged.items() if value is not None}
        session.version += bool(delta or change.metadata)


def time_of(event: Event | None) -> datetime | None:
    """When the store says that an event was; everything else of it is compared."""
    return None if event is None else event.created_at
