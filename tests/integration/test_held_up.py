"""``status`` says what holds a turn up, as long as it does, and at no cost to the history."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from activities.protocol import Failure
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from gateway.held_up import Work
from gateway.routes.travel import _work
from perdure.settings import Settings
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.outages import AGENTS, PATIENCE, Talk
from tests.integration.proxy import Proxy

KEYS = f"k1:{base64.b64encode(bytes(range(32))).decode()}"


@pytest_asyncio.fixture(scope="module")
async def proxy(postgres: PostgresServer) -> AsyncIterator[Proxy]:
    async with Proxy(postgres.port) as proxy:
        yield proxy


@pytest_asyncio.fixture(scope="module", params=[None, KEYS], ids=["readable", "encrypted"])
async def world(
    request: pytest.FixtureRequest,
    temporal: TemporalServer,
    postgres: PostgresServer,
    proxy: Proxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    """Its worker and its runner reach Postgres through the proxy."""
    url = await postgres.create_database(f"held_up_{'readable' if request.param is None else 'encrypted'}")
    store = await SessionStore.open(
        proxy.url(url), f"file://{tmp_path_factory.mktemp('held-up')}", migrate=True
    )
    settings = Settings(_env_file=None, codec_keys=request.param)
    async with open_world(temporal.address, store, AGENTS, settings=settings) as world:
        yield world
    await store.close()


def held_up(talk: Talk) -> Callable[[], Awaitable[Failure | None]]:
    async def look() -> Failure | None:
        return (await talk.world.runner.status(talk.key)).held_up

    return look


async def tried(talk: Talk, times: int) -> int:
    """The length of the history, once the running step has been tried so often."""

    async def often() -> int:
        described = await talk.world.handle(talk.key).describe()
        pending = described.raw_description.pending_activities
        return described.history_length if any(one.attempt >= times for one in pending) else 0

    return await until(often, within=PATIENCE)


async def test_a_turn_that_waits_for_the_database(world: World, proxy: Proxy) -> None:
    talk = Talk(world)
    await talk.goes_on("m0")
    proxy.down()
    try:
        turn = talk.ask("m1")
        why = await until(held_up(talk), within=PATIENCE)
        assert why is not None
        assert why.type == "StorageUnavailable"
        assert "the database cannot be used now" in why.message
        status = await world.runner.status(talk.key)
        assert (status.status, status.invocation_id, status.last_error) == ("open", "m1", None)
        before = await tried(talk, 2)
        assert await tried(talk, 4) == before, "tries cost the history nothing"
    finally:
        proxy.up()
    assert (await turn).status == "answered"
    status = await world.runner.status(talk.key)
    assert (status.doing, status.held_up) == (None, None)


async def test_a_result_that_cannot_be_written_yet(world: World, proxy: Proxy) -> None:
    talk = Talk(world)
    await talk.goes_on("m0")
    turn = talk.ask("m1", "hold")
    await talk.held()
    assert (await world.runner.status(talk.key)).held_up is None
    proxy.down()
    try:
        talk.let_go()
        why = await until(held_up(talk), within=PATIENCE)
        assert why is not None
        assert (why.type, "kept until it can be written" in why.message) == ("StorageUnavailable", True)
        assert (await world.runner.status(talk.key)).doing == "tool hold"
    finally:
        proxy.up()
    assert (await turn).status == "answered"
    assert (await world.runner.status(talk.key)).held_up is None
    await talk.exact("m0", "m1:1", models=3, tries=1, n=1)


async def test_a_model_that_asks_for_patience(world: World) -> None:
    talk = Talk(world)
    await talk.goes_on("m0")
    world.gemini.fail(429, "SECRET words", retry_after=3600, contains=talk.mark)
    turn = talk.ask("m1")
    why = await until(held_up(talk), within=PATIENCE)
    assert why is not None
    assert why.type == "ModelUnavailable"
    assert "HTTP 429" in why.message
    assert "SECRET" not in why.message
    await world.runner.cancel(talk.key)
    assert (await turn).status == "cancelled"
    assert (await world.runner.status(talk.key)).held_up is None


def test_the_gateway_says_so_too() -> None:
    why = Failure(type="StorageUnavailable", message="its disk is full")
    told = _work(Work(status="open", doing="model · step 1", held_up=why))
    assert told["heldUp"] == {"type": "StorageUnavailable", "message": "its disk is full"}
    assert "heldUp" not in _work(Work(status="open"))
