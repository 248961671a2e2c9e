"""Reads: windows of a session, the log, the context, pages of sessions, the view for people."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from perdure.errors import InvalidContent, InvalidOption
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import change, content, event, say, summary, user
from tests.conformance.watch import query, statements


async def test_s46_windows(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": 1})
    for number in range(1, 8):
        await store.append(key, event(f"i{number}:x"))
    await store.rewind(key, before="i4", request_id="r1")
    await store.append(key, event("i9:x"))

    async def seqs(max_events: int | None = None, after: int | None = None) -> list[int]:
        session = await store.get(key, max_events=max_events, after=after)
        assert session.state == {"n": 1}
        assert session.head == 9
        return [item.seq for item in session.events]

    assert await seqs() == [1, 2, 3, 8, 9]
    assert await seqs(max_events=0) == []
    assert await seqs(max_events=1) == [9]
    assert await seqs(max_events=3) == [3, 8, 9]
    assert await seqs(max_events=50) == [1, 2, 3, 8, 9]
    assert await seqs(after=0) == [1, 2, 3, 8, 9]
    assert await seqs(after=2) == [3, 8, 9]
    assert await seqs(after=5) == [8, 9]
    assert await seqs(after=9) == []
    assert await seqs(after=1, max_events=3) == [3, 8, 9]
    assert await seqs(after=8, max_events=3) == [9]


async def test_s46_negative_numbers_are_refused(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for call in (
        store.get(key, max_events=-1),
        store.get(key, after=-1),
        store.log(key, after=-1),
        store.log(key, limit=-1),
    ):
        with pytest.raises(InvalidOption, match="-1"):
            await call


async def test_the_log_shows_what_was_rewound(store: SessionStore, key: SessionKey) -> None:
    for number in range(1, 4):
        await say(store, key, f"i{number}")
    await store.rewind(key, before="i2", request_id="r1")
    whole = await store.log(key)
    assert [item.seq for item in whole] == [1, 2, 3, 4, 5, 6, 7]
    assert [item.live for item in whole] == [True, True, False, False, False, False, True]
    assert await store.log(key, after=2, limit=2) == whole[2:4]
    assert await store.log(key, limit=0) == []
    assert await store.log(key, after=99) == []
    assert await store.event(key, "i2:user") == whole[2]


async def test_a_session_of_many_ranges(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await store.append(key, event("first:x", state_delta={"n": 0}))
    for number in range(120):
        await store.append(key, event(f"i{number}:x", state_delta={"n": number}))
        await store.append(key, event(f"dead{number}:x", state_delta={"n": -1}))
        await store.rewind(key, before=f"dead{number}", request_id=f"r{number}")
    session = await store.get(key)
    assert len(session.projection) == 121
    kept = [f"{kind}{number}" for number in range(120) for kind in ("i", "r")]
    assert [item.invocation_id for item in session.events] == ["first", *kept]
    assert session.state == {"n": 119}
    assert [item.seq for item in (await store.get(key, max_events=100)).events] == [
        item.seq for item in session.events[-100:]
    ]
    assert len((await store.context(key)).events) == 241
    await store.rewind(key, before="i0", request_id="back")
    assert [item.id for item in (await store.get(key)).events] == ["first:x", "back:rewind"]
    await store.rewind(key, before="back", request_id="forth")
    assert len((await store.get(key)).events) == 242


async def test_a_snapshot_is_state_and_the_events_asked_for(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1", delta={"n": 1})
    session, found = await store.snapshot(key, ["i1:m1", "i1:user", "i9:user"])
    assert (session.state, session.events) == ({"n": 1}, [])
    assert {name: item.seq for name, item in found.items()} == {"i1:user": 1, "i1:m1": 3}
    assert await store.snapshot(key, []) == (session, {})


async def test_s39_the_context_is_one_summary_and_the_tail(store: SessionStore, key: SessionKey) -> None:
    for number in range(1, 4):
        await say(store, key, f"i{number}", delta={"n": number})
    first = await store.append(key, summary("i3", 1, 9, tail=7))
    await say(store, key, "i4")
    context = await store.context(key)
    assert context.summary == first
    assert [item.seq for item in context.events] == [7, 8, 9, 11, 12]
    assert context.session.state == {"n": 3}
    assert context.session.events == []
    second = await store.append(key, summary("i4", 1, 12, tail=11))
    context = await store.context(key)
    assert context.summary == second
    assert [item.seq for item in context.events] == [11, 12]


async def test_s45_the_context_reads_as_much_however_long_the_session(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    counts = []
    for number in range(1, 31):
        await say(store, key, f"i{number}")
        head = (await store.get(key, max_events=0)).head
        await store.append(key, summary(f"i{number}", 1, head, tail=head - 1))
        seen: list[str] = []
        with statements(store, seen):
            context = await store.context(key)
        counts.append((len(seen), len(context.events)))
    assert set(counts) == {(4, 2)}


async def test_rewound_summaries_are_passed_over(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "first")
    kept = await store.append(key, summary("first", 1, 2))
    await say(store, key, "i0")
    for number in range(1, 25):
        dead = await store.append(key, summary(f"s{number}", 1, 5))
        await store.append(key, summary(f"t{number}", 1, dead.seq))
        await store.rewind(key, before=f"s{number}", request_id=f"r{number}")
    seen: list[str] = []
    with statements(store, seen):
        context = await store.context(key)
    assert context.summary is not None
    assert context.summary.id == kept.id
    assert len([each for each in seen if "compaction IS NOT NULL" in each]) == 25, "one a dead stretch"


async def test_s47_pages_of_sessions(store: SessionStore, key: SessionKey) -> None:
    keys = [replace(key, session_id=f"s{number:02}", user_id=f"u{number % 3}") for number in range(10)]
    for each in keys:
        await store.create(each, state={"n": 1}, metadata={"id": each.session_id})
    await store.create(replace(key, app="other"))
    await store.append(keys[4], event("i1:x"))
    newest_first = [keys[4], *reversed(keys[5:]), *reversed(keys[:4])]

    async def pages(user_id: str | None, limit: int) -> list[SessionKey]:
        found: list[SessionKey] = []
        cursor = None
        while True:
            page = await store.list_sessions("counter", user_id, limit=limit, cursor=cursor)
            assert all((item.state, item.events) == ({}, []) for item in page.sessions)
            assert all(item.metadata == {"id": item.key.session_id} for item in page.sessions)
            found += [item.key for item in page.sessions]
            cursor = page.next_cursor
            if cursor is None:
                return found
            assert len(page.sessions) == limit

    for limit in (1, 3, 10, 50):
        assert await pages(None, limit) == newest_first
    for user_id in ("u0", "u1", "u2"):
        assert await pages(user_id, 2) == [each for each in newest_first if each.user_id == user_id]
    assert (await store.list_sessions("nobody")).sessions == []


@pytest.mark.parametrize(
    "cursor", ["x", "", "e30", "bnVsbA", "WzEsMiwzXQ", "é", "WyIyMDI2LTExLTIyIiwiYSIsImIiXQ"]
)
async def test_s47_a_cursor_that_is_none_is_refused(store: SessionStore, cursor: str) -> None:
    with pytest.raises(InvalidOption, match="cursor"):
        await store.list_sessions("counter", cursor=cursor)


@pytest.mark.parametrize(
    "told",
    [
        '["0001-01-01T00:00:00+05:00", "a", "b"]',
        '["2026-11-22T00:00:00+00:00", "a", "\\ud800"]',
        '["2026-11-22T00:00:00+00:00", "\\u0000", "b"]',
        "[" * 100_000,
    ],
    ids=["out of the calendar", "a lone surrogate", "U+0000", "deep"],
)
async def test_s47_a_cursor_that_somebody_made_up_is_refused(store: SessionStore, told: str) -> None:
    cursor = base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")
    with pytest.raises(InvalidOption, match="cursor"):
        await store.list_sessions("counter", cursor=cursor)
    with pytest.raises(InvalidOption, match="cursor"):
        await store.expired(None, datetime(2026, 11, 22, tzinfo=UTC), cursor=cursor)


@pytest.mark.parametrize("bad", ["\0", "\ud800"])
async def test_s7_an_id_that_none_can_have_is_refused_by_reads(
    store: SessionStore, key: SessionKey, bad: str
) -> None:
    await store.create(key)
    with pytest.raises(InvalidContent, match="event's id"):
        await store.event(key, bad)
    with pytest.raises(InvalidContent, match="event's id"):
        await store.snapshot(key, [bad])
    with pytest.raises(InvalidContent, match="session_id"):
        await store.children(replace(key, session_id=bad))


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_s47_a_limit_that_makes_no_sense_is_refused(store: SessionStore, limit: int) -> None:
    with pytest.raises(InvalidOption, match="limit"):
        await store.list_sessions("counter", limit=limit)


async def test_a_person_reads_the_conversation_in_the_view(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1", delta={"n": 1})
    await say(store, key, "i2")
    await store.rewind(key, before="i2", request_id="r1")
    thought = {"text": "hm", "thought": True}
    parts = [thought, {"text": "it is "}, {"functionCall": {"name": "f"}}, {"text": "3"}]
    await store.begin_turn(key, replace(user("i3", "how much?"), branch="b"), epoch=None)
    await store.append(key, event("i3:m1", content={"role": "model", "parts": parts}))
    await store.append(key, event("i3:odd", content={"parts": "no list"}))
    rows = await query(store._db, "SELECT * FROM live_events ORDER BY seq")
    events = (await store.get(key)).events
    assert [row["seq"] for row in rows] == [item.seq for item in events] == [1, 2, 3, 6, 7, 8, 9]
    assert [row["event_id"] for row in rows] == [item.id for item in events]
    said = [(row["author"], row["text"]) for row in rows if row["text"]]
    assert said == [("user", "hello"), ("agent", "done"), ("user", "how much?"), ("agent", "it is 3")]


async def test_the_view_agrees_with_the_projection_for_every_session(
    store: SessionStore, key: SessionKey
) -> None:
    other = replace(key, user_id="bob")
    for each in (key, other):
        for number in range(1, 4):
            await say(store, each, f"i{number}", delta={"n": number})
        await store.rewind(each, before="i2", request_id="r1")
    await store.rewind(other, before="r1", request_id="r2")
    rows = await query(store._db, "SELECT user_id, seq FROM live_events ORDER BY user_id, seq")
    assert [tuple(row.values()) for row in rows] == [
        (each.user_id, item.seq) for each in (key, other) for item in (await store.get(each)).events
    ]


async def test_a_content_may_be_anything_that_json_can_hold(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await change(store, key, "i1", delta={"n": [content("x")]})
    assert (await store.get(key)).state == {"n": [content("x")]}
