"""Arithmetic on ranges of seq."""

from __future__ import annotations

import random

import pytest

from storage.projection import Projection, clip, contains, cut, first, fresh, last, next_live, rewound


def live(ranges: Projection, head: int) -> list[int]:
    return [seq for seq in range(1, head + 1) if contains(ranges, seq)]


def test_a_fresh_session_is_all_live() -> None:
    assert live(fresh(), 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("ranges", "at", "left"),
    [
        ([[1, None]], 1, []),
        ([[1, None]], 5, [[1, 5]]),
        ([[1, 4], [7, None]], 7, [[1, 4]]),
        ([[1, 4], [7, None]], 5, [[1, 4]]),
        ([[1, 4], [7, None]], 9, [[1, 4], [7, 9]]),
        ([[3, 4], [7, None]], 2, []),
    ],
)
def test_cut(ranges: Projection, at: int, left: Projection) -> None:
    assert cut(ranges, at) == left


def test_a_rewind_leaves_what_was_before_and_the_marker() -> None:
    assert rewound([[1, None]], 3, 6) == [[1, 3], [6, None]]
    assert rewound([[1, None]], 1, 6) == [[6, None]]
    assert rewound([[1, 3], [6, None]], 2, 9) == [[1, 2], [9, None]]


def test_adjacent_ranges_become_one() -> None:
    assert rewound([[1, None]], 5, 5) == [[1, None]]
    assert rewound([[1, 3], [3, 5]], 5, 5) == [[1, None]]


def test_the_next_live_seq() -> None:
    assert [next_live([[2, 4], [7, None]], seq) for seq in (1, 2, 3, 4, 6, 7, 9)] == [2, 2, 3, 7, 7, 7, 9]
    assert next_live([[2, 4]], 4) is None


def test_arguments_are_not_changed() -> None:
    ranges: Projection = [[1, 3], [6, None]]
    rewound(ranges, 8, 12)
    cut(ranges, 2)
    assert ranges == [[1, 3], [6, None]]


def test_last_counts_seqs_not_spans() -> None:
    assert last([(1, 4), (7, 9)], 0) == []
    assert last([(1, 4), (7, 9)], 1) == [(8, 9)]
    assert last([(1, 4), (7, 9)], 3) == [(3, 4), (7, 9)]
    assert last([(1, 4), (7, 9)], 99) == [(1, 4), (7, 9)]


def test_first_counts_seqs_not_spans() -> None:
    assert first([(1, 4), (7, 9)], 0) == []
    assert first([(1, 4), (7, 9)], 1) == [(1, 2)]
    assert first([(1, 4), (7, 9)], 4) == [(1, 4), (7, 8)]
    assert first([(1, 4), (7, 9)], 99) == [(1, 4), (7, 9)]


def test_clip_and_last_agree_with_counting() -> None:
    chance = random.Random(5)
    for _ in range(300):
        ranges = fresh()
        head = 0
        for _ in range(chance.randrange(6)):
            head += chance.randrange(1, 6)
            targets = live(ranges, head)
            if targets:
                head += 1
                ranges = rewound(ranges, chance.choice(targets), head)
        head += chance.randrange(3)
        start, count = chance.randrange(1, head + 3), chance.randrange(head + 2)
        spans = clip(ranges, start, head + 1)
        seqs = [seq for a, b in spans for seq in range(a, b)]
        assert seqs == [seq for seq in live(ranges, head) if seq >= start]
        assert next_live(ranges, start) == next(s for s in range(start, head + 9) if contains(ranges, s))
        tail = [seq for a, b in last(spans, count) for seq in range(a, b)]
        assert tail == seqs[len(seqs) - min(count, len(seqs)) :]
