"""The S3 server is down, slow or says 503: what a tool did is kept, nothing is half listed, others go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from s3fs import S3FileSystem

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from storage.sessions import SessionStore
from tests.conformance.servers import BUCKET, s3_server
from tests.integration.harness import World, open_world, until
from tests.integration.outages import AGENTS, PATIENCE, Talk
from tests.integration.proxy import Proxy

_BODY = b"<Error><Code>ServiceUnavailable</Code><Message>Please reduce your request rate</Message></Error>"
BUSY = b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


@pytest_asyncio.fixture(scope="module")
async def proxy() -> AsyncIterator[Proxy]:
    """The way to an S3 server."""
    with s3_server() as variables, pytest.MonkeyPatch.context() as patched:
        port = urlsplit(variables["AWS_ENDPOINT_URL"]).port
        assert port is not None
        async with Proxy(port) as proxy:
            variables["AWS_ENDPOINT_URL"] = proxy.url(variables["AWS_ENDPOINT_URL"])
            for name, value in variables.items():
                patched.setenv(name, value)
            # It keeps one for each bucket, whatever the environment says by then.
            S3FileSystem.clear_instance_cache()
            yield proxy
            S3FileSystem.clear_instance_cache()


@pytest_asyncio.fixture(scope="module")
async def world(temporal: TemporalServer, postgres: PostgresServer, proxy: Proxy) -> AsyncIterator[World]:
    url = await postgres.create_database("outages_bucket")
    store = await SessionStore.open(url, f"s3://{BUCKET}/outages", migrate=True)
    async with open_world(temporal.address, store, AGENTS) as world:
        yield world
    await store.close()


def down(proxy: Proxy) -> None:
    proxy.down()


def busy(proxy: Proxy) -> None:
    proxy.answer(BUSY)


def back(proxy: Proxy) -> None:
    proxy.up()
    proxy.answer(None)
    proxy.let_pass()


@pytest.mark.parametrize("breaks", [down, busy])
async def test_a_large_result_waits_for_the_bucket(world: World, proxy: Proxy, breaks: object) -> None:
    """The tool has run, and is not run again; sessions that need no bucket go on meanwhile."""
    assert callable(breaks)
    talk, calm = Talk(world), Talk(world)
    await talk.goes_on("m0")
    before = proxy.refused + proxy.pieces
    breaks(proxy)
    turn = talk.ask("m1", "fill")

    async def tried() -> bool:
        return proxy.refused + proxy.pieces >= before + 8

    await until(tried, within=PATIENCE)
    await calm.goes_on("m1")
    assert not turn.done()
    assert await world.store.list_artifacts(talk.key) == []
    back(proxy)
    assert (await turn).status == "answered"
    await talk.exact("m0", "m1:1", models=3, tries=1)
    [row] = await world.store.list_artifacts(talk.key)
    assert (row.name, row.version) == ("results/m1-1.0.txt", 1)
    assert talk.mark.encode() in (await world.store.load_artifact(talk.key, row.name))[1]


@pytest.mark.parametrize("breaks", [down, busy])
async def test_a_tool_that_cannot_save_is_told(world: World, proxy: Proxy, breaks: object) -> None:
    """The model sees the error; nothing is listed; and the next time it works."""
    assert callable(breaks)
    talk = Talk(world)
    await talk.goes_on("m0")
    breaks(proxy)
    try:
        assert (await talk.ask("m1", "keep_briefly")).status == "answered"
    finally:
        back(proxy)
    event = await world.store.event(talk.key, "m1:t1.0")
    assert event is not None
    assert event.error is not None
    assert event.error["type"] == "ToolError"
    assert await world.store.list_artifacts(talk.key) == []
    assert (await talk.ask("m2", "keep")).status == "answered"
    [row] = await world.store.list_artifacts(talk.key)
    assert (await world.store.load_artifact(talk.key, row.name))[1] == f"kept {talk.mark}".encode()
    await talk.exact("m0", "m1:1", "m2:1", models=5, tries=2)


async def test_a_slow_bucket_holds_up_nobody_else(world: World, proxy: Proxy) -> None:
    """More saves wait for it than there are threads; turns of others, and names of hosts, need one too."""
    threads = min(32, (os.cpu_count() or 1) + 4)  # that asyncio has by default
    slow, calm = [Talk(world) for _ in range(threads + 2)], Talk(world)
    before = proxy.pieces
    proxy.hold()
    turns = [talk.ask("m1", "keep") for talk in slow]

    async def waiting() -> bool:
        return proxy.pieces > before

    await until(waiting, within=PATIENCE)
    await calm.goes_on("m1")
    async with asyncio.timeout(PATIENCE):
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    assert (await calm.ask("m2", "work")).status == "answered"
    assert not any(turn.done() for turn in turns)
    back(proxy)
    assert {answer.status for answer in await asyncio.gather(*turns)} == {"answered"}
    for talk in slow:
        await talk.exact("m1:1", models=2, tries=1)
        [row] = await world.store.list_artifacts(talk.key)
        assert row.version == 1
