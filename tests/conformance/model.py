"""A store so naive that it is plainly right: it keeps a whole copy for every event.

What a session was just before an event was appended is looked up, never computed. No
seqs, ranges, undos or markers are involved in what a rewind, a fork or a look at the past
brings back; what the store says in such terms is derived from those copies and compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from perdure.state import is_temp
from perdure.types import Event, Json, JsonObject, SessionKey
from storage.storable import canonical

__all__ = ["Files", "Moment", "SessionModel", "World", "ranges_of"]

Files = Mapping[str, Mapping[int, bytes]]
"""The bytes of each version, by name."""
Save = tuple[str, int]
"""A name, and which save of its event it is."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """All that a rewind brings back. Never changed: whatever happens makes a new one."""

    events: tuple[Event, ...] = ()
    state: Mapping[str, Json] = field(default_factory=dict)
    files: Files = field(default_factory=dict)

    def has(self, invocation_id: str) -> bool:
        """Whether an invocation has a live event."""
        return any(event.invocation_id == invocation_id for event in self.events)

    def first_of(self, invocation_id: str) -> Event:
        """The first live event of an invocation."""
        return next(event for event in self.events if event.invocation_id == invocation_id)


@dataclass(kw_only=True)
class SessionModel:
    """One session."""

    key: SessionKey
    now: Moment
    metadata: JsonObject
    epoch: int
    created_at: datetime
    version: int = 1
    ended: bool = False
    forked_from: JsonObject | None = None
    log: list[Event] = field(default_factory=list)
    past: dict[str, Moment] = field(default_factory=dict)
    """What was just before each event, by its id."""
    committed: dict[str, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))
    """Its own versions, live or not."""
    staged: dict[str, dict[Save, tuple[int, bytes]]] = field(default_factory=lambda: defaultdict(dict))
    """What was saved for events that did not commit it, by their ids."""

    @property
    def head(self) -> int:
        """The last seq."""
        return len(self.log)

    @property
    def projection(self) -> list[list[int | None]]:
        """The runs of the seqs that are live."""
        return ranges_of(self.now.events, 1)

    def before(self, invocation_id: str) -> Moment:
        """What was just before the first live event of an invocation."""
        return self.past[self.now.first_of(invocation_id).id]

    def in_log(self, event_id: str) -> Event | None:
        """An event as the log shows it."""
        live = {event.id for event in self.now.events}
        found = next((event for event in self.log if event.id == event_id), None)
        return None if found is None else replace(found, live=found.id in live)

    def whole_log(self) -> list[Event]:
        """Every event, those marked that are not live."""
        live = {event.id for event in self.now.events}
        return [event if event.id in live else replace(event, live=False) for event in self.log]

    def dead(self) -> list[str]:
        """The invocations without a live event."""
        live = {event.invocation_id for event in self.now.events}
        return [each for each in dict.fromkeys(event.invocation_id for event in self.log) if each not in live]

    def newest_summary(self) -> Event | None:
        """The newest live summary."""
        return next((event for event in reversed(self.now.events) if event.compaction), None)

    def context(self) -> tuple[str | None, list[Event]]:
        """The id of the newest live summary, and the raw events of its tail."""
        newest = self.newest_summary()
        tail = newest.compaction["tail"] if newest and newest.compaction else 1
        raw = [event for event in self.now.events if not event.compaction and event.seq >= tail]
        return newest.id if newest else None, raw


class World:
    """Every session of a store, and what they share."""

    def __init__(self) -> None:
        self.sessions: dict[SessionKey, SessionModel] = {}
        self.app_state: dict[str, dict[str, Json]] = defaultdict(dict)
        self.user_state: dict[tuple[str, str], dict[str, Json]] = defaultdict(dict)
        self.user_files: dict[tuple[str, str], dict[str, dict[int, bytes]]] = defaultdict(dict)

    def create(
        self,
        key: SessionKey,
        state: Mapping[str, Json],
        metadata: JsonObject,
        epoch: int,
        created_at: datetime,
    ) -> SessionModel:
        """A session with its initial state, which no event holds; a null in it is a key that is not given."""
        session = SessionModel(
            key=key, now=Moment(), metadata=dict(metadata), epoch=epoch, created_at=created_at
        )
        self.sessions[key] = session
        given = {name: value for name, value in state.items() if value is not None}
        session.now = replace(session.now, state=self._change(session, given))
        return session

    def delete(self, key: SessionKey) -> None:
        """Nothing is left of it but what it saved for its user."""
        del self.sessions[key]

    def append(self, session: SessionModel, event: Event, created_at: datetime | None) -> Event:
        """Append an event with all that it changes; how it will be stored. The caller counts the version."""
        delta = {name: value for name, value in event.state_delta.items() if not is_temp(name)}
        stored = replace(
            event,
            seq=session.head + 1,
            state_delta=delta,
            state_undo={name: session.now.state.get(name) for name in delta if not shared(name)},
            created_at=event.created_at or created_at,
        )
        session.past[stored.id] = session.now
        session.log.append(stored)
        session.now = Moment(
            events=(*session.now.events, stored),
            state=self._change(session, delta),
            files=self._commit(session, stored),
        )
        return stored

    def rewind(
        self, session: SessionModel, before: str, request_id: str, created_at: datetime | None
    ) -> Event:
        """Bring back what was just before the first live event of an invocation; the marker."""
        left, target = session.now, session.now.first_of(before)
        moment = session.past[target.id]
        names = [
            name
            for name in {**left.state, **moment.state}
            if canonical(left.state.get(name)) != canonical(moment.state.get(name))
        ]
        marker = Event(
            id=f"{request_id}:rewind",
            invocation_id=request_id,
            author="perdure",
            state_delta={name: moment.state.get(name) for name in names},
            state_undo={name: left.state.get(name) for name in names},
            rewind={"before": before, "seq": target.seq, "projection": session.projection},
            created_at=created_at,
            seq=session.head + 1,
        )
        session.past[marker.id] = left
        session.log.append(marker)
        session.now = replace(moment, events=(*moment.events, marker))
        return marker

    def stage(self, session: SessionModel, event_id: str, name: str, ordinal: int, data: bytes) -> int:
        """Save bytes for an event to come; their version. A save made again replaces its bytes."""
        mine = session.staged[event_id]
        if (name, ordinal) in mine:
            version = mine[name, ordinal][0]
        else:
            version = 1 + max(self._versions(session, name), default=0)
        mine[name, ordinal] = version, data
        return version

    def fork(
        self, session: SessionModel, key: SessionKey, before: str | None, epoch: int, created_at: datetime
    ) -> SessionModel:
        """What is now, or was just before an invocation, without any marker."""
        moment = session.now if before is None else session.before(before)
        seq = session.head if before is None else session.now.first_of(before).seq - 1
        fork = SessionModel(
            key=key,
            now=_without_markers(moment, moment),
            metadata=dict(session.metadata),
            epoch=epoch,
            created_at=created_at,
            forked_from={"session": str(session.key), "seq": seq, "before": before},
        )
        for event in fork.now.events:
            fork.past[event.id] = _without_markers(session.past[event.id], moment)
        fork.log = list(fork.now.events)
        for name, versions in moment.files.items():
            fork.committed[name] = dict(versions)
        self.sessions[key] = fork
        return fork

    def move(self, session: SessionModel, key: SessionKey, epoch: int) -> SessionModel:
        """The same session again under another key, without what no event has committed."""
        moved = replace(session, key=key, epoch=epoch, log=list(session.log), past=dict(session.past))
        moved.metadata = dict(session.metadata)
        moved.staged = defaultdict(dict)
        moved.committed = defaultdict(dict)
        for name, versions in session.committed.items():
            moved.committed[name] = dict(versions)
        self.sessions[key] = moved
        return moved

    def state(self, key: SessionKey, own: Mapping[str, Json] | None = None) -> dict[str, Json]:
        """All that a session sees, now or with its own state of another time."""
        mine = self.sessions[key].now.state if own is None else own
        return {**mine, **self.app_state[key.app], **self.user_state[key.app, key.user_id]}

    def files(self, key: SessionKey, own: Files | None = None) -> dict[str, Mapping[int, bytes]]:
        """All that a session sees, now or with its own files of another time."""
        mine = self.sessions[key].now.files if own is None else own
        return {**mine, **self.user_files[key.app, key.user_id]}

    def _change(self, session: SessionModel, delta: Mapping[str, Json]) -> dict[str, Json]:
        """Apply a delta; the session's own state after it."""
        key, own = session.key, dict(session.now.state)
        for name, value in delta.items():
            scope = own
            if name.startswith("app:"):
                scope = self.app_state[key.app]
            elif name.startswith("user:"):
                scope = self.user_state[key.app, key.user_id]
            if is_temp(name):
                continue
            if value is None:
                scope.pop(name, None)
            else:
                scope[name] = value
        return own

    def _commit(self, session: SessionModel, event: Event) -> dict[str, dict[int, bytes]]:
        """List what an event saved; the session's own live files after it."""
        own = {name: dict(versions) for name, versions in session.now.files.items()}
        users = self.user_files[session.key.app, session.key.user_id]
        for name, named in event.artifact_delta.items():
            mine = session.staged[event.id]
            for save in [each for each in mine if each[0] == name and mine[each][0] <= named]:
                version, data = mine.pop(save)
                if name.startswith("user:"):
                    users.setdefault(name, {})[version] = data
                else:
                    own.setdefault(name, {})[version] = data
                    session.committed[name][version] = data
        return own

    def _versions(self, session: SessionModel, name: str) -> Iterable[int]:
        """Every version that a name has, of whatever became of it."""
        key, holders = session.key, [session]
        if name.startswith("user:"):
            yield from self.user_files[key.app, key.user_id].get(name, ())
            mine = (key.app, key.user_id)
            holders = [each for each in self.sessions.values() if (each.key.app, each.key.user_id) == mine]
        else:
            yield from session.committed.get(name, ())
        for holder in holders:
            for saves in holder.staged.values():
                yield from (version for (each, _), (version, _) in saves.items() if each == name)


def shared(name: str) -> bool:
    """Whether a key is not the session's own."""
    return name.startswith(("app:", "user:"))


def ranges_of(events: Sequence[Event], fresh: int) -> list[list[int | None]]:
    """The runs of their seqs, the last one open; ``fresh`` is where it begins if there are none."""
    runs: list[list[Any]] = []
    for event in events:
        if runs and runs[-1][1] == event.seq:
            runs[-1][1] += 1
        else:
            runs.append([event.seq, event.seq + 1])
    return [*runs[:-1], [runs[-1][0], None]] if runs else [[fresh, None]]


def _without_markers(moment: Moment, whole: Moment) -> Moment:
    """A moment with the seqs that its events have in a fork of ``whole``."""
    kept = [event.seq for event in whole.events if not event.rewind]

    def places(stop: int) -> int:
        return len([seq for seq in kept if seq < stop])

    def moved(event: Event) -> Event:
        covered = event.compaction
        if covered:
            end = max(1, places(covered["end"] + 1))
            start = min(places(covered["start"]) + 1, end)
            covered = {"start": start, "end": end, "tail": places(covered["tail"]) + 1}
        return replace(event, seq=kept.index(event.seq) + 1, compaction=covered)

    return replace(moment, events=tuple(moved(event) for event in moment.events if not event.rewind))
