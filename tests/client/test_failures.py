"""What goes wrong, as the client raises it: each class again, and what is tried again."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from gateway.problems import problem_of
from perdure import errors
from perdure.client.drafts import Drafts
from perdure.errors import (
    Conflict,
    Forbidden,
    GatewayUnavailable,
    InvalidOption,
    ModelUnavailable,
    NotFound,
    PerdureError,
    RateLimited,
    StorageUnavailable,
    TemporalUnavailable,
    VersionMismatch,
)
from perdure.types import JsonObject
from tests.client.faces import Face

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PerdureError)
]
URL = "http://gateway.example"


class Gateway:
    """Answers as it is told, one answer after the other, and the last one again and again."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)


def problem(error: PerdureError, **headers: str) -> httpx2.Response:
    """How the gateway answers an error."""
    said, more = problem_of(error, "/apps")
    return httpx2.Response(said["status"], json=said, headers={**more, **headers})


def of_class(kind: type[PerdureError]) -> PerdureError:
    if issubclass(kind, VersionMismatch):
        return kind("what happened", actual=7)
    if issubclass(kind, RateLimited | ModelUnavailable):
        return kind("what happened", retry_after=0.25)
    return kind("what happened")


@pytest.mark.parametrize("kind", CLASSES)
async def test_each_class_is_raised_again_as_it_was(face: Face, kind: type[PerdureError]) -> None:
    gateway = Gateway(problem(of_class(kind)))
    async with face.client(URL, handler=gateway, patience=0) as client:
        with pytest.raises(PerdureError) as raised:
            await client.apps()
    assert type(raised.value) is kind
    assert str(raised.value) == "what happened"
    for name in ("actual", "retry_after"):
        assert getattr(raised.value, name, None) == getattr(of_class(kind), name, None)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("kind", CLASSES)
async def test_each_class_is_raised_by_a_stream_too(face: Face, kind: type[PerdureError]) -> None:
    said, _ = problem_of(of_class(kind), "/apps")
    content = f"event: problem\ndata: {json.dumps(said)}\n\n"
    stream = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content)
    async with face.client(URL, handler=Gateway(stream), patience=0) as client:
        with pytest.raises(PerdureError) as raised:
            await client.session("counter", "ann", "s1").stream("hi").finish()
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    "passing",
    [
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("slow"),
        httpx2.ReadError("reset"),
        httpx2.ReadTimeout("silent"),
        httpx2.RemoteProtocolError("gone"),
        problem(TemporalUnavailable("away")),
        problem(StorageUnavailable("away")),
        problem(RateLimited("slow down", retry_after=0.01)),
        problem(errors.Busy("full")),
        httpx2.Response(502, text="<html>bad gateway"),
        httpx2.Response(503, text="no server"),
        httpx2.Response(504),
    ],
    ids=lambda passing: getattr(passing, "status_code", type(passing).__name__),
)
async def test_what_passes_is_tried_again_under_the_same_id(face: Face, passing: Any) -> None:
    answer = {"invocationId": "m1", "status": "answered", "seq": 4, "text": "1"}
    gateway = Gateway(passing, httpx2.Response(200, json=answer))
    async with face.client(URL, handler=gateway, patience=10) as client:
        assert (await client.session("counter", "ann", "s1").ask("hi")).text == "1"
    first, second = gateway.requests
    assert first.content == second.content
    assert json.loads(first.content)["messageId"]


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in (GatewayUnavailable,)])
async def test_only_what_passes_is_tried_again(face: Face, kind: type[PerdureError]) -> None:
    gateway = Gateway(problem(of_class(kind)))
    async with face.client(URL, handler=gateway, patience=0.3) as client:
        with pytest.raises(kind):
            await client.session("counter", "ann", "s1").end()
    said, headers = problem_of(of_class(kind), "/")
    asked_to = "retry-after" in headers
    assert asked_to == (said["status"] in (429, 503))
    # They ask for a second, which is more than this client's patience.
    assert len(gateway.requests) == 1


async def test_a_pool_that_is_full_is_not_laid_on_the_gateway(face: Face) -> None:
    async with face.client(URL, handler=Gateway(httpx2.PoolTimeout("")), patience=0) as client:
        with pytest.raises(GatewayUnavailable, match="all connections of the http client are taken"):
            await client.apps()


async def test_a_gateway_that_asks_for_time_gets_it(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("perdure.client.aio_wire.asyncio.sleep", sleep)
    monkeypatch.setattr("perdure.client.sync_wire.time.sleep", waited.append)
    slow = problem(RateLimited("slow down"), **{"retry-after": "7"})
    gateway = Gateway(slow, httpx2.Response(200, json=["counter"]))
    async with face.client(URL, handler=gateway, patience=10) as client:
        assert await client.apps() == ["counter"]
    assert waited == [7.0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx2.Response(200, text="<html>hello"), GatewayUnavailable),
        (httpx2.Response(200, json={"other": 1}), GatewayUnavailable),
        (httpx2.Response(404, text="<html>not here"), NotFound),
        (httpx2.Response(403, json={"message": "no"}), Forbidden),
        (httpx2.Response(409, json={"code": "of-a-later-release", "detail": "x"}), Conflict),
        (httpx2.Response(418, json={"code": "of-a-later-release", "detail": "x"}), PerdureError),
        (httpx2.Response(500, text="oops"), PerdureError),
        (httpx2.Response(307, headers={"location": "https://elsewhere.example"}), PerdureError),
    ],
)
async def test_what_no_gateway_says_is_a_typed_error(
    face: Face, answer: httpx2.Response, kind: type[PerdureError]
) -> None:
    async with face.client(URL, handler=Gateway(answer), patience=0) as client:
        with pytest.raises(PerdureError) as raised:
            await client.session("counter", "ann", "s1").status()
        assert type(raised.value) is kind


@pytest.mark.parametrize(
    "body", ["data: nonsense\n\n", 'data: {"odd": 1}\n\n', "event: answer\ndata: []\n\n"]
)
async def test_a_stream_that_no_gateway_sends_is_a_typed_error(face: Face, body: str) -> None:
    stream = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    async with face.client(URL, handler=Gateway(stream), patience=0) as client:
        with pytest.raises(GatewayUnavailable, match="no gateway"):
            await client.session("counter", "ann", "s1").stream("hi").finish()


async def test_a_stream_that_only_ever_breaks_is_given_up(face: Face) -> None:
    stream = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=": hello\n\n")
    gateway = Gateway(stream)
    async with face.client(URL, handler=gateway, patience=0.3) as client:
        with pytest.raises(GatewayUnavailable, match="broke off"):
            await client.session("counter", "ann", "s1").stream("hi", message_id="m1").finish()
    assert len(gateway.requests) > 1


async def test_the_token_is_sent_and_never_shown(face: Face) -> None:
    gateway = Gateway(httpx2.Response(200, json=["counter"]), httpx2.ReadError("reset"))
    async with face.client(URL + "/under/here/", "s3cret-token", handler=gateway, patience=0) as client:
        await client.apps()
        with pytest.raises(GatewayUnavailable) as raised:
            await client.session("counter", "ann", "s1").ask("hi")
        session = client.session("counter", "ann", "s1")
        shown = [repr(client), repr(session), repr(session.artifacts), repr(raised.value), str(raised.value)]
    assert "s3cret" not in "".join(shown)
    assert URL in shown[0]
    assert "counter/ann/s1" in shown[1]
    [request, *_] = gateway.requests
    assert str(request.url) == f"{URL}/under/here/list-apps"
    assert request.headers["authorization"] == "Bearer s3cret-token"
    assert request.headers["user-agent"].startswith("perdure/")


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("gateway.example", {}),
        ("ftp://gateway.example", {}),
        ("http://", {}),
        ("http://ann:s3cret@gateway.example", {}),
        ("http://gateway.example?x=1", {}),
        (URL, {"token": ""}),
        (URL, {"token": "two words"}),
        (URL, {"token": "line\r\nbreak"}),
        (URL, {"token": "größe"}),
        (URL, {"timeout": 0}),
        (URL, {"patience": -1}),
    ],
)
async def test_options_that_cannot_be_are_refused(face: Face, url: str, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as raised:
        async with face.client(url, **more):
            pass
    assert "s3cret" not in str(raised.value)
    assert not more.get("token") or str(more["token"]) not in str(raised.value)


def piece(text: str, offset: int, *, thought: bool = False, event: str = "m1:m1") -> JsonObject:
    parts = [{"text": text, **({"thought": True} if thought else {})}]
    content = {"role": "model", "parts": parts}
    return {"id": event, "invocationId": "m1", "author": "counter", "content": content, "offset": offset}


class TestPieces:
    def shown(self, *pieces: JsonObject) -> str:
        drafts, text = Drafts(), ""
        for each in pieces:
            found = drafts.add(each)
            if found is not None:
                assert found.offset <= len(text)
                text = text[: found.offset] + found.text
        return text

    def test_they_go_behind_each_other(self) -> None:
        assert self.shown(piece("one", 0), piece(" two", 3), piece(" three", 7)) == "one two three"

    def test_an_answer_that_begins_again_takes_the_place_of_the_first(self) -> None:
        assert self.shown(piece("abandoned", 0), piece("again", 0), piece("!", 5)) == "again!"
        assert self.shown(piece("first", 0), piece("second", 0, event="m1:m2")) == "second"

    def test_one_that_goes_on_from_the_middle(self) -> None:
        assert self.shown(piece("one", 0), piece(" two", 3), piece("ly", 2)) == "only"

    def test_thoughts_count_on_the_wire_and_not_in_the_text(self) -> None:
        drafts = Drafts()
        first = drafts.add(piece("hm ", 0, thought=True))
        second = drafts.add(piece("yes", 3))
        third = drafts.add(piece("!", 6))
        assert first is not None
        assert second is not None
        assert third is not None
        assert (first.thought, first.text, first.offset) == ("hm ", "", 0)
        assert (second.thought, second.text, second.offset) == ("", "yes", 0)
        assert (third.text, third.offset) == ("!", 3)

    def test_half_a_character_waits_for_its_other_half(self) -> None:
        halves = piece("a \ud83c", 0), piece("\udf0d b", 3), piece("\ud83c", 6), piece("\udf0d", 7)
        drafts = Drafts()
        said = [found.text for each in halves if (found := drafts.add(each)) is not None]
        assert said == ["a ", "🌍 b", "🌍"]
        assert self.shown(*halves) == "a 🌍 b🌍"
        # Cut where a half is all that is left, and gone on from there.
        assert self.shown(*halves[:2], piece("\udf0d c", 3)) == "a 🌍 c"

    def test_a_half_that_stays_alone_is_still_text(self) -> None:
        shown = self.shown(piece("a\ud83c", 0), piece("b\udf0d", 2))
        assert shown == "a\ufffdb\ufffd"
        shown.encode()
