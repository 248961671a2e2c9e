"""A store so naive that it is plainly right: it keeps a whole copy for every event.

What a session was just before an event was appended is looked up, never computed. No
seqs, ranges, undos or markers are involved in what a rewind or a fork brings back.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace

from perdure.state import is_temp
from perdure.types import Event, Json

__all__ = ["Model", "Moment"]


@dataclass
class Moment:
    """All that a rewind brings back."""

    events: list[Event] = field(default_factory=list)
    state: dict[str, Json] = field(default_factory=dict)
    files: dict[str, tuple[int, bytes]] = field(default_factory=dict)


class Model:
    """One session. ``shared`` is what no rewind touches."""

    def __init__(self, state: dict[str, Json]) -> None:
        self.now = Moment(state=dict(state))
        self.shared: dict[str, Json] = {}
        self.shared_files: dict[str, tuple[int, bytes]] = {}
        self.log: list[Event] = []
        self._before: dict[str, Moment] = {}

    def append(self, event: Event, files: dict[str, tuple[int, bytes]]) -> None:
        """Append an event and apply what it changes."""
        self._before[event.id] = deepcopy(self.now)
        self.log.append(event)
        self.now.events.append(event)
        for name, value in event.state_delta.items():
            scope = self.shared if name.startswith(("app:", "user:")) else self.now.state
            if is_temp(name):
                continue
            if value is None:
                scope.pop(name, None)
            else:
                scope[name] = value
        for name, saved in files.items():
            (self.shared_files if name.startswith("user:") else self.now.files)[name] = saved

    def before(self, invocation_id: str) -> Moment:
        """What was just before the first live event of an invocation."""
        target = next(event for event in self.now.events if event.invocation_id == invocation_id)
        return self._before[target.id]

    def rewind(self, before: str, marker: Event) -> None:
        """Bring back what was just before the first live event of an invocation."""
        moment = self.now
        self.now = deepcopy(self.before(before))
        self._before[marker.id] = moment
        self.log.append(marker)
        self.now.events.append(marker)

    def fork(self, before: str | None = None) -> Model:
        """What was just before the first live event of an invocation, or is now, without any marker."""
        moment = self.now if before is None else self.before(before)
        fork = Model({})
        fork.shared, fork.shared_files = self.shared, self.shared_files
        fork.now = self._without_markers(moment, moment)
        for event in fork.now.events:
            fork._before[event.id] = self._without_markers(self._before[event.id], moment)
        fork.log = list(fork.now.events)
        return fork

    def _without_markers(self, moment: Moment, whole: Moment) -> Moment:
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

        events = [moved(event) for event in moment.events if not event.rewind]
        return Moment(events=events, state=dict(moment.state), files=dict(moment.files))

    def is_live(self, invocation_id: str) -> bool:
        """Whether an invocation has a live event."""
        return any(event.invocation_id == invocation_id for event in self.now.events)

    @property
    def invocations(self) -> list[str]:
        """Every invocation there ever was."""
        return list(dict.fromkeys(event.invocation_id for event in self.log))

    def context(self) -> tuple[str | None, list[str]]:
        """The id of the newest live summary, and the ids of the raw events of its tail."""
        summaries = [event for event in self.now.events if event.compaction]
        newest = summaries[-1] if summaries else None
        tail = newest.compaction["tail"] if newest and newest.compaction else 1
        raw = [event.id for event in self.now.events if not event.compaction and event.seq >= tail]
        return newest.id if newest else None, raw
