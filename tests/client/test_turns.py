"""Turns with the client: asked, sent, streamed; and what a broken connection does to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perdure.client import Partial, calls
from perdure.errors import (
    EventConflict,
    GatewayUnavailable,
    InvalidContent,
    InvalidMessage,
    InvalidOption,
    InvocationRewound,
    SessionEnded,
    UnknownAgent,
)
from perdure.testing import call, say
from perdure.types import Event, SessionKey
from tests.client.cutter import cutter
from tests.client.faces import Face, all_raise
from tests.gateway.harness import Gateway
from tests.integration.agents import gate
from tests.integration.harness import until

STORY = "Once upon a time 汉字 🌍 there was a counter that nobody had ever counted on. " * 4


@pytest.fixture(autouse=True)
def _closed_gate() -> None:
    gate.reset()


def opened(client: Any, key: SessionKey) -> Any:
    return client.session(key.app, key.user_id, key.session_id)


async def test_a_turn_is_asked_and_answered(face: Face, gateway: Gateway) -> None:
    key = gateway.key()
    async with face.client(gateway.url, gateway.tokens.give()) as client:
        answer = await opened(client, key).ask("Increment 'visits' counter by 2", state={"mood": "good"})
    [*_, last] = await gateway.world.log(key)
    assert (answer.status, answer.seq, answer.text, answer.failure) == ("answered", 4, last.text, None)
    state = (await gateway.world.store.get(key, max_events=0)).state
    assert state == {"counters": {"visits": 2}, "mood": "good"}


async def test_s63_sent_again_under_its_id_it_runs_once(client: Any, sqlite_gateway: Gateway) -> None:
    session = opened(client, sqlite_gateway.key())
    assert await session.send("Add one.", message_id="m 1 é") == "m 1 é"
    answer = await session.ask("Add one.", message_id="m 1 é")
    assert (answer.invocation_id, answer.status) == ("m 1 é", "answered")
    assert await session.ask("Add one.", message_id="m 1 é") == answer
    assert (await session.get(max_events=0)).state == {"counters": {"one": 1}}
    with pytest.raises(EventConflict):
        await session.ask("Add two.", message_id="m 1 é")


async def test_a_turn_that_fails_is_no_error(client: Any, sqlite_gateway: Gateway) -> None:
    sqlite_gateway.world.gemini.fail(400)
    answer = await opened(client, sqlite_gateway.key()).ask("Add one.")
    assert (answer.status, answer.text) == ("failed", "")
    assert answer.failure.type == "ModelRefused"


async def test_a_turn_takes_as_long_as_it_takes(
    face: Face, sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request waits for all of it: another one takes over, under the same id."""
    monkeypatch.setattr(calls, "WAIT", 1)
    key = sqlite_gateway.key("tester")
    sqlite_gateway.world.gemini.script(call("wait_at_gate", label="x"), say("went through"))
    async with (
        cutter(sqlite_gateway.url) as between,
        face.client(between.url, sqlite_gateway.tokens.give()) as client,
    ):
        asking = asyncio.create_task(opened(client, key).ask("go"))
        await until(lambda: _truth(len(between.requests) > 2))
        # The gateway asks Temporal once, however many of them there are.
        assert len(sqlite_gateway.app.state.services.streams.asking) == 1
        gate.open.set()
        assert (await asking).text == "went through"
        await until(lambda: _truth(len(sqlite_gateway.app.state.services.streams.asking) == 0))
    assert len(sqlite_gateway.world.gemini.model_calls()) == 2


async def _truth(value: bool) -> bool:
    return value


async def test_what_is_wrong_with_a_message_is_a_typed_error(client: Any, sqlite_gateway: Gateway) -> None:
    session = opened(client, sqlite_gateway.key())
    with pytest.raises(InvalidMessage):
        await session.ask("")
    with pytest.raises(UnknownAgent):
        await client.session("nobody", "ann", "s1").ask("hi")
    await session.ask("Add one.", message_id="m1")
    await session.end()
    with pytest.raises(SessionEnded):
        await session.ask("Add one.")
    assert (await session.ask("Add one.", reopen=True)).status == "answered"
    await session.rewind("m1")
    with pytest.raises(InvocationRewound, match="m1"):
        await session.stream("Add one.", message_id="m1").finish()


@pytest.mark.parametrize("said", ["half \ud800", "nul \x00"])
async def test_s7_text_that_is_none_is_refused_before_it_is_sent(
    face: Face, said: str, sqlite_gateway: Gateway
) -> None:
    async with cutter(sqlite_gateway.url) as between, face.client(between.url, "t") as client:
        session = opened(client, sqlite_gateway.key())
        await all_raise(
            InvalidContent,
            lambda: session.ask(said),
            lambda: session.ask(content={"parts": [{"text": said}]}),
            lambda: session.ask("hi", message_id=said),
            lambda: session.update(state={"a": {"b": said}}),
            lambda: session.update(metadata={said: 1}),
            lambda: session.rewind(said),
            lambda: client.sessions.get("counter", said, "s1"),
        )
        for number in (float("nan"), float("inf")):
            with pytest.raises(InvalidContent, match=r"stateDelta\['a'\]"):
                await session.ask("hi", state={"a": number})
        assert between.requests == []


@pytest.mark.parametrize("wrong", ["", "a/b", ".", ".."])
async def test_a_name_that_no_path_can_hold_is_refused(face: Face, wrong: str) -> None:
    async with face.client("http://127.0.0.1:9") as client:
        with pytest.raises((InvalidContent, InvalidOption), match="the session's id"):
            await client.session("counter", "ann", wrong).status()


async def test_a_stream_gives_pieces_and_then_the_event(face: Face, gateway: Gateway) -> None:
    key, model = gateway.key(), gateway.world.gemini
    model.script(say(STORY))
    model.hang(after=1)
    async with face.client(gateway.url, gateway.tokens.give()) as client:
        stream = opened(client, key).stream("hi", message_id="m1")
        assert stream.invocation_id == "m1"
        user = await anext(stream)
        assert (user.partial, user.id, user.seq) == (False, "m1:user", 1)
        piece = await anext(stream)
        # The model has said no more than this, and will not until it is let go on.
        assert isinstance(piece, Partial)
        assert (piece.partial, piece.event_id, piece.offset) == (True, "m1:m1", 0)
        assert len(model.in_flight) == 1
        assert STORY.startswith(piece.text)
        model.release()
        shown, event = piece.text, await anext(stream)
        while isinstance(event, Partial):
            shown = shown[: event.offset] + event.text
            event = await anext(stream)
        assert STORY.startswith(shown)
        assert (event.id, event.seq, event.text) == ("m1:m1", 2, STORY)
        answer = await stream.finish()
    assert (answer.invocation_id, answer.status, answer.text) == ("m1", "answered", STORY)
    assert len(model.model_calls()) == 1


async def test_a_stream_that_is_left_closes_its_connection(client: Any, sqlite_gateway: Gateway) -> None:
    model, streams = sqlite_gateway.world.gemini, sqlite_gateway.app.state.services.streams
    model.script(say(STORY), say(STORY))
    model.hang(after=1, times=2)
    session = opened(client, sqlite_gateway.key())
    async for event in session.stream("hi", message_id="m1"):
        assert event.seq == 1
        break
    await until(lambda: _truth(len(streams) == 0))
    async with session.stream("hi", message_id="m1") as stream:
        await anext(stream)
        assert len(streams) == 1
    await until(lambda: _truth(len(streams) == 0))
    with pytest.raises(InvalidOption, match="m1 was closed before its end"):
        await stream.finish()
    await model.wait_in_flight()
    model.release()
    # The turn did not end with those who listened.
    assert (await session.ask("hi", message_id="m1")).text == STORY
    assert len(model.model_calls()) == 1


async def test_a_connection_cut_at_the_reply_does_nothing_twice(face: Face, gateway: Gateway) -> None:
    key = gateway.key()
    async with (
        cutter(gateway.url) as between,
        face.client(between.url, gateway.tokens.give()) as client,
    ):
        session = opened(client, key)
        between.replies_to_cut = 2
        answer = await session.ask("Increment 'visits' counter by 1")
        assert answer.status == "answered"
        assert len(between.requests) == 3
        calls_made = len(gateway.world.gemini.model_calls())
        assert calls_made == 2
        changes: list[Callable[[], Any]] = [
            lambda: session.update(state={"mood": "good"}, metadata={"n": 1}),
            lambda: session.rewind(answer.invocation_id),
            lambda: session.fork(),
            lambda: session.artifacts.save("a.txt", b"once"),
            lambda: session.compact(),
            lambda: session.cancel(answer.invocation_id),
            lambda: session.end(),
        ]
        for change in changes:
            between.replies_to_cut = 1
            await change()
        assert between.replies_to_cut == 0
        log = await gateway.world.log(key)
        assert [event.author for event in log if event.author == "user"] == ["user"] * 2  # said, updated
        assert len([event for event in log if event.rewind]) == 1
        assert [file.version for file in await session.artifacts.versions("a.txt")] == [1]
        assert len([found async for found in client.sessions.list(key.app, key.user_id)]) == 2


async def test_what_cannot_be_told_from_anothers_is_not_done_again(
    face: Face, sqlite_gateway: Gateway
) -> None:
    key = sqlite_gateway.key()
    async with (
        cutter(sqlite_gateway.url) as between,
        face.client(between.url, sqlite_gateway.tokens.give()) as client,
    ):
        between.replies_to_cut = 1
        with pytest.raises(GatewayUnavailable, match="broke at POST /apps/counter/sessions"):
            await client.sessions.create(key.app, key.user_id, key.session_id)
        assert (await opened(client, key).get()).version == (
            await sqlite_gateway.world.store.get(key)
        ).version
        between.replies_to_cut = 1
        with pytest.raises(GatewayUnavailable):
            await opened(client, key).cancel()
        # Under an id that the client chooses it can be told.
        between.replies_to_cut = 1
        made = await client.sessions.create(key.app, key.user_id)
        names = {found.id async for found in client.sessions.list(key.app, key.user_id)}
        assert names == {key.session_id, made.id}


async def test_a_stream_that_is_cut_goes_on_with_its_turn(face: Face, gateway: Gateway) -> None:
    key, model = gateway.key(), gateway.world.gemini
    model.script(say(STORY))
    model.hang(after=1)
    async with (
        cutter(gateway.url) as between,
        face.client(between.url, gateway.tokens.give()) as client,
    ):
        stream = opened(client, key).stream("hi")
        seen: list[Event] = []
        shown, cuts = "", 0
        async for event in stream:
            if isinstance(event, Partial):
                shown = shown[: event.offset] + event.text
                assert STORY.startswith(shown)
                if cuts < 2:
                    between.cut()
                    cuts += 1
                else:
                    model.release()
            else:
                seen.append(event)
        assert [event.seq for event in seen] == [1, 2]
        assert seen[-1].text == (await stream.finish()).text == STORY
        assert len(between.requests) == 3
    assert len(model.model_calls()) == 1
