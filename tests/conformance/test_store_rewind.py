"""Rewind, redo and what they must leave alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perdure.errors import (
    ArtifactNotFound,
    EventConflict,
    InvocationNotFound,
    InvocationRewound,
    StaleEpoch,
)
from perdure.types import Session, SessionKey
from storage.sessions import SessionStore
from storage.storable import canonical
from tests.conformance.events import answer, asked, change, event, say, sequence, summary, user
from tests.conformance.watch import statements


async def test_the_seeds_story(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1", delta={"counters": {"visits": 1}})
    await say(store, key, "i2", delta={"counters": {"visits": 101}})
    done = await store.rewind(key, before="i2", request_id="r1")
    session = await store.get(key)
    assert session.state == {"counters": {"visits": 1}}
    assert session.projection == [[1, 4], [7, None]]
    assert [item.id for item in session.events] == ["i1:user", "i1:t1.0", "i1:m1", "r1:rewind"]
    assert (done.epoch, done.repeated) == (session.epoch, False)
    assert done.event == session.events[-1]
    assert done.event.author == "perdure"
    assert done.event.rewind == {"before": "i2", "seq": 4, "projection": [[1, None]]}
    assert done.event.state_delta == {"counters": {"visits": 1}}
    assert done.event.state_undo == {"counters": {"visits": 101}}
    await say(store, key, "i3", delta={"counters": {"visits": 2}})
    assert (await store.get(key)).state == {"counters": {"visits": 2}}
    assert [item.live for item in await store.log(key)] == [True] * 3 + [False] * 3 + [True] * 4


async def test_s24_state_given_at_creation_survives(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"plan": "pro", "n": 1})
    await say(store, key, "i1", delta={"n": 2})
    await store.rewind(key, before="i1", request_id="r1")
    assert (await store.get(key)).state == {"plan": "pro", "n": 1}


async def test_s25_keys_added_after_the_target_are_gone(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"same": {"a": 1}, "removed": 1})
    await say(store, key, "i1", delta={"added": 1, "removed": None, "same": {"a": 2}})
    await say(store, key, "i2", delta={"same": {"a": 1}, "added": None, "other": 1})
    done = await store.rewind(key, before="i1", request_id="r1")
    assert (await store.get(key)).state == {"same": {"a": 1}, "removed": 1}
    assert done.event.state_delta == {"removed": 1, "other": None}


async def test_s24_each_key_gets_back_what_it_was_before_its_own_first_change(
    store: SessionStore, key: SessionKey
) -> None:
    names = ["plain", 'with "quotes"', "back\\slash", "new\nline", '{"json": [1]}', "Ünï", "Uni"]
    values = [1.0, 2**60, False, [None, "x"], "1.0", {"a": {"b": 1e300}}]
    await store.create(key, state=dict(zip(names, values, strict=False)))
    for turn, name in enumerate(names * 2):
        await say(store, key, f"i{turn}", delta={name: turn, names[turn % 3]: None})
    was = (await store.get(key, before="i4")).state
    await store.rewind(key, before="i4", request_id="r1")
    assert (await store.get(key)).state == was
    assert was[names[5]] == values[5]
    assert names[6] not in was
    await store.rewind(key, before="i0", request_id="r2")
    state = (await store.get(key)).state
    assert canonical(dict(state)) == canonical(dict(zip(names, values, strict=False)))


async def test_s26_shared_state_is_not_touched(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await say(store, key, "i1", delta={"user:u": 1, "app:a": 2, "n": 3})
    done = await store.rewind(key, before="i1", request_id="r1")
    assert (await store.get(key)).state == {"user:u": 1, "app:a": 2}
    assert done.event.state_delta == {"n": None}


async def test_s27_an_unknown_invocation(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1")
    before = await store.get(key)
    with pytest.raises(InvocationNotFound, match="i9"):
        await store.rewind(key, before="i9", request_id="r1")
    assert await store.get(key) == before


async def test_s27_an_invocation_that_was_rewound(store: SessionStore, key: SessionKey) -> None:
    for invocation in ("i1", "i2", "i3"):
        await say(store, key, invocation, delta={"n": invocation})
    await store.rewind(key, before="i2", request_id="r1")
    before = await store.get(key)
    for dead in ("i2", "i3"):
        with pytest.raises(InvocationRewound, match=dead):
            await store.rewind(key, before=dead, request_id="r2")
    assert await store.get(key) == before


async def test_s28_before_the_first_invocation(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": 0})
    for invocation in ("i1", "i2"):
        await say(store, key, invocation, delta={"n": invocation})
    await store.rewind(key, before="i1", request_id="r1")
    session = await store.get(key)
    assert (session.state, session.projection) == ({"n": 0}, [[7, None]])
    context = await store.context(key)
    assert [item.id for item in context.events] == ["r1:rewind"]
    assert context.events[0].content is None


async def test_s27_the_target_is_the_first_live_event_of_the_invocation(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    for event_id in ("i1:a", "i2:a", "i1:b"):
        await store.append(key, event(event_id))
    await store.rewind(key, before="i1", request_id="r1")
    await store.append(key, event("i3:a"))
    await store.append(key, event("i1:c", state_delta={"n": 1}))
    done = await store.rewind(key, before="i1", request_id="r2")
    assert done.event.rewind is not None
    assert done.event.rewind["seq"] == 6
    assert await sequence(store, key) == ["r1:rewind", "i3:a", "r2:rewind"]


async def test_s29_one_request_is_one_rewind(store: SessionStore, key: SessionKey) -> None:
    for invocation in ("i1", "i2"):
        await say(store, key, invocation)
    first = await store.rewind(key, before="i2", request_id="r1")
    before = await store.get(key)
    assert await store.rewind(key, before="i2", request_id="r1") == replace(first, repeated=True)
    assert await store.get(key) == before
    with pytest.raises(EventConflict, match="r1"):
        await store.rewind(key, before="i1", request_id="r1")


async def test_s29_a_request_sent_again_after_its_marker_was_rewound(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1")
    await store.rewind(key, before="i1", request_id="r1")
    await store.rewind(key, before="r1", request_id="r2")
    again = await store.rewind(key, before="i1", request_id="r1")
    assert (again.repeated, again.event.live) == (True, False)
    assert await sequence(store, key) == ["i1:user", "i1:m1", "r2:rewind"]


async def snapshot(store: SessionStore, key: SessionKey) -> tuple[list[str], dict[str, object], list[str]]:
    """What a rewind must bring back: events, state, artifacts with their bytes."""
    session: Session = await store.get(key)
    files = [
        f"{found.name}@{found.version}={(await store.load_artifact(key, found.name))[1]!r}"
        for found in await store.list_artifacts(key)
    ]
    return [item.id for item in session.events], dict(session.state), files


async def test_s30_redo_and_any_nesting(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"start": 1})
    past = {}
    for number in range(1, 5):
        past[f"i{number}"] = await snapshot(store, key)
        delta = {"n": number, f"only{number}": number}
        await say(store, key, f"i{number}", delta=delta, artifact=("f.txt", b"%d" % number))
    # before what, by which request; each line is checked against what was just before its target
    for before, request in [
        ("i3", "r1"),
        ("r1", "r2"),
        ("r2", "r3"),
        ("r3", "r4"),
        ("i4", "r5"),
        ("i2", "r6"),
        ("r6", "r7"),
        ("r5", "r8"),
        ("i1", "r9"),
        ("r9", "r10"),
        ("r8", "r11"),
    ]:
        past[request] = await snapshot(store, key)
        await store.rewind(key, before=before, request_id=request)
        events, state, files = await snapshot(store, key)
        assert ([*past[before][0], f"{request}:rewind"], *past[before][1:]) == (events, state, files), request


async def test_s30_a_rewind_past_a_rewind_skips_what_that_undid(store: SessionStore, key: SessionKey) -> None:
    """The marker's own undo holds the state of a branch that is dead: it must not come back."""
    await store.create(key)
    await say(store, key, "i1", delta={"a": 1})
    await say(store, key, "i2", delta={"b": 2})
    await store.rewind(key, before="i2", request_id="r1")
    await say(store, key, "i3", delta={"c": 3})
    await store.rewind(key, before="i1", request_id="r2")
    assert (await store.get(key)).state == {}


async def test_s31_a_rewind_into_a_compacted_range_brings_the_originals_back(
    store: SessionStore, key: SessionKey
) -> None:
    for invocation in ("i1", "i2", "i3"):
        await say(store, key, invocation)
    await store.append(key, summary("i3", 1, 6, tail=5))
    context = await store.context(key)
    assert context.summary is not None
    assert [item.id for item in context.events] == ["i3:user", "i3:m1"]
    await store.rewind(key, before="i2", request_id="r1")
    context = await store.context(key)
    assert context.summary is None
    assert [item.id for item in context.events] == ["i1:user", "i1:m1", "r1:rewind"]


async def test_s31_a_summary_wholly_before_the_target_stays(store: SessionStore, key: SessionKey) -> None:
    for invocation in ("i1", "i2"):
        await say(store, key, invocation)
    stored = await store.append(key, summary("i2", 1, 4))
    await say(store, key, "i3")
    await store.append(key, summary("i3", 1, 7))
    await store.rewind(key, before="i3", request_id="r1")
    context = await store.context(key)
    assert context.summary == stored
    assert [item.id for item in context.events] == ["r1:rewind"]


async def test_s32_the_context_never_holds_rewound_text(store: SessionStore, key: SessionKey) -> None:
    for invocation in ("i1", "i2", "i3"):
        await say(store, key, invocation)
    await store.rewind(key, before="i2", request_id="r1")
    for window in (None, 1, 3, 100):
        session = await store.get(key, max_events=window)
        assert not {"i2", "i3"} & {item.invocation_id for item in session.events}
    assert not {"i2", "i3"} & {item.invocation_id for item in (await store.context(key)).events}


async def test_s33_artifacts_go_back_with_the_session(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1", artifact=("kept.txt", b"one"))
    await say(store, key, "i2", artifact=("kept.txt", b"two"))
    await say(store, key, "i3", artifact=("new.txt", b"new"))
    await store.rewind(key, before="i2", request_id="r1")
    assert [(item.name, item.version) for item in await store.list_artifacts(key)] == [("kept.txt", 1)]
    assert (await store.load_artifact(key, "kept.txt"))[1] == b"one"
    for name, version in (("new.txt", None), ("new.txt", 1), ("kept.txt", 2)):
        with pytest.raises(ArtifactNotFound, match=name):
            await store.load_artifact(key, name, version=version)
    assert len(await store.artifact_versions(key, "kept.txt")) == 1
    await say(store, key, "i4", artifact=("kept.txt", b"three"))
    found, data = await store.load_artifact(key, "kept.txt")
    assert (found.version, data) == (3, b"three")
    assert [item.version for item in await store.artifact_versions(key, "kept.txt")] == [1, 3]


async def test_s26_user_artifacts_are_not_touched(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1", artifact=("user:photo.png", b"photo"))
    await store.rewind(key, before="i1", request_id="r1")
    assert (await store.load_artifact(key, "user:photo.png"))[1] == b"photo"


async def test_s35_a_running_turn_is_ended_first_and_the_marker_comes_after(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1")
    turn = await store.begin_turn(key, user("i2"), epoch=None)
    await store.append(key, asked("i2"), epoch=turn.epoch)
    version = (await store.get(key)).version
    done = await store.rewind(key, before="i2", request_id="r1", interrupt="i2")
    assert (await store.get(key)).version == version + 1
    assert [item.id for item in await store.log(key)][-3:] == ["i2:m1", "i2:end", "r1:rewind"]
    assert await sequence(store, key) == ["i1:user", "i1:m1", "r1:rewind"]
    assert done.epoch == turn.epoch + 1
    for late in (event("i2:t1.0"), asked("i2")):
        with pytest.raises(StaleEpoch):
            await store.append(key, late, epoch=turn.epoch, first_wins=True)
    with pytest.raises(InvocationRewound):
        await store.begin_turn(key, user("i2"), epoch=None)


async def test_s35_a_turn_that_has_not_begun_is_ended_too(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1")
    await store.rewind(key, before="i1", request_id="r1", interrupt="i2")
    assert await sequence(store, key) == ["r1:rewind"]
    with pytest.raises(InvocationRewound):
        await store.begin_turn(key, user("i2"), epoch=None)


async def test_s35_before_the_running_turn_that_has_not_begun(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1")
    await store.rewind(key, before="i2", request_id="r1", interrupt="i2")
    assert await sequence(store, key) == ["i1:user", "i1:m1", "r1:rewind"]
    with pytest.raises(InvocationRewound):
        await store.begin_turn(key, user("i2"), epoch=None)


async def test_s35_a_turn_that_has_just_answered_gets_no_end_marker(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1")
    await say(store, key, "i2")
    await store.rewind(key, before="i2", request_id="r1", interrupt="i2")
    assert [item.id for item in await store.log(key)] == [
        "i1:user",
        "i1:m1",
        "i2:user",
        "i2:m1",
        "r1:rewind",
    ]


async def test_s35_a_refused_rewind_does_not_end_the_running_turn(
    store: SessionStore, key: SessionKey
) -> None:
    turn = await store.begin_turn(key, user("i1"), epoch=None)
    with pytest.raises(InvocationNotFound):
        await store.rewind(key, before="i9", request_id="r1", interrupt="i1")
    await store.append(key, answer("i1"), epoch=turn.epoch)
    assert await sequence(store, key) == ["i1:user", "i1:m1"]


async def test_s44_a_summary_of_what_was_rewound_meanwhile_is_refused(
    store: SessionStore, key: SessionKey
) -> None:
    for invocation in ("i1", "i2", "i3"):
        await say(store, key, invocation)
    late = summary("i3", 1, 6)
    await store.rewind(key, before="i3", request_id="r1")
    with pytest.raises(StaleEpoch, match="rewound"):
        await store.append(key, late, first_wins=True)
    assert (await store.context(key)).summary is None
    # What is still as it was may be summed up, also after a rewind of something later.
    assert (await store.append(key, summary("i2", 1, 4), first_wins=True)).live


async def test_s44_new_events_meanwhile_do_not_matter_and_a_retry_finds_its_own(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1")
    await say(store, key, "i2")
    stored = await store.append(key, summary("i1", 1, 2), first_wins=True)
    assert await store.append(key, summary("i1", 1, 2), first_wins=True) == stored
    with pytest.raises(StaleEpoch, match="summary"):
        await store.append(key, summary("other", 1, 2), first_wins=True)
    assert (await store.append(key, summary("i2", 1, 4), first_wins=True)).live


async def test_s36_a_rewind_reads_no_more_of_a_long_log(store: SessionStore, key: SessionKey) -> None:
    """Its statements are as many, and it reads only events that changed state."""
    await store.create(key)
    counts = []
    for rewound, length in (("short", 10), ("long", 600)):
        await store.begin_turn(key, user(rewound), epoch=None)
        await change(store, key, rewound, delta={"n": length})
        for number in range(length):
            await store.append(key, event(f"{rewound}:x{number}"))
        seen: list[str] = []
        with statements(store, seen):
            await store.rewind(key, before=rewound, request_id=f"r-{rewound}")
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 10


async def test_s20_an_append_takes_as_many_statements_in_a_long_session(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key, state={f"k{n}": "x" * 100 for n in range(1000)})
    counts = []
    for length in (5, 300):
        for number in range(length):
            await store.append(key, event(f"i{length}:x{number}"))
        seen: list[str] = []
        with statements(store, seen):
            await store.append(key, event(f"i{length}:last", state_delta={"k1": length, "new": length}))
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 6
