"""Nobody reaches what is another's: tried on every route that there is, so that no new one escapes."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.app import PUBLIC
from gateway.services import names_user
from perdure.tasktoken import task_token
from perdure.types import SessionKey
from tests.gateway.harness import Gateway, open_gateway, path_of
from tests.gateway.test_sessions_routes import is_problem

OPEN = {"/openapi.json", "/health", "/healthz", "/livez"}
"""What is answered without a token."""
BODIES: dict[str, dict[str, Any]] = {
    "sendMessage": {"text": "Add one."},
    "rewindSession": {"before": "m1"},
    "updateSession": {"stateDelta": {"stolen": True}},
    "findSessions": {"metadata": {}},
    "adkRun": {"newMessage": {"role": "user", "parts": [{"text": "Add one."}]}},
    "adkRunSse": {"newMessage": {"role": "user", "parts": [{"text": "Add one."}]}},
    "adkSaveArtifact": {"filename": "stolen.txt", "artifact": {"text": "x"}},
    "adkUpdateMemory": {"sessionId": "s1"},
}
"""What routes need that would else refuse the request before they look at whom it names."""
HARMLESS = {"adkVersion", "adkListApps", "adkFinalizeCredentials", "adkTelemetry"}
"""Routes that tell a user only of the apps that the token reaches, or say that they do nothing."""


def routes_of(app: FastAPI) -> Iterator[tuple[str, str, str]]:
    """Method, path and id of all that the app answers, whether the document shows it or not."""
    for route in flat(app.router.routes):
        assert isinstance(route, Route | APIRoute), f"what is {route}?"
        for method in sorted((route.methods or set()) - {"OPTIONS"}):
            if method == "HEAD" and not isinstance(route, APIRoute):
                continue
            yield method, route.path, getattr(route, "operation_id", None) or route.name


def flat(routes: Any) -> Iterator[BaseRoute]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from flat(inner.routes)
        else:
            yield route


def filled(path: str, user: str) -> str:
    """The path with the other's names in it."""
    names = {
        "app": "counter",
        "user": user,
        "session": "s1",
        "name": "a.txt",
        "version": "1",
        "invocation": "m1",
    }
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: names.get(found[1], "x"), path)


async def test_every_documented_route_is_tried(sqlite_gateway: Gateway) -> None:
    document = sqlite_gateway.app.openapi()
    shown = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    there = {
        (method, re.sub(r":path\}", "}", path))
        for method, path, _ in routes_of(sqlite_gateway.app)
        if path not in OPEN
    }
    assert shown <= there
    assert len(shown) > 40


async def test_without_a_token_nothing_is_reached(sqlite_gateway: Gateway) -> None:
    assert set(PUBLIC) == OPEN
    async with sqlite_gateway.client(None) as nobody:
        for method, path, name in routes_of(sqlite_gateway.app):
            answer = await nobody.request(method, filled(path, "ann"), json=BODIES.get(name, {}))
            if path in OPEN:
                assert answer.status_code == 200, path
            else:
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["", "Basic eDp5", "Bearer", "Bearer wrong", "Bearer a.b.c", "bearer  x y"])
async def test_with_a_bad_token_nothing_is_reached(sqlite_gateway: Gateway, token: str) -> None:
    async with sqlite_gateway.client(None) as nobody:
        answer = await nobody.get("/apps/counter/sessions", headers={"authorization": token})
    is_problem(answer, 401, "unauthenticated")


@dataclass
class Trial:
    """Ann's token is tried on Bob's session; it has to learn the same of what is there and of what is not."""

    gateway: Gateway
    thief: httpx2.AsyncClient
    bob: str
    secret: str

    async def of(self, method: str, path: str, name: str) -> None:
        """Try one route; raises AssertionError if it tells, or does, what it must not."""
        for user in (self.bob, f"nobody-{self.bob}"):
            answer = await tried(self.thief, method, path, name, user)
            told = answer.text
            assert self.secret not in told, (method, path, told)
            if is_about_the_app(path) and answer.status_code != 403:
                same = await tried(self.gateway.http, method, path, name, user)
                assert told == same.text, f"{method} {path} depends on who asks"
            else:
                assert answer.status_code == 403, (method, path, told)

    async def state(self) -> tuple[str, ...]:
        """All that there is of Bob's session."""
        session = f"/apps/counter/users/{self.bob}/sessions/s1"
        answers = [await self.gateway.http.get(session + what) for what in ("/status", "/events", "/files")]
        return tuple(answer.text for answer in answers)


@asynccontextmanager
async def trial_of(gateway: Gateway) -> AsyncIterator[Trial]:
    """Bob has a session s1, with a secret in all that a session has; Ann has nothing but a token."""
    ann, bob = f"ann-{uuid.uuid4().hex[:6]}", f"bob-{uuid.uuid4().hex[:6]}"
    secret = uuid.uuid4().hex
    bobs = f"/apps/counter/users/{bob}/sessions/s1"
    told = {"secret": secret}
    body = {"userId": bob, "sessionId": "s1", "metadata": told, "state": told}
    for answer in (
        await gateway.http.post("/apps/counter/sessions", json=body),
        await gateway.http.patch(bobs, json={"stateDelta": {"said": secret}}),
        await gateway.http.put(f"{bobs}/files/a.txt", content=secret.encode()),
    ):
        assert answer.status_code in (200, 201), answer.text
    async with gateway.client_of(ann) as thief:
        trial = Trial(gateway, thief, bob, secret)
        assert all(secret in text for text in (await trial.state())[:2])
        yield trial


async def test_s21_another_users_session_is_beyond_every_route(gateway: Gateway) -> None:
    async with trial_of(gateway) as trial:
        before = await trial.state()
        for method, path, name in routes_of(gateway.app):
            if path not in OPEN and name not in HARMLESS:
                await trial.of(method, path, name)
        assert await trial.state() == before


LEAKS = ("/apps/{app}/leak", "/leak", "/apps/{app}/users/{user}/leak", "/dev/apps/{app}/leak", "/plain")


@pytest.mark.parametrize("path", LEAKS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_trial_finds_a_route_that_forgets_to_check(
    sqlite_gateway: Gateway, path: str, method: str
) -> None:
    """Routes as somebody might add them, which tell of whom the request names, whoever asks."""
    store = sqlite_gateway.world.store

    @names_user
    async def leak(request: Request) -> Response:
        body = {} if request.method == "GET" else await request.json()
        named = {**request.query_params, **body, **request.path_params}
        user = named.get("user", named.get("userId"))
        page = await store.list_sessions("counter", user)
        return JSONResponse([dict(session.metadata) for session in page.sessions])

    async with open_gateway(sqlite_gateway.world) as leaky, trial_of(leaky) as trial:
        if path == "/plain":  # past FastAPI, and so past its dependencies
            leaky.app.router.routes.insert(0, Route(path, leak, methods=[method]))
        else:
            leaky.app.add_api_route(path, leak, methods=[method])
            route = leaky.app.router.routes.pop()
            leaky.app.router.routes.insert(0, route)
        there = [found for found in routes_of(leaky.app) if found[:2] == (method, path)]
        assert there, "routes_of finds it by itself"
        with pytest.raises(AssertionError):
            await trial.of(*there[0])


def is_about_the_app(path: str) -> bool:
    """Whether it is one of the pages of google-adk's web UI that show an agent, and nothing of sessions."""
    return path.startswith("/dev/apps/{app}/") and "{user}" not in path


async def tried(client: httpx2.AsyncClient, method: str, path: str, name: str, user: str) -> httpx2.Response:
    """The route asked for another's session: by its path, else by every way in which a request names one."""
    named = {"userId": user, "sessionId": "s1"}
    if "{user}" in path:
        params, body = {}, dict(BODIES.get(name, {}))
    else:
        params = {"user": user, "user_id": user, "session_id": "s1", "app_name": "counter", "app": "counter"}
        body = {**BODIES.get(name, {}), **named, "appName": "counter"}
    if name == "batchUpdateSessions":
        body = {"updates": [{**named, "stateDelta": {"stolen": True}}]}
    elif name in ("completeTask", "sendTaskProgress"):
        key = SessionKey(app="counter", user_id=user, session_id="s1")
        body = {"taskToken": task_token(key, "m1:t1.0")}
    elif name in ("createSession", "findSessions"):
        body = {field: value for field, value in body.items() if field != "appName"}
        if name == "findSessions":
            body.pop("sessionId")
    if method == "PUT":
        return await client.put(filled(path, user), content=b"x", params=params)
    if method in ("GET", "HEAD", "DELETE"):
        return await client.request(method, filled(path, user), params=params)
    return await client.request(method, filled(path, user), json=body, params=params)


async def test_another_app_is_beyond_a_token_too(sqlite_gateway: Gateway) -> None:
    token = sqlite_gateway.tokens.give(apps={"tester"})
    async with sqlite_gateway.client(token) as client:
        for method, path, name in routes_of(sqlite_gateway.app):
            if path in OPEN or name in HARMLESS:
                continue
            answer = await tried(client, method, path, name, "ann")
            assert answer.status_code == 403, (method, path, answer.text)


class TestAUser:
    async def test_reaches_its_own_sessions(self, gateway: Gateway) -> None:
        key = gateway.key()
        async with gateway.client_of(key.user_id) as ann:
            answer = await ann.post(path_of(key, "/messages"), json={"text": "Add one."})
            assert answer.status_code == 200, answer.text
            mine = (await ann.get("/apps/counter/sessions")).json()["sessions"]
            found = await ann.post("/apps/counter/sessions:find", json={"metadata": {}})
            assert [session["id"] for session in mine] == [key.session_id]
            assert [session["id"] for session in found.json()["sessions"]] == [key.session_id]
            made = await ann.post("/apps/counter/sessions", json={"state": {"user:mood": "good"}})
            assert (made.status_code, made.json()["userId"]) == (201, key.user_id)

    async def test_cannot_set_what_all_users_share(self, sqlite_gateway: Gateway) -> None:
        key = sqlite_gateway.key()
        shared = {"app:mood": "bad"}
        async with sqlite_gateway.client_of(key.user_id) as ann:
            assert (await ann.post(path_of(key, "/messages"), json={"text": "Add one."})).status_code == 200
            item = {"userId": key.user_id, "sessionId": key.session_id, "stateDelta": shared}
            for answer in (
                await ann.post("/apps/counter/sessions", json={"state": shared}),
                await ann.patch(path_of(key), json={"stateDelta": shared}),
                await ann.post("/apps/counter/sessions:batchUpdate", json={"updates": [item]}),
                await ann.post(path_of(key, "/messages"), json={"text": "x", "stateDelta": shared}),
            ):
                is_problem(answer, 403, "forbidden")
            run = {
                "appName": "counter",
                "userId": key.user_id,
                "sessionId": key.session_id,
                "stateDelta": shared,
            }
            assert (await ann.post("/run", json={**BODIES["adkRun"], **run})).status_code == 403
            users = path_of(key).rpartition("/")[0]
            assert (await ann.post(users, json={"state": shared})).status_code == 403
            assert (await ann.post(path_of(key) + "x", json=shared)).status_code == 403

    async def test_cannot_fork_into_another_user(self, sqlite_gateway: Gateway) -> None:
        key = sqlite_gateway.key()
        async with sqlite_gateway.client_of(key.user_id) as ann:
            await ann.post(path_of(key, "/messages"), json={"text": "Add one."})
            is_problem(await ann.post(path_of(key, "/fork"), json={"userId": "bob"}), 403, "forbidden")
            assert (await ann.post(path_of(key, "/fork"), json={})).status_code == 201

    async def test_sees_only_its_apps(self, sqlite_gateway: Gateway) -> None:
        async with sqlite_gateway.client_of("ann") as ann:
            assert (await ann.get("/list-apps")).json() == ["counter"]


async def test_an_administrator_reaches_every_user_of_its_app(sqlite_gateway: Gateway) -> None:
    key = sqlite_gateway.key()
    async with sqlite_gateway.client(sqlite_gateway.tokens.give(apps={"counter"})) as admin:
        assert (await admin.post(path_of(key, "/messages"), json={"text": "Add one."})).status_code == 200
        listed = (await admin.get("/apps/counter/sessions", params={"limit": 1000})).json()["sessions"]
        assert key.session_id in [session["id"] for session in listed]
