"""Calls that wait, as google-adk's clients know them: asked, answered and gone on with by ``/run``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from embedded.temporal import TemporalServer
from perdure.testing import call, say
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.gateway.harness import Gateway, open_gateway, path_of
from tests.gateway.test_adk_api import asked, made, run, streamed, texts
from tests.integration.harness import open_world, until
from tests.integration.waiting_agents import WAITING_AGENTS, ran

YES = {"confirmed": True}


@pytest_asyncio.fixture
async def gateway(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[Gateway]:
    async with (
        open_world(temporal.address, sqlite_store, WAITING_AGENTS) as world,
        open_gateway(world, agents=WAITING_AGENTS) as opened,
    ):
        yield opened


async def begun(
    gateway: Gateway, *calls: JsonObject, then: Any = None
) -> tuple[SessionKey, list[JsonObject]]:
    """A session whose turn waits, and the events of the run that ended there."""
    key = await made(gateway, "clerk")
    gateway.world.gemini.script(list(calls), then or say("done"))
    return key, await run(gateway, asked(key, "go", invocationId="m1"))


def answering(key: SessionKey, *answers: tuple[str, str, JsonObject], **more: Any) -> JsonObject:
    parts = [{"functionResponse": {"id": id_, "name": name, "response": said}} for id_, name, said in answers]
    return asked(key, None, newMessage={"role": "user", "parts": parts}, **more)


def confirming(key: SessionKey, id_: str, said: JsonObject) -> JsonObject:
    return answering(key, (id_, "adk_request_confirmation", said))


def open_calls(events: list[JsonObject]) -> set[str]:
    """As google-adk's clients find them (``index_open_interrupts``)."""
    found: set[str] = set()
    for event in events:
        parts = (event.get("content") or {}).get("parts") or []
        if event["author"] == "user":
            found -= {part["functionResponse"]["id"] for part in parts if "functionResponse" in part}
        found |= set(event.get("longRunningToolIds") or ())
    return found


async def session(gateway: Gateway, key: SessionKey) -> list[JsonObject]:
    found: list[JsonObject] = (await gateway.http.get(path_of(key))).json()["events"]
    return found


async def test_a_long_running_call_is_answered_by_a_function_response(gateway: Gateway) -> None:
    key, events = await begun(gateway, call("render", scene="sea"))
    [model, ticket] = events
    [called] = model["longRunningToolIds"]
    assert model["content"]["parts"][0]["functionCall"]["id"] == called
    given = ticket["content"]["parts"][0]["functionResponse"]
    assert (given["id"], given["name"], given["response"]["job"]) == (called, "render", "job-sea")
    assert ticket["author"] == "clerk"
    assert ticket["actions"]["stateDelta"] == {"renderings": 1}
    assert open_calls(await session(gateway, key)) == {called}
    await gateway.world.runner.tool_progress(key, "m1:t1.0", "half")
    rest = await run(gateway, answering(key, (called, "render", {"url": "x"})))
    [result, last] = rest
    said = result["content"]["parts"][0]["functionResponse"]
    assert (result["author"], said["id"], said["response"]) == ("user", called, {"url": "x"})
    assert texts([last]) == ["done"]
    whole = await session(gateway, key)
    assert whole[1:] == [*events, *rest], "a session has the same events, and none of a progress"
    assert open_calls(whole) == set()
    assert await run(gateway, asked(key, None, invocationId="m1")) == whole[1:]


@pytest.mark.parametrize("said", [YES, {"response": json.dumps(YES)}], ids=["plain", "wrapped"])
async def test_a_person_is_asked_by_a_call_and_says_yes(gateway: Gateway, said: JsonObject) -> None:
    key, events = await begun(gateway, call("transfer", to="ann", amount=5))
    [model, asks] = events
    assert model["longRunningToolIds"] == []
    own = model["content"]["parts"][0]["functionCall"]
    question = asks["content"]["parts"][0]["functionCall"]
    assert asks["longRunningToolIds"] == [question["id"]]
    assert question["name"] == "adk_request_confirmation"
    assert question["args"]["originalFunctionCall"] == own
    assert question["args"]["toolConfirmation"]["confirmed"] is False
    assert (asks["author"], asks["content"]["role"]) == ("clerk", "model")
    decided, response, last = await run(gateway, confirming(key, question["id"], said))
    assert decided["author"] == "user"
    assert decided["content"]["parts"][0]["functionResponse"]["response"] == YES
    assert response["content"]["parts"][0]["functionResponse"]["id"] == own["id"]
    assert texts([last]) == ["done"]
    assert [to for name, to, _ in ran if name == key.session_id] == ["ann"]
    whole = await session(gateway, key)
    assert whole[1:] == [*events, decided, response, last]
    assert open_calls(whole) == set()
    stored = await gateway.world.store.event(key, "m1:t1.0")
    assert stored is not None
    assert stored.meta["settled"] == {"decision": "yes", "by": key.user_id}


async def test_a_no_by_a_stream(gateway: Gateway) -> None:
    key, events = await begun(gateway, call("transfer", to="ann", amount=5))
    body = confirming(key, events[1]["longRunningToolIds"][0], {"confirmed": False})
    async with streamed(gateway, body) as stream:
        decided, response, last = [event async for event in stream]
    assert decided["content"]["parts"][0]["functionResponse"]["response"] == {"confirmed": False}
    assert "refused" in str(response["content"])
    assert texts([last]) == ["done"]
    assert not [to for name, to, _ in ran if name == key.session_id]


async def test_a_stream_goes_on_where_its_turn_waits_again(gateway: Gateway) -> None:
    """What waits was asked for before the stream began."""
    key, events = await begun(gateway, call("render_costly", scene="sea"))
    body = confirming(key, events[1]["longRunningToolIds"][0], YES)
    async with streamed(gateway, body) as stream:
        decided, ticket = [event async for event in stream]
    assert decided["author"] == "user"
    given = ticket["content"]["parts"][0]["functionResponse"]
    assert given["response"] == {"result": "job-sea"}
    async with streamed(gateway, answering(key, (given["id"], "render_costly", {"url": "x"}))) as stream:
        result, last = [event async for event in stream]
    assert result["content"]["parts"][0]["functionResponse"]["response"] == {"url": "x"}
    assert texts([last]) == ["done"]
    assert (await session(gateway, key))[1:] == [*events, decided, ticket, result, last]


async def test_several_calls_are_answered_in_one_message_or_one_by_one(gateway: Gateway) -> None:
    calls = [call("render", scene="sea"), call("transfer", to="bob", amount=1), call("render", scene="sky")]
    key, events = await begun(gateway, *calls)
    first, second = events[0]["longRunningToolIds"]
    [asking] = [event["longRunningToolIds"][0] for event in events[1:] if event.get("longRunningToolIds")]
    [result] = await run(gateway, answering(key, (second, "render", {"url": "sky"})))
    assert "sky" in str(result["content"])
    both = answering(
        key, (first, "render", {"url": "sea"}), (asking, "adk_request_confirmation", {"confirmed": True})
    )
    assert texts([(await run(gateway, both))[-1]]) == ["done"]
    assert open_calls(await session(gateway, key)) == set()


async def test_responses_that_no_call_waits_for_are_refused_and_nothing_is_taken(gateway: Gateway) -> None:
    key, events = await begun(gateway, call("render", scene="sea"), call("transfer", to="x", amount=1))
    [rendering] = events[0]["longRunningToolIds"]
    own = events[0]["content"]["parts"][1]["functionCall"]["id"]
    [asking] = [event["longRunningToolIds"][0] for event in events[1:] if event.get("longRunningToolIds")]
    good = (rendering, "render", {"url": "x"})
    confirm = "adk_request_confirmation"
    text = {"parts": [{"text": "and"}, {"functionResponse": {"id": rendering, "name": "render"}}]}
    for body, words in (
        (answering(key, good, ("x", "f", {})), "Function call not found for function response ids: ['x']"),
        (answering(key, good, (own, "transfer", {})), f"answer {confirm} '{asking}'"),
        (answering(key, good, (asking, confirm, {"confirmed": "perhaps"})), "no {"),
        (answering(key, good, (asking, confirm, {"response": "perhaps"})), "no {"),
        (answering(key, good, (asking, confirm, {**YES, "payload": {"a": 1}})), "no payload"),
        (answering(key, good, good), "each one once"),
        (answering(key, ("", "render", {})), "id is required"),
        (answering(key, good, stateDelta={"a": 1}), "no stateDelta"),
        (asked(key, None, newMessage=text), "both function responses and other parts"),
    ):
        for route in ("/run", "/run_sse"):
            answer = await gateway.http.post(route, json=body)
            assert (answer.status_code, list(answer.json())) == (400, ["detail"]), words
            assert words in answer.json()["detail"]
    assert len(await gateway.world.runner.waiting(key)) == 2
    await gateway.world.runner.cancel(key)

    async def rests() -> bool:
        return not (await gateway.world.runner.status(key)).waiting

    assert await until(rests)
    answer = await gateway.http.post("/run", json=answering(key, good))
    assert answer.status_code == 400
    assert answer.json()["detail"].endswith("nothing waits in this session.")


async def test_a_function_response_brings_no_event(gateway: Gateway) -> None:
    key, events = await begun(gateway, call("charge", amount=5))
    [model, charged] = events
    assert model["longRunningToolIds"] == []
    assert ("content" in charged, charged["actions"]["stateDelta"]) == (False, {"charged": 5})
    id_ = model["content"]["parts"][0]["functionCall"]["id"]
    answer = await gateway.http.post("/run", json=answering(key, (id_, "charge", {})))
    assert answer.status_code == 400
    assert "a notification" in answer.json()["detail"]


async def test_what_nobody_decided_is_not_open_for_ever(gateway: Gateway) -> None:
    key, events = await begun(gateway, call("refused_in_time", note="x"))

    async def answered() -> bool:
        return (await gateway.world.runner.ask(key, "go", message_id="m1")).status == "answered"

    assert await until(answered)
    whole = await session(gateway, key)
    # It may have been decided, and gone on, before the run that ended there had read its events.
    assert len(events) >= 2
    assert whole[1:][: len(events)] == events
    assert open_calls(whole[:3]) != set()
    assert open_calls(whole) == set()


async def test_who_does_not_reach_the_session_answers_nothing(gateway: Gateway) -> None:
    key, events = await begun(gateway, call("render", scene="sea"))
    body = answering(key, (events[0]["longRunningToolIds"][0], "render", {}))
    async with gateway.client_of("somebody-else", app="clerk") as stranger:
        assert (await stranger.post("/run", json=body)).status_code == 403
    assert len(await gateway.world.runner.waiting(key)) == 1
