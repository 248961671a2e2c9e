"""What is put away, what stays of it, and how media come back into a prompt."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.genai.errors import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.builtin_tools import builtin_tool, tools_for
from activities.media import inline_of, reference_of, reference_part, shown_from, with_media
from activities.model_errors import sort_error
from activities.oversize import OVERSIZE, READ_ARTIFACT, fit_answer, fit_response
from perdure import Agent, Limits, ToolContext, tool
from perdure.context import Artifact
from perdure.errors import ArtifactNotFound, InvalidAgent, ModelRefused, PromptTooLong
from perdure.sources import CHUNK, Source
from perdure.testing.rules import answer_by_rule
from perdure.types import Event, JsonObject, SessionKey
from storage.sessions import Confirm, SessionStore

KEY = SessionKey(app="a", user_id="u", session_id="s")


class Shelf:
    """Artifacts in memory: what of a store is needed here, and of a tool's context."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, str]] = {}
        self.read: list[str] = []
        """Whose bytes were read, in order."""

    async def stage_artifact(
        self,
        key: SessionKey,
        name: str,
        data: bytes,
        mime_type: str,
        *,
        event_id: str,
        ordinal: int,
        confirm: Confirm,
    ) -> int:
        self.files[name] = (data, mime_type)
        return 1

    async def stream_artifact(
        self, key: SessionKey, name: str, *, version: int
    ) -> tuple[object, AsyncIterator[bytes]]:
        data = (await self.load(name, version)).data

        async def chunks() -> AsyncIterator[bytes]:
            self.read.append(name)
            for start in range(0, len(data), 1_000):
                yield data[start : start + 1_000]

        return SimpleNamespace(size=len(data), blob=hashlib.sha256(data).hexdigest()), chunks()

    async def save(self, name: str, data: Source, mime_type: str) -> int:
        raise NotImplementedError("the tool only reads")

    async def load(
        self, name: str, version: int | None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        if name not in self.files or version not in (None, 1):
            raise ArtifactNotFound(name)
        data, mime_type = self.files[name]
        stop = None if length is None else start + length
        return Artifact(name=name, version=1, mime_type=mime_type, data=data[start:stop])

    async def names(self) -> list[str]:
        return sorted(self.files)

    @property
    def store(self) -> SessionStore:
        return cast("SessionStore", self)


def response(result: JsonObject) -> Event:
    part = {"functionResponse": {"id": "c1", "name": "dump", "response": result}}
    return Event(
        id="m1:t1.0",
        invocation_id="m1",
        author="a",
        content={"role": "user", "parts": [part]},
        meta={"call": {"step": 1, "index": 0}},
    )


def answer_of(event: Event) -> JsonObject:
    answer: JsonObject = (event.content or {})["parts"][0]["functionResponse"]["response"]
    return answer


def picture(data: bytes, **fields: Any) -> JsonObject:
    return {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}, **fields}


# Results


async def test_a_result_within_the_limit_stays_as_it_is() -> None:
    limits = Limits(result_chars=1_000)
    longest = 1_000 - len(json.dumps({"result": ""}))
    event = response({"result": "é" * longest})
    assert await fit_response(Shelf().store, KEY, event, limits) is event
    over = response({"result": "é" * (longest + 1)})
    assert (await fit_response(Shelf().store, KEY, over, limits)) != over


async def test_a_long_text_keeps_its_head_and_its_tail() -> None:
    shelf = Shelf()
    text = "".join(f"line {n}\n" for n in range(10_000))
    fitted = await fit_response(shelf.store, KEY, response({"result": text}), Limits())
    told = answer_of(fitted)
    assert shelf.files == {"results/m1-1.0.txt": (text.encode(), "text/plain")}
    assert fitted.artifact_delta == {"results/m1-1.0.txt": 1}
    assert (told["artifact"], told["version"], told["characters"]) == ("results/m1-1.0.txt", 1, len(text))
    assert text.startswith(told["head"])
    assert text.endswith(told["tail"])
    assert READ_ARTIFACT in told["note"]
    assert len(json.dumps(told)) < 4_000
    part = (fitted.content or {})["parts"][0]["functionResponse"]
    assert (part["id"], part["name"]) == ("c1", "dump"), "it still answers its call"
    assert fitted.meta["call"] == {"step": 1, "index": 0}


async def test_a_long_object_is_saved_as_the_json_it_is() -> None:
    shelf = Shelf()
    rows = {"rows": [{"id": n, "name": f"Müller {n}"} for n in range(5_000)], "total": 5_000}
    fitted = await fit_response(shelf.store, KEY, response(rows), Limits())
    data, mime_type = shelf.files["results/m1-1.0.json"]
    assert (json.loads(data), mime_type) == (rows, "application/json")
    assert "Müller 1" in answer_of(fitted)["head"]


async def test_a_long_error_is_still_an_error() -> None:
    shelf = Shelf()
    told = answer_of(await fit_response(shelf.store, KEY, response({"error": "why " * 20_000}), Limits()))
    assert told["error"].startswith("why why")
    assert told["artifact"] in shelf.files


async def test_inline_data_in_a_result_becomes_a_reference_and_the_rest_stays() -> None:
    shelf = Shelf()
    result = {"caption": "a cat", "pages": [picture(b"p" * 40_000), picture(b"small")]}
    fitted = await fit_response(shelf.store, KEY, response(result), Limits())
    told = answer_of(fitted)
    assert told["caption"] == "a cat"
    assert told["pages"][1] == picture(b"small")
    name = told["pages"][0]["artifact"]
    assert told["pages"][0] == {"artifact": name, "version": 1, "mime_type": "image/png", "bytes": 40_000}
    assert shelf.files[name] == (b"p" * 40_000, "image/png")


@pytest.mark.parametrize("message_id", ["a/../b", "..", "/etc", "ü" * 128, "x\\..\\y"])
async def test_any_message_id_gives_a_name_that_can_be_stored(message_id: str) -> None:
    from dataclasses import replace

    from storage.names import check_name

    shelf = Shelf()
    event = replace(response({"result": "x" * 40_000}), invocation_id=message_id)
    await fit_response(shelf.store, KEY, event, Limits())
    [name] = shelf.files
    check_name(name)


@pytest.mark.parametrize("limit", ["result_chars", "message_chars", "inline_bytes", "media_chars"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_a_limit_that_makes_no_sense_is_refused(limit: str, value: object) -> None:
    with pytest.raises(InvalidAgent, match=limit):
        Limits(**{limit: value})  # type: ignore[arg-type]  # the point of the test


# Media

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_FIELDS = st.dictionaries(
    st.sampled_from(["thoughtSignature", "thought", "videoMetadata", "partMetadata", "newField"]), _JSON
)
_INNER = st.dictionaries(st.sampled_from(["displayName", "later"]), _JSON)


# How long it takes to think of examples is the machine's business.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(), st.booleans(), _FIELDS, _INNER, st.booleans(), st.randoms())
async def test_a_part_comes_back_letter_by_letter(
    data: bytes, url_safe: bool, fields: JsonObject, inner: JsonObject, snake: bool, random: Any
) -> None:
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    key, mime = ("inline_data", "mime_type") if snake else ("inlineData", "mimeType")
    held = list({mime: "image/png", "data": encode(data).decode(), **inner}.items())
    random.shuffle(held)
    entries = list({key: dict(held), **fields}.items())
    random.shuffle(entries)
    part = dict(entries)
    inline = inline_of(part)
    assert inline is not None
    assert inline.data == data
    shelf = Shelf()
    shelf.files["some name/ü?&.png"] = (data, "image/png")
    kept = reference_part(part, inline, "some name/ü?&.png", 1)
    assert len(data) < 30 or inline_of(kept) is None
    [content] = await with_media(shelf.store, KEY, [{"role": "user", "parts": [kept]}], limit=10_000)
    assert json.dumps(content) == json.dumps({"role": "user", "parts": [part]})


@pytest.mark.parametrize("data", ["not base64!", "YQ", "YQ= =", "YR==", None, 7])
def test_base64_that_would_not_come_back_the_same_is_left_alone(data: object) -> None:
    assert inline_of({"inlineData": {"mimeType": "image/png", "data": data}}) is None


@pytest.mark.parametrize(
    "uri", ["https://x/y.png", "artifact:", "artifact:a", "artifact:a?version=x&bytes=1", "gs://b/c", None]
)
def test_other_files_are_no_references(uri: object) -> None:
    assert reference_of({"fileData": {"fileUri": uri, "mimeType": "image/png"}}) is None
    assert reference_of({"text": "artifact:a?version=1&bytes=1"}) is None


async def test_an_answer_keeps_its_text_and_calls_and_refers_to_its_media() -> None:
    shelf = Shelf()
    parts = [{"text": "x" * 500_000}, picture(b"i" * 100_000, thoughtSignature="c2ln"), picture(b"tiny")]
    event = Event(
        id="m1:m1",
        invocation_id="m1",
        author="a",
        content={"role": "model", "parts": parts},
        meta={"step": 1},
    )
    fitted = await fit_answer(shelf.store, KEY, event, Limits())
    kept = (fitted.content or {})["parts"]
    assert (kept[0], kept[2]) == (parts[0], parts[2])
    assert kept[1]["thoughtSignature"] == "c2ln"
    assert fitted.artifact_delta == {"answers/m1-1.1.png": 1}
    assert OVERSIZE in fitted.meta
    assert await with_media(shelf.store, KEY, [fitted.content or {}], limit=10**6) == [event.content]


async def test_what_is_gone_or_too_much_is_named_and_keeps_its_signature() -> None:
    shelf = Shelf()
    contents = []
    for n in range(3):
        part = picture(bytes([n]) * 3_000, thoughtSignature=f"s{n}")
        inline = inline_of(part)
        assert inline is not None
        shelf.files[f"{n}.png"] = (inline.data, "image/png")
        contents.append({"role": "user", "parts": [reference_part(part, inline, f"{n}.png", 1)]})
    del shelf.files["2.png"]
    first, second, third = await with_media(shelf.store, KEY, contents, limit=9_000)
    assert first["parts"][0].keys() == {"text", "thoughtSignature"}
    assert '"0.png", version 1' in first["parts"][0]["text"]
    assert "inlineData" not in second["parts"][0]
    assert "gone" in third["parts"][0]["text"]
    assert third["parts"][0]["thoughtSignature"] == "s2"


async def test_a_reference_that_lies_about_its_size_brings_nothing() -> None:
    shelf = Shelf()
    shelf.files["huge.png"] = (b"h" * 10_000, "image/png")
    part = {"fileData": {"fileUri": "artifact:huge.png?version=1&bytes=10", "mimeType": "image/png"}}
    [content] = await with_media(shelf.store, KEY, [{"role": "user", "parts": [part]}], limit=1_000)
    assert "huge.png" in content["parts"][0]["text"]


@given(st.lists(st.integers(0, 120), max_size=60))
def test_what_is_shown_fits_and_the_newest_that_fits_is(sizes: list[int]) -> None:
    first = shown_from(sizes, 100)
    assert sum(sizes[first:]) <= 100
    if sizes and sizes[-1] <= 100:
        assert first < len(sizes), "what came last is seen"


@given(st.lists(st.integers(1, 20), min_size=1, max_size=200))
def test_one_more_picture_rarely_changes_what_came_before(sizes: list[int]) -> None:
    starts = [shown_from(sizes[: n + 1], 100) for n in range(len(sizes))]
    assert starts == sorted(starts), "what is left out stays out"
    moves = sum(before != after for before, after in zip([0, *starts], starts, strict=False))
    assert moves <= sum(sizes) // 40, "it moves once in about half the room"


# The tool


@tool
def own() -> str:
    """A tool."""
    return "own"


def note(event: Event, **fields: Any) -> Event:
    from dataclasses import replace

    return replace(event, meta={**event.meta, OVERSIZE: {"digest": "d", **fields}})


def test_who_is_told_of_the_tool() -> None:
    plain, reader = Agent("plain"), Agent("reader", tools=[own])
    event = response({"result": 1})
    assert [item.name for item in tools_for(reader, None, [])] == ["own", READ_ARTIFACT]
    assert tools_for(plain, None, [event, note(event)]) == []
    assert [item.name for item in tools_for(plain, None, [note(event, read=True)])] == [READ_ARTIFACT]
    summary = Event(
        id="c", invocation_id="m", author="perdure", content={"parts": [{"text": "read_artifact('x')"}]}
    )
    assert [item.name for item in tools_for(plain, summary, [])] == [READ_ARTIFACT]


def test_an_agents_own_tool_of_that_name_stands_in_for_it() -> None:
    mine = tool(own, name=READ_ARTIFACT)
    agent = Agent("mine", tools=[mine])
    assert tools_for(agent, None, []) == [mine]
    assert builtin_tool(agent, READ_ARTIFACT) is None


async def read(shelf: Shelf, limits: Limits | None = None, **arguments: Any) -> JsonObject:
    reader = builtin_tool(Agent("a", limits=limits), READ_ARTIFACT)
    assert reader is not None
    assert not reader.serial, "it may run beside others"
    return await reader.call(arguments, ToolContext(artifacts=shelf))


async def test_reading_from_the_beginning_to_the_end() -> None:
    shelf = Shelf()
    text = "".join(f"{n} äöü 🙂\n" for n in range(3_000))
    shelf.files["notes/a.txt"] = (text.encode(), "text/plain")
    pieces, start = [], 0
    while True:
        page = await read(shelf, Limits(result_chars=5_000), name="notes/a.txt", start=start)
        assert page["characters"] == len(text)
        assert page["start"] == start
        assert len(page["text"]) <= 5_000
        pieces.append(page["text"])
        if "next_start" not in page:
            break
        start = page["next_start"]
    assert "".join(pieces) == text
    assert len(pieces) == -(-len(text) // 5_000)


async def test_a_text_of_many_chunks_with_characters_across_their_edges() -> None:
    shelf = Shelf()
    text = "x" + "🙂" * (CHUNK // 4) + "äöü" * (CHUNK // 6) + "end"
    shelf.files["big"] = (text.encode(), "text/plain")
    for start in (0, CHUNK // 4 - 3, len(text) - 8):
        page = await read(shelf, name="big", start=start, length=10)
        assert (page["text"], page["characters"]) == (text[start : start + 10], len(text))
    shelf.files["big"] = (text.encode()[:-1] + b"\xff", "text/plain")
    assert "no text" in (await read(shelf, name="big"))["error"]
    shelf.files["nul"] = (b"a\0b", "text/plain")
    assert "no text" in (await read(shelf, name="nul"))["error"]


async def test_a_range_is_cut_to_what_there_is() -> None:
    shelf = Shelf()
    shelf.files["a"] = (b"0123456789", "text/plain")
    assert (await read(shelf, name="a", start=3, length=4))["text"] == "3456"
    assert (await read(shelf, name="a", start=-5, length=4))["text"] == "0123"
    assert (await read(shelf, name="a", start=8, length=10**9))["text"] == "89"
    beyond = await read(shelf, name="a", start=50)
    assert (beyond["text"], beyond["characters"], "next_start" in beyond) == ("", 10, False)
    shelf.files["empty"] = (b"", "text/plain")
    assert (await read(shelf, name="empty"))["text"] == ""


async def test_what_cannot_be_read_says_why() -> None:
    shelf = Shelf()
    shelf.files["picture.png"] = (b"\x89PNG\xff", "image/png")
    refused = await read(shelf, name="picture.png")
    assert "image/png" in refused["error"]
    assert "text" not in refused
    assert "picture.png" in (await read(shelf, name="pictur.png"))["error"]
    assert "version 9" in (await read(shelf, name="picture.png", version=9))["error"]
    assert "no artifacts" in (await read(Shelf(), name="x"))["error"]


async def test_a_pattern_lists_names() -> None:
    shelf = Shelf()
    shelf.files = dict.fromkeys(["results/a.txt", "results/b.json", "other"], (b"", "text/plain"))
    assert await read(shelf, name="results/*") == {"artifacts": ["results/a.txt", "results/b.json"]}


def test_the_stand_in_reads_an_artifact_only_where_a_sentence_says_so() -> None:
    agent = Agent("a", tools=[own])
    declared = [item.declaration for item in tools_for(agent, None, [])]

    def said(text: str) -> JsonObject:
        return answer_by_rule([{"role": "user", "parts": [{"text": text}]}], declared)[0]

    assert "functionCall" not in said("Read the newspaper to me")
    assert said("Read the artifact 'notes.txt'")["functionCall"]["name"] == READ_ARTIFACT


# The model's own limit


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "The input token count (1234567) exceeds the maximum number of tokens allowed (1048576)."),
        (400, "Request payload size exceeds the limit: 20971520 bytes."),
        (413, "Request Entity Too Large"),
    ],
)
def test_a_prompt_that_is_too_long_is_called_so(code: int, message: str) -> None:
    error = ClientError(code, {"error": {"code": code, "message": message, "status": "INVALID_ARGUMENT"}})
    sorted_ = sort_error(error, model="m", answering=True)
    assert isinstance(sorted_, PromptTooLong)
    assert "rewind" in str(sorted_)


def test_another_bad_request_is_not_called_too_long() -> None:
    error = ClientError(400, {"error": {"code": 400, "message": "Invalid JSON payload received."}})
    assert type(sort_error(error, model="m", answering=True)) is ModelRefused
