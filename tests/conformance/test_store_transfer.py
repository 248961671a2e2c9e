"""Export and import: a session as JSON Lines, and the same session again."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest

from perdure.errors import InvalidContent, SessionExists, SessionNotFound, StaleEpoch
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.conformance.conftest import Backend
from tests.conformance.events import answer, asked, content, event, say, summary, user
from tests.conformance.watch import Broken, breaking, stored


async def past(store: SessionStore, key: SessionKey) -> None:
    """A session with everything in it: rewound turns, a redo, a summary, artifacts, odd values."""
    await store.create(key, state={"start": 1.0, "app:a": 1}, metadata={"m": [1, "1", True, None]})
    odd = {"n": 10**30, "text": 'Grüße 🌍 "quoted"\n', "nested": {"b": [1.5, {}], "a": None}}
    await say(store, key, "i1", delta=odd, artifact=("reports/März.txt", b"\x00\xff"))
    await say(store, key, "i2", delta={"start": None, "user:u": 1}, artifact=("reports/März.txt", b""))
    await store.rewind(key, before="i2", request_id="r1")
    await say(store, key, "i3", delta={"n": 1}, artifact=("user:photo", b"ada's"))
    await store.rewind(key, before="r1", request_id="r2")
    await store.append(key, event("i4:x", usage={"totalTokenCount": 7}, error={"type": "E"}, branch="b"))
    await store.append(key, summary("i4", 1, 4, tail=3))
    await store.stage_artifact(key, "staged", b"never listed", "x/y", event_id="i9:x")
    await store.begin_turn(key, user("running"), epoch=None)
    await store.append(key, asked("running"))


async def exported(store: SessionStore, key: SessionKey) -> list[str]:
    return [line async for line in store.export(key)]


async def everything(store: SessionStore, key: SessionKey) -> list[Any]:
    """All that an import has to bring back, but for the key."""
    session = await store.get(key)
    listed = [item for item in await store.list_artifacts(key) if not item.name.startswith("user:")]
    files = [(item, (await store.load_artifact(key, item.name))[1]) for item in listed]
    own = {name: value for name, value in session.state.items() if ":" not in name}
    return [replace(session, key=key, state=own), await store.log(key), files]


async def test_an_export_says_everything(store: SessionStore, key: SessionKey) -> None:
    await past(store, key)
    session, log = await store.get(key), await store.log(key)
    lines = [json.loads(line) for line in await exported(store, key)]
    assert all("\n" not in line for line in await exported(store, key))
    first, *rest, last = lines
    assert (first["kind"], first["format"], first["head"]) == ("session", 1, len(log))
    assert first["state"] == {name: value for name, value in session.state.items() if ":" not in name}
    assert (first["projection"], first["metadata"]) == (session.projection, session.metadata)
    events = [line for line in rest if line["kind"] == "event"]
    assert [(line["seq"], line["id"], line["live"]) for line in events] == [
        (item.seq, item.id, item.live) for item in log
    ]
    assert not all(line["live"] for line in events)
    artifacts = [line for line in rest if line["kind"] == "artifact"]
    assert [(line["name"], line["version"], line["data"]) for line in artifacts] == [
        ("reports/März.txt", 1, "AP8="),
        ("reports/März.txt", 2, ""),
    ]
    assert last == {"kind": "end", "events": len(log), "artifacts": 2}


async def test_an_import_gives_the_same_session_back(
    store: SessionStore, backend: Backend, key: SessionKey
) -> None:
    await past(store, key)
    before, lines = await everything(store, key), await exported(store, key)
    await store.delete(key)
    session = await store.import_session(lines)
    assert session == replace(await store.get(key), events=[])
    after = await everything(store, key)
    epochs = [each[0].epoch for each in (before, after)]
    assert epochs[1] > epochs[0], "a turn left over from the deleted session is refused"
    assert [replace(after[0], epoch=epochs[0]), *after[1:]] == before
    again = [json.loads(line) for line in await exported(store, key)]
    assert [{**line, "epoch": 0} for line in again] == [{**json.loads(line), "epoch": 0} for line in lines]


async def test_s30_an_imported_session_goes_on_and_rewinds_like_its_original(
    store: SessionStore, key: SessionKey
) -> None:
    await past(store, key)
    copy = replace(key, session_id="copy")
    await store.import_session(await exported(store, key), key=copy)
    for each in (key, copy):
        await store.rewind(each, before="r2", request_id="r3", interrupt="running")
        await say(store, each, "i5", delta={"n": 5}, artifact=("reports/März.txt", b"5"))
        await store.rewind(each, before="i1", request_id="r4")
        assert (await store.get(each, before="r4")).state["n"] == 5
        await store.rewind(each, before="r4", request_id="r5")
    ours, theirs = await store.get(copy), await store.get(key)
    assert (ours.state, ours.projection) == (theirs.state, theirs.projection)
    assert [item.id for item in ours.events] == [item.id for item in theirs.events]
    assert [item.version for item in await store.artifact_versions(copy, "reports/März.txt")] == [
        item.version for item in await store.artifact_versions(key, "reports/März.txt")
    ]


async def test_an_import_into_another_database(
    store: SessionStore, key: SessionKey, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Between kinds of databases, too: the lines are the same."""
    await past(store, key)
    folder = tmp_path_factory.mktemp("house")
    house = await SessionStore.open("sqlite://", f"file://{folder}")
    bob = replace(key, app="moved", user_id="bob", session_id="theirs")
    try:
        await house.import_session(store.export(key), key=bob)
        assert (await exported(house, bob))[1:] == (await exported(store, key))[1:]
        found, data = await house.load_artifact(bob, "reports/März.txt", version=1)
        assert (found.blob.split("/")[:2], data) == (["moved", "bob"], b"\x00\xff")
        assert not any(name.startswith(("app:", "user:")) for name in (await house.get(bob)).state)
    finally:
        await house.close()


async def test_a_long_session_is_exported_whole(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for number in range(501):
        await store.append(key, event(f"i{number}:x"))
    lines = store.export(key)
    first = json.loads(await anext(lines))
    await store.append(key, event("late:x"))
    rest = [json.loads(line) async for line in lines]
    assert (first["head"], len(rest)) == (501, 502), "as it was when it began"
    await store.import_session(await exported(store, key), key=replace(key, session_id="copy"))


async def test_s12_an_import_under_a_taken_id_is_refused(store: SessionStore, key: SessionKey) -> None:
    await past(store, key)
    before = await stored(store)
    with pytest.raises(SessionExists, match="s1"):
        await store.import_session(await exported(store, key))
    assert await stored(store) == before
    with pytest.raises(SessionNotFound):
        await exported(store, replace(key, session_id="s9"))


async def test_s13_a_turn_of_the_session_before_cannot_write_into_the_import(
    store: SessionStore, key: SessionKey
) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    lines = await exported(store, key)
    await store.delete(key)
    await store.import_session(lines)
    with pytest.raises(StaleEpoch):
        await store.append(key, answer("i1"), epoch=turn.epoch)


async def test_the_highest_epoch_of_an_import_leaves_all_others_room_to_go_on(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    first, *rest = await exported(store, key)
    await store.delete(key)
    await store.import_session([json.dumps({**json.loads(first), "epoch": 2**53}), *rest])
    assert await store.delete(key)
    other = replace(key, app="another", user_id="else")
    await store.create(other)
    turn = await store.begin_turn(other, user("i1"), epoch=None)
    assert turn.epoch > 2**53
    assert (await store.end(other)).epoch == turn.epoch + 1


async def test_whatever_id_a_rewind_or_an_interrupt_takes_an_import_takes_too(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1")
    for size in range(590, 602):
        with contextlib.suppress(InvalidContent):
            await store.rewind(key, before="i1", request_id="r" * size)
            await store.rewind(key, before="r" * size, request_id=f"redo {size}")
        with contextlib.suppress(InvalidContent):
            await store.interrupt(key, "x" * size, epoch=None, reason="cancelled")
    assert await store.event(key, "r" * 593 + ":rewind")
    assert await store.event(key, "x" * 596 + ":end")
    lines = await exported(store, key)
    log = await store.log(key)
    await store.delete(key)
    await store.import_session(lines)
    assert await store.log(key) == log


async def test_s34_an_import_is_whole_or_not_at_all(store: SessionStore, key: SessionKey) -> None:
    await past(store, key)
    lines, copy = await exported(store, key), replace(key, session_id="copy")
    before = await stored(store)
    broken = 0
    while True:
        try:
            with breaking(store, broken + 1):
                await store.import_session(lines, key=copy)
            break
        except Broken:
            broken += 1
            assert await stored(store) == before, f"statement {broken}"
    assert broken >= 5
    assert (await everything(store, copy))[1:] == (await everything(store, key))[1:]


async def test_what_is_no_export_is_refused_by_its_line(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": 1})
    await say(store, key, "i1", delta={"n": 2}, artifact=("f", b"1"))
    lines = await exported(store, key)
    assert [json.loads(line)["kind"] for line in lines] == ["session", *["event"] * 3, "artifact", "end"]

    def changed(at: int, **fields: Any) -> list[str]:
        return [*lines[:at], json.dumps({**json.loads(lines[at]), **fields}), *lines[at + 1 :]]

    await store.delete(key)
    before = await stored(store)
    for bad, said in [
        ([], "cut off"),
        (lines[:-1], "cut off"),
        ([*lines[:2], *lines[3:]], "line 3"),
        (lines[1:], "line 1"),
        ([lines[0], *lines], "line 2"),
        ([*lines, lines[1]], "line 7"),
        ([lines[0], "no json", *lines[1:]], "line 2"),
        ([lines[0], "[]", *lines[1:]], "line 2"),
        (changed(0, format=2), "format 2"),
        (changed(0, head=4), "line 6"),
        (changed(0, projection=[[1, 3]]), "projection"),
        (changed(0, projection=[[2, 1], [3, None]]), "line 1"),
        (changed(0, state={"app:a": 1}), "state"),
        (changed(0, version="1"), "version"),
        (changed(0, created_at="2026-01-01T00:00:00"), "timezone"),
        (changed(0, updated_at="0001-01-01T00:00:00+05:00"), "line 1"),
        (changed(0, epoch=2**62), "epoch"),
        (changed(4, created_at="9999-12-31T23:00:00-05:00"), "line 5"),
        ([lines[0], "[" * 100_000, *lines[1:]], "line 2"),
        (changed(1, seq=2), "line 2"),
        (changed(1, content="text"), "content"),
        (changed(2, id="i1:user"), "line 6"),
        (changed(2, content={"text": "\0"}), "U[+]0000"),
        (changed(2, rewind={"before": "i1"}), "line 3"),
        (changed(4, data="%"), "line 5"),
        (changed(4, name="user:f"), "line 5"),
        (changed(4, seq=9), "line 5"),
        (changed(5, artifacts=2), "line 6"),
    ]:
        with pytest.raises(InvalidContent, match=said):
            await store.import_session(bad)
        assert await stored(store) == before, said
    assert (await store.import_session([*lines, ""])).state == {"n": 2}
    assert content("hello") == (await store.get(key)).events[0].content
