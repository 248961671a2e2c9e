"""Random sessions: every kind of call on a store, and after each one a comparison with the model.

A hypothesis state machine. It is synchronous and a store is not, so it drives a loop of its
own, which a test that is no coroutine may do. All machines of a run share one store: each
takes two apps that nobody has used yet.

A machine picks sessions, events and versions by numbers, modulo how many there are; so a
shrunk failure is a short program of small numbers, which hypothesis prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from perdure.errors import (
    ArtifactNotFound,
    EventConflict,
    InvalidContent,
    InvalidOption,
    InvocationNotFound,
    InvocationRewound,
    PerdureError,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    StaleEpoch,
    StateConflict,
    VersionMismatch,
)
from perdure.state import MISSING, is_temp
from perdure.types import Event, Json
from tests.conformance.checks import (
    ALSO,
    agree,
    agree_on_list,
    agree_on_past,
    agree_on_row_and_state,
    exported,
)
from tests.conformance.events import answer, event, summary, user
from tests.conformance.model import SessionModel
from tests.conformance.moves import Moves

__all__ = ["Machine"]

KEYS = ["k1", "k2", "k3", "given", "app:a", "app:b", "user:u", "temp:t", "temp_t"]
VALUES: list[Json] = [None, 0, 1, 1.0, True, "", "x", [], [1, {"a": None}], {"a": {"b": [1.5, "y"]}}]
NAMES = ["f1", "f2", "user:f"]
MOMENTS = [None, datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)]

who = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 4])
"""Which session: the first most often, so that it becomes long."""
places = st.integers(0, 40)
slots = st.integers(0, 11)
deltas = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=3)
described = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(VALUES), max_size=2)
saves = st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=2)), max_size=2)


class Machine(Moves):
    """Makes moves in a store and in the model. A subclass has both its store and its loop."""

    steps = 0
    """Moves that were followed by a comparison; of all machines of a class."""

    @invariant()
    def everything_agrees(self) -> None:
        """The session that was touched each time; the others and the app's list in turn."""
        if not self.world.sessions and not self.moves:
            return
        kind = type(self)
        kind.steps += 1
        self.run(agree(self.store, self.world, self.touched, also=ALSO[kind.steps % len(ALSO)]))
        others = list(self.world.sessions)
        if kind.steps % 2 and others:
            self.run(agree_on_row_and_state(self.store, self.world, others[kind.steps % len(others)]))
        elif not kind.steps % 4:
            self.run(agree_on_list(self.store, self.world, self.touched.app))

    def teardown(self) -> None:
        for key in self.slots:
            for also in ALSO:
                self.run(agree(self.store, self.world, key, also=also))

    # Beginnings and ends

    @initialize(state=deltas, metadata=described)
    def first(self, state: dict[str, Json], metadata: dict[str, Json]) -> None:
        self.create(0, state, metadata)

    @rule(slot=slots, state=deltas, metadata=described)
    def create(self, slot: int, state: dict[str, Json], metadata: dict[str, Json]) -> None:
        key = self.touched = self.slot(slot)
        self.moves += 1
        with self.refused(SessionExists if key in self.world.sessions else None):
            self.created(key, state, metadata)

    @rule(number=who)
    def end(self, number: int) -> None:
        session = self.pick(number)
        done = self.run(self.store.end(session.key))
        if not session.ended:
            session.ended, session.version, session.epoch = True, session.version + 1, session.epoch + 1
        assert (done.version, done.state) == (session.version, self.world.state(session.key))

    @rule(slot=slots)
    def delete(self, slot: int) -> None:
        key = self.touched = self.slot(slot)
        self.moves += 1
        if len(self.world.sessions) > 3 or key not in self.world.sessions:
            self.run(self.store.delete(key))
            if key in self.world.sessions:
                self.world.delete(key)
            with self.refused(SessionNotFound):
                self.run(self.store.append(key, event(f"i{self.moves}:x")))

    # Turns and events

    @rule(number=who, delta=deltas, reopen=st.booleans())
    def turn(self, number: int, delta: dict[str, Json], reopen: bool) -> None:
        session, name = self.pick(number), f"i{self.moves}"
        with self.refused(SessionEnded if session.ended and not reopen else None):
            epoch = self.begin(session, name, reopen)
            self.appended(session, event(f"{name}:t", state_delta=delta), epoch=epoch)
            self.appended(session, answer(name), epoch=epoch)

    @rule(number=who, place=places)
    def turn_again(self, number: int, place: int) -> None:
        """A message that is sent again gets what became of it, or is told that it was rewound."""
        session = self.pick(number)
        messages = [each for each in session.log if each.id.endswith(":user")]
        if not messages:
            return
        first = messages[place % len(messages)]
        mine = [e for e in session.whole_log() if e.invocation_id == first.invocation_id and not e.compaction]
        ends = [each for each in mine if each.id.endswith((":m1", ":end"))]
        ended = ends[-1] if ends else None
        live = all(each.live for each in (mine[-1], *ends[-1:])) and first.id in {
            each.id for each in session.now.events
        }
        with self.refused(None if live else InvocationRewound):
            message = user(first.invocation_id)
            found = self.run(self.store.begin_turn(session.key, message, epoch=None, reopen=True))
            if ended is None and not session.ended and self.overtaken(session, first):
                self.ended_by(session, first.invocation_id, "overtaken")
                session.version += 1
                ended = session.log[-1]
            assert (found.epoch, found.seq, found.done) == (session.epoch, first.seq, ended)

    def overtaken(self, session: SessionModel, first: Event) -> bool:
        """Whether another turn has begun since a message."""
        begun = [each for each in session.now.events if each.id == f"{each.invocation_id}:user"]
        return any(each.seq > first.seq and each.invocation_id != first.invocation_id for each in begun)

    @rule(
        number=who,
        delta=deltas,
        files=saves,
        moment=st.sampled_from(MOMENTS),
        fence=st.sampled_from([None, 0, 1]),
        goes_on=st.booleans(),
    )
    def append(
        self,
        number: int,
        delta: dict[str, Json],
        files: Sequence[tuple[str, bytes]],
        moment: datetime | None,
        fence: int | None,
        goes_on: bool,
    ) -> None:
        """``fence`` is how far behind the epoch is that the appender carries."""
        session = self.pick(number)
        said = [each for each in session.now.events if not each.rewind]
        invocation = said[-1].invocation_id if goes_on and said else f"i{self.moves}"
        name = f"{invocation}:x{self.moves}"
        saved = self.staged(session, name, files)
        made = event(name, state_delta=delta, artifact_delta=saved, created_at=moment, meta={"n": self.moves})
        error = SessionEnded if session.ended else StaleEpoch if fence else None
        with self.refused(error):
            self.appended(session, made, epoch=None if fence is None else session.epoch - fence)

    @rule(number=who, place=places, files=saves, lost=st.booleans())
    def crash(self, number: int, place: int, files: Sequence[tuple[str, bytes]], lost: bool) -> None:
        """A call dies after its saves; it is run again, if it is, and may save something else."""
        session = self.pick(number)
        waiting = [name for name, mine in session.staged.items() if mine and session.in_log(name) is None]
        name = waiting[place % len(waiting)] if waiting and place % 2 else f"i{self.moves}:x"
        saved = self.staged(session, name, files)
        if not lost and not session.ended:
            with self.refused(ArtifactNotFound):
                self.run(self.store.append(session.key, event(name, artifact_delta={"f1": 1_000})))
            self.appended(session, event(name, artifact_delta=saved))

    @rule(number=who, place=places, how=st.sampled_from(["same", "other", "first wins", "partial"]))
    def append_again(self, number: int, place: int, how: str) -> None:
        session = self.pick(number)
        given = [each for each in session.log if not each.rewind]
        if not given:
            return
        first = given[place % len(given)]
        again = replace(first, seq=0, created_at=None, state_undo={}, partial=how == "partial")
        if how in ("other", "first wins", "partial"):
            again = replace(again, meta={"other": self.moves})
        with self.refused(EventConflict if how == "other" else None):
            call = self.store.append(session.key, again, first_wins=how == "first wins")
            assert self.run(call) == (again if how == "partial" else session.in_log(first.id))

    @rule(number=who, delta=deltas, wrong=st.booleans())
    def append_if_unchanged(self, number: int, delta: dict[str, Json], wrong: bool) -> None:
        session = self.pick(number)
        now = self.world.state(session.key)
        expect: dict[str, Any] = {name: now.get(name, MISSING) for name in delta if not is_temp(name)}
        wrong = wrong and bool(expect)
        if wrong:
            expect[max(expect)] = {"nobody": "wrote this"}
        with self.refused(SessionEnded if session.ended else StateConflict if wrong else None):
            self.appended(session, event(f"i{self.moves}:x", state_delta=delta), expect=expect)

    # Rewinds

    @rule(number=who, place=places, running=st.booleans())
    def rewind(self, number: int, place: int, running: bool) -> None:
        """Also while a turn runs, which is then ended first."""
        session = self.pick(number)
        running = running and not session.ended
        if running:
            self.begin(session, f"i{self.moves}")
        live = list(dict.fromkeys(each.invocation_id for each in session.now.events))
        if live:
            self.rewound(session, live[place % len(live)], f"i{self.moves}" if running else None)

    @rule(number=who, place=places)
    def redo(self, number: int, place: int) -> None:
        session = self.pick(number)
        markers = [each.invocation_id for each in session.now.events if each.rewind]
        if markers:
            self.rewound(session, markers[place % len(markers)])

    @rule(number=who, place=places)
    def rewind_wrongly(self, number: int, place: int) -> None:
        session = self.pick(number)
        dead = session.dead()
        before = dead[place % len(dead)] if dead and place else "nobody"
        error = InvocationRewound if before in dead else InvocationNotFound
        with self.refused(SessionEnded if session.ended else error):
            call = self.store.rewind(session.key, before=before, request_id=f"r{self.moves}", interrupt="i0")
            self.run(call)

    @rule(number=who, place=places, other=st.booleans())
    def rewind_again(self, number: int, place: int, other: bool) -> None:
        session = self.pick(number)
        markers = [each for each in session.whole_log() if each.rewind]
        if not markers:
            return
        marker = markers[place % len(markers)]
        assert marker.rewind is not None
        before = "another" if other else marker.rewind["before"]
        with self.refused(EventConflict if other else None):
            call = self.store.rewind(session.key, before=before, request_id=marker.invocation_id)
            done = self.run(call)
            assert (done.event, done.epoch, done.repeated) == (marker, session.epoch, True)

    @rule(number=who)
    def cancel(self, number: int) -> None:
        session, name = self.pick(number), f"i{self.moves}"
        if session.ended:
            return
        self.begin(session, name)
        epoch = self.run(self.store.interrupt(session.key, name, epoch=session.epoch, reason="cancel"))
        self.ended_by(session, name, "cancel")
        session.version += 1
        session.epoch += 1
        assert epoch == session.epoch
        with self.refused(StaleEpoch):
            self.run(self.store.append(session.key, answer(name), epoch=epoch - 1))

    # Compaction

    @rule(number=who, start=places, end=places, tail=places)
    def compact(self, number: int, start: int, end: int, tail: int) -> None:
        """One that is valid, of what was rewound or summed up meanwhile, or of what is yet to come."""
        session = self.pick(number)
        last = 1 + end % (session.head + 1)
        made = summary(f"c{self.moves}", 1 + start % last, last, tail=1 + tail % (last + 1))
        live = {each.seq for each in session.now.events}
        newest = session.newest_summary()
        error: type[PerdureError] | None = None
        if last > session.head:
            error = InvalidContent
        elif last not in live or (newest and newest.compaction and newest.compaction["end"] >= last):
            error = StaleEpoch
        with self.refused(SessionEnded if session.ended else error):
            self.appended(session, made)

    # Changes from outside

    @rule(number=who, delta=deltas, metadata=described, off=st.sampled_from([None, 0, 0, 1]))
    def update(self, number: int, delta: dict[str, Json], metadata: dict[str, Json], off: int | None) -> None:
        """``off`` is how far the expected version is from the actual one."""
        session = self.pick(number)
        change = self.change(session, delta, metadata, off)
        given: dict[str, Any] = {"request_id": change.request_id, "state": delta, "metadata": metadata}
        call = self.store.update(session.key, expected_version=change.expected_version, **given)
        error = self.why_not(session, change)
        if error is VersionMismatch:
            with pytest.raises(VersionMismatch) as raised:
                self.run(call)
            assert raised.value.actual == session.version
            return
        with self.refused(error):
            done = self.run(call)
            self.updated(session, change)
            assert (done.version, done.metadata) == (session.version, session.metadata)
            if session.in_log(f"{change.request_id}:update"):
                assert self.run(self.store.update(session.key, **given)).version == session.version

    @rule(delta=deltas, metadata=described, off=st.sampled_from([None, 0, 0, 1]), atomic=st.booleans())
    def update_many(
        self, delta: dict[str, Json], metadata: dict[str, Json], off: int | None, atomic: bool
    ) -> None:
        """The first session and the last; only the last one's version may be wrong."""
        first, last = self.pick(0), list(self.world.sessions.values())[-1]
        if first is last:
            return
        changes = [self.change(first, {**delta, "k3": 1}, metadata, None), self.change(last, delta, {}, off)]
        both = list(zip((first, last), changes, strict=True))
        reasons = [self.why_not(session, change) for session, change in both]
        call = self.store.batch_update(changes, atomic=atomic)
        if atomic and any(reasons):
            with self.refused(reasons[0] or reasons[1]):
                self.run(call)
            return
        for (session, change), reason, outcome in zip(both, reasons, self.run(call), strict=True):
            assert type(outcome.error) is (reason or type(None))
            if reason is None:
                self.updated(session, change)

    # Copies

    @rule(number=who, slot=slots, place=places, whole=st.booleans())
    def fork(self, number: int, slot: int, place: int, whole: bool) -> None:
        session, key = self.pick(number), self.slot(slot)
        choices = [*dict.fromkeys(each.invocation_id for each in session.log), "nobody"]
        before = None if whole else choices[place % len(choices)]
        error: type[PerdureError] | None = None
        if key.app != session.key.app:
            error = InvalidOption
        elif before == "nobody":
            error = InvocationNotFound
        elif before is not None and not session.now.has(before):
            error = InvocationRewound
        elif key in self.world.sessions:
            error = SessionExists
        with self.refused(error):
            made = self.run(self.store.fork(session.key, key, before=before))
            self.world.fork(session, key, before, made.epoch, made.created_at)
            self.touched = key

    @rule(number=who, slot=slots)
    def move(self, number: int, slot: int) -> None:
        """Export, and import under another key."""
        session, key = self.pick(number), self.slot(slot)
        lines = self.run(exported(self.store, session.key))
        with self.refused(SessionExists if key in self.world.sessions else None):
            made = self.run(self.store.import_session(lines, key=key))
            assert made.epoch >= session.epoch
            self.world.move(session, key, made.epoch)
            self.touched = key

    # Reads

    @rule(number=who, place=places, limit=st.sampled_from([None, 0, 1, 3, 100]), after=st.integers(0, 20))
    def look_back(self, number: int, place: int, limit: int | None, after: int) -> None:
        session = self.pick(number)
        choices = [None, *dict.fromkeys(each.invocation_id for each in session.log), "nobody"]
        before = choices[place % len(choices)]
        error = None if before is None or session.now.has(before) else InvocationRewound
        with self.refused(InvocationNotFound if before == "nobody" else error):
            self.run(agree_on_past(self.store, self.world, session, before, limit, after))
        with self.refused(InvalidOption):
            self.run(self.store.get(session.key, max_events=-1 - place))
