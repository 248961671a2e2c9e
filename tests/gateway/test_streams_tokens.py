"""Streams whose token ends while they are open: they end too, and the turn goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta, tzinfo

import httpx2
import pytest

from examples import counter
from gateway import access as gateway_access
from gateway.access import Access
from gateway.app import create_app
from gateway.listening import listening
from gateway.tokens import ApiKeys, JsonWebTokens
from perdure.errors import StorageUnavailable
from perdure.registry import Registry
from perdure.testing import say
from storage.key_store import KeyStore
from tests.gateway.harness import Gateway, path_of
from tests.gateway.sse import opened
from tests.gateway.test_streams_session import note, written
from tests.gateway.test_tokens import SECRET, signed
from tests.integration.harness import until


@asynccontextmanager
async def with_tokens(gateway: Gateway) -> AsyncIterator[str]:
    """The URL of a gateway that takes API keys and JWTs, and looks at them again all the time."""
    access = Access([ApiKeys(gateway.world.store), JsonWebTokens(secret=SECRET)])
    app = create_app(gateway.world.runner, access, agents=Registry([counter.agent]))
    app.state.services.streams.heartbeat = 0.05
    async with listening(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


def client(url: str, token: str) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False)


async def test_a_token_that_is_revoked_ends_its_streams_and_no_others(gateway: Gateway) -> None:
    key, store = await written(gateway, 1), gateway.world.store
    revoked, lost = await store.create_key("lost")
    _, kept = await store.create_key("kept")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(with_tokens(gateway))
        https = [await stack.enter_async_context(client(url, token)) for token in (lost, kept)]
        first, second = [
            await stack.enter_async_context(opened(http, path_of(key, "/events"))) for http in https
        ]
        assert await first.events(1) == await second.events(1) == [1]
        await store.revoke_key(revoked.id)
        [last] = await first.rest()
        assert (last.event, last.data["code"], last.data["status"]) == ("problem", "unauthenticated", 401)
        assert last.data["instance"] == path_of(key, "/events")
        await store.append(key, note(2))
        assert await second.events(1) == [2]
        # Who comes back is refused, at which a browser's EventSource stops coming.
        async with opened(https[0], path_of(key, "/events"), last=1) as again:
            assert again.response.status_code == 401


async def test_one_that_is_revoked_hears_no_more_of_a_session_that_is_never_silent(
    sqlite_gateway: Gateway,
) -> None:
    key, store = await written(sqlite_gateway, 1), sqlite_gateway.world.store
    revoked, token = await store.create_key("lost")
    going = True

    async def write() -> None:
        number = 1
        while going:
            number += 1
            await store.append(key, note(number))

    async with (
        with_tokens(sqlite_gateway) as url,
        client(url, token) as http,
        opened(http, path_of(key, "/events")) as stream,
    ):
        writing = asyncio.create_task(write())
        assert await stream.events(3) == [1, 2, 3]
        await store.revoke_key(revoked.id)
        last = (await stream.rest())[-1]
        going = False
        await writing
    assert (last.event, last.data["code"]) == ("problem", "unauthenticated")


class Tomorrow(datetime):
    """The clock, a day on."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Tomorrow:
        return super().now(tz) + timedelta(days=1)


async def test_a_jwt_that_expires_ends_its_stream(
    sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await written(sqlite_gateway, 1)
    token = signed(admin=True, exp=datetime.now(UTC) + timedelta(hours=1))
    async with (
        with_tokens(sqlite_gateway) as url,
        client(url, token) as http,
        opened(http, path_of(key, "/events")) as stream,
    ):
        assert await stream.events(1) == [1]
        monkeypatch.setattr(gateway_access, "datetime", Tomorrow)
        [last] = await stream.rest()
    assert (last.event, last.data["code"]) == ("problem", "unauthenticated")


@pytest.mark.parametrize("path", ["/messages", "/run_sse"])
async def test_a_turn_goes_on_though_who_listened_may_not(sqlite_gateway: Gateway, path: str) -> None:
    key, store, model = (
        await written(sqlite_gateway, 0),
        sqlite_gateway.world.store,
        sqlite_gateway.world.gemini,
    )
    revoked, token = await store.create_key("lost")
    model.script(say("Said to nobody, but said."))
    model.hang(after=1)
    if path == "/messages":
        body: dict[str, object] = {"text": "hi"}
        path = path_of(key, path)
    else:
        message = {"role": "user", "parts": [{"text": "hi"}]}
        names = {"appName": key.app, "userId": key.user_id, "sessionId": key.session_id}
        body = {**names, "newMessage": message, "streaming": True}
    async with (
        with_tokens(sqlite_gateway) as url,
        client(url, token) as http,
        opened(http, path, body=body) as stream,
    ):
        await stream.until(lambda message: message.partial)
        await store.revoke_key(revoked.id)
        last = (await stream.rest())[-1]
    if path.startswith("/run"):
        assert last.data["error_details"]["error_type"] == "Unauthenticated"
    else:
        assert (last.event, last.data["code"]) == ("problem", "unauthenticated")
    model.release()

    async def answered() -> bool:
        return await sqlite_gateway.world.kinds(key) == ["user", "model"]

    assert await until(answered)


async def test_a_database_that_is_away_ends_no_stream(
    sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, store = await written(sqlite_gateway, 1), sqlite_gateway.world.store
    _, token = await store.create_key("kept")
    async with (
        with_tokens(sqlite_gateway) as url,
        client(url, token) as http,
        opened(http, path_of(key, "/events")) as stream,
    ):
        assert await stream.events(1) == [1]
        asked = asyncio.Semaphore(0)

        async def away(*_: object) -> None:
            asked.release()
            raise StorageUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(KeyStore, "find_key", away)
            for _ in range(2):
                await asked.acquire()
        await store.append(key, note(2))
        assert await stream.events(1) == [2]
