"""Order, identity, fidelity and atomicity of appends."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from perdure.errors import EventConflict, InvalidContent, SessionEnded, SessionNotFound, StaleEpoch
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import answer, content, event, sequence, user

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


async def test_s1_equal_timestamps_reload_in_append_order(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    ids = [f"i{n}:x" for n in (5, 3, 8, 1, 7, 2, 6, 4)]
    for event_id in ids:
        await store.append(key, event(event_id, created_at=NOON))
    assert await sequence(store, key) == ids
    assert [item.seq for item in (await store.get(key)).events] == list(range(1, 9))


async def test_s2_an_earlier_timestamp_never_moves_an_event(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for hours in (0, -5, 3, -8):
        await store.append(key, event(f"i{hours}:x", created_at=NOON + timedelta(hours=hours)))
    assert await sequence(store, key) == ["i0:x", "i-5:x", "i3:x", "i-8:x"]


async def test_s3_an_event_reloads_exactly_as_it_was_appended(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    full = Event(
        id="i1:m1",
        invocation_id="i1",
        author="agent",
        branch="root.child",
        content={
            "role": "model",
            "parts": [
                {
                    "text": "thinking",
                    "thought": True,
                    "thoughtSignature": base64.b64encode(b"\0\xff").decode(),
                },
                {"text": "grüße 🐍 \u2028 \\u0000 '\" $1 %s"},
                {"functionCall": {"id": "c1", "name": "f", "args": {"z": 1, "a": [1.0, -0.5, None, True]}}},
                {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(bytes(256)).decode()}},
            ],
        },
        state_delta={"n": {"deep": [{"er": 1e-300}]}, "big": 2**80, "one": 1.0, "yes": True, "text": "null"},
        usage={"totalTokenCount": 12},
        error={"type": "X", "message": "y"},
        meta={"turn_complete": True, "long_running_tool_ids": ["a", "b"], "finish_reason": "STOP"},
        created_at=NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
    )
    stored = await store.append(key, full)
    [loaded] = (await store.get(key)).events
    expected = replace(full, seq=1, state_undo=dict.fromkeys(full.state_delta))
    assert loaded == stored == expected
    assert loaded.created_at is not None
    assert loaded.created_at.utcoffset() == timedelta(0)
    # Not merely equal: 1, 1.0 and True are equal, too.
    assert repr(loaded.content) == repr(full.content)
    assert repr(dict(loaded.state_delta)) == repr(full.state_delta)
    assert await store.event(key, "i1:m1") == loaded
    state = (await store.get(key)).state
    assert {name: repr(value) for name, value in state.items()} == {
        name: repr(value) for name, value in full.state_delta.items()
    }


async def test_s3_an_event_without_a_time_gets_the_stores(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    before = datetime.now(UTC)
    stored = await store.append(key, event("i1:x"))
    assert stored.created_at is not None
    assert before <= stored.created_at <= datetime.now(UTC)
    assert await store.event(key, "i1:x") == stored


async def test_s4_the_same_event_again_is_the_stored_one(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    once = event("i1:x", content=content("a"), state_delta={"n": 1, "temp:t": 5})
    stored = await store.append(key, once)
    version = (await store.get(key)).version
    assert await store.append(key, once) == stored
    assert await store.append(key, replace(once, created_at=NOON)) == stored
    session = await store.get(key)
    assert (session.version, session.head, len(session.events)) == (version, 1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"content": content("b")},
        {"state_delta": {"n": 2}},
        {"state_delta": {"n": True}},
        {"state_delta": {"n": 1.0}},
        {"author": "somebody"},
        {"invocation_id": "i2"},
        {"meta": {"final": True}},
    ],
)
async def test_s4_the_same_id_with_other_content_is_refused(
    store: SessionStore, key: SessionKey, other: dict[str, Any]
) -> None:
    await store.create(key)
    once = event("i1:x", content=content("a"), state_delta={"n": 1})
    stored = await store.append(key, once)
    with pytest.raises(EventConflict, match="i1:x"):
        await store.append(key, replace(once, **other))
    assert (await store.get(key)).events == [stored]
    assert (await store.get(key)).state == {"n": 1}
    assert await store.append(key, replace(once, **other), first_wins=True) == stored


async def test_s4_an_id_may_recur_in_another_session(store: SessionStore, key: SessionKey) -> None:
    other = replace(key, session_id="s2")
    for each in (key, other):
        await store.create(each)
        await store.append(each, event("i1:x", content=content(each.session_id)))
    assert (await store.get(other)).events[0].text == "s2"


async def test_s5_a_partial_event_changes_nothing(store: SessionStore, key: SessionKey) -> None:
    session = await store.create(key)
    piece = event("i1:m1", partial=True, content=content("he"), state_delta={"n": 1})
    assert await store.append(key, piece) == piece
    assert await store.get(key) == session


UNSTORABLE = [
    "a\0b",
    "\ud800",
    float("nan"),
    float("inf"),
    {"k": {"\0": 1}},
    {1: "a"},
    {"x", "y"},
    b"bytes",
    pytest.param(10**5000, id="huge"),
]


@pytest.mark.parametrize("value", UNSTORABLE)
@pytest.mark.parametrize("place", ["content", "state_delta", "meta"])
async def test_s7_what_a_store_cannot_hold_is_refused(
    store: SessionStore, key: SessionKey, value: Any, place: str
) -> None:
    await store.create(key)
    with pytest.raises(InvalidContent, match="i1:x"):
        await store.append(key, event("i1:x", **{place: {"deep": [value]}}))
    session = await store.get(key)
    assert (session.version, session.events, session.state) == (1, [], {})


async def test_s7_the_message_says_where(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    with pytest.raises(InvalidContent, match=r"content of event i1:x\.parts\[1\]\.text holds U\+0000"):
        await store.append(key, event("i1:x", content={"parts": [{}, {"text": "secret\0"}]}))


async def test_s7_nesting_has_one_limit_everywhere(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    await store.append(key, event("i1:x", meta={"deep": deep}))
    assert (await store.get(key)).events[0].meta == {"deep": deep}
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InvalidContent, match="200 levels"):
        await store.append(key, event("i2:x", meta={"deep": deep}))


@pytest.mark.parametrize("part", ["app", "user_id", "session_id"])
@pytest.mark.parametrize("value", ["", "a\0", "\udc00", "x" * 256])
async def test_s7_an_unusable_key_is_refused(
    store: SessionStore, key: SessionKey, part: str, value: str
) -> None:
    bad = replace(key, **{part: value})
    with pytest.raises(InvalidContent, match=part):
        await store.create(bad)
    with pytest.raises(InvalidContent, match=part):
        await store.append(bad, event("i1:x"))
    with pytest.raises(InvalidContent, match=part):
        await store.get(bad)


async def test_s7_names_at_their_limits_fit_every_index(store: SessionStore) -> None:
    key = SessionKey(app="ä" * 127, user_id="u" * 255, session_id="s" * 255)
    await store.create(key)
    event_id = "e" * 600
    name = "файл" * 128
    version = await store.stage_artifact(key, name, b"x", "text/plain", event_id=event_id)
    longest = event(event_id, state_delta={"k" * 1800: 1}, artifact_delta={name: version})
    await store.append(key, longest)
    assert (await store.load_artifact(key, name))[1] == b"x"
    assert (await store.get(key)).state == {"k" * 1800: 1}


async def test_s7_a_time_without_a_zone_is_refused(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    with pytest.raises(InvalidContent, match="timezone"):
        await store.append(key, event("i1:x", created_at=NOON.replace(tzinfo=None)))


async def test_s8_version_rises_by_one_a_commit(store: SessionStore, key: SessionKey) -> None:
    assert (await store.create(key)).version == 1
    for count in range(2, 5):
        await store.append(
            key, event(f"i{count}:x", state_delta={"n": count, "app:n": count, "user:n": count})
        )
        session = await store.get(key)
        assert (session.version, session.head) == (count, count - 1)


async def test_s8_updated_at_moves_with_every_commit(store: SessionStore, key: SessionKey) -> None:
    created = await store.create(key)
    await store.append(key, event("i1:x"))
    session = await store.get(key)
    assert session.created_at == created.created_at
    assert session.updated_at > created.updated_at


async def test_s13_a_stale_epoch_is_refused_also_for_what_is_stored(
    store: SessionStore, key: SessionKey
) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    stored = await store.append(key, answer("i1"), epoch=turn.epoch)
    await store.begin_turn(key, user("i2"), epoch=None)
    for late in (answer("i1"), event("i1:t1.0")):
        with pytest.raises(StaleEpoch, match="epoch"):
            await store.append(key, late, epoch=turn.epoch, first_wins=True)
    assert await store.append(key, answer("i1"), first_wins=True) == stored


async def test_appends_need_a_session(store: SessionStore, key: SessionKey) -> None:
    for call in (
        store.append(key, event("i1:x")),
        store.get(key),
        store.log(key),
        store.context(key),
        store.end(key),
        store.update(key, request_id="r1", state={"n": 1}),
        store.rewind(key, before="i1", request_id="r1"),
        store.snapshot(key, []),
        store.stage_artifact(key, "a", b"", "text/plain", event_id="i1:x"),
        store.list_artifacts(key),
    ):
        with pytest.raises(SessionNotFound, match="counter/ada/s1"):
            await call
    assert await store.event(key, "i1:x") is None


async def test_s51_an_ended_session_takes_no_appends(store: SessionStore, key: SessionKey) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    stored = await store.append(key, event("i1:x"))
    await store.end(key)
    for epoch in (None, turn.epoch, turn.epoch + 1):
        with pytest.raises(SessionEnded):
            await store.append(key, event("i2:x"), epoch=epoch)
    with pytest.raises(StaleEpoch):
        await store.append(key, event("i1:x"), epoch=turn.epoch)
    assert await store.append(key, event("i1:x")) == stored


@pytest.mark.parametrize(
    "field",
    [
        {"content": ["no", "object"]},
        {"content": "text"},
        {"meta": None},
        {"meta": []},
        {"error": "broken"},
        {"usage": 5},
        {"rewind": {"before": "i1", "seq": 1, "projection": []}},
        {"compaction": {"start": 1}},
        {"compaction": {"start": 1, "end": "2", "tail": 3}},
        {"compaction": {"start": 2, "end": 1, "tail": 2}},
        {"compaction": {"start": 1, "end": 1, "tail": 3}},
        {"compaction": {"start": 1, "end": 99, "tail": 1}},
        {"created_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
    ],
)
async def test_a_field_that_is_not_what_it_should_be_is_refused(
    store: SessionStore, key: SessionKey, field: dict[str, Any]
) -> None:
    await store.create(key)
    await store.append(key, event("i1:x"))
    with pytest.raises(InvalidContent):
        await store.append(key, event("i2:x", **field))
    assert (await store.get(key)).head == 1


@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
async def test_s3_the_ends_of_the_calendar_come_back(
    store: SessionStore, key: SessionKey, moment: datetime
) -> None:
    await store.create(key)
    await store.append(key, event("i1:x", created_at=moment.replace(tzinfo=UTC)))
    assert (await store.get(key)).events[0].created_at == moment.replace(tzinfo=UTC)
