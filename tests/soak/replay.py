"""Logs played again on the naive model of the store (:mod:`tests.conformance.model`).

The model keeps a whole copy for every event, so what a rewind or a fork brings back is
looked up, never computed. Where it ends, the store has to be: events, projection, state
and undos, files with their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from activities.prompt import calls_of
from perdure.types import Event, Session, SessionKey
from storage.storable import canonical
from tests.conformance.model import Moment, SessionModel, World, shared
from tests.soak.agents import bytes_of
from tests.soak.claims import deeds

__all__ = ["Replay"]


class Replay:
    """Plays the logs of sessions, each after the one that it is a fork of."""

    def __init__(self) -> None:
        self.world = World()
        self._logs: dict[SessionKey, Sequence[Event]] = {}

    def play(self, session: Session, log: Sequence[Event]) -> Iterator[str]:
        """What is wrong with a session, in words."""
        model = self._begin(session)
        copied = len(model.log)
        for event, copy in zip(log, model.log, strict=False):
            if replace(event, live=True) != replace(copy, live=True):
                yield f"event {event.id} at {event.seq} is not as the fork copied it: {copy}, {event}"
                return
        saved = {deed.event.id: bytes_of(deed.order, f"{session.key}:{deed.event.id}") for deed in deeds(log)}
        for event in log[copied:]:
            if event.compaction:
                yield from _summary(event, model.now)
            try:
                stored = self._apply(model, event, saved.get(event.id, b""))
            except StopIteration:
                yield f"rewind {event.id} at {event.seq} goes to before what is not live: {event.rewind}"
                return
            if replace(event, live=True) != stored:
                yield f"event {event.id} at {event.seq} should be {stored}, and is {event}"
                return
        self._logs[session.key] = log
        yield from _compare(session, log, model)

    def files(self, key: SessionKey) -> dict[str, dict[int, bytes]]:
        """The live versions of a session's own files."""
        return {name: dict(each) for name, each in self.world.sessions[key].now.files.items() if each}

    def _begin(self, session: Session) -> SessionModel:
        made = session.created_at
        if session.forked_from is None:
            return self.world.create(session.key, {}, {}, 0, made)
        source = self.world.sessions[SessionKey.parse(session.forked_from["session"])]
        seq = session.forked_from["seq"]
        now = source.past[source.log[seq].id] if seq < len(source.log) else source.now
        return self.world.fork(replace(source, now=now, log=source.log[:seq]), session.key, None, 0, made)

    def _apply(self, model: SessionModel, event: Event, saved: bytes) -> Event:
        if event.rewind:
            return self.world.rewind(model, event.rewind["before"], event.invocation_id, event.created_at)
        for ordinal, (name, version) in enumerate(event.artifact_delta.items()):
            model.staged[event.id][name, ordinal] = (version, saved)
        return self.world.append(model, replace(event, state_undo={}, live=True), event.created_at)


def _compare(session: Session, log: Sequence[Event], model: SessionModel) -> Iterator[str]:
    if session.head != len(log):
        yield f"its head is {session.head}, and the log has {len(log)} events"
    if session.projection != model.projection:
        yield f"the projection should be {model.projection}, and is {session.projection}"
    live = [event.id for event in log if event.live]
    if live != [event.id for event in model.now.events]:
        yield f"live should be {[event.id for event in model.now.events]}, and is {live}"
    if [event.id for event in session.events] != live:
        yield f"it shows {[event.id for event in session.events]}, and live is {live}"
    own = {name: value for name, value in session.state.items() if not shared(name)}
    if canonical(own) != canonical(dict(model.now.state)):
        yield f"its state should be {dict(model.now.state)}, and is {own}"
    counted = sum("own" in deed.done for deed in deeds(log) if deed.event.live)
    if own.get("own", 0) != counted:
        yield f"{counted} live calls have counted to {own.get('own', 0)}"


def _summary(event: Event, now: Moment) -> Iterator[str]:
    """A summary covers a stretch of what was live, goes on from the one before, and parts no call."""
    said = event.compaction or {}
    start, end, tail = said["start"], said["end"], said["tail"]
    name = f"summary {event.id} at {event.seq}, {said},"
    if not 1 <= start <= end < event.seq or not start <= tail <= end + 1:
        yield f"{name} makes no sense"
    before = next((each.compaction for each in reversed(now.events) if each.compaction), None)
    if before is not None and (before["start"] != start or before["end"] > end or before["tail"] > tail):
        yield f"{name} does not go on from {before}"
    if before is None and now.events and now.events[0].seq != start:
        yield f"{name} does not begin with the first live event, {now.events[0].seq}"
    live = {each.seq for each in now.events}
    if end not in live:
        yield f"{name} ends in what is not live"
    places = {each.id: each.seq for each in now.events}
    for asked in now.events:
        for index in range(len(calls_of(asked))):
            answer = places.get(f"{asked.invocation_id}:t{asked.meta['step']}.{index}", asked.seq)
            if asked.seq <= end < answer or asked.seq < tail <= answer:
                yield f"{name} parts call {index} of {asked.id}, at {asked.seq}, from {answer}, its response"
