"""Messages over HTTP: waited for, not waited for, sent twice, left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from perdure.testing import call, say
from tests.gateway.harness import Gateway, path_of
from tests.gateway.test_sessions_routes import is_problem
from tests.integration.agents import gate
from tests.integration.harness import until


@pytest.fixture(autouse=True)
def _closed_gate() -> None:
    gate.reset()


def held(gateway: Gateway, label: str) -> None:
    """Let the next turn be held in its tool."""
    gateway.world.gemini.script(call("wait_at_gate", label=label), say("went through"))


async def test_a_message_is_answered(gateway: Gateway) -> None:
    key = gateway.key()
    answer = await gateway.http.post(path_of(key, "/messages"), json={"text": "increment by 2"})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["status"] == "answered"
    assert said["text"]
    events = (await gateway.http.get(path_of(key, "/events"))).json()
    assert events["events"][-1]["seq"] == said["seq"] == events["head"]


async def test_s63_sent_again_under_its_id_it_gets_the_first_reply(gateway: Gateway) -> None:
    key = gateway.key()
    first = await gateway.http.post(
        path_of(key, "/messages"), json={"text": "Add one."}, headers={"Idempotency-Key": "m1"}
    )
    again = await gateway.http.post(path_of(key, "/messages"), json={"text": "Add one.", "messageId": "m1"})
    assert first.json() == again.json()
    assert first.json()["invocationId"] == "m1"
    other = await gateway.http.post(
        path_of(key, "/messages"), json={"text": "Add two."}, headers={"Idempotency-Key": "m1"}
    )
    is_problem(other, 409, "event-conflict")


async def test_s64_after_a_rewind_it_is_told_so(gateway: Gateway) -> None:
    path = path_of(gateway.key())
    await gateway.http.post(path + "/messages", json={"text": "Add one.", "messageId": "m1"})
    await gateway.http.post(path + "/rewind", json={"before": "m1"})
    again = await gateway.http.post(path + "/messages", json={"text": "Add one.", "messageId": "m1"})
    is_problem(again, 409, "invocation-rewound")


@pytest.mark.parametrize(
    ("headers", "body"),
    [({"Prefer": "respond-async"}, {}), ({}, {"wait": False})],
    ids=["header", "field"],
)
async def test_one_that_is_not_waited_for_is_taken_with_its_id(
    gateway: Gateway, headers: dict[str, str], body: dict[str, Any]
) -> None:
    path = path_of(gateway.key())
    taken = await gateway.http.post(
        path + "/messages", json={"text": "Add one.", "messageId": "m1", **body}, headers=headers
    )
    assert (taken.status_code, taken.json()) == (202, {"invocationId": "m1", "status": "accepted"})
    assert taken.headers["location"] == f"{path}/events?after=0"
    answer = await gateway.http.post(path + "/messages", json={"text": "Add one.", "messageId": "m1"})
    assert answer.json()["status"] == "answered"
    page = (await gateway.http.get(taken.headers["location"])).json()
    assert [event["id"] for event in page["events"] if event["author"] == "user"][:1] == ["m1:user"]


async def test_one_that_takes_longer_than_it_is_waited_for_goes_on(sqlite_gateway: Gateway) -> None:
    path = path_of(sqlite_gateway.key("tester"))
    held(sqlite_gateway, "w")
    taken = await sqlite_gateway.http.post(
        path + "/messages",
        json={"text": "hold", "messageId": "m1"},
        headers={"Prefer": "wait=0"},
    )
    assert taken.status_code == 202, taken.text
    await gate.held()
    gate.open.set()
    answer = await sqlite_gateway.http.post(path + "/messages", json={"text": "hold", "messageId": "m1"})
    assert answer.json()["status"] == "answered"
    assert gate.calls == ["w"]


async def test_a_client_that_goes_away_does_not_cancel_the_turn(gateway: Gateway) -> None:
    key = gateway.key("tester")
    held(gateway, "gone")
    body = {"text": "hold", "messageId": "m1"}
    leaving = asyncio.create_task(gateway.http.post(path_of(key, "/messages"), json=body))
    await gate.held()
    leaving.cancel()
    await asyncio.wait([leaving])
    gate.open.set()

    async def answered() -> bool:
        return (await gateway.world.kinds(key))[-1:] == ["model"] and len(await gateway.world.log(key)) == 4

    await until(answered)
    assert gate.calls == ["gone"]


async def test_a_running_turn_is_cancelled(gateway: Gateway) -> None:
    key = gateway.key("tester")
    held(gateway, "c")
    body = {"text": "hold", "messageId": "m1"}
    turn = asyncio.create_task(gateway.http.post(path_of(key, "/messages"), json=body))
    await gate.held()
    working = (await gateway.http.get(path_of(key, "/status"))).json()
    assert working["work"]["invocationId"] == "m1"
    cancelled = await gateway.http.post(path_of(key, "/cancel"), json={"invocationId": "m1"})
    assert cancelled.status_code == 204
    answer: httpx2.Response = await turn
    assert answer.json()["status"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid-message"),
        ({"text": " "}, 400, "invalid-message"),
        ({"text": "x", "content": {"parts": []}}, 400, "invalid-message"),
        ({"text": 7}, 422, "invalid-request"),
        ({"text": "x", "mesageId": "m1"}, 422, "invalid-request"),
        ({"text": "x\x00"}, 400, "invalid-content"),
    ],
)
async def test_one_that_makes_no_sense_is_refused(
    sqlite_gateway: Gateway, body: dict[str, Any], status: int, code: str
) -> None:
    key = sqlite_gateway.key()
    is_problem(await sqlite_gateway.http.post(path_of(key, "/messages"), json=body), status, code)
    is_problem(await sqlite_gateway.http.get(path_of(key, "/events")), 404, "session-not-found")


async def test_one_to_an_agent_that_is_not_served_starts_nothing(sqlite_gateway: Gateway) -> None:
    key = sqlite_gateway.key("nobody")
    answer = await sqlite_gateway.http.post(path_of(key, "/messages"), json={"text": "x"})
    is_problem(answer, 404, "unknown-agent")
