"""The Gemini client, against the stand-in: a real SDK, real HTTP, real streams."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from google import genai

from activities.gemini import Answer, Gemini
from activities.model_errors import REFUSED_FINISHES, RETRYABLE_STATUSES, retry_after
from activities.model_wire import Reading
from perdure.errors import ModelRefused, ModelUnavailable
from perdure.testing import StandIn, call, say, think
from perdure.types import JsonObject, text_of

SIGNATURE = b"\xfb\xef\xbe\xff\xff\xffsealed!"
MODEL = "gemini-3-flash-preview"
INCREMENT: JsonObject = {
    "name": "increment_counter",
    "description": "Increment a named counter",
    "parametersJsonSchema": {
        "type": "object",
        "properties": {"counter_name": {"type": "string"}, "amount": {"type": "integer", "default": 1}},
        "required": ["counter_name"],
    },
}


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    async with StandIn() as running:
        yield running


@pytest.fixture
async def gemini(stand_in: StandIn) -> AsyncIterator[Gemini]:
    client = Gemini(stand_in.url)
    yield client
    await client.close()


def user(text: str) -> JsonObject:
    return {"role": "user", "parts": [{"text": text}]}


def response(name: str, body: JsonObject, call_id: str | None = None) -> JsonObject:
    named = {"id": call_id} if call_id else {}
    return {"role": "user", "parts": [{"functionResponse": {**named, "name": name, "response": body}}]}


async def ask(gemini: Gemini, text: str = "Hello", **changes: Any) -> Answer:
    given: dict[str, Any] = {"model": MODEL, "system": "Be brief.", "contents": [user(text)], "timeout": 120}
    return await gemini.generate(**{**given, **changes})


# What comes back


async def test_a_streamed_answer_is_put_together(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.script(say("The quick brown fox jumps over the lazy dog."))
    pieces: list[JsonObject] = []
    answer = await ask(gemini, on_chunk=pieces.append)
    assert answer.content == {
        "role": "model",
        "parts": [{"text": "The quick brown fox jumps over the lazy dog."}],
    }
    assert answer.finish_reason == "STOP"
    assert answer.model_version == "stand-in"
    assert answer.usage["totalTokenCount"] > answer.usage["candidatesTokenCount"] > 0
    assert len(pieces) > 2
    assert "".join(text_of(piece) for piece in pieces) == text_of(answer.content)


async def test_what_is_asked_arrives(stand_in: StandIn, gemini: Gemini) -> None:
    extra = {"temperature": 0.25, "thinking_config": {"include_thoughts": True}}
    await ask(gemini, "Increment 'a'", tools=[INCREMENT], extra=extra)
    (request,) = stand_in.requests
    assert request.path == f"/v1beta/models/{MODEL}:streamGenerateContent"
    assert request.system == "Be brief."
    assert request.contents == [user("Increment 'a'")]
    assert request.tools == ["increment_counter"]
    assert request.body["generationConfig"]["temperature"] == 0.25
    assert list(request.body["generationConfig"]["thinkingConfig"].values()) == [True]


async def test_without_system_and_tools_neither_is_sent(stand_in: StandIn, gemini: Gemini) -> None:
    await ask(gemini, system="")
    assert stand_in.requests[0].body.keys() & {"systemInstruction", "tools"} == set()


async def test_signatures_and_call_ids_go_back_as_they_came(stand_in: StandIn, gemini: Gemini) -> None:
    in_base64 = base64.b64encode(SIGNATURE).decode()
    assert set("+/=") <= set(in_base64)
    stand_in.script(
        [call("increment_counter", counter_name="a", call_id="id-7", signature=SIGNATURE), call("other")]
    )
    first = await ask(gemini)
    named, other = first.content["parts"]
    assert named["thoughtSignature"] == in_base64
    assert named["functionCall"]["id"] == "id-7"
    assert "id" not in other["functionCall"]
    assert "thoughtSignature" not in other

    responses = response("increment_counter", {"result": 1}, "id-7")
    responses["parts"] += response("other", {"result": 2})["parts"]
    await ask(gemini, contents=[user("Hello"), first.content, responses])
    sent = stand_in.requests[1].contents[1]
    assert sent == first.content
    assert base64.b64decode(sent["parts"][0]["thoughtSignature"]) == SIGNATURE


async def test_arguments_keep_their_names_and_order(stand_in: StandIn, gemini: Gemini) -> None:
    args = {"zeta_two": {"snake_case": 1, "camelCase": [None, 1.5]}, "alpha": "", "beta": {}}
    stand_in.script({"functionCall": {"name": "f", "args": args}})
    first = await ask(gemini)
    found = first.content["parts"][0]["functionCall"]["args"]
    assert found == args
    assert list(found) == list(args)
    await ask(gemini, contents=[user("Hello"), first.content, response("f", {"snake_case": {"a_b": None}})])
    assert stand_in.requests[1].contents[1:] == [first.content, response("f", {"snake_case": {"a_b": None}})]


async def test_fields_the_sdk_does_not_know_survive(stand_in: StandIn, gemini: Gemini) -> None:
    part = {"text": "odd", "partOfTomorrow": {"deep": [1]}}
    stand_in.script([part])
    first = await ask(gemini)
    assert first.content["parts"] == [part]
    await ask(gemini, contents=[user("Hello"), first.content, user("and?")])
    assert stand_in.requests[1].contents[1] == first.content


@pytest.mark.skipif(genai.__version__ < "3", reason="google-genai 2 splits events at U+2028 and U+0085")
async def test_text_that_json_leaves_raw_survives(stand_in: StandIn, gemini: Gemini) -> None:
    text = 'line\u2028separator \u0085 \r\n — 𝄞 {"data: "} ' * 5
    stand_in.script(say(text))
    assert (await ask(gemini)).content["parts"] == [{"text": text}]


async def test_a_part_of_only_a_signature_stays_a_part(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.script([think("hm"), say("yes"), say("", signature=SIGNATURE)])
    parts = (await ask(gemini)).content["parts"]
    assert parts == [think("hm"), say("yes"), say("", signature=SIGNATURE)]


def test_only_plain_text_of_one_kind_is_joined() -> None:
    reading = Reading()
    parts: list[JsonObject] = [
        {"text": "a", "thought": True},
        {"text": "b", "thought": True},
        {"text": "c"},
        {"text": ""},
        {"text": "d"},
        {"text": "e", "thoughtSignature": "QQ=="},
        {"text": "f"},
    ]
    for part in parts:
        reading.add({"candidates": [{"content": {"parts": [part]}}]})
    assert reading.content["parts"] == [{"text": "ab", "thought": True}, {"text": "cd"}, *parts[5:]]


async def test_concurrent_calls_do_not_mix(stand_in: StandIn, gemini: Gemini) -> None:
    texts = [f"this is message number {number}, in several pieces" for number in range(12)]
    for text in texts:
        stand_in.script(say(f"answer to: {text}"), contains=text)
    answers = await asyncio.gather(*(ask(gemini, text) for text in texts))
    assert [text_of(answer.content) for answer in answers] == [f"answer to: {text}" for text in texts]


async def test_a_very_long_answer_arrives_whole(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.huge(3_000_000)
    assert len(text_of((await ask(gemini)).content)) == 3_000_000


async def test_a_closed_client_opens_again(stand_in: StandIn, gemini: Gemini) -> None:
    await ask(gemini)
    await gemini.close()
    await ask(gemini)
    assert len(stand_in.requests) == 2


# What goes wrong


@pytest.mark.parametrize("status", [408, 409, 429, 499, 500, 502, 503, 504])
async def test_what_may_succeed_later_is_unavailable_and_tried_once(
    stand_in: StandIn, gemini: Gemini, status: int
) -> None:
    assert status in RETRYABLE_STATUSES
    stand_in.fail(status, "overloaded, sorry")
    with pytest.raises(ModelUnavailable, match=f"HTTP {status} .*overloaded, sorry") as caught:
        await ask(gemini)
    assert caught.value.retry_after is None
    assert len(stand_in.requests) == 1


@pytest.mark.parametrize(
    ("status", "hint"), [(400, "bad"), (401, "GEMINI_API_KEY"), (403, "GEMINI_API_KEY"), (404, "model name")]
)
async def test_what_would_fail_again_is_refused(
    stand_in: StandIn, gemini: Gemini, status: int, hint: str
) -> None:
    stand_in.fail(status, "bad, said the server")
    with pytest.raises(ModelRefused, match=f"HTTP {status} .*bad, said the server") as caught:
        await ask(gemini)
    assert hint in str(caught.value)
    assert len(stand_in.requests) == 1


async def test_the_servers_words_are_shortened(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.fail(400, "x" * 100_000)
    with pytest.raises(ModelRefused) as caught:
        await ask(gemini)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"retry_after": 7}, 7),
        ({"retry_delay": 1.5}, 1.5),
        ({"retry_after": 3, "retry_delay": 9}, 3),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-3"}, None),
    ],
)
async def test_the_server_says_when_to_come_back(
    stand_in: StandIn, gemini: Gemini, told: JsonObject, seconds: float | None
) -> None:
    stand_in.fail(429, **told)
    with pytest.raises(ModelUnavailable) as caught:
        await ask(gemini)
    assert caught.value.retry_after == seconds


def test_retry_after_may_be_a_date() -> None:
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    header = {"retry-after": format_datetime(now + timedelta(seconds=90), usegmt=True)}
    assert retry_after(header, None, now=now) == 90
    assert retry_after(header, None, now=now + timedelta(hours=1)) == 0


def test_retry_info_may_be_an_object() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": {"seconds": 4}}
    assert retry_after({}, {"error": {"details": [{"@type": "other"}, info]}}) == 4


async def test_an_error_in_the_middle_of_a_stream_is_sorted_by_its_code(
    stand_in: StandIn, gemini: Gemini
) -> None:
    start = 'data: {"candidates": [{"content": {"role": "model", "parts": [{"text": "I"}]}}]}\r\n\r\n'
    stand_in.garble(
        start + 'data: {"error": {"code": 503, "status": "UNAVAILABLE", "message": "gone"}}\r\n\r\n'
    )
    stand_in.garble(
        start + 'data: {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "bad"}}\r\n\r\n'
    )
    with pytest.raises(ModelUnavailable, match="503 UNAVAILABLE: gone"):
        await ask(gemini)
    with pytest.raises(ModelRefused, match="400 INVALID_ARGUMENT: bad"):
        await ask(gemini)


@pytest.mark.parametrize(
    "body",
    [
        'data: {"candidates": [{"content": {"par\r\n\r\n',
        "<html>a proxy's opinion</html>",
        "data: []\r\n\r\n",
        'data: {"error": {}}\r\n\r\n',
        'data: {"candidates": "none"}\r\n\r\n',
        'data: {"candidates": [{"content": {"parts": [{"text": 5}]}}]}\r\n\r\n',
        "",
    ],
)
async def test_garbage_in_a_200_is_unavailable(stand_in: StandIn, gemini: Gemini, body: str) -> None:
    stand_in.garble(body)
    with pytest.raises(ModelUnavailable):
        await ask(gemini)


@pytest.mark.parametrize("after", [0, 1, 2, 99])
async def test_a_cut_stream_is_unavailable(stand_in: StandIn, gemini: Gemini, after: int) -> None:
    stand_in.cut(after)
    with pytest.raises(ModelUnavailable, match="broke off"):
        await ask(gemini)
    assert stand_in.requests[0].cut


async def test_a_stream_without_a_finish_reason_was_cut(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.garble('data: {"candidates": [{"content": {"parts": [{"text": "I was about"}]}}]}\r\n\r\n')
    with pytest.raises(ModelUnavailable, match="cut before the end"):
        await ask(gemini)


async def test_an_empty_answer_is_unavailable(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.empty()
    stand_in.script(think("only thoughts"))
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="with nothing"):
            await ask(gemini)


async def test_a_blocked_prompt_is_refused(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.block("PROHIBITED_CONTENT")
    with pytest.raises(ModelRefused, match="blocked the prompt, PROHIBITED_CONTENT"):
        await ask(gemini)


@pytest.mark.filterwarnings("ignore:.* is not a valid FinishReason")  # Older releases know fewer.
@pytest.mark.parametrize("reason", sorted(REFUSED_FINISHES))
async def test_a_blocked_answer_is_refused_whatever_came_before(
    stand_in: StandIn, gemini: Gemini, reason: str
) -> None:
    stand_in.finish(reason, "half a sent", "for a reason")
    with pytest.raises(ModelRefused, match=f"finish reason {reason}: for a reason"):
        await ask(gemini)


async def test_a_malformed_call_is_refused_with_the_servers_words(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.malformed_call()
    with pytest.raises(ModelRefused, match="MALFORMED_FUNCTION_CALL: Malformed function call: print"):
        await ask(gemini)


async def test_max_tokens_is_an_answer_if_there_is_one(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.finish("MAX_TOKENS", "this far")
    stand_in.finish("MAX_TOKENS")
    answer = await ask(gemini)
    assert (text_of(answer.content), answer.finish_reason) == ("this far", "MAX_TOKENS")
    with pytest.raises(ModelRefused, match="max_output_tokens"):
        await ask(gemini)


@pytest.mark.filterwarnings("ignore:NEWS_OF_TOMORROW is not a valid")
async def test_an_unheard_of_finish_reason_is_judged_by_content(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.finish("NEWS_OF_TOMORROW", "all the same")
    stand_in.finish("NEWS_OF_TOMORROW")
    assert (await ask(gemini)).finish_reason == "NEWS_OF_TOMORROW"
    with pytest.raises(ModelRefused, match="NEWS_OF_TOMORROW"):
        await ask(gemini)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens there, nor comes to
        client = Gemini(f"http://127.0.0.1:{taken.getsockname()[1]}")
        async with asyncio.timeout(60):
            with pytest.raises(ModelUnavailable, match="could not be reached"):
                await ask(client)
    await client.close()


# Time and cancellation


@pytest.mark.parametrize("after", [None, 1])
async def test_a_model_that_never_answers_is_unavailable(
    stand_in: StandIn, gemini: Gemini, after: int | None
) -> None:
    await ask(gemini)  # what is made for the first request takes a while on a busy machine
    stand_in.hang(after)
    with pytest.raises(ModelUnavailable, match="within 1 s"):
        await ask(gemini, timeout=1)
    await stand_in.wait_idle()
    assert stand_in.requests[1].aborted


@pytest.mark.parametrize("after", [None, 1])
async def test_cancelling_closes_the_connection(stand_in: StandIn, gemini: Gemini, after: int | None) -> None:
    stand_in.hang(after)
    arrived = asyncio.Event()
    task = asyncio.create_task(ask(gemini, on_chunk=lambda chunk: arrived.set()))
    await stand_in.wait_in_flight()
    if after:
        await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stand_in.wait_idle()
    assert stand_in.requests[0].aborted
    assert text_of((await ask(gemini)).content)


async def test_a_callers_own_time_limit_stays_its_own(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ask(gemini)


async def test_an_error_of_the_callback_is_the_callers(stand_in: StandIn, gemini: Gemini) -> None:
    def fail(chunk: JsonObject) -> None:
        raise LookupError("the heartbeat broke")

    stand_in.hang(after=1)
    with pytest.raises(LookupError, match="the heartbeat broke"):
        await ask(gemini, on_chunk=fail)
    await stand_in.wait_idle()
    assert stand_in.requests[0].aborted


# Keys and options


async def test_a_missing_key_is_told_at_the_first_call() -> None:
    client = Gemini()
    with pytest.raises(ModelRefused, match="set GEMINI_API_KEY"):
        await ask(client)
    await client.close()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"temprature": 1}, "temprature"),
        ({"temperature": "warm"}, "temperature"),
        ({"http_options": {"timeout": 1}}, "http_options cannot be set"),
    ],
)
async def test_options_that_make_no_sense_are_refused_unasked(
    stand_in: StandIn, gemini: Gemini, extra: JsonObject, said: str
) -> None:
    with pytest.raises(ModelRefused, match=said):
        await ask(gemini, extra=extra)
    assert stand_in.requests == []


async def test_tools_of_the_server_go_beside_ours(stand_in: StandIn, gemini: Gemini) -> None:
    await ask(gemini, tools=[INCREMENT], extra={"tools": [{"google_search": {}}]})
    (request,) = stand_in.requests
    assert request.tools == ["increment_counter"]
    assert {"googleSearch": {}} in request.body["tools"]


async def test_an_empty_conversation_is_refused_unasked(stand_in: StandIn, gemini: Gemini) -> None:
    with pytest.raises(ModelRefused, match="empty"):
        await ask(gemini, contents=[])
    assert stand_in.requests == []


async def test_proxies_are_left_out_on_this_machine(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client = Gemini(stand_in.url)
    assert text_of((await ask(client)).content)
    await client.close()


# Vectors


async def embed(gemini: Gemini, *texts: str, **changes: Any) -> list[list[float]]:
    given: dict[str, Any] = {"model": "embedder", "dimensions": 64, "query": False, "timeout": 120}
    return await gemini.embed(texts=texts, **{**given, **changes})


@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2"])
async def test_each_text_gets_a_vector_of_its_own(stand_in: StandIn, gemini: Gemini, model: str) -> None:
    one, other, again = await embed(gemini, "my cat", "a car", "the kitten", model=model)
    assert len(one) == 64
    assert one == again != other
    [asked] = stand_in.model_calls("embed")
    assert asked.model == model
    assert [each["outputDimensionality"] for each in asked.body["requests"]] == [64] * 3
    assert stand_in.model_calls() == []


async def test_a_query_is_told_from_what_is_looked_through(stand_in: StandIn, gemini: Gemini) -> None:
    await embed(gemini, "a")
    await embed(gemini, "a", query=True)
    tasks = [each.body["requests"][0]["taskType"] for each in stand_in.model_calls("embed")]
    assert tasks == ["RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"]


async def test_a_failure_to_embed_is_sorted(stand_in: StandIn, gemini: Gemini) -> None:
    stand_in.fail(429, retry_after="7", kind="embed")
    with pytest.raises(ModelUnavailable) as raised:
        await embed(gemini, "a")
    assert raised.value.retry_after == 7
    stand_in.fail(400, kind="embed")
    with pytest.raises(ModelRefused):
        await embed(gemini, "a")
    with pytest.raises(ModelRefused, match="400"):
        await embed(gemini, "")
    stand_in.hang(kind="embed")
    with pytest.raises(ModelUnavailable):
        await embed(gemini, "a", timeout=1)


async def test_vectors_of_other_dimensions_are_refused(stand_in: StandIn, gemini: Gemini) -> None:
    with pytest.raises(ModelRefused, match="not of 4000 dimensions"):
        await embed(gemini, "a", dimensions=4000)
