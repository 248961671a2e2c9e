"""What stands before every route: names, origins, sizes, headers; and what errors look like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import APIRouter, Request
from temporalio.service import RPCError, RPCStatusCode

from gateway import listening
from gateway.access import Access
from gateway.app import create_app
from gateway.problems import STATUSES, HttpProblem, problem_of
from gateway.ranges import span_of
from gateway.rates import Rates
from gateway.services import GatewayOptions
from perdure import errors
from perdure.errors import (
    InternalError,
    InvalidRequest,
    PerdureError,
    RequestTimeout,
    TemporalUnavailable,
    TooLarge,
    VersionMismatch,
    code_of,
    error_of,
)
from perdure.registry import Registry
from tests.gateway.harness import Gateway, Tokens, path_of
from tests.gateway.test_sessions_routes import is_problem

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PerdureError)
]


class TestProblems:
    @pytest.mark.parametrize("kind", CLASSES)
    def test_every_error_has_a_status_and_is_the_same_class_again(self, kind: type[PerdureError]) -> None:
        assert kind in STATUSES, f"{kind.__name__} has no status in gateway/problems.py"
        problem, _ = problem_of(kind("what happened"), "/apps")
        assert problem["status"] == STATUSES[kind]
        again = error_of(problem["code"], problem["detail"], actual=problem.get("actual"))
        assert type(again) is kind
        assert str(again) == "what happened"

    def test_they_carry_what_their_handlers_need(self) -> None:
        problem, _ = problem_of(VersionMismatch("no", actual=7), "/")
        again = error_of(problem["code"], "no", actual=problem["actual"])
        assert isinstance(again, VersionMismatch)
        assert again.actual == 7
        problem, headers = problem_of(errors.RateLimited("no", retry_after=0.2), "/")
        assert (problem["retryAfter"], headers["retry-after"]) == (0.2, "1")

    def test_a_code_that_is_not_known_is_the_base(self) -> None:
        assert type(error_of("of-a-later-release", "x")) is PerdureError
        assert code_of(errors.SessionNotFound) == "session-not-found"

    async def test_what_nobody_foresaw_says_nothing_of_itself(self) -> None:
        async with client_of(GatewayOptions()) as (http, router):

            @router.get("/broken")
            async def broken() -> None:
                raise RuntimeError("what a user said")

            answer = await http.get("/broken")
        is_problem(answer, 500, "internal-error")
        assert "user said" not in answer.text
        assert isinstance(error_of("internal-error", ""), InternalError)

    async def test_temporal_that_is_away_is_a_503(self) -> None:
        async with client_of(GatewayOptions()) as (http, router):

            @router.get("/away")
            async def away() -> None:
                raise RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b"")

            answer = await http.get("/away")
        problem = is_problem(answer, 503, "temporal-unavailable")
        assert isinstance(error_of(problem["code"], problem["detail"]), TemporalUnavailable)
        assert answer.headers["retry-after"] == "1"

    async def test_a_request_that_does_not_fit_says_where(self) -> None:
        async with client_of(GatewayOptions()) as (http, _):
            answer = await http.post("/apps/counter/sessions", json={"userId": 7})
        problem = is_problem(answer, 422, "invalid-request")
        assert isinstance(error_of(problem["code"], problem["detail"]), InvalidRequest)
        assert problem["errors"][0]["loc"] == ["body", "userId"]

    async def test_routes_that_are_not_there(self, sqlite_gateway: Gateway) -> None:
        is_problem(await sqlite_gateway.http.get("/nowhere"), 404, "route-not-found")
        wrong = await sqlite_gateway.http.delete("/apps/counter/sessions")
        is_problem(wrong, 405, "method-not-allowed")
        assert wrong.headers["allow"] == "GET, POST"
        spread = await sqlite_gateway.http.put("/apps/counter/users/ann/sessions/s1")
        assert spread.headers["allow"] == "GET, POST, PATCH, DELETE"


class client_of:  # noqa: N801 - read as a function
    """A client of an app with nothing behind it but what the test adds."""

    def __init__(self, options: GatewayOptions, access: Access | None = None) -> None:
        self._app = create_app(None, access or Access(), agents=Registry(), options=options)  # type: ignore[arg-type]  # no route needs it
        self._router = APIRouter()

    async def __aenter__(self) -> tuple[httpx2.AsyncClient, APIRouter]:
        transport = httpx2.ASGITransport(app=self._app, raise_app_exceptions=False)
        self._http = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")
        return self._http, self._app.router

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


LOCAL = GatewayOptions(hosts=("127.0.0.1", "localhost", "::1"), check_origin=True)


class TestNames:
    @pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
    async def test_ours_are_answered(self, host: str) -> None:
        async with client_of(LOCAL) as (http, _):
            assert (await http.get("/list-apps", headers={"host": host})).json() == []

    @pytest.mark.parametrize(
        "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", ""]
    )
    async def test_one_that_was_led_here_is_refused(self, host: str) -> None:
        async with client_of(LOCAL) as (http, _):
            for path in ("/list-apps", "/openapi.json"):
                is_problem(await http.get(path, headers={"host": host}), 403, "forbidden")

    @pytest.mark.parametrize(
        "origin", ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1"]
    )
    async def test_pages_of_others_may_not_ask(self, origin: str) -> None:
        async with client_of(LOCAL) as (http, _):
            answer = await http.post("/run", json={}, headers={"origin": origin})
        is_problem(answer, 403, "forbidden")

    async def test_our_own_and_those_that_are_allowed_may(self) -> None:
        options = GatewayOptions(hosts=("127.0.0.1",), check_origin=True, origins=("http://ui.example",))
        async with client_of(options) as (http, _):
            own = await http.get("/list-apps", headers={"origin": "http://127.0.0.1:8000"})
            allowed = await http.get("/list-apps", headers={"origin": "http://ui.example"})
            asked = await http.options(
                "/run", headers={"origin": "http://ui.example", "access-control-request-method": "POST"}
            )
        assert own.json() == allowed.json() == []
        assert allowed.headers["access-control-allow-origin"] == "http://ui.example"
        assert asked.status_code == 200


class TestSizes:
    @pytest.fixture
    async def body(self) -> bytes:
        return b'{"userId": "' + b"x" * 2000 + b'"}'

    async def test_one_that_is_announced_is_refused_unread(self, body: bytes) -> None:
        async with client_of(GatewayOptions(body_limit=1000)) as (http, _):
            answer = await http.post("/apps/a/sessions", content=body)
        is_problem(answer, 413, "too-large")
        assert isinstance(error_of("too-large", ""), TooLarge)

    async def test_one_that_is_not_announced_too(self, body: bytes) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 100):
                yield body[start : start + 100]

        headers = {"content-type": "application/json"}
        async with client_of(GatewayOptions(body_limit=1000)) as (http, _):
            answer = await http.post("/apps/a/sessions", content=pieces(), headers=headers)
        is_problem(answer, 413, "too-large")

    async def test_uploads_have_a_limit_of_their_own(self, sqlite_gateway: Gateway) -> None:
        key = sqlite_gateway.key()
        await sqlite_gateway.http.post(path_of(key, "/messages"), json={"text": "Add one."})
        options = GatewayOptions(body_limit=10, upload_limit=1000)
        app = create_app(sqlite_gateway.world.runner, Access(), agents=Registry(), options=options)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as http:
            taken = await http.put(path_of(key, "/files/a"), content=b"x" * 1000)
            refused = await http.put(path_of(key, "/files/b"), content=b"x" * 1001)
        assert taken.status_code == 201
        is_problem(refused, 413, "too-large")


class TestPatience:
    """Who sends its request drop by drop keeps nothing busy for long."""

    async def test_a_body_that_stops_coming_is_given_up(self) -> None:
        async def stuck() -> AsyncIterator[bytes]:
            yield b'{"userId": '
            await asyncio.Event().wait()

        headers = {"content-type": "application/json"}
        async with client_of(GatewayOptions(body_patience=0.05)) as (http, _):
            for path in ("/apps/a/sessions", "/run", "/apps/a/users/u/sessions/s/messages"):
                answer = await http.post(path, content=stuck(), headers=headers)
                is_problem(answer, 408, "request-timeout")
                assert answer.headers["connection"] == "close"

    async def test_one_that_comes_drop_by_drop_too(self) -> None:
        async def drops() -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0.01)

        headers = {"content-type": "application/json"}
        async with client_of(GatewayOptions(body_patience=0.1)) as (http, _):
            answer = await http.post("/apps/a/sessions", content=drops(), headers=headers)
        is_problem(answer, 408, "request-timeout")

    async def test_an_upload_that_stops_is_no_artifact(self, sqlite_gateway: Gateway) -> None:
        async def stuck() -> AsyncIterator[bytes]:
            yield b"x" * 100_000
            await asyncio.Event().wait()

        key = sqlite_gateway.key()
        await sqlite_gateway.http.post(path_of(key, "/messages"), json={"text": "Add one."})
        options = GatewayOptions(body_patience=0.05)
        app = create_app(sqlite_gateway.world.runner, Access(), agents=Registry(), options=options)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://x") as http:
            answer = await http.put(path_of(key, "/files/a"), content=stuck())
        is_problem(answer, 408, "request-timeout")
        said = answer.json()
        assert isinstance(error_of(said["code"], said["detail"]), RequestTimeout)
        assert await sqlite_gateway.world.store.list_artifacts(key) == []

    async def test_who_has_sent_it_all_may_wait_for_its_answer(self) -> None:
        async with client_of(GatewayOptions(body_patience=0.05)) as (http, router):

            @router.post("/slow")
            async def slow(request: Request) -> dict[str, bool]:
                await request.body()
                await asyncio.sleep(0.2)
                return {"there": not await request.is_disconnected()}

            assert (await http.post("/slow", content=b"all of it")).json() == {"there": True}

    @pytest.mark.parametrize("sent", [b"", b"G", b"GET /livez HTTP/1.1\r\nhost: x\r\n"])
    async def test_a_connection_that_brings_no_whole_head_is_cut(
        self, sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch, sent: bytes
    ) -> None:
        monkeypatch.setattr(listening, "HEAD_WITHIN", 0.05)
        reader, writer = await connected(sqlite_gateway)
        writer.write(sent)
        assert await ended(reader) == b""
        writer.close()

    async def test_one_that_goes_on_after_a_request_and_stops_is_cut_too(
        self, sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader, writer = await connected(sqlite_gateway)
        whole = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
        for _ in range(2):
            writer.write(whole)
            assert await reader.readuntil(b'{"alive":true}')
        monkeypatch.setattr(listening, "HEAD_WITHIN", 0.05)
        writer.write(whole[:9])
        assert await ended(reader) == b""
        writer.close()

    async def test_one_that_has_been_asked_may_take_its_time(
        self, sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[listening._Patient] = []
        data_received = listening._Patient.data_received

        def remembered(connection: listening._Patient, data: bytes) -> None:
            asked.append(connection)
            data_received(connection, data)

        monkeypatch.setattr(listening._Patient, "data_received", remembered)
        key, model = sqlite_gateway.key(), sqlite_gateway.world.gemini
        model.hang()
        asking = asyncio.create_task(sqlite_gateway.http.post(path_of(key, "/messages"), json={"text": "hi"}))
        await model.wait_in_flight()
        assert asked
        assert all(connection._timer is None for connection in asked), "it would be cut"
        model.release()
        assert (await asking).status_code == 200


async def connected(gateway: Gateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(gateway.url)
    return await asyncio.open_connection(url.hostname, url.port)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed, or cut."""
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def test_a_token_that_asks_too_often_is_told_when_to_come_back() -> None:
    async with client_of(GatewayOptions(), Access(rates=Rates(0.001, 2))) as (http, _):
        answers = [await http.get("/list-apps") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    problem = is_problem(answers[2], 429, "rate-limited")
    assert problem["retryAfter"] > 900
    assert int(answers[2].headers["retry-after"]) > 900


async def test_every_response_has_the_security_headers(sqlite_gateway: Gateway) -> None:
    for path in ("/openapi.json", "/nowhere", "/list-apps", path_of(sqlite_gateway.key(), "/status")):
        headers = (await sqlite_gateway.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


async def test_a_refusal_has_them_too() -> None:
    options = GatewayOptions(body_limit=10, hosts=("127.0.0.1",))
    open_to_all, closed = Access(rates=Rates(0.001, 1)), Access([Tokens()])
    async with client_of(options, closed) as (nobody, _), client_of(options, open_to_all) as (http, _):
        answers = [
            await nobody.get("/list-apps"),
            await http.get("/list-apps", headers={"host": "evil.example"}),
            await http.post("/run", content=b"x" * 11),
            await http.get("/list-apps"),
        ]
    assert [answer.status_code for answer in answers] == [401, 403, 413, 429]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_it_says_that_it_is_there_and_ready(sqlite_gateway: Gateway) -> None:
    async with sqlite_gateway.client(None) as nobody:
        assert (await nobody.get("/healthz")).json() == {"ready": True, "down": []}
        assert (await nobody.get("/livez")).json() == {"alive": True}


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-3", (0, 4)),
        ("bytes=4-", (4, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=5-99", (5, 10)),
        ("bytes=9-9", (9, 10)),
        ("bytes=3-2", None),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("lines=1-2", None),
        ("bytes=x", None),
    ],
)
def test_ranges(header: str | None, span: tuple[int, int] | None) -> None:
    assert span_of(header, 10) == span


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=0-0", 0), ("bytes=-0", 10), ("bytes=-1", 0)]
)
def test_ranges_behind_the_end(header: str, size: int) -> None:
    with pytest.raises(HttpProblem) as raised:
        span_of(header, size)
    assert raised.value.headers == {"content-range": f"bytes */{size}"}
