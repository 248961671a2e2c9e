"""The stand-in itself: its rules, its checks, what it can be told, and how it stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener
from urllib.request import Request as HttpRequest

import pytest

import perdure.testing
from activities.gemini import Gemini
from perdure.errors import InvalidOption, ModelRefused, ModelUnavailable
from perdure.testing import StandIn, StandInClient, call, say, think
from perdure.testing.arguments import argument_sets
from perdure.testing.rules import answer_by_rule
from perdure.testing.summaries import LONGEST_SUMMARY, asks_for_summary, summarise
from perdure.types import JsonObject, text_of

MODEL = "gemini-3-flash-preview"


def declare(
    name: str, description: str, required: tuple[str, ...] = (), **properties: JsonObject
) -> JsonObject:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"name": name, "description": description, "parametersJsonSchema": schema}


INCREMENT = declare(
    "increment_counter",
    "Increment a named counter.",
    ("counter_name",),
    counter_name={"type": "string", "description": "Name of the counter"},
    amount={"type": "integer", "default": 1},
)
SAVE = declare(
    "save_counter_report",
    "Save a report of all counter values to an artifact file.",
    ("filename",),
    filename={"type": "string"},
)
SHOW = declare("show_counters", "Show the current value of every counter.")
TOOLS = [INCREMENT, SAVE, SHOW]


def user(text: str) -> JsonObject:
    return {"role": "user", "parts": [{"text": text}]}


def model(*parts: JsonObject) -> JsonObject:
    return {"role": "model", "parts": list(parts)}


def responses(*pairs: tuple[str, JsonObject]) -> JsonObject:
    parts = [{"functionResponse": {"name": name, "response": body}} for name, body in pairs]
    return {"role": "user", "parts": parts}


def called(text: str, tools: list[JsonObject] = TOOLS) -> list[tuple[str, JsonObject]]:
    parts = answer_by_rule([user(text)], tools)
    return [
        (part["functionCall"]["name"], part["functionCall"]["args"])
        for part in parts
        if "functionCall" in part
    ]


def replied(tool: str, args: JsonObject, body: JsonObject) -> str:
    contents = [user("whatever"), model(call(tool, **args)), responses((tool, body))]
    (part,) = answer_by_rule(contents, TOOLS)
    return str(part["text"])


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    async with StandIn() as running:
        yield running


@pytest.fixture
async def gemini(stand_in: StandIn) -> AsyncIterator[Gemini]:
    client = Gemini(stand_in.url)
    yield client
    await client.close()


async def ask(gemini: Gemini, *contents: JsonObject, tools: list[JsonObject] | None = None) -> JsonObject:
    answer = await gemini.generate(
        model=MODEL, system="", contents=contents or [user("Hello")], tools=tools or [], timeout=60
    )
    return answer.content


async def post(
    url: str, body: Any, path: str = f"/v1beta/models/{MODEL}:generateContent"
) -> tuple[int, JsonObject]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def send() -> tuple[int, JsonObject]:
        try:
            with build_opener(ProxyHandler({})).open(HttpRequest(url + path, data=data), timeout=60) as reply:
                return reply.status, json.load(reply)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    return await asyncio.to_thread(send)


# Rules


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (
            "Increment 'visits' counter by 1 and show its value",
            [("increment_counter", {"counter_name": "visits", "amount": 1})],
        ),
        (
            'Save current counter values to "counter-report.txt"',
            [("save_counter_report", {"filename": "counter-report.txt"})],
        ),
        ("Save the counters to report.txt", [("save_counter_report", {"filename": "report.txt"})]),
        ("Increment 'visits' by 100", [("increment_counter", {"counter_name": "visits", "amount": 100})]),
        (
            "Increment 'visits' by 1 and show the new value",
            [("increment_counter", {"counter_name": "visits", "amount": 1})],
        ),
        ("Increment 'shares' counter", [("increment_counter", {"counter_name": "shares"})]),
        (
            "Increment 'logins' and 'clicks' by 2",
            [
                ("increment_counter", {"counter_name": "logins", "amount": 2}),
                ("increment_counter", {"counter_name": "clicks", "amount": 2}),
            ],
        ),
        (
            "Increment “a” by 3 and “b” by 4.",
            [
                ("increment_counter", {"counter_name": "a", "amount": 3}),
                ("increment_counter", {"counter_name": "b", "amount": 4}),
            ],
        ),
        (
            "please increment logins and page views by two",
            [
                ("increment_counter", {"counter_name": "logins", "amount": 2}),
                ("increment_counter", {"counter_name": "page views", "amount": 2}),
            ],
        ),
        ("Add 5 to the 'visits' counter", [("increment_counter", {"counter_name": "visits", "amount": 5})]),
        ("Show all counters", [("show_counters", {})]),
        ("Tell me the current value of each counter", [("show_counters", {})]),
        ("What can you do?", []),
        ("Hello there", []),
        ("", []),
    ],
)
def test_a_tool_is_chosen_and_its_arguments_filled(text: str, calls: list[tuple[str, JsonObject]]) -> None:
    assert called(text) == calls


def test_arguments_follow_the_schema() -> None:
    declaration = declare(
        "book_room",
        "Book a room",
        ("room", "guests", "beds", "quiet"),
        room={"anyOf": [{"type": "string"}, {"type": "null"}]},
        guests={"type": "array", "items": {"type": "string"}},
        beds={"enum": ["single", "double"], "type": "string"},
        quiet={"type": "boolean"},
        price={"type": "number"},
        note={"type": "string"},
        address={"$ref": "#/$defs/Address"},
    )
    declaration["parametersJsonSchema"]["$defs"] = {
        "Address": {"type": "object", "properties": {"city": {"type": "string"}}}
    }
    (args,) = argument_sets(declaration, "Book 'blue' for 'Ann', 'Bo', a double bed, quiet, at 12.5 a night")
    assert args == {"room": "blue", "guests": ["Ann", "Bo"], "beds": "double", "quiet": True, "price": 12.5}


def test_older_schemas_are_read_too() -> None:
    declaration = {
        "name": "greet",
        "parameters": {
            "type": "OBJECT",
            "properties": {"name": {"type": "STRING"}, "times": {"type": "INTEGER"}},
        },
    }
    assert argument_sets(declaration, "Greet 'Ann' 3 times") == [{"name": "Ann", "times": 3}]


@pytest.mark.parametrize(
    ("tool", "args", "body", "said"),
    [
        (
            "increment_counter",
            {"counter_name": "visits", "amount": 1},
            {"counter_name": "visits", "old_value": 0, "new_value": 1},
            "I've incremented the 'visits' counter by 1. The new value is 1.",
        ),
        (
            "increment_counter",
            {},
            {"counterName": "visits", "oldValue": 1, "newValue": 101, "increment": 100},
            "I've incremented the 'visits' counter by 100. The new value is 101.",
        ),
        (
            "save_counter_report",
            {"filename": "r.txt"},
            {"success": True, "filename": "r.txt", "counters_count": 1},
            "I've saved the counter report to r.txt. The file contains 1 counter.",
        ),
        (
            "save_counter_report",
            {"filename": "r.txt"},
            {"filename": "r.txt", "countersCount": 2},
            "I've saved the counter report to r.txt. The file contains 2 counters.",
        ),
        ("show_counters", {}, {"visits": 2, "clicks": 1}, "The counters are: clicks 1, visits 2."),
        ("show_counters", {}, {"counters": {"visits": 2}}, "The counters are: visits 2."),
        ("show_counters", {}, {"result": {"visits": 2}}, "The counters are: visits 2."),
        ("show_counters", {}, {"result": {}}, "There are no counters yet."),
        ("show_counters", {}, {}, "There are no counters yet."),
        ("get_weather", {}, {"degrees": 21.5, "wind": 3}, "The weather is: degrees 21.5, wind 3."),
        ("lookup", {}, {"result": "42"}, "The result of lookup is 42."),
        ("add_numbers", {}, {"result": 42}, "The result of add_numbers is 42."),
        ("lookup", {}, {"result": ["a", "b"]}, "The result of lookup is a, b."),
        ("lookup", {}, {}, "I called lookup: it returned nothing."),
        ("increment_counter", {}, {"error": "out of ink"}, "The tool increment_counter failed: out of ink"),
        ("lookup", {}, {"error": {"type": "E", "message": "no"}}, "The tool lookup failed: no"),
    ],
)
def test_responses_are_said_in_words(tool: str, args: JsonObject, body: JsonObject, said: str) -> None:
    assert replied(tool, args, body) == said


def test_a_tool_is_not_called_again_for_the_same_message() -> None:
    asked = user("Increment 'a' and 'b' by 1")
    calls = model(call("increment_counter", counter_name="a"), call("increment_counter", counter_name="b"))
    done = responses(
        ("increment_counter", {"counter_name": "a", "new_value": 1}),
        ("increment_counter", {"counter_name": "b", "new_value": 5}),
    )
    (part,) = answer_by_rule([asked, calls, done], TOOLS)
    assert "'a' counter by 1. The new value is 1" in part["text"]
    assert "'b' counter by 1. The new value is 5" in part["text"]
    again = answer_by_rule([asked, calls, done, model(part), asked], TOOLS)
    assert len(again) == 2
    assert all("functionCall" in one for one in again)


def test_plain_talk_is_echoed_by_what_calls_itself_a_stand_in() -> None:
    (part,) = answer_by_rule([user("Good morning " * 100)], TOOLS)
    assert "stand-in" in part["text"]
    assert "Good morning" in part["text"]
    assert "show_counters" in part["text"]
    assert len(part["text"]) < 400


def test_without_a_tool_for_it_the_conversation_knows() -> None:
    contents = [
        user("Summary of the conversation so far:\nCounters: clicks 2, visits 7."),
        user("Show all counters"),
    ]
    (part,) = answer_by_rule(contents, [INCREMENT])
    assert part["text"] == "From the conversation: clicks 2, visits 7."


# Summaries


def transcript(*lines: str) -> list[JsonObject]:
    return [user("\n".join(lines))]


def turn(name: str, value: int) -> list[str]:
    returned = json.dumps({"counter_name": name, "old_value": value - 1, "new_value": value, "increment": 1})
    return [
        f"user: Increment '{name}' counter by 1",
        f"counter called increment_counter({json.dumps({'counter_name': name, 'amount': 1})})",
        f"increment_counter returned {returned}",
        f"counter: I've incremented the '{name}' counter by 1. The new value is {value}.",
    ]


def test_a_summary_keeps_the_latest_numbers() -> None:
    summary = summarise(transcript(*turn("visits", 1), *turn("clicks", 4), *turn("visits", 2)))
    assert "Counters: clicks 4, visits 2." in summary
    assert "3 requests" in summary


def test_a_summary_takes_in_the_one_before() -> None:
    first = summarise(transcript(*turn("visits", 1), *turn("clicks", 4)))
    report = 'save_counter_report returned {"success": true, "filename": "r.txt", "counters_count": 2}'
    second = summarise(transcript(f"Earlier summary: {first}", *turn("visits", 9), report))
    third = summarise(transcript(f"Earlier summary: {second}", *turn("likes", 1)))
    assert "Counters: clicks 4, likes 1, visits 9." in third
    assert "Files: r.txt." in third
    assert "4 requests" in third


def test_a_summary_is_short_whatever_it_sums_up() -> None:
    summary = ""
    for number in range(120):
        lines = [line for index in range(5) for line in turn(f"counter-{number}-{index}", number)]
        summary = summarise(transcript(f"Earlier summary: {summary}", *lines, "user: " + "blah " * 5000))
        assert len(summary) <= LONGEST_SUMMARY
    assert "720 requests" in summary


def test_a_summary_reads_contents_as_well_as_transcripts() -> None:
    contents = [
        user("Increment 'visits'"),
        model(call("increment_counter", counter_name="visits")),
        responses(("increment_counter", {"counter_name": "visits", "new_value": 3})),
        model(say("Done, 'visits' it is.")),
    ]
    assert "Counters: visits 3." in summarise(contents)
    assert "1 request so far" in summarise(contents)


@pytest.mark.parametrize(
    ("system", "text", "has_tools", "asked"),
    [
        ("Summarize the conversation below.", "user: hello", False, True),
        ("", "Please write a short summary of this: …", False, True),
        ("You are helpful.", "Summary of the conversation so far:\nCounters: a 1.", False, False),
        ("You summarize counters.", "Show all counters", True, False),
        ("", "Hello", False, False),
    ],
)
def test_what_asks_for_a_summary(system: str, text: str, has_tools: bool, asked: bool) -> None:
    assert asks_for_summary(system, text, has_tools=has_tools) is asked


# The protocol


async def test_one_response_holds_what_a_stream_would(stand_in: StandIn) -> None:
    stand_in.script([think("let me see"), say("A text of some length, for pieces.")])
    status, body = await post(stand_in.url, {"contents": [user("Hello")]})
    (candidate,) = body["candidates"]
    assert status == 200
    assert candidate["content"]["parts"][:2] == [
        think("let me see"),
        say("A text of some length, for pieces."),
    ]
    assert candidate["finishReason"] == "STOP"
    assert body["modelVersion"] == "stand-in"


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha", "v1beta1"])
async def test_tokens_are_counted_and_are_no_model_call(stand_in: StandIn, version: str) -> None:
    short = await post(stand_in.url, {"contents": [user("a")]}, f"/{version}/models/{MODEL}:countTokens")
    long = await post(stand_in.url, {"contents": [user("a" * 400)]}, f"/{version}/models/{MODEL}:countTokens")
    assert short[0] == 200
    assert long[1]["totalTokens"] - short[1]["totalTokens"] == pytest.approx(100, abs=1)
    assert stand_in.model_calls() == []
    assert [request.kind for request in stand_in.requests] == ["count", "count"]


async def test_a_prompt_over_the_limit_is_refused_as_gemini_does() -> None:
    async with StandIn(input_limit=50) as stand_in:
        fits, _ = await post(stand_in.url, {"contents": [user("a")]})
        status, body = await post(stand_in.url, {"contents": [user("a" * 400)]})
    assert (fits, status) == (200, 400)
    assert "exceeds the maximum number of tokens allowed (50)" in body["error"]["message"]


async def test_what_is_not_there_is_404(stand_in: StandIn) -> None:
    status, body = await post(stand_in.url, {}, f"/v1beta/models/{MODEL}:embedContent")
    assert (status, body["error"]["status"]) == (404, "NOT_FOUND")


CALL = {"functionCall": {"name": "f", "args": {}}}
RESPONSE = {"functionResponse": {"name": "f", "response": {}}}
PAIRING = "number of function response parts is equal to the number of function call parts"


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ([], "contents is not specified"),
        ([model(say("hi"))], "begin with a user turn"),
        ([{"role": "system", "parts": [{"text": "x"}]}], "valid role"),
        ([{"role": "user", "parts": []}], "parts must not be empty"),
        ([{"role": "user"}], "parts must not be empty"),
        ([{"role": "user", "parts": [{}]}], "required oneof field 'data'"),
        ([{"role": "user", "parts": [{"thought": True}]}], "required oneof field 'data'"),
        ([{"role": "user", "parts": [{"txt": "x"}]}], 'Unknown name "txt"'),
        ([{"role": "user", "parts": [{"text": "x", **CALL}]}], "already set"),
        (["hello"], "Invalid value at 'contents\\[0\\]'"),
        ([user("x"), model(CALL)], "followed by a function response turn"),
        ([user("x"), model(CALL), user("and?")], PAIRING),
        ([user("x"), model(CALL, CALL), {"role": "user", "parts": [RESPONSE]}], PAIRING),
        ([user("x"), {"role": "user", "parts": [RESPONSE]}], "immediately after a function call turn"),
        ([user("x"), model(CALL), responses(("g", {}))], "names match"),
    ],
)
async def test_what_gemini_refuses_is_refused(contents: list[Any], said: str) -> None:
    async with StandIn(signatures=False) as stand_in:
        status, body = await post(stand_in.url, {"contents": contents})
        assert (status, body["error"]["status"]) == (400, "INVALID_ARGUMENT")
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(body["error"]["message"])


async def test_a_body_that_is_not_json_is_refused(stand_in: StandIn) -> None:
    status, _ = await post(stand_in.url, b"{nonsense")
    assert status == 400


async def test_a_call_must_come_back_with_its_signature(stand_in: StandIn, gemini: Gemini) -> None:
    asked = user("Increment 'a' and 'b'")
    content = await ask(gemini, asked, tools=TOOLS)
    first, second = content["parts"]
    assert "thoughtSignature" in first
    assert "thoughtSignature" not in second
    done = {
        "role": "user",
        "parts": [
            {
                "functionResponse": {
                    **{k: v for k, v in part["functionCall"].items() if k != "args"},
                    "response": {},
                }
            }
            for part in content["parts"]
        ],
    }
    await ask(gemini, asked, content, done, tools=TOOLS)
    lost = model({"functionCall": first["functionCall"]}, second)
    with pytest.raises(ModelRefused, match="missing a thought_signature"):
        await ask(gemini, asked, lost, done, tools=TOOLS)
    with pytest.raises(ModelRefused, match="Corrupted thought signature"):
        await ask(gemini, asked, model({**first, "thoughtSignature": "QUJD"}, second), done, tools=TOOLS)
    await ask(gemini, asked, lost, done, model(say("Done.")), user("Thanks"), tools=TOOLS)


async def test_calls_carry_ids_every_other_time(gemini: Gemini) -> None:
    found = [await ask(gemini, user("Increment 'a'"), tools=TOOLS) for _ in range(4)]
    assert ["id" in content["parts"][0]["functionCall"] for content in found] == [True, False, True, False]


async def test_a_response_to_a_call_of_another_id_is_refused(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.script(call("f", call_id="one"))
    content = await ask(gemini)
    strange = {"role": "user", "parts": [{"functionResponse": {"id": "two", "name": "f", "response": {}}}]}
    with pytest.raises(ModelRefused, match="`two` does not match"):
        await ask(gemini, user("Hello"), content, strange)


# What it can be told


async def test_scripts_come_before_rules_in_order(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.script(call("save_counter_report", filename="x"), say("two"))
    assert (await ask(gemini, tools=TOOLS))["parts"][0]["functionCall"]["args"] == {"filename": "x"}
    assert text_of(await ask(gemini)) == "two"
    assert "stand-in" in text_of(await ask(gemini))
    assert text_of({"parts": stand_in.requests[1].answer}) == "two"


async def test_a_script_is_for_turns_unless_it_says_otherwise(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.script(say("the answer"))
    stand_in.script(say("the summary"), kind="summarise")
    summary = await gemini.generate(model=MODEL, system="Summarize.", contents=[user("user: hi")], timeout=60)
    assert text_of(summary.content) == "the summary"
    assert text_of(await ask(gemini)) == "the answer"
    assert [request.kind for request in stand_in.requests] == ["summarise", "generate"]


async def test_faults_are_for_those_they_fit_and_counted(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.script(say("kept"))
    stand_in.fail(503, times=2, contains="please")
    assert text_of(await ask(gemini, user("now"))) == "kept"
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            await ask(gemini, user("now, please"))
    assert await ask(gemini, user("now, please"))


async def test_a_fault_leaves_the_scripted_answer_for_the_retry(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.script(say("at last"))
    stand_in.fail(500)
    stand_in.empty()
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            await ask(gemini)
    assert text_of(await ask(gemini)) == "at last"


async def test_clear_forgets_what_was_told(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.fail(500, times=9)
    stand_in.script(say("never"))
    stand_in.clear()
    assert "stand-in" in text_of(await ask(gemini))


def test_a_fault_that_does_not_exist_is_told() -> None:
    with pytest.raises(InvalidOption, match="colour"):
        StandIn().fail(500, colour="red")


async def test_slow_requests_can_be_released(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.slow(3600)
    stand_in.hang()
    stand_in.hang(after=1)
    tasks = [asyncio.create_task(ask(gemini)) for _ in range(3)]
    await stand_in.wait_in_flight(3)
    stand_in.release()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    assert all(request.answered and not request.aborted for request in stand_in.requests)


async def test_a_short_delay_ends_by_itself(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.slow(0.2)
    start = time.monotonic()
    await ask(gemini)
    assert time.monotonic() - start >= 0.2


async def test_requests_are_recorded_from_their_start(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.hang()
    task = asyncio.create_task(ask(gemini, user("Increment 'a'"), tools=TOOLS))
    (request,) = await stand_in.wait_for_requests(1)
    assert (request.number, request.model, request.kind) == (1, MODEL, "generate")
    assert request.tools == ["increment_counter", "save_counter_report", "show_counters"]
    assert request.last_user_text == "Increment 'a'"
    assert request.in_flight
    assert request.finished is None
    stand_in.release()
    await task
    await stand_in.wait_idle()
    assert (request.status, request.answered, request.aborted) == (200, True, False)
    assert request.finished is not None
    assert request.started <= request.finished


async def test_waiting_has_an_end(stand_in: StandIn) -> None:
    with pytest.raises(TimeoutError, match="2 requests in flight"):
        await stand_in.wait_in_flight(2, timeout=0.05)


# Being a server


async def test_it_stops_at_once_with_requests_hanging() -> None:
    stand_in = StandIn()
    await stand_in.start()
    stand_in.hang(times=3)
    stand_in.hang(after=1)
    client = Gemini(stand_in.url)
    tasks = [asyncio.create_task(ask(client)) for _ in range(4)]
    waiting = asyncio.create_task(asyncio.to_thread(StandInClient(stand_in.url).wait, requests=99))
    await stand_in.wait_in_flight(4)
    async with asyncio.timeout(60):
        await stand_in.stop()
    results = await asyncio.gather(*tasks, waiting, return_exceptions=True)
    assert all(isinstance(result, ModelUnavailable) for result in results[:4])
    assert isinstance(results[4], Exception)
    assert all(request.aborted for request in stand_in.requests)
    await client.close()


async def test_it_listens_on_this_machine_only_and_tells_when_it_cannot(stand_in: StandIn) -> None:
    assert stand_in.url.startswith("http://127.0.0.1:")
    with pytest.raises(OSError, match="in use"):
        await StandIn(int(stand_in.url.rpartition(":")[2])).start()


async def test_a_dropped_connection_is_seen(stand_in: StandIn) -> None:
    stand_in.hang()
    body = json.dumps({"contents": [user("Hello")]}).encode()
    line = f"POST /v1beta/models/{MODEL}:generateContent HTTP/1.1"
    head = f"{line}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(stand_in.url.rpartition(":")[2]))) as connection:
        connection.sendall(head.encode() + body)
        await stand_in.wait_in_flight()
    await stand_in.wait_idle()
    assert stand_in.requests[0].aborted


# From another process


async def test_another_process_can_tell_and_look(stand_in: StandIn, gemini: Gemini) -> None:
    control = StandInClient(stand_in.url)
    await asyncio.to_thread(control.script, [call("f", a=1), call("g")])
    await asyncio.to_thread(control.slow, 3600)
    waiting = asyncio.create_task(control.wait_in_flight())
    task = asyncio.create_task(ask(gemini))
    await waiting
    await asyncio.to_thread(control.release)
    assert [part["functionCall"]["name"] for part in (await task)["parts"]] == ["f", "g"]
    await asyncio.to_thread(control.fail, 429, retry_after=2)
    with pytest.raises(ModelUnavailable) as caught:
        await ask(gemini)
    assert caught.value.retry_after == 2
    await asyncio.to_thread(control.wait, requests=2, idle=True)
    seen = await asyncio.to_thread(control.requests)
    assert seen == stand_in.requests
    assert await asyncio.to_thread(control.requests, 1) == stand_in.requests[1:]
    await asyncio.to_thread(control.hang)
    await asyncio.to_thread(control.clear)
    assert await ask(gemini)


async def test_what_it_is_told_wrongly_is_answered(stand_in: StandIn) -> None:
    control = StandInClient(stand_in.url)
    with pytest.raises(TimeoutError):
        await control.wait_for_requests(1, timeout=0)
    for path, body in [("faults", {"fault": "plague"}), ("faults", 7), ("script", {}), ("faults", b"{")]:
        status, reply = await post(stand_in.url, body, f"/_control/{path}")
        assert status == 400
        assert reply["error"]


def test_it_runs_as_a_process() -> None:
    command = [sys.executable, "-W", "error", "-m", "perdure.testing.gemini", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "stand-in" in line
        control = StandInClient(line.split()[-1])
        control.hang()

        async def one() -> None:
            client = Gemini(control.url)
            task = asyncio.create_task(ask(client))
            await control.wait_in_flight()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ModelUnavailable):
                await task
            await client.close()

        asyncio.run(one())
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")


def test_what_is_public() -> None:
    assert perdure.testing.__all__ == [
        "CRASH_POINTS",
        "Controls",
        "Fault",
        "Match",
        "Request",
        "Script",
        "StandIn",
        "StandInClient",
        "call",
        "crash_at",
        "note_in",
        "noted",
        "say",
        "think",
    ]
    assert all(getattr(perdure.testing, name).__doc__ for name in perdure.testing.__all__)


# JSON of a schema


async def test_json_of_a_schema_is_answered_and_refused_as_gemini_does(stand_in: StandIn) -> None:
    schema: JsonObject = {
        "type": "object",
        "required": ["n", "said"],
        "properties": {"said": {"type": "string"}},
    }
    schema["properties"] |= {"n": {"type": "integer"}, "left": {"type": "string"}}
    body = {"contents": [{"role": "user", "parts": [{"text": "Give me 7."}]}]}
    asked = {"responseMimeType": "application/json", "responseJsonSchema": schema}
    status, answer = await post(stand_in.url, {**body, "generationConfig": asked})
    said = json.loads(answer["candidates"][0]["content"]["parts"][0]["text"])
    assert (status, said["n"], set(said)) == (200, 7, {"n", "said"})
    status, answer = await post(stand_in.url, {**body, "generationConfig": {"responseJsonSchema": schema}})
    assert (status, "response_mime_type" in answer["error"]["message"]) == (400, True)
    tools = [{"functionDeclarations": [{"name": "look"}]}]
    both = {**body, "tools": tools, "generationConfig": asked}
    assert (await post(stand_in.url, both))[0] == 200
    older = "/v1beta/models/gemini-2.5-flash:generateContent"
    status, answer = await post(stand_in.url, both, older)
    assert (status, "is unsupported" in answer["error"]["message"]) == (400, True)
