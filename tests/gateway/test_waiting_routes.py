"""Calls that wait, over HTTP: listed, decided, answered, notified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from embedded.temporal import TemporalServer
from perdure import AsyncClient
from perdure import Client as BlockingClient
from perdure.testing import call, say
from storage.sessions import SessionStore
from tests.gateway.harness import Gateway, open_gateway_of, path_of
from tests.gateway.test_sessions_routes import is_problem
from tests.integration.harness import until
from tests.integration.waiting_agents import WAITING_AGENTS


@pytest_asyncio.fixture
async def gateway(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[Gateway]:
    async with open_gateway_of(WAITING_AGENTS, temporal, sqlite_store) as opened:
        yield opened


async def waits(gateway: Gateway, tool: str, /, **arguments: Any) -> str:
    """The path of a session whose turn waits."""
    path = path_of(gateway.key("clerk"))
    gateway.world.gemini.script(call(tool, **arguments), say("done"))
    answer = (await gateway.http.post(path + "/messages", json={"text": "go", "messageId": "m1"})).json()
    assert answer["status"] == "waiting"
    assert [each["callId"] for each in answer["waiting"]] == ["m1:t1.0"]
    return path


async def ended(gateway: Gateway, path: str) -> str:
    """What the message sent again gives."""
    answer = (await gateway.http.post(path + "/messages", json={"text": "go", "messageId": "m1"})).json()
    assert "waiting" not in answer
    return str(answer["text"])


async def test_a_call_is_approved(gateway: Gateway) -> None:
    path = await waits(gateway, "transfer", to="ann", amount=5)
    [found] = (await gateway.http.get(path + "/waiting")).json()["waiting"]
    assert (found["tool"], found["kind"]) == ("transfer", "approval")
    assert found["arguments"] == {"to": "ann", "amount": 5}
    body = {"callId": found["callId"], "by": "boss", "arguments": {"to": "bob", "amount": 1}}
    done = await gateway.http.post(path + "/approve", json=body)
    assert done.json() == {"callId": "m1:t1.0", "decision": "changed"}
    assert await ended(gateway, path) == "done"
    assert (await gateway.http.get(path + "/waiting")).json() == {"waiting": []}
    is_problem(
        await gateway.http.post(path + "/decline", json=body | {"arguments": None}), 422, "invalid-request"
    )
    is_problem(await gateway.http.post(path + "/decline", json={"callId": "m1:t1.0"}), 409, "already-settled")
    is_problem(await gateway.http.post(path + "/decline", json={"callId": "m9:t1.0"}), 404, "call-not-found")


async def test_a_call_is_declined(gateway: Gateway) -> None:
    path = await waits(gateway, "transfer", to="ann", amount=5)
    done = await gateway.http.post(path + "/decline", json={"callId": "m1:t1.0", "reason": "too much"})
    assert done.json()["decision"] == "no"
    assert await ended(gateway, path) == "done"
    assert "too much" in (await gateway.http.get(path + "/events")).text


async def test_a_result_comes_after_progress(gateway: Gateway) -> None:
    path = await waits(gateway, "render", scene="sea")
    progress = {"callId": "m1:t1.0", "text": "half", "percent": 50}
    assert (await gateway.http.post(path + "/tool-progress", json=progress)).status_code == 200
    [found] = (await gateway.http.get(path + "/waiting")).json()["waiting"]
    assert (found["text"], found["percent"]) == ("half", 50)
    assert found["ticket"]["job"] == "job-sea"
    both = {"callId": "m1:t1.0", "result": 1, "error": "no light"}
    is_problem(await gateway.http.post(path + "/tool-result", json=both), 400, "invalid-message")
    done = await gateway.http.post(path + "/tool-result", json={"callId": "m1:t1.0", "result": {"url": "x"}})
    assert done.json()["decision"] == "result"
    assert await ended(gateway, path) == "done"


async def test_an_event_is_notified_once(gateway: Gateway) -> None:
    path = await waits(gateway, "wait_for_event", name="paid")
    for _ in range(2):
        sent = await gateway.http.post(
            path + "/notify", json={"name": "paid", "payload": 5}, headers={"Idempotency-Key": "n1"}
        )
        assert sent.json() == {"notificationId": "n1"}
    assert await ended(gateway, path) == "done"
    status = (await gateway.http.get(path + "/status")).text
    assert '"mail":1' not in status


async def test_another_users_calls_are_out_of_reach(gateway: Gateway) -> None:
    path = await waits(gateway, "transfer", to="ann", amount=5)
    async with gateway.client_of("somebody-else", app="clerk") as stranger:
        for route in ("/approve", "/decline", "/tool-result"):
            is_problem(await stranger.post(path + route, json={"callId": "m1:t1.0"}), 403, "forbidden")
        is_problem(await stranger.get(path + "/waiting"), 403, "forbidden")
        is_problem(await stranger.post(path + "/notify", json={"name": "x"}), 403, "forbidden")


async def test_a_stream_of_a_turn_that_waits_says_so(gateway: Gateway) -> None:
    path = path_of(gateway.key("clerk"))
    gateway.world.gemini.script(call("transfer", to="ann", amount=5), say("done"))
    said = {"text": "go", "messageId": "m1"}
    stream = await gateway.http.post(path + "/messages", json=said, headers={"accept": "text/event-stream"})
    last = stream.text.strip().split("\n\n")[-1]
    assert last.startswith("event: answer")
    assert '"status":"waiting"' in last
    assert '"callId":"m1:t1.0"' in last
    behind = (await gateway.http.post(path + "/messages", json={"text": "and", "messageId": "m2"})).json()
    assert (behind["invocationId"], behind["status"]) == ("m2", "waiting")


async def found_waiting(gateway: Gateway, http: Any, **query: Any) -> list[Any]:
    """What ``GET /waiting`` has on all of its pages."""
    found: list[Any] = []
    while True:
        answer = await http.get("/waiting", params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["waiting"]
        if "nextCursor" not in page:
            return found
        query["cursor"] = page["nextCursor"]


async def test_what_waits_is_listed_across_sessions_page_by_page(gateway: Gateway) -> None:
    keys = []
    for amount in (1, 2, 3):
        key = gateway.key("clerk", user="ann-pages" if amount < 3 else "bob-pages")
        gateway.world.gemini.clear()
        gateway.world.gemini.script(call("transfer", to="ann", amount=amount), say("done"))
        assert (await gateway.world.runner.ask(key, "go", message_id="m1")).status == "waiting"
        keys.append(key)

    async def all_found() -> bool:
        there = {each["sessionId"] for each in await found_waiting(gateway, gateway.http, app="clerk")}
        return there >= {key.session_id for key in keys}

    assert await until(all_found)
    anns = {(key.session_id, amount) for key, amount in zip(keys, (1, 2), strict=False)}
    own = gateway.tokens.give(apps={"clerk"}, users={"ann-pages"})
    async with gateway.client(own) as ann:
        found = await found_waiting(gateway, ann, limit=1)
        assert {(each["sessionId"], each["arguments"]["amount"]) for each in found} == anns
        assert {each["userId"] for each in found} == {"ann-pages"}
        is_problem(await ann.get("/waiting", params={"user": "bob-pages"}), 403, "forbidden")
        is_problem(await ann.get("/waiting", params={"app": "counter"}), 403, "forbidden")
    by_user = await found_waiting(gateway, gateway.http, user="bob-pages")
    assert [each["sessionId"] for each in by_user] == [keys[2].session_id]
    assert [each["callId"] for each in by_user] == ["m1:t1.0"]
    async with gateway.client(gateway.tokens.give(apps={"counter"})) as others:
        assert await found_waiting(gateway, others) == []
    for cursor in ("no cursor", "AAAA"):
        wrong = await gateway.http.get("/waiting", params={"cursor": cursor})
        is_problem(wrong, 400, "invalid-option")
    with BlockingClient(gateway.url, own) as client:
        listed = await asyncio.to_thread(lambda: list(client.waiting("clerk")))
    async with AsyncClient(gateway.url, own) as awaited:
        again = [each async for each in awaited.waiting()]
    assert {each.key for each in listed} == {each.key for each in again} == set(keys[:2])
