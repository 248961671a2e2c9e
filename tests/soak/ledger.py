"""What clients have asked for, and what they were told: all that the checker believes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.runner import Answer
from perdure.types import SessionKey

__all__ = ["Ledger", "Sent", "Steered", "Tally"]


@dataclass(kw_only=True)
class Sent:
    """A message, whether anybody was told of its end or not."""

    id: str
    text: str
    tool: str | None = None
    orders: Sequence[str] = ()
    """What its calls have to be, in order."""
    group: int
    """What belongs to a later group was sent when all of the earlier ones had been acknowledged."""
    answers: list[Answer] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    """The names of typed errors."""
    alone: bool = True
    """Nothing else was asked of the session meanwhile: no cancel, no rewind."""
    rewound: bool = False
    """It was rewound while it may have been running: askers are told that it was cancelled, though a redo
    may bring back the end that it had in time."""


@dataclass(kw_only=True)
class Steered:
    """A rewind or a compaction."""

    kind: str
    id: str
    group: int
    before: str | None = None
    seq: int | None = None
    """Of its event; None where there is none."""
    refused: str | None = None
    acknowledged: bool = False


@dataclass(kw_only=True)
class Ledger:
    """One session, as its client knows it."""

    key: SessionKey
    source: SessionKey | None = None
    """What it was forked from."""
    before: str | None = None
    sent: dict[str, Sent] = field(default_factory=dict)
    steered: dict[str, Steered] = field(default_factory=dict)
    ended: bool = False
    odd: list[str] = field(default_factory=list)
    """What should not have been answered."""
    _numbers: Any = field(default_factory=lambda: itertools.count(1), repr=False)
    _group: int = 0

    @property
    def begun(self) -> bool:
        """Whether there has to be a session: a turn of it was acknowledged, or it was made as a fork."""
        return self.source is not None or any(
            answer.seq for sent in self.sent.values() for answer in sent.answers
        )

    def new_id(self, letter: str) -> str:
        """An id that says whose it is."""
        return f"{self.key.session_id}-{letter}{next(self._numbers)}"

    def owns(self, invocation_id: str) -> bool:
        """Whether an invocation was asked for here, not in what this is a fork of."""
        return invocation_id.rpartition("-")[0] == self.key.session_id

    def next_group(self) -> int:
        """What is asked from now on comes after all that was asked before."""
        self._group += 1
        return self._group

    def to_json(self) -> dict[str, Any]:
        """For a person who looks into a discrepancy."""
        return {
            "key": str(self.key),
            "source": str(self.source) if self.source else None,
            "before": self.before,
            "ended": self.ended,
            "sent": [
                asdict(sent) | {"answers": [_plain(a) for a in sent.answers]} for sent in self.sent.values()
            ],
            "steered": [asdict(each) for each in self.steered.values()],
            "odd": self.odd,
        }


@dataclass(kw_only=True)
class Tally:
    """What has happened so far, by name."""

    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """What clients met, and tried again after."""

    def line(self) -> str:
        """In one line."""
        return (
            f"{_counts(self.done)} | {self.faults.total()} faults | "
            f"{self.errors.total()} calls failed and were made again"
        )

    def report(self) -> list[str]:
        """In a few."""
        return [
            f"done: {_counts(self.done)}",
            f"faults: {_counts(self.faults)}",
            f"errors that clients met, and tried again after: {_counts(self.errors) or 'none'}",
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))


def _plain(answer: Answer) -> dict[str, Any]:
    fields = {name: getattr(answer, name) for name in ("invocation_id", "status", "seq", "text")}
    return fields | {"failure": answer.failure.model_dump() if answer.failure else None}
