"""Fork: the live events before a point, their state and their artifacts, as a session of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from perdure.errors import (
    ArtifactNotFound,
    InvalidContent,
    InvalidOption,
    InvocationNotFound,
    InvocationRewound,
    SessionExists,
    SessionNotFound,
)
from perdure.types import Session, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import answer, event, say, sequence, summary, user
from tests.conformance.watch import query, statements, stored


@pytest.fixture
def other(key: SessionKey) -> SessionKey:
    """Where the fork goes."""
    return replace(key, session_id="fork")


async def files(store: SessionStore, key: SessionKey) -> dict[str, tuple[int, bytes]]:
    """Name, version and bytes of every artifact."""
    listed = await store.list_artifacts(key)
    return {item.name: (item.version, (await store.load_artifact(key, item.name))[1]) for item in listed}


async def test_s37_a_fork_has_what_is_live_and_the_source_stays(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await store.create(key, state={"start": 1, "app:a": 1}, metadata={"m": 1})
    for number in range(1, 4):
        await say(store, key, f"i{number}", delta={"n": number}, artifact=("f", b"%d" % number))
    source = await store.get(key)
    fork = await store.fork(key, "fork")
    assert fork == replace(await store.get(other), events=[])
    assert fork.key == other
    assert (fork.state, fork.metadata) == (source.state, {"m": 1})
    assert (fork.version, fork.head, fork.projection) == (1, 9, [[1, None]])
    assert fork.forked_from == {"session": "counter/ada/s1", "seq": 9, "before": None}
    assert list((await store.get(other)).events) == list(source.events)
    assert await files(store, other) == await files(store, key) == {"f": (3, b"3")}
    assert [item.version for item in await store.artifact_versions(other, "f")] == [1, 2, 3]
    await say(store, other, "only-here", delta={"n": 9}, artifact=("f", b"9"))
    assert await store.get(key) == source
    assert await files(store, key) == {"f": (3, b"3")}
    assert (await files(store, other))["f"] == (4, b"9")


async def test_s37_a_fork_before_an_invocation(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await store.create(key, state={"start": 1})
    await say(store, key, "i1", delta={"n": 1}, artifact=("f", b"1"))
    then = await store.get(key)
    await say(store, key, "i2", delta={"n": 2, "start": None, "more": 2}, artifact=("f", b"2"))
    await say(store, key, "i3", artifact=("g", b"3"))
    fork = await store.fork(key, other, before="i2")
    assert (fork.state, fork.head) == ({"start": 1, "n": 1}, 3)
    assert fork.forked_from == {"session": "counter/ada/s1", "seq": 3, "before": "i2"}
    assert list((await store.get(other)).events) == list(then.events)
    assert await files(store, other) == {"f": (1, b"1")}
    with pytest.raises(ArtifactNotFound):
        await store.load_artifact(other, "f", version=2)
    await store.rewind(other, before="i1", request_id="r1")
    assert (await store.get(other)).state == {"start": 1}
    # What was not copied never happened here: its ids are free.
    await say(store, other, "i2", delta={"n": "two"}, artifact=("f", b"two"))
    assert (await store.get(other)).state == {"start": 1, "n": "two"}


async def test_s28_a_fork_before_the_first_invocation_is_a_fresh_start(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await store.create(key, state={"n": 0})
    await say(store, key, "i1", delta={"n": 1})
    fork = await store.fork(key, other, before="i1")
    assert (fork.state, fork.head, await sequence(store, other)) == ({"n": 0}, 0, [])
    await say(store, other, "i1", delta={"n": 7})
    assert (await store.get(other)).events[0].seq == 1


async def test_s30_a_rewind_within_a_fork_is_exact_whatever_was_rewound_before(
    store: SessionStore, key: SessionKey
) -> None:
    """Markers stay behind, and every undo is right without them."""
    await store.create(key, state={"start": 1})
    past: dict[str, Session] = {}

    async def turn(invocation: str, **delta: object) -> None:
        past[invocation] = await store.get(key)
        await say(store, key, invocation, delta=delta)

    await turn("i1", a=1, b=1)
    await turn("i2", a=2, start=None)
    await store.rewind(key, before="i2", request_id="r1")
    await turn("i3", b=3, c=3)
    await store.rewind(key, before="i1", request_id="r2")
    await turn("i4", b=4)
    await store.rewind(key, before="r2", request_id="r3")
    await turn("i5", a=None, c=5)
    live = ["i1", "i3", "i5"]
    for number, before in enumerate([*live, None]):
        fork = replace(key, session_id=f"fork-{before}")
        made = await store.fork(key, fork, before=before)
        assert made.state == (past[before] if before else await store.get(key)).state
        log = await store.log(fork)
        assert [item.seq for item in log] == list(range(1, len(log) + 1))
        assert [item.id for item in log if item.author == "user"] == [f"{i}:user" for i in live[:number]]
        assert not any(item.rewind for item in log)
        for back in reversed(live[:number]):
            assert (await store.get(fork, before=back)).state == past[back].state
            await store.rewind(fork, before=back, request_id=f"back-{back}")
            assert (await store.get(fork)).state == past[back].state
        for back in live[:number]:
            await store.rewind(fork, before=f"back-{back}", request_id=f"forth-{back}")
        assert (await store.get(fork)).state == made.state


async def test_s30_a_fork_before_a_marker_takes_what_that_undid(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await say(store, key, "i1", delta={"n": 1})
    await say(store, key, "i2", delta={"n": 2}, artifact=("f", b"2"))
    await store.rewind(key, before="i1", request_id="r1")
    await say(store, key, "i3", delta={"n": 3})
    fork = await store.fork(key, other, before="r1")
    assert (fork.state, fork.head) == ({"n": 2}, 6)
    assert await files(store, other) == {"f": (1, b"2")}
    with pytest.raises(InvocationNotFound, match="r1"):
        await store.rewind(other, before="r1", request_id="r2")


async def test_s31_summaries_are_renumbered(store: SessionStore, key: SessionKey, other: SessionKey) -> None:
    await say(store, key, "i1")
    await say(store, key, "dead")
    await store.rewind(key, before="dead", request_id="r1")
    await say(store, key, "i2")
    await say(store, key, "i3")
    await store.append(key, summary("i3", 1, 9, tail=8))
    await say(store, key, "i4")
    await store.append(key, summary("i4", 1, 10, tail=6))
    await store.fork(key, other)
    ranges = [item.compaction for item in await store.log(other) if item.compaction]
    assert ranges == [{"start": 1, "end": 6, "tail": 5}, {"start": 1, "end": 7, "tail": 3}]
    theirs, ours = await store.context(key), await store.context(other)
    assert theirs.summary is not None
    assert ours.summary is not None
    assert ours.summary.id == theirs.summary.id == "i4:compact"
    assert [item.id for item in ours.events] == [item.id for item in theirs.events]
    await store.append(other, summary("i5", 1, 9))
    await store.rewind(other, before="i4", request_id="r2")
    assert (await store.context(other)).summary == (await store.event(other, "i3:compact"))


async def test_s31_a_summary_of_a_marker_alone_is_still_a_summary(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await say(store, key, "dead")
    await store.rewind(key, before="dead", request_id="r1")
    await store.append(key, summary("i1", 1, 3))
    await say(store, key, "i2")
    await store.fork(key, other)
    context = await store.context(other)
    assert context.summary is not None
    assert context.summary.compaction == {"start": 1, "end": 1, "tail": 1}
    assert [item.id for item in context.events] == ["i2:user", "i2:m1"]


async def test_s37_forks_of_forks(store: SessionStore, key: SessionKey) -> None:
    for number in range(1, 4):
        await say(store, key, f"i{number}", delta={"n": number}, artifact=("f", b"%d" % number))
        forked = replace(key, session_id=f"f{number}")
        await store.fork(key, forked)
        await say(store, forked, "there", delta={"n": "there"}, artifact=("f", b"there"))
        key = forked
        await store.rewind(key, before="there", request_id="r")
    assert await files(store, key) == {"f": (5, b"3")}
    session = await store.get(key)
    assert (session.state, session.forked_from) == (
        {"n": 3},
        {"session": "counter/ada/f2", "seq": 13, "before": None},
    )


async def test_s26_what_belongs_to_the_user_is_shared_and_goes_to_nobody_else(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    delta = {"user:u": 1, "app:a": 1, "n": 1}
    await say(store, key, "i1", delta=delta, artifact=("user:photo", b"ada"))
    await say(store, key, "i2", artifact=("f", b"own"))
    same = await store.fork(key, other, before="i2")
    assert same.state == delta
    assert await files(store, other) == {"user:photo": (1, b"ada")}
    bob = replace(key, user_id="bob")
    theirs = await store.fork(key, bob)
    assert theirs.state == {"app:a": 1, "n": 1}
    assert await files(store, bob) == {"f": (1, b"own")}


async def test_s54_bytes_that_go_to_another_user_go_to_their_prefix(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1", artifact=("f", b"own"))
    bob = replace(key, user_id="bob", session_id="theirs")
    await store.fork(key, bob)
    [artifact] = await store.list_artifacts(bob)
    assert artifact.blob.startswith("counter/bob/")
    await store.fork(key, "mine")
    [artifact] = await store.list_artifacts(replace(key, session_id="mine"))
    assert artifact.blob.startswith("counter/ada/")


async def test_s22_a_fork_lives_without_its_source(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await say(store, key, "i1", delta={"n": 1}, artifact=("f", b"1"))
    await store.fork(key, other)
    before = await store.get(other)
    await store.delete(key)
    assert await store.get(other) == before
    assert await files(store, other) == {"f": (1, b"1")}


async def test_s51_an_ended_session_can_be_forked_and_the_fork_is_open(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await say(store, key, "i1")
    await store.end(key)
    assert (await store.fork(key, other)).ended_at is None
    await say(store, other, "i2")


async def test_s63_a_message_resent_to_a_fork_gets_its_first_reply(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await say(store, key, "i1")
    await store.fork(key, other)
    turn = await store.begin_turn(other, user("i1"), epoch=None)
    assert turn.done == replace(answer("i1"), seq=2, created_at=turn.done.created_at if turn.done else None)


async def test_s12_of_two_forks_into_one_id_one_succeeds(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    await say(store, key, "i1")
    outcomes = await asyncio.gather(*(store.fork(key, other) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(each, Session) for each in outcomes) == 1
    assert sum(isinstance(each, SessionExists) for each in outcomes) == 3


async def test_s27_what_cannot_be_forked_is_refused_and_leaves_nothing(
    store: SessionStore, key: SessionKey, other: SessionKey
) -> None:
    for number in range(1, 4):
        await say(store, key, f"i{number}")
    await store.rewind(key, before="i2", request_id="r1")
    before = await stored(store)
    with pytest.raises(SessionNotFound, match="s9"):
        await store.fork(replace(key, session_id="s9"), other)
    with pytest.raises(InvocationNotFound, match="i9"):
        await store.fork(key, other, before="i9")
    with pytest.raises(InvocationRewound, match="i3"):
        await store.fork(key, replace(other, user_id="bob"), before="i3")
    with pytest.raises(SessionExists, match="s1"):
        await store.fork(key, key)
    with pytest.raises(InvalidOption, match="elsewhere"):
        await store.fork(key, replace(other, app="elsewhere"))
    with pytest.raises(InvalidContent):
        await store.fork(key, "")
    assert await stored(store) == before


async def test_a_fork_takes_as_many_statements_however_long_the_session(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    counts = []
    for length in (5, 300):
        for number in range(length):
            await store.append(key, event(f"i{length}:x{number}", state_delta={"n": number}))
        seen: list[str] = []
        with statements(store, seen):
            await store.fork(key, f"fork-{length}")
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 12


async def test_a_fork_of_many_ranges(store: SessionStore, key: SessionKey, other: SessionKey) -> None:
    await store.create(key)
    for number in range(120):
        await store.append(key, event(f"i{number}:x", state_delta={"n": number}))
        await store.append(key, event(f"dead{number}:x", state_delta={"n": -1}))
        await store.rewind(key, before=f"dead{number}", request_id=f"r{number}")
    fork = await store.fork(key, other)
    assert (fork.head, fork.state) == (120, {"n": 119})
    log = await store.log(other)
    assert [(item.seq, item.id) for item in log] == [(n + 1, f"i{n}:x") for n in range(120)]
    rows = await query(store._db, "SELECT seq FROM live_events WHERE session_id = 'fork' ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(1, 121))
    assert (await store.get(other, before="i60")).state == {"n": 59}
