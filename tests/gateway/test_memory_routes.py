"""Users' memory over HTTP: a session is put into it, it is searched by its user alone, and forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import pytest
import pytest_asyncio

from embedded.temporal import TemporalServer
from perdure.errors import InvalidRequest
from perdure.testing import say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.client.faces import Face
from tests.gateway.harness import Gateway, open_gateway_of, path_of
from tests.gateway.test_sessions_routes import is_problem
from tests.integration.memory_agents import MEMORY_AGENTS


@pytest_asyncio.fixture
async def gateway(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[Gateway]:
    async with open_gateway_of(MEMORY_AGENTS, temporal, sqlite_store) as opened:
        yield opened


async def told(gateway: Gateway, text: str, user: str | None = None) -> SessionKey:
    """A session in which this was said."""
    key = gateway.key("discreet", user)
    gateway.world.gemini.script(say("I see."))
    await gateway.world.runner.ask(key, text, message_id="m1")
    return key


def memory_of(key: SessionKey) -> str:
    return f"/apps/{key.app}/users/{key.user_id}/memory"


async def test_a_session_is_remembered_found_and_forgotten(gateway: Gateway) -> None:
    key = await told(gateway, "My cat is called Mia.")
    for _ in range(2):
        done = await gateway.http.post(path_of(key, "/remember"), json={"requestId": "r1"})
        assert done.json() == {"requestId": "r1", "upto": 2, "passages": 2}
    found = (await gateway.http.get(memory_of(key), params={"query": "what is my cat?", "limit": 1})).json()
    [passage] = found["passages"]
    said_at = passage.pop("saidAt")
    assert "T" in said_at
    assert passage == {
        "sessionId": key.session_id,
        "seq": 1,
        "eventId": "m1:user",
        "invocationId": "m1",
        "author": "user",
        "text": "My cat is called Mia.",
        "excerpt": "My cat is called Mia.",
    }
    for _ in range(2):
        assert (await gateway.http.delete(path_of(key, "/memory"))).status_code == 204
    assert (await gateway.http.get(memory_of(key), params={"query": "cat"})).json() == {"passages": []}


async def test_a_user_is_forgotten(gateway: Gateway) -> None:
    key = await told(gateway, "red")
    await gateway.http.post(path_of(key, "/remember"))
    assert (await gateway.http.delete(memory_of(key))).json() == {"sessions": 1}
    assert (await gateway.http.delete(memory_of(key))).json() == {"sessions": 0}


async def test_a_token_reaches_its_own_users_memory_alone(gateway: Gateway) -> None:
    key = await told(gateway, "red")
    await gateway.http.post(path_of(key, "/remember"))
    async with gateway.client_of("mallory", app="discreet") as mallory:
        user = memory_of(key).removesuffix("/memory")
        for method, path in (
            ("GET", memory_of(key) + "?query=red"),
            ("DELETE", memory_of(key)),
            ("DELETE", user),
        ):
            is_problem(await mallory.request(method, path), 403, "forbidden")
        for method, path in (("POST", "/remember"), ("DELETE", "/memory")):
            is_problem(await mallory.request(method, path_of(key, path)), 403, "forbidden")
    async with gateway.client_of(key.user_id, app="discreet") as mine:
        assert len((await mine.get(memory_of(key), params={"query": "red"})).json()["passages"]) == 1


async def test_what_makes_no_sense_is_refused(gateway: Gateway) -> None:
    key = gateway.key("discreet")
    is_problem(await gateway.http.post(path_of(key, "/remember")), 404, "session-not-found")
    for query in ("", "?limit=5", "?query=a&limit=0", "?query=a&limit=101", f"?query={'a' * 4_001}"):
        is_problem(await gateway.http.get(memory_of(key) + query), 422, "invalid-request")
    assert (await gateway.http.get(memory_of(key), params={"query": "\"'\\&|!:*()\0"})).json() == {
        "passages": []
    }


async def test_both_faces_of_the_client_do_the_same(gateway: Gateway) -> None:
    kinds: tuple[Literal["sync", "async"], ...] = ("sync", "async")
    for kind in kinds:
        key = await told(gateway, "My cat is called Mia.")
        async with Face(kind).client(gateway.url, gateway.tokens.give()) as client:
            session = client.session(key.app, key.user_id, key.session_id)
            done = await session.remember(request_id="r1")
            assert (done.upto, done.passages) == (2, 2)
            [passage] = await client.memory.search(key.app, key.user_id, "cat?", limit=5)
            assert (passage.text, passage.session_id) == ("My cat is called Mia.", key.session_id)
            assert passage.said_at == (await gateway.world.store.log(key, limit=1))[0].created_at
            await session.forget()
            assert await client.memory.search(key.app, key.user_id, "cat") == []
            await session.remember()
            assert await client.memory.forget(key.app, key.user_id) == 1
            with pytest.raises(InvalidRequest):
                await client.memory.search(key.app, key.user_id, "cat", limit=0)
