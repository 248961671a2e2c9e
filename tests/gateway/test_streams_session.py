"""A session's stream: replay, then tail, whatever happens to the session, the database and the server."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from examples import counter
from gateway.runner import Runner
from perdure.testing import say
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from tests.gateway.harness import Gateway, open_gateway, path_of
from tests.gateway.sse import Message, opened
from tests.integration.harness import World, open_world, until


def note(number: int) -> Event:
    """An event that somebody writes from outside a turn."""
    content = {"role": "model", "parts": [{"text": f"note {number}"}]}
    return Event(id=f"n{number}:n", invocation_id=f"n{number}", author="other", content=content)


async def written(gateway: Gateway, count: int, key: SessionKey | None = None) -> SessionKey:
    """A session with so many events."""
    key = key or gateway.key()
    await gateway.world.store.create(key)
    for number in range(1, count + 1):
        await gateway.world.store.append(key, note(number))
    return key


async def test_the_log_is_replayed_and_then_followed(gateway: Gateway) -> None:
    key = await written(gateway, 3)
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(3) == [1, 2, 3]
        await gateway.world.store.append(key, note(4))
        assert await stream.events(1) == [4]
    page = (await gateway.http.get(path_of(key, "/events"))).json()
    assert [message.data for message in stream.seen if message.stored] == page["events"]
    assert [message.id for message in stream.seen if message.stored] == ["1", "2", "3", "4"]


async def test_a_long_log_is_replayed_whole(gateway: Gateway) -> None:
    key = await written(gateway, 450)
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(450) == list(range(1, 451))


async def test_a_client_that_comes_back_goes_on_behind_the_last_it_has(gateway: Gateway) -> None:
    key = await written(gateway, 5)
    async with opened(gateway.http, path_of(key, "/events?after=1")) as stream:
        assert await stream.events(2) == [2, 3]
    async with opened(gateway.http, path_of(key, "/events?after=1"), last=3) as stream:
        assert await stream.events(2) == [4, 5]
        await gateway.world.store.append(key, note(6))
        assert await stream.events(1) == [6]


async def test_readers_that_come_while_others_write_miss_nothing_and_see_nothing_twice(
    gateway: Gateway,
) -> None:
    key, count = await written(gateway, 0), 120
    chance = random.Random(7)

    async def write() -> None:
        for number in range(1, count + 1):
            await gateway.world.store.append(key, note(number))

    async def follow() -> list[int]:
        found: list[int] = []
        while len(found) < count:
            last = found[-1] if found else None
            async with opened(gateway.http, path_of(key, "/events"), last=last) as stream:
                found += await stream.events(min(chance.randint(1, 40), count - len(found)))
        return found

    found = await asyncio.gather(write(), *(follow() for _ in range(8)))
    assert found[1:] == [list(range(1, count + 1))] * 8


async def test_a_silent_stream_says_that_it_is_there(gateway: Gateway) -> None:
    gateway.app.state.services.streams.heartbeat = 0.05
    key = await written(gateway, 1)
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(1) == [1]
        for _ in range(3):
            await stream.until(lambda message: message.comment is not None)


async def test_every_line_of_a_stream_ends_in_the_same_way(sqlite_gateway: Gateway) -> None:
    """So that a reader which splits a stream at its blank lines finds them all."""
    sqlite_gateway.app.state.services.streams.heartbeat = 0.05
    key, came, lines = await written(sqlite_gateway, 2), "", list[str]()
    headers = {"accept": "text/event-stream"}
    async with sqlite_gateway.http.stream("GET", path_of(key, "/events"), headers=headers) as response:
        async for text in response.aiter_text():
            came += text
            lines = [message.partition("\n")[0] for message in came.split("\n\n")[:-1]]
            if "id: 2" in lines and lines.count(": still here") > 1:
                break
    assert "\r" not in came
    # It says so by the clock: before its events, too, where reading them takes long.
    assert [line for line in lines if line != ": still here"] == ["id: 1", "id: 2"]


async def test_what_nobody_told_of_is_found_by_the_clock(gateway: Gateway) -> None:
    """A process may die between its commit and telling of it."""
    gateway.app.state.services.streams.heartbeat = 0.2
    key = await written(gateway, 1)
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(1) == [1]
        store, feed = gateway.world.store, gateway.world.store.feed
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(feed, "changed", lambda *_: None)
            await store.append(key, note(2))
        assert await stream.events(1) == [2]


async def test_a_rewind_is_told_with_what_is_live_from_then_on(gateway: Gateway) -> None:
    key = await written(gateway, 4)
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(4) == [1, 2, 3, 4]
        await gateway.world.store.rewind(key, before="n3", request_id="r1")
        assert await stream.events(1) == [5]
        assert stream.seen[-1].data["rewind"]["before"] == "n3"
        rewound = await stream.until(lambda message: message.event == "rewound")
        session = await gateway.world.store.get(key)
        assert rewound.data == {"projection": [[1, 3], [5, None]], "epoch": session.epoch}
        # Redo, and on.
        await gateway.world.store.rewind(key, before="r1", request_id="r2")
        assert await stream.events(1) == [6]
        rewound = await stream.until(lambda message: message.event == "rewound")
        assert rewound.data["projection"] == [[1, 5], [6, None]]
        await gateway.world.store.append(key, note(9))
        assert await stream.events(1) == [7]
    async with opened(gateway.http, path_of(key, "/events?live=true")) as stream:
        assert await stream.events(6) == [1, 2, 3, 4, 6, 7]


async def test_s51_a_stream_ends_with_its_session_and_is_not_come_back_to(gateway: Gateway) -> None:
    key = await written(gateway, 2)
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(2) == [1, 2]
        await gateway.world.store.end(key)
        assert await stream.rest() == [Message(event="end", data={"reason": "ended"})]
    async with opened(gateway.http, path_of(key, "/events"), last=2) as stream:
        assert stream.response.status_code == 204
    async with opened(gateway.http, path_of(key, "/events"), last=1) as stream:
        assert [message.id for message in await stream.rest()] == ["2", None]


async def test_s22_a_stream_ends_when_its_session_is_deleted(gateway: Gateway) -> None:
    key = await written(gateway, 2)
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(2) == [1, 2]
        await gateway.world.store.delete(key)
        assert await stream.rest() == [Message(event="end", data={"reason": "deleted"})]
    async with opened(gateway.http, path_of(key, "/events"), last=2) as stream:
        assert stream.response.status_code == 404


async def test_a_session_made_again_under_its_name_is_another(gateway: Gateway) -> None:
    key = await written(gateway, 2)
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(2) == [1, 2]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(gateway.world.store.feed, "changed", lambda *_: None)
            await gateway.world.store.delete(key)
            await written(gateway, 3, key)
        await gateway.world.store.append(key, note(4))
        assert await stream.rest() == [Message(event="end", data={"reason": "deleted"})]
    async with opened(gateway.http, path_of(key, "/events"), last=9) as stream:
        assert stream.response.status_code == 204


async def test_there_is_no_stream_of_what_is_not_there(gateway: Gateway) -> None:
    key = await written(gateway, 2)
    for path, status in [
        (path_of(gateway.key(), "/events"), 404),
        (path_of(key, "/events?after=3"), 422),
        (path_of(key, "/events?after=-1"), 422),
    ]:
        async with opened(gateway.http, path) as stream:
            assert stream.response.status_code == status
            assert stream.response.headers["content-type"] == "application/problem+json"
    async with opened(gateway.http, path_of(key, "/events"), last="x") as stream:
        assert stream.response.status_code == 422


async def test_json_is_given_to_who_prefers_it(gateway: Gateway) -> None:
    key = await written(gateway, 1)
    for accept in ("application/json, text/event-stream", "*/*", "text/html"):
        page = await gateway.http.get(path_of(key, "/events"), headers={"accept": accept})
        assert page.json()["head"] == 1


async def test_streams_end_before_their_server_does(gateway: Gateway) -> None:
    key = await written(gateway, 1)
    async with open_gateway(gateway.world) as going, opened(going.http, path_of(key, "/events")) as stream:
        assert await stream.events(1) == [1]
        closing = asyncio.create_task(going.app.state.before_exit())
        assert await stream.rest() == [Message(event="end", data={"reason": "stopping"})]
        await closing
        assert len(going.app.state.services.streams) == 0


async def test_a_client_that_goes_leaves_nothing_behind(gateway: Gateway) -> None:
    key = await written(gateway, 1)
    services = gateway.app.state.services
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(1) == [1]
        assert len(services.streams) == 1

    async def gone() -> bool:
        return len(services.streams) == 0 and key not in services.store.feed.followed

    await until(gone)


async def test_a_reader_that_takes_nothing_holds_up_no_turn(gateway: Gateway) -> None:
    key, turns = gateway.key(), 4
    gateway.world.gemini.huge(size=900_000, times=turns)
    await written(gateway, 0, key)
    url = urlsplit(gateway.url)
    # It takes so little that most of it has to wait at the server: each turn is said and then stored.
    stuck = socket.create_connection((url.hostname, url.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    request = f"GET {path_of(key, '/events')} HTTP/1.1\r\nhost: {url.netloc}\r\naccept: text/event-stream\r\n"
    token = gateway.http.headers["authorization"]
    stuck.sendall(f"{request}authorization: {token}\r\nconnection: close\r\n\r\n".encode())
    for number in range(turns):
        answer = await gateway.http.post(path_of(key, "/messages"), json={"text": f"turn {number}"})
        assert answer.json()["status"] == "answered"
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
    stuck.settimeout(120)
    seqs = await asyncio.to_thread(_seqs, stuck, 2 * turns)
    assert seqs == list(range(1, 2 * turns + 1))


def _seqs(connection: socket.socket, count: int) -> list[int]:
    """The seqs of the stored events that come over a connection, until there are so many."""
    found: list[int] = []
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            if line.startswith(b"id: "):
                found.append(int(line.removeprefix(b"id: ")))
                if len(found) == count:
                    break
    return found


async def test_a_hundred_readers_hear_the_same(gateway: Gateway) -> None:
    key, model = await written(gateway, 0), gateway.world.gemini
    model.script(say("so many readers, and one answer for them all"))
    model.hang(after=1)

    async def follow() -> tuple[list[int], bool]:
        async with opened(readers, path_of(key, "/events")) as stream:
            seqs = await stream.events(1)
            first = await stream.until(lambda message: message.partial)
            heard.release()
            return seqs + await stream.events(1), first.data["offset"] == 0

    heard = asyncio.Semaphore(0)
    many = httpx2.Limits(max_connections=None)
    async with gateway.client(gateway.tokens.give(), limits=many) as readers:
        turn = asyncio.create_task(gateway.world.runner.ask(key, "hi"))
        following = [asyncio.create_task(follow()) for _ in range(100)]
        for _ in following:
            await heard.acquire()
        model.release()
        assert await asyncio.gather(*following) == [([1, 2], True)] * 100
        assert (await turn).status == "answered"


async def test_a_turn_behind_one_gateway_is_heard_at_another(
    temporal: TemporalServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    url = await postgres.create_database("two_gateways")
    async with _worlds(temporal, url, tmp_path) as (world, other), open_gateway(other) as gateway:
        key = world.key()
        world.gemini.script(say("heard from afar, and stored nearby"))
        world.gemini.hang(after=1)
        await other.store.create(key)
        async with opened(gateway.http, path_of(key, "/events")) as stream:
            asking = asyncio.create_task(world.runner.ask(key, "hi"))
            assert await stream.events(1) == [1]
            await stream.until(lambda message: message.partial)
            world.gemini.release()
            assert await stream.events(1) == [2]
            assert (await asking).text == stream.seen[-1].text


async def test_a_stream_survives_its_database(temporal: TemporalServer, tmp_path: Path) -> None:
    async with PostgresServer(fsync=False) as server:
        url = await server.create_database("restarted")
        async with _worlds(temporal, url, tmp_path) as (world, other), open_gateway(other) as gateway:
            key = world.key()
            world.gemini.script(say("before and after the database went away"))
            world.gemini.hang(after=1)
            await other.store.create(key)
            async with opened(gateway.http, path_of(key, "/events")) as stream:
                asking = asyncio.create_task(world.runner.ask(key, "hi"))
                assert await stream.events(1) == [1]
                first = await stream.until(lambda message: message.partial)
                await server.restart()
                world.gemini.release()
                assert await stream.events(1) == [2]
                assert (await asking).text == stream.seen[-1].text
                assert stream.seen[-1].text.startswith(first.text)


@asynccontextmanager
async def _worlds(temporal: TemporalServer, url: str, folder: Path) -> AsyncIterator[tuple[World, World]]:
    """A worker, and a gateway's way to it, each with a store of its own on one database."""
    options = {"announce": True}
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(2):
            stores.append(await SessionStore.open(url, f"file://{folder}", options=options, migrate=True))
            stack.push_async_callback(stores[-1].close)
        world = await stack.enter_async_context(open_world(temporal.address, stores[0], [counter.agent]))
        runner = Runner(world.client, stores[1], task_queue=world.settings.task_queue)
        yield world, replace(world, runner=runner, store=stores[1])
