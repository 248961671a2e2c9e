"""google-adk's API over our sessions: what a comparison with google-adk's own server cannot show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from gateway.adk_events import event_json
from gateway.adk_secrets import without_secrets
from gateway.wire import one_line
from integrations.adk_json.events import META
from perdure.testing import call, say, think
from perdure.types import Event, JsonObject, SessionKey
from storage.feed import Answering
from tests.gateway.harness import Gateway, path_of
from tests.integration.harness import until


async def made(gateway: Gateway, app: str = "counter", **more: Any) -> SessionKey:
    """A session, created through the API."""
    key = gateway.key(app)
    body = {"sessionId": key.session_id, **more}
    answer = await gateway.http.post(f"/apps/{key.app}/users/{key.user_id}/sessions", json=body)
    assert answer.status_code == 200, answer.text
    return key


def asked(key: SessionKey, text: str | None = "Hello", **more: Any) -> JsonObject:
    """The body of a run."""
    said = {} if text is None else {"newMessage": {"role": "user", "parts": [{"text": text}]}}
    return {"appName": key.app, "userId": key.user_id, "sessionId": key.session_id, **said, **more}


async def run(gateway: Gateway, body: JsonObject) -> list[JsonObject]:
    answer = await gateway.http.post("/run", json=body)
    assert answer.status_code == 200, answer.text
    found: list[JsonObject] = answer.json()
    return found


def texts(events: list[JsonObject]) -> list[str]:
    return ["".join(part.get("text", "") for part in event["content"]["parts"]) for event in events]


@asynccontextmanager
async def streamed(gateway: Gateway, body: JsonObject) -> AsyncIterator[AsyncIterator[JsonObject]]:
    """The events of a run, as they come."""
    async with gateway.http.stream("POST", "/run_sse", json=body) as response:
        assert response.status_code == 200
        yield frames(response)


async def frames(response: httpx2.Response) -> AsyncIterator[JsonObject]:
    async for line in response.aiter_lines():
        if line:
            assert line.startswith("data: {"), line
            yield json.loads(line.removeprefix("data: "))


# Turns


async def test_a_state_delta_comes_with_the_message_and_goes_with_it(gateway: Gateway) -> None:
    key = await made(gateway, state={"mode": "test"})
    delta = {"mode": None, "user:name": "Ann", "temp:x": 1, "temp_y": 2, "deep": {"a": [1]}}
    await run(gateway, asked(key, invocationId="one", stateDelta=delta))
    session = (await gateway.http.get(path_of(key))).json()
    assert session["state"] == {"deep": {"a": [1]}, "temp_y": 2, "user:name": "Ann"}
    assert session["events"][0]["author"] == "user"
    assert session["events"][0]["actions"]["stateDelta"] == {
        "mode": None,
        "user:name": "Ann",
        "temp_y": 2,
        "deep": {"a": [1]},
    }
    await gateway.world.runner.rewind(key, "one")
    session = (await gateway.http.get(path_of(key))).json()
    assert session["state"] == {"mode": "test", "user:name": "Ann"}
    assert [event["actions"].get("rewindBeforeInvocationId") for event in session["events"]] == ["one"]


async def test_no_state_is_in_temporals_history(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    await run(sqlite_gateway, asked(key, "what was said", stateDelta={"the key": "of the treasure"}))
    history = await sqlite_gateway.world.handle(key).fetch_history()
    raw = "".join(str(event) for event in history.events)
    assert "treasure" not in raw
    assert "what was said" not in raw, "it travels with the state"


async def test_s63_a_run_sent_again_under_its_id_runs_once(gateway: Gateway) -> None:
    key = await made(gateway)
    body = asked(key, "Only once", invocationId="once", stateDelta={"n": 1})
    gateway.world.gemini.script(say("So be it."))
    first = await run(gateway, body)
    assert await run(gateway, body) == first
    assert await run(gateway, asked(key, None, invocationId="once")) == first
    async with streamed(gateway, body) as events:
        assert [event async for event in events] == [{**event} for event in first]
    assert texts(first) == ["So be it."]
    assert {event["invocationId"] for event in first} == {"once"}
    said = [request for request in gateway.world.gemini.requests if request.last_user_text == "Only once"]
    assert len(said) == 1


async def test_a_turn_is_asked_for_again_however_large_its_message_was(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    sqlite_gateway.world.gemini.script(say("Long."))
    first = await run(sqlite_gateway, asked(key, "word " * 100_000, invocationId="large"))
    [said, _] = (await sqlite_gateway.http.get(path_of(key))).json()["events"]
    assert len(json.dumps(said)) < 20_000, "it was put away"
    await sqlite_gateway.world.handle(key).terminate()  # nobody remembers but the log
    assert await run(sqlite_gateway, asked(key, None, invocationId="large")) == first
    async with streamed(sqlite_gateway, asked(key, None, invocationId="large")) as events:
        assert [event async for event in events] == first


async def test_what_was_rewound_is_not_asked_for_again(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    await run(sqlite_gateway, asked(key, invocationId="one"))
    await sqlite_gateway.world.runner.rewind(key, "one")
    answer = await sqlite_gateway.http.post("/run", json=asked(key, None, invocationId="one"))
    assert answer.status_code == 409
    answer = await sqlite_gateway.http.post("/run", json=asked(key, None, invocationId="none"))
    assert answer.status_code == 404


async def test_an_id_of_another_message_is_a_conflict(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    await run(sqlite_gateway, asked(key, "One", invocationId="i"))
    await sqlite_gateway.world.handle(key).terminate()
    answer = await sqlite_gateway.http.post("/run", json=asked(key, "Another", invocationId="i"))
    assert answer.status_code == 409
    assert list(answer.json()) == ["detail"]


async def test_pieces_of_an_answer_come_before_it_is_there(gateway: Gateway) -> None:
    key = await made(gateway)
    gateway.world.gemini.script([think("Hm."), say("One, two, three, and so on.")])
    gateway.world.gemini.hang(after=2)
    async with streamed(gateway, asked(key, streaming=True)) as events:
        first = await anext(events)
        gateway.world.gemini.release()
        rest = [event async for event in events]
    *pieces, whole = [first, *rest]
    assert all(event["partial"] for event in pieces)
    assert whole["partial"] is False
    assert {event["id"] for event in pieces} == {whole["id"]}
    assert "".join(texts(pieces)) == "".join(texts([whole])) == "Hm.One, two, three, and so on."
    session = (await gateway.http.get(path_of(key))).json()
    assert [event["id"] for event in session["events"][1:]] == [whole["id"]]


async def test_without_streaming_no_pieces_come(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    async with streamed(sqlite_gateway, asked(key)) as events:
        assert ["partial" in event async for event in events] == [False]


async def test_a_client_that_goes_away_leaves_the_turn_running(gateway: Gateway) -> None:
    key = await made(gateway)
    gateway.world.gemini.script(say("Said to nobody, but said."))
    gateway.world.gemini.hang(after=1)
    async with streamed(gateway, asked(key, streaming=True, invocationId="gone")) as events:
        await anext(events)
    gateway.world.gemini.release()

    async def answered() -> bool:
        return await gateway.world.kinds(key) == ["user", "model"]

    assert await until(answered)
    assert texts(await run(gateway, asked(key, None, invocationId="gone"))) == ["Said to nobody, but said."]


async def test_a_stream_tells_of_an_error_as_google_adk_does(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    await sqlite_gateway.world.runner.end(key)
    async with streamed(sqlite_gateway, asked(key)) as events:
        [told] = [event async for event in events]
    assert told["error"].startswith("SessionEnded: ")
    assert told["error_details"]["error_type"] == "SessionEnded"
    answer = await sqlite_gateway.http.post("/run", json=asked(key))
    assert (answer.status_code, list(answer.json())) == (409, ["detail"])


async def test_a_silent_stream_says_that_it_is_there(sqlite_gateway: Gateway) -> None:
    """By comments: google-adk's clients take the lines that begin with ``data:``, and pass over others."""
    sqlite_gateway.app.state.services.streams.heartbeat = 0.05
    key, model = await made(sqlite_gateway), sqlite_gateway.world.gemini
    model.script(say("Here it is."))
    model.hang(after=1)
    async with sqlite_gateway.http.stream("POST", "/run_sse", json=asked(key)) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        lines = response.aiter_lines()
        beats = [line async for line in first_of(lines, 4) if line]
        assert beats == [": still here"] * 2
        await model.wait_in_flight()
        model.release()
        said = [json.loads(line[5:]) async for line in lines if line.startswith("data:")]
    assert texts(said) == ["Here it is."]


async def first_of(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield await anext(lines)


async def test_half_a_character_ends_no_stream(sqlite_gateway: Gateway) -> None:
    """A model's server may cut its pieces anywhere; the other half is in the next one."""
    key, model = await made(sqlite_gateway), sqlite_gateway.world.gemini
    model.script(say("Done."))
    model.hang(after=1)
    body = asked(key, streaming=True, invocationId="i")
    feed = sqlite_gateway.world.store.feed
    async with streamed(sqlite_gateway, body) as events:
        first = await anext(events)
        epoch = (await sqlite_gateway.world.store.get(key)).epoch
        answering = Answering(
            event_id=first["id"], invocation_id="i", author="counter", epoch=epoch, after=1, attempt=99
        )
        with feed.preview(key, answering) as preview:
            preview.add({"role": "model", "parts": [{"text": "a \ud83c"}]})
            assert texts([await anext(events)]) == ["a \ud83c"]
        model.release()
        assert texts([event async for event in events])[-1:] == ["Done."]


async def test_what_nobody_foresaw_is_told_within_the_stream(
    sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await made(sqlite_gateway)

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("what a user said")

    monkeypatch.setattr(sqlite_gateway.world.runner, "ask", broken)
    async with streamed(sqlite_gateway, asked(key)) as events:
        [told] = [event async for event in events]
    assert told["error_details"]["error_type"] == "InternalError"
    assert "user said" not in json.dumps(told)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"a": "汉\n字"}, '{"a":"汉\\n字"}'),
        ({"a": "\ud83c"}, '{"a":"\\ud83c"}'),
        ({"a": [float("nan"), float("inf"), 1.5]}, '{"a":[null,null,1.5]}'),
        ({"\ud83c": float("nan")}, '{"\\ud83c":null}'),
    ],
)
def test_one_line_of_json_can_be_read_by_everybody(data: JsonObject, text: str) -> None:
    assert one_line(data) == text
    assert json.loads(one_line(data).encode()) is not None


async def test_a_turn_that_was_cancelled_says_so(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    sqlite_gateway.world.gemini.hang()
    running = asyncio.create_task(run(sqlite_gateway, asked(key)))

    async def in_flight() -> bool:
        return bool(sqlite_gateway.world.gemini.in_flight)

    await until(in_flight)
    await sqlite_gateway.world.runner.cancel(key)
    [event] = await running
    assert (event["author"], event["interrupted"]) == ("perdure", True)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"functionCall": {"name": "show_counters", "args": {}}}, "cannot contain function calls"),
        ({"functionResponse": {"id": "x", "name": "f", "response": {}}}, "Function call not found"),
    ],
)
async def test_a_message_does_not_speak_for_the_model_or_a_tool(
    sqlite_gateway: Gateway, part: JsonObject, words: str
) -> None:
    key = await made(sqlite_gateway)
    body = asked(key, None, newMessage={"role": "user", "parts": [part]})
    answer = await sqlite_gateway.http.post("/run", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert await sqlite_gateway.world.kinds(key) == []


@pytest.mark.parametrize(
    "part",
    [
        {"text": "Hello", "mediaProcessing": None, "inlineData": None},
        {"text": "Hello", "mediaResolution": {"level": None}},
        {"text": "Hello", "mediaResolution": {"level": "MEDIA_RESOLUTION_OF_A_LATER_RELEASE"}},
    ],
)
async def test_fields_that_are_null_or_new_are_taken(sqlite_gateway: Gateway, part: JsonObject) -> None:
    key = await made(sqlite_gateway)
    sqlite_gateway.world.gemini.script(say("Hi."))
    message = {"role": "user", "parts": [part]}
    assert texts(await run(sqlite_gateway, asked(key, None, newMessage=message))) == ["Hi."]
    saved = await sqlite_gateway.http.post(
        path_of(key, "/artifacts"), json={"filename": "a", "artifact": part}
    )
    assert saved.status_code == 200, saved.text
    first = {"sessionId": f"{key.session_id}-2", "events": [{"content": message}]}
    begun = await sqlite_gateway.http.post(path_of(key).rpartition("/")[0], json=first)
    assert begun.status_code == 200, begun.text
    assert texts((await sqlite_gateway.http.get(path_of(key) + "-2")).json()["events"]) == ["Hello"]


@pytest.mark.parametrize("wrong", [5, 0.5, {}, [], True])
async def test_fields_of_another_kind_are_refused(sqlite_gateway: Gateway, wrong: object) -> None:
    key = await made(sqlite_gateway)
    message = {"role": "user", "parts": [{"text": "Hello", "mediaProcessing": wrong}]}
    for path, body in (
        ("/run", asked(key, None, newMessage=message)),
        (path_of(key, "/artifacts"), {"filename": "a", "artifact": message["parts"][0]}),
        (path_of(key).rpartition("/")[0], {"events": [{"content": message}]}),
        (
            path_of(key).rpartition("/")[0],
            {"events": [{"usageMetadata": {"trafficType": wrong, "promptTokenCount": 1}}]},
        ),
    ):
        answer = await sqlite_gateway.http.post(path, json=body)
        assert (answer.status_code, list(answer.json())) == (422, ["detail"]), answer.text


async def test_what_another_api_took_is_shown_here(sqlite_gateway: Gateway) -> None:
    """Ours takes any content that a later release of genai's may know."""
    key = await made(sqlite_gateway)
    part = {"text": "Hello", "mediaProcessing": 5, "ofALaterRelease": {"a": None}}
    event = Event(id="e:e", invocation_id="e", author="user", content={"role": "user", "parts": [part]})
    await sqlite_gateway.world.store.append(key, event)
    answer = await sqlite_gateway.http.get(path_of(key))
    assert answer.status_code == 200, answer.text
    assert answer.json()["events"][0]["content"]["parts"] == [part]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
async def test_what_the_web_ui_only_reads_cannot_be_changed(sqlite_gateway: Gateway, method: str) -> None:
    for path in (
        "/dev/apps/counter/build_graph",
        "/dev/apps/counter/eval-sets",
        "/dev/apps/counter/debug/trace/e1",
    ):
        answer = await sqlite_gateway.http.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET"), path
        assert answer.json() == {"detail": "Method Not Allowed"}
    assert (await sqlite_gateway.http.request(method, "/dev/apps/counter/eval-sets/x")).status_code == 501


async def test_calls_without_ids_get_the_same_one_in_every_answer(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    both = [call("show_counters"), call("increment_counter", counter_name="x")]
    sqlite_gateway.world.gemini.script(both, say("Done."))
    events = await run(sqlite_gateway, asked(key))
    calls = [part["functionCall"]["id"] for part in events[0]["content"]["parts"]]
    responses = [event["content"]["parts"][0]["functionResponse"]["id"] for event in events[1:3]]
    assert len(set(calls)) == 2
    assert responses == calls
    assert (await sqlite_gateway.http.get(path_of(key))).json()["events"][1:] == events


async def test_summaries_are_not_shown(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    for number in range(3):  # the counter agent sums up after every third turn
        events = await run(sqlite_gateway, asked(key, f"Hello {number}"))
        assert len(events) == 1

    async def summed_up() -> bool:
        return "compaction" in await sqlite_gateway.world.kinds(key)

    await until(summed_up)
    session = (await sqlite_gateway.http.get(path_of(key))).json()
    assert len(session["events"]) == 6
    again = await run(sqlite_gateway, asked(key, None, invocationId=session["events"][-1]["invocationId"]))
    assert again == session["events"][-1:]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/run", '{"appName": "counter", "userId": "u", "sessionId": "\\ud800", "newMessage": %s}', 404),
        ("/run", '{"appName": "counter\\ud800", "userId": "u", "sessionId": "s", "newMessage": %s}', 404),
        ("/run", '{"appName": "counter", "userId": ["\\ud800"], "sessionId": "s", "newMessage": %s}', 422),
        ("/run", '{"appName": "counter", "userId": NaN, "sessionId": "s", "newMessage": %s}', 422),
        ("/apps/counter/users/u/sessions", '{"state": {"a": NaN}, "x": %s}', 400),
        ("/apps/counter/users/u/sessions", '{"sessionId": "\\u0000", "x": %s}', 400),
    ],
)
async def test_s7_what_no_answer_can_quote(
    sqlite_gateway: Gateway, path: str, body: str, status: int
) -> None:
    said = body % '{"parts": [{"text": "x"}]}'
    headers = {"content-type": "application/json"}
    answer = await sqlite_gateway.http.post(path, content=said, headers=headers)
    assert (answer.status_code, list(answer.json())) == (status, ["detail"])


# Artifacts


async def test_a_deleted_artifact_comes_back_with_a_rewind(gateway: Gateway) -> None:
    key = await made(gateway)
    files = path_of(key, "/artifacts")
    for text in ("one", "two"):
        saved = await gateway.http.post(files, json={"filename": "a.txt", "artifact": {"text": text}})
        assert saved.status_code == 200
    assert (await gateway.http.delete(f"{files}/a.txt")).json() is None
    deletion = (await gateway.world.log(key))[-1].invocation_id
    assert (await gateway.http.get(files)).json() == []
    assert (await gateway.http.get(f"{files}/a.txt")).status_code == 404
    saved = await gateway.http.post(files, json={"filename": "a.txt", "artifact": {"text": "three"}})
    assert saved.json()["version"] == 3, "no number is used twice"
    assert (await gateway.http.get(f"{files}/a.txt/versions")).json() == [3]
    await gateway.world.runner.rewind(key, deletion)
    assert (await gateway.http.get(f"{files}/a.txt/versions")).json() == [0, 1]
    assert (await gateway.http.get(f"{files}/a.txt")).json() == {"text": "two"}


# Who may do what


async def test_a_users_token_reaches_that_user_alone(sqlite_gateway: Gateway) -> None:
    key = await made(sqlite_gateway)
    async with sqlite_gateway.client_of("somebody") as client:
        for path in ("/run", "/run_sse"):
            answer = await client.post(path, json=asked(key))
            assert (answer.status_code, list(answer.json())) == (403, ["detail"])
        for path in ("", "/artifacts", "/artifacts/x"):
            assert (await client.get(path_of(key, path))).status_code == 403
        assert (await client.get("/list-apps")).json() == ["counter"]
        assert (await client.get("/apps/counter/app-info")).status_code == 403
    async with sqlite_gateway.client_of(key.user_id) as client:
        assert (await client.post("/run", json=asked(key))).status_code == 200
        for delta in ({"app:x": 1}, {"app:x": None}):
            assert (await client.post("/run", json=asked(key, stateDelta=delta))).status_code == 403
            answer = await client.post(path_of(key), json=delta)
            assert answer.status_code == 403
    assert [event.author for event in await sqlite_gateway.world.log(key)] == ["user", "counter"]
    async with sqlite_gateway.client(None) as client:
        answer = await client.post("/run", json=asked(key))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (await client.get("/health")).json() == {"status": "ok"}


# The web UI


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("debug/trace/session/s1", 200, []),
        ("debug/trace/e1", 404, {"detail": "Trace not found"}),
        ("users/u/sessions/s/events/e/graph", 200, {}),
        ("build_graph_image", 200, {}),
        ("graph", 200, {}),
        ("eval_sets", 200, []),
        ("eval-sets", 200, {"evalSetIds": []}),
        ("eval_results", 200, []),
        ("eval-results", 200, {"evalResultIds": []}),
        ("metrics-info", 200, {"metricsInfo": []}),
        ("tests", 200, []),
        (
            "deploy/defaults",
            501,
            {"detail": "deploy/defaults of `adk web` is not served by Perdure's gateway."},
        ),
    ],
)
async def test_what_the_web_ui_asks_for(sqlite_gateway: Gateway, path: str, status: int, body: Any) -> None:
    answer = await sqlite_gateway.http.get(f"/dev/apps/counter/{path}")
    assert (answer.status_code, answer.json()) == (status, body)


async def test_the_web_ui_sends_no_telemetry_and_asks_nobody_about_it(sqlite_gateway: Gateway) -> None:
    """Without an answer it puts up a question that cannot be closed, whenever it starts."""
    async with sqlite_gateway.client_of("ann") as client:
        answer = await client.get("/config/telemetry")
        assert (answer.status_code, answer.json()) == (200, {"telemetry": False})
        assert (await client.post("/config/telemetry", json={"telemetry": True})).status_code == 405


async def test_the_web_ui_is_told_of_the_tools(sqlite_gateway: Gateway) -> None:
    graph = (await sqlite_gateway.http.get("/dev/apps/counter/build_graph")).json()
    names = [tool["name"] for tool in graph["root_agent"]["tools"]]
    assert names == ["increment_counter", "show_counters", "save_counter_report"]
    assert (await sqlite_gateway.http.get("/dev/apps/none/build_graph")).status_code == 404
    assert (await sqlite_gateway.http.get("/dev/apps/counter/builder")).text == ""


# What google-adk's own runner left in the log


def test_an_event_of_google_adk_is_given_as_it_was() -> None:
    said = {
        "timestamp": 12.5,
        "actions": {"transferToAgent": "other", "escalate": True},
        "nodeInfo": {"path": "root@1"},
        "longRunningToolIds": ["x"],
        "customMetadata": {"__adk_internal_restored_event": True, "mine": 1},
        "somethingNew": 5,
    }
    event = Event(
        id="e1",
        invocation_id="i1",
        author="root",
        content={"role": "model", "parts": [{"text": "hi", "fieldOfTomorrow": 1}]},
        state_delta={"adk:temp_x": 1},
        meta={META: said},
    )
    assert json.dumps(event_json(event)) == json.dumps(
        {
            "content": {"role": "model", "parts": [{"text": "hi", "fieldOfTomorrow": 1}]},
            "customMetadata": {"mine": 1},
            "invocationId": "i1",
            "author": "root",
            "actions": {
                "stateDelta": {"temp_x": 1},
                "artifactDelta": {},
                "transferToAgent": "other",
                "escalate": True,
                "requestedAuthConfigs": {},
                "requestedToolConfirmations": {},
            },
            "nodeInfo": {"path": "root@1"},
            "longRunningToolIds": ["x"],
            "id": "e1",
            "timestamp": 12.5,
            "somethingNew": 5,
        }
    )


def test_secrets_of_credentials_are_left_out() -> None:
    credential = {"authType": "oauth2", "oauth2": {"clientId": "me", "clientSecret": "s", "authUri": "u"}}
    shown = {"authType": "oauth2", "oauth2": {"clientId": "me", "authUri": "u"}}
    assert without_secrets({"a": [credential]}) == {"a": [shown]}
    assert without_secrets({"rawAuthCredential": {"apiKey": "s", "other": 1}}) == {
        "rawAuthCredential": {"other": 1}
    }
    asks = {
        "name": "adk_request_credential",
        "args": {"authConfig": {"accessToken": "s", "scheme": {"token": "s"}}, "token": "kept"},
    }
    assert without_secrets({"functionCall": asks}) == {
        "functionCall": {
            "name": "adk_request_credential",
            "args": {"authConfig": {"scheme": {}}, "token": "kept"},
        }
    }
    answers = {"name": "adk_request_credential", "response": {"refreshToken": "s", "ok": True}}
    assert without_secrets(answers) == {"name": "adk_request_credential", "response": {"ok": True}}
    configs = {"requestedAuthConfigs": {"c1": {"exchangedAuthCredential": {"apiKey": "s"}}}}
    assert without_secrets(configs) == {"requestedAuthConfigs": {"c1": {"exchangedAuthCredential": {}}}}
    said = {"token": "a word", "password": ["of a tool's own"], "authType": 5}
    assert without_secrets(said) == said
