"""A gateway that goes and comes back while the client follows, asks or waits."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from perdure.client import AsyncClient, AsyncSessionStream, Client, endpoint
from perdure.errors import GatewayUnavailable, Unauthenticated
from perdure.types import Event
from tests.client.cutter import cutter
from tests.client.faces import Face
from tests.client.test_sessions import note
from tests.gateway.harness import Gateway, open_gateway
from tests.integration.harness import until


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_one_client_follows_more_sessions_than_a_pool_has_connections(
    kind: type[Client] | type[AsyncClient], sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own pool has no end: httpx2's has a hundred, and a stream holds one for as long as it lives."""
    monkeypatch.setenv("NO_PROXY", "*")
    key = sqlite_gateway.key()
    await sqlite_gateway.world.store.create(key)
    await sqlite_gateway.world.store.append(key, note(1))
    client = kind(sqlite_gateway.url, sqlite_gateway.tokens.give(), timeout=30, patience=0)
    session = client.session(key.app, key.user_id, key.session_id)
    streams = [session.follow() for _ in range(105)]
    try:
        for stream in streams:
            if isinstance(stream, AsyncSessionStream):
                first = await anext(stream)
            else:
                first = await asyncio.to_thread(next, stream)
            assert isinstance(first, Event)
    finally:
        for stream in streams:
            if isinstance(stream, AsyncSessionStream):
                await stream.aclose()
            else:
                stream.close()
        if isinstance(client, AsyncClient):
            await client.close()
        else:
            client.close()


async def _truth(value: bool) -> bool:
    return value


async def test_a_gateway_that_restarts_costs_no_event_and_doubles_none(face: Face, gateway: Gateway) -> None:
    key, store = gateway.key(), gateway.world.store
    await store.create(key)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        one = await first.enter_async_context(open_gateway(gateway.world))
        between = await stack.enter_async_context(cutter(one.url))
        token = one.tokens.give()
        client = await stack.enter_async_context(face.client(between.url, token))
        stream = client.session(key.app, key.user_id, key.session_id).follow()
        for number in (1, 2):
            await store.append(key, note(number))
        seqs = [(await anext(stream)).seq for _ in range(2)]
        going_on = asyncio.create_task(_seqs(stream, 5))
        await first.aclose()  # it says that it stops, and is not there
        await store.append(key, note(3))
        between.upstream = None
        before = len(between.requests)
        await store.append(key, note(4))
        two = await stack.enter_async_context(open_gateway(gateway.world))
        two.tokens.callers.update(one.tokens.callers)
        between.upstream = two.url
        await until(lambda: _truth(len(between.requests) > before))
        await store.append(key, note(5))
        between.cut()  # and once without a word
        await store.append(key, note(6))
        await store.append(key, note(7))
        assert seqs + await going_on == [1, 2, 3, 4, 5, 6, 7]


async def _seqs(stream: object, count: int) -> list[int]:
    found: list[int] = []
    async for item in stream:  # type: ignore[attr-defined]  # of either face
        if isinstance(item, Event):
            found.append(item.seq)
        if len(found) == count:
            break
    return found


async def test_a_stream_that_falls_silent_is_asked_for_again(
    face: Face, sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that died on its way says nothing, not even that the gateway is there."""
    monkeypatch.setattr(endpoint, "SILENCE", 0.5)
    key, store = sqlite_gateway.key(), sqlite_gateway.world.store
    await store.create(key)
    await store.append(key, note(1))
    async with (
        cutter(sqlite_gateway.url) as between,
        face.client(between.url, sqlite_gateway.tokens.give()) as client,
    ):
        stream = client.session(key.app, key.user_id, key.session_id).follow()
        assert (await anext(stream)).seq == 1
        between.stall()
        await store.append(key, note(2))
        assert (await anext(stream)).seq == 2
        assert len(between.requests) > 1


async def test_a_session_that_ended_meanwhile_is_over(face: Face, sqlite_gateway: Gateway) -> None:
    key, store = sqlite_gateway.key(), sqlite_gateway.world.store
    await store.create(key)
    await store.append(key, note(1))
    await store.end(key)
    head = (await store.get(key)).head
    async with (
        cutter(sqlite_gateway.url) as between,
        face.client(between.url, sqlite_gateway.tokens.give()) as client,
    ):
        stream = client.session(key.app, key.user_id, key.session_id).follow()
        seqs = [(await anext(stream)).seq for _ in range(head)]
        between.cut()
        assert seqs == list(range(1, head + 1))
        assert [item async for item in stream] == []
        assert stream.reason == "ended"


async def test_a_session_that_was_deleted_meanwhile_is_over(face: Face, sqlite_gateway: Gateway) -> None:
    key, store = sqlite_gateway.key(), sqlite_gateway.world.store
    await store.create(key)
    await store.append(key, note(1))
    async with (
        cutter(sqlite_gateway.url) as between,
        face.client(between.url, sqlite_gateway.tokens.give()) as client,
    ):
        stream = client.session(key.app, key.user_id, key.session_id).follow()
        assert (await anext(stream)).seq == 1
        between.upstream = None
        between.cut()
        await store.delete(key)
        between.upstream = sqlite_gateway.url
        assert [item async for item in stream] == []
        assert stream.reason == "deleted"


async def test_a_gateway_that_stays_away_is_a_typed_error(face: Face, sqlite_gateway: Gateway) -> None:
    key = sqlite_gateway.key()
    async with cutter(None) as between, face.client(between.url, "t", patience=0.3) as client:
        session = client.session(key.app, key.user_id, key.session_id)
        with pytest.raises(GatewayUnavailable) as raised:
            await session.ask("hi", message_id="m1")
        assert raised.value.request_id == "m1"
        assert "do the same again, under the id m1" in str(raised.value)
        with pytest.raises(GatewayUnavailable) as raised:
            await session.ask("hi")
        # The id that the client chose is told, so that the same can be asked again.
        assert raised.value.request_id
        assert raised.value.request_id in str(raised.value)
        with pytest.raises(GatewayUnavailable):
            await anext(session.follow())
        with pytest.raises(GatewayUnavailable):
            await session.stream("hi").finish()
        with pytest.raises(GatewayUnavailable):
            await anext(session.artifacts.stream("a"))


async def test_nobody_at_the_address_is_a_typed_error(face: Face) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens there, nor comes to
        async with face.client(f"http://127.0.0.1:{taken.getsockname()[1]}", patience=0) as client:
            with pytest.raises(GatewayUnavailable, match="no gateway answers at"):
                await client.apps()


async def test_a_token_that_is_revoked_ends_what_it_followed(face: Face, sqlite_gateway: Gateway) -> None:
    key, store = sqlite_gateway.key(), sqlite_gateway.world.store
    await store.create(key)
    await store.append(key, note(1))
    token = sqlite_gateway.tokens.give()
    async with cutter(sqlite_gateway.url) as between, face.client(between.url, token) as client:
        stream = client.session(key.app, key.user_id, key.session_id).follow()
        assert (await anext(stream)).seq == 1
        del sqlite_gateway.tokens.callers[token]
        between.cut()
        with pytest.raises(Unauthenticated):
            await anext(stream)
