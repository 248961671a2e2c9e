"""Sessions with the client: made, found, changed, steered and looked at."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, cast

import pytest
from temporalio.client import Client as TemporalClient

from gateway.runner import Runner
from perdure.client import Rewound, SessionUpdate, calls
from perdure.errors import (
    Forbidden,
    InternalError,
    InvalidRequest,
    InvocationNotFound,
    InvocationRewound,
    SessionExists,
    SessionNotFound,
    UnknownAgent,
    VersionMismatch,
)
from perdure.types import Event, SessionKey
from tests.client.faces import Face, all_raise
from tests.gateway.harness import Gateway, open_gateway


def new_user() -> str:
    return f"user-{uuid.uuid4().hex[:8]}"


def note(number: int, text: str = "") -> Event:
    content = {"role": "model", "parts": [{"text": text or f"note {number}"}]}
    return Event(
        id=f"n{number}:n",
        invocation_id=f"n{number}",
        author="other",
        content=content,
        state_delta={"last": number},
        meta={"finish_reason": "STOP", "model_version": "m-1", "interrupted": True, "step": 1},
        error={"type": "Odd", "message": "words"},
        usage={"totalTokenCount": 3},
        branch="b",
    )


async def test_it_is_created_got_listed_and_found(face: Face, gateway: Gateway) -> None:
    user = new_user()
    async with face.client(gateway.url, gateway.tokens.give()) as client:
        made = await client.sessions.create(
            "counter", user, "s 1", state={"mood": "good"}, metadata={"ticket": 7}
        )
        key = SessionKey(app="counter", user_id=user, session_id="s 1")
        assert (made.key, made.id, made.state, made.metadata) == (key, "s 1", {"mood": "good"}, {"ticket": 7})
        assert made.record == replace(await gateway.world.store.get(key), events=())
        assert (await client.sessions.get("counter", user, "s 1")).record == made.record
        other = await client.sessions.create("counter", user, metadata={"ticket": "7"})
        listed = [found async for found in client.sessions.list("counter", user)]
        assert [found.id for found in listed] == [other.id, "s 1"]
        [found] = [found async for found in client.sessions.find("counter", {"ticket": 7}, user_id=user)]
        assert found.key == key
        # What is found can be talked to.
        assert (await found.ask("Add one.")).status == "answered"
        await client.sessions.delete("counter", user, "s 1")
        await found.delete()
        with pytest.raises(SessionNotFound, match=user):
            await found.get()


async def test_s22_a_user_is_deleted_and_twice_is_the_same_as_once(client: Any) -> None:
    user, other = new_user(), new_user()
    for whose in (user, other):
        for session_id in ("s1", "s2"):
            await client.sessions.create("counter", whose, session_id, state={"user:a": 1})
    assert await client.sessions.delete_user("counter", user) == 2
    assert await client.sessions.delete_user("counter", user) == 0
    assert [found async for found in client.sessions.list("counter", user)] == []
    assert (await client.sessions.create("counter", user, "s1")).state == {}
    assert (await client.sessions.get("counter", other, "s1")).state == {"user:a": 1}


async def test_s12_an_id_that_is_taken_is_a_typed_error(client: Any) -> None:
    user = new_user()
    await client.sessions.create("counter", user, "s1")
    with pytest.raises(SessionExists, match="s1"):
        await client.sessions.create("counter", user, "s1")
    with pytest.raises(UnknownAgent):
        await client.sessions.create("nobody", user)


async def test_the_apps_are_listed(client: Any) -> None:
    assert "counter" in await client.apps()


async def test_lists_go_on_over_their_pages(
    client: Any, sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAGE", 2)
    user = new_user()
    made = [(await client.sessions.create("counter", user, metadata={"n": 1})).id for _ in range(5)]
    assert [found.id async for found in client.sessions.list("counter", user)] == made[::-1]
    found = client.sessions.find("counter", {"n": 1}, user_id=user)
    assert [each.id async for each in found] == made[::-1]
    key = SessionKey(app="counter", user_id=user, session_id=made[0])
    for number in range(1, 6):
        await sqlite_gateway.world.store.append(key, note(number))
    session = client.session("counter", user, made[0])
    assert [event.seq async for event in session.events()] == [1, 2, 3, 4, 5]
    assert [event.seq async for event in session.events(after=3)] == [4, 5]
    await session.rewind("n4")
    assert [(event.seq, event.live) async for event in session.events(after=3)] == [
        (4, False),
        (5, False),
        (6, True),
    ]
    assert [event.seq async for event in session.events(live=True)] == [1, 2, 3, 6]


async def test_s3_an_event_is_what_the_store_has(face: Face, gateway: Gateway) -> None:
    key, store = gateway.key(), gateway.world.store
    async with face.client(gateway.url, gateway.tokens.give()) as client:
        session = client.session(key.app, key.user_id, key.session_id)
        await session.ask("Increment 'visits' counter by 1")
        await session.ask('Save current counter values to "counter-report.txt"')
        for number in (1, 2):
            await store.append(key, note(number))
        await session.rewind("n2")
        there = [replace(event, state_undo={}) for event in await store.log(key)]
        assert [event async for event in session.events()] == there
        whole = await session.get()
        kept = await store.get(key)
        assert replace(whole.record, events=()) == replace(kept, events=())
        assert list(whole.record.events) == [event for event in there if event.live]
        assert [event.seq for event in (await session.get(max_events=2)).record.events] == [
            event.seq for event in kept.events[-2:]
        ]
        assert (await session.get(max_events=0)).record.events == ()
        with pytest.raises(InvalidRequest):
            await session.get(max_events=-1)


async def test_s9_a_version_that_is_not_the_sessions_is_told(client: Any) -> None:
    made = await client.sessions.create("counter", new_user())
    after = await made.update(state={"a": 1, "b": 2}, metadata={"n": 1}, expected_version=made.version)
    assert (after.version, after.state, after.metadata) == (made.version + 1, {"a": 1, "b": 2}, {"n": 1})
    with pytest.raises(VersionMismatch) as raised:
        await made.update(state={"a": 2}, expected_version=made.version)
    assert raised.value.actual == made.version + 1
    # A state alone, too, is answered with the session.
    assert (await made.update(state={"a": None})).state == {"b": 2}
    once = [await made.update(state={"c": 1}, request_id="r1") for _ in range(2)]
    assert once[0].version == once[1].version


async def test_s49_a_batch_tells_of_each(client: Any) -> None:
    user = new_user()
    one, two = [await client.sessions.create("counter", user) for _ in range(2)]
    updates = [
        SessionUpdate(user_id=user, session_id=one.id, state={"a": 1}),
        SessionUpdate(user_id=user, session_id=two.id, metadata={"b": 1}, expected_version=99),
        SessionUpdate(user_id=user, session_id="nowhere", state={"a": 1}),
    ]
    first, second, third = await client.sessions.batch_update("counter", updates)
    assert (first.session.state, first.error) == ({"a": 1}, None)
    assert isinstance(second.error, VersionMismatch)
    assert second.error.actual == two.version
    assert isinstance(third.error, SessionNotFound)
    assert third.key == SessionKey(app="counter", user_id=user, session_id="nowhere")
    with pytest.raises(VersionMismatch):
        await client.sessions.batch_update("counter", updates[:2], atomic=True)
    assert (await one.get()).version == first.session.version


async def test_a_rewind_a_redo_a_fork_and_the_past(client: Any, sqlite_gateway: Gateway) -> None:
    session = client.session("counter", new_user(), "s1")
    await session.ask("Increment 'visits' counter by 1", message_id="m1")
    await session.artifacts.save("a.txt", "one")
    await session.ask("Increment 'visits' counter by 100", message_id="m2")
    past = await session.at("m2")
    assert past.session.state == {"counters": {"visits": 1}}
    assert past.session.events[0].invocation_id == "m1"
    assert [(file.name, file.version) for file in past.artifacts] == [("a.txt", 1)]
    undone = await session.rewind("m2", request_id="undo")
    assert (undone.request_id, undone.session.state) == ("undo", {"counters": {"visits": 1}})
    assert undone.seq == undone.session.head
    assert await session.rewind("m2", request_id="undo") == undone
    with pytest.raises(InvocationRewound):
        await session.rewind("m2")
    with pytest.raises(InvocationNotFound):
        await session.rewind("never")
    redone = await session.rewind("undo")
    assert redone.session.state == {"counters": {"visits": 101}}
    copy = await session.fork("s2", before="m2")
    assert (copy.id, copy.state) == ("s2", {"counters": {"visits": 1}})
    assert copy.record.forked_from["before"] == "m2"
    with pytest.raises(SessionExists):
        await session.fork("s2")
    named = await session.at("m2", max_events=1)
    assert len(named.session.events) == 1


async def test_it_is_looked_at_cancelled_summed_up_and_ended(client: Any) -> None:
    session = client.session("counter", new_user(), "s1")
    await session.ask("Increment 'visits' counter by 1")
    status = await session.status()
    assert status.session.state == {"counters": {"visits": 1}}
    assert (status.work.turns, status.work.model_calls, status.work.last_error) == (1, 2, None)
    context = await session.context()
    assert (context.head, context.summary_seq, context.problem) == (4, None, None)
    assert context.contents[0]["parts"][0]["text"] == "Increment 'visits' counter by 1"
    assert context.request["contents"]
    await session.cancel()
    await session.cancel("nothing-of-the-kind")
    await session.ask("Increment 'visits' counter by 1")
    summed = await session.compact()
    assert summed.summary.compaction["start"] == 1
    assert (await session.compact()).summary is None
    ended = await session.end()
    assert ended.ended_at is not None
    assert (await session.end()).head == ended.head
    resting = await client.sessions.create("counter", new_user())
    assert (await resting.status()).work is None


async def test_reading_needs_no_temporal(face: Face, sqlite_gateway: Gateway) -> None:
    """There is none, not even a client of it."""
    key, world = sqlite_gateway.key(), sqlite_gateway.world
    runner = Runner(cast(TemporalClient, None), world.store)
    await world.runner.ask(key, "Increment 'visits' counter by 1")
    await world.runner.save_artifact(key, "a.txt", b"one", "text/plain")
    async with (
        open_gateway(replace(world, runner=runner)) as alone,
        face.client(alone.url, alone.tokens.give()) as client,
    ):
        session = await client.sessions.get(key.app, key.user_id, key.session_id)
        assert session.state == {"counters": {"visits": 1}}
        assert [event.seq async for event in session.events()] == [1, 2, 3, 4, 5]
        assert (await anext(session.follow(after=4))).seq == 5
        assert (await session.artifacts.load("a.txt")).data == b"one"
        assert [found.id async for found in client.sessions.list(key.app, key.user_id)] == [key.session_id]
        assert (await session.context()).request is not None
        with pytest.raises(InternalError):
            await session.ask("Increment 'visits' counter by 1")


async def test_s21_another_users_session_is_refused(face: Face, gateway: Gateway) -> None:
    bob, ann = new_user(), new_user()
    async with face.client(gateway.url, gateway.tokens.give()) as admin:
        await admin.session("counter", bob, "s1").ask("Add one.")
        await admin.session("counter", bob, "s1").artifacts.save("a.txt", "secret")
    token = gateway.tokens.give(apps={"counter"}, users={ann})
    async with face.client(gateway.url, token) as client:
        session = client.session("counter", bob, "s1")
        await all_raise(
            Forbidden,
            lambda: client.sessions.get("counter", bob, "s1"),
            lambda: client.sessions.create("counter", bob),
            lambda: client.sessions.delete("counter", bob, "s1"),
            lambda: anext(client.sessions.list("counter", bob)),
            lambda: anext(client.sessions.find("counter", {}, user_id=bob)),
            lambda: client.sessions.batch_update("counter", [SessionUpdate(user_id=bob, session_id="s1")]),
            lambda: session.ask("hi"),
            lambda: session.send("hi"),
            lambda: session.stream("hi").finish(),
            lambda: anext(session.events()),
            lambda: anext(session.follow()),
            lambda: session.update(state={"a": 1}),
            lambda: session.rewind("m1"),
            lambda: session.fork(),
            lambda: session.cancel(),
            lambda: session.end(),
            lambda: session.compact(),
            lambda: session.status(),
            lambda: session.context(),
            lambda: session.at("m1"),
            lambda: session.delete(),
            lambda: session.artifacts.list(),
            lambda: session.artifacts.versions("a.txt"),
            lambda: session.artifacts.find("a.txt"),
            lambda: session.artifacts.load("a.txt"),
            lambda: anext(session.artifacts.stream("a.txt")),
            lambda: session.artifacts.save("a.txt", b"mine"),
            match=bob,
        )
        # Its own it reaches, and need not say whose they are.
        made = await client.sessions.create("counter")
        assert made.key.user_id == ann
        assert [found.id async for found in client.sessions.list("counter")] == [made.id]


class TestFollowing:
    async def test_the_log_and_what_comes(self, face: Face, gateway: Gateway) -> None:
        key, store = gateway.key(), gateway.world.store
        await store.create(key)
        for number in (1, 2, 3):
            await store.append(key, note(number))
        async with face.client(gateway.url, gateway.tokens.give()) as client:
            stream = client.session(key.app, key.user_id, key.session_id).follow(after=1)
            assert [(await anext(stream)).seq for _ in range(2)] == [2, 3]
            await store.append(key, note(4))
            assert await anext(stream) == replace((await store.log(key))[3], state_undo={})
            await store.rewind(key, before="n3", request_id="r1")
            assert (await anext(stream)).rewind["before"] == "n3"
            rewound = await anext(stream)
            assert rewound == Rewound(projection=[[1, 3], [5, None]], epoch=(await store.get(key)).epoch)
            assert (stream.seen, stream.reason) == (5, None)
            await store.end(key)
            rest = [item async for item in stream]
            assert [item.seq for item in rest if isinstance(item, Event)] == list(
                range(6, (await store.get(key)).head + 1)
            )
            assert stream.reason == "ended"
            live = client.session(key.app, key.user_id, key.session_id).follow(live=True)
            assert [item.seq async for item in live if isinstance(item, Event)][:3] == [1, 2, 5]

    async def test_s22_a_session_that_is_deleted(self, client: Any, sqlite_gateway: Gateway) -> None:
        made = await client.sessions.create("counter", new_user(), state={"a": 1})
        await made.update(state={"a": 2})
        stream = made.follow()
        assert (await anext(stream)).state_delta == {"a": 2}
        await made.delete()
        assert [item async for item in stream] == []
        assert stream.reason == "deleted"
        with pytest.raises(SessionNotFound):
            await anext(made.follow())
