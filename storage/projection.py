"""Which part of a log is live: arithmetic on short lists of half-open ranges of seq.

``[[1, 10], [15, None]]`` says that events 1 to 9 and everything from 15 on are live. Only
the last range of a session's projection is open. Since seqs are dense, the seqs of "the
last 50 live events" follow from the projection and the head alone, without a query.

All functions are pure and return new lists.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "Projection",
    "Span",
    "before",
    "clip",
    "contains",
    "cut",
    "first",
    "fresh",
    "last",
    "next_live",
    "parting",
    "rewound",
]

Projection = list[list[int | None]]
Ranges = Sequence[Sequence[int | None]]
Span = tuple[int, int]
"""A closed-ended range: from the first seq up to, but without, the second."""


def fresh() -> Projection:
    """The projection of a session that was never rewound."""
    return [[1, None]]


def cut(ranges: Ranges, at: int) -> Projection:
    """The part before ``at``: what was live just before that seq was appended."""
    return [[start, stop] for start, stop in clip(ranges, 1, at)]


def before(ranges: Ranges, at: int) -> Projection:
    """The projection just before ``at`` was appended: the part before it, open again at its end."""
    spans = cut(ranges, at)
    return [*spans[:-1], [spans[-1][0], None]] if spans else [[at, None]]


def rewound(ranges: Ranges, target: int, marker: int) -> Projection:
    """The projection after a rewind to just before ``target`` by the marker event ``marker``.

    Args:
        ranges: the current projection or, where the target is itself a marker, the one it replaced.
        target: the seq from which on nothing of ``ranges`` stays.
        marker: the seq of the new marker; everything from it on is live.
    """
    return _coalesced([*cut(ranges, target), [marker, None]])


def contains(ranges: Ranges, seq: int) -> bool:
    """Whether the event ``seq`` is live."""
    return any(_first(r) <= seq and (r[1] is None or seq < r[1]) for r in ranges)


def next_live(ranges: Ranges, seq: int) -> int | None:
    """The first live seq from ``seq`` on, which may be one that the log has not reached yet."""
    return next((max(_first(r), seq) for r in ranges if r[1] is None or seq < r[1]), None)


def parting(one: Ranges, other: Ranges) -> int | None:
    """The first seq that is live in one and not in the other; None if there is none."""
    places = sorted({seq for bounds in (*one, *other) for seq in bounds if seq is not None})
    return next((seq for seq in places if contains(one, seq) != contains(other, seq)), None)


def clip(ranges: Ranges, start: int, stop: int) -> list[Span]:
    """The live spans within ``[start, stop)``, in order, none empty."""
    spans = ((max(_first(r), start), stop if r[1] is None else min(r[1], stop)) for r in ranges)
    return [(a, b) for a, b in spans if a < b]


def first(spans: Sequence[Span], count: int) -> list[Span]:
    """The spans of the first ``count`` seqs, in order."""
    found: list[Span] = []
    for start, stop in spans:
        if count <= 0:
            break
        stop = min(stop, start + count)
        found.append((start, stop))
        count -= stop - start
    return found


def last(spans: Sequence[Span], count: int) -> list[Span]:
    """The spans of the last ``count`` seqs, in order."""
    found: list[Span] = []
    for start, stop in reversed(spans):
        if count <= 0:
            break
        start = max(start, stop - count)
        found.append((start, stop))
        count -= stop - start
    return found[::-1]


def _coalesced(ranges: Ranges) -> Projection:
    merged: Projection = []
    for start, stop in ranges:
        if merged and merged[-1][1] == start:
            merged[-1][1] = stop
        else:
            merged.append([start, stop])
    return merged


def _first(bounds: Sequence[int | None]) -> int:
    start = bounds[0]
    if start is None:
        raise ValueError(f"range {list(bounds)} has no start")
    return start
