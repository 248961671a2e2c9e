"""A cancel of a message whose turn has not begun: it is not run, and the log says so."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from embedded.temporal import TemporalServer
from gateway.runner import Answer, Runner, connect
from perdure.settings import Settings
from perdure.testing import call, say
from perdure.types import During, SessionKey
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS, gate
from tests.integration.harness import World, open_world, until


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    gate.reset()


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, AGENTS) as opened:
        yield opened


@pytest.mark.parametrize("named", ["m1", None])
async def test_a_cancel_that_reaches_the_worker_with_its_message_is_felt(
    temporal: TemporalServer, sqlite_store: SessionStore, named: str | None
) -> None:
    """While no worker is there both wait in Temporal, and come to the workflow at once."""
    queue = f"test-{uuid.uuid4().hex[:8]}"
    client = await connect(Settings(_env_file=None, temporal_address=temporal.address))
    runner = Runner(client, sqlite_store, task_queue=queue)
    key = SessionKey(app="tester", user_id="early", session_id=uuid.uuid4().hex)
    await runner.message(key, "Pay.", message_id="m1")
    await runner.cancel(key, named)
    await runner.message(key, "Hello.", message_id="m2")
    async with open_world(temporal.address, sqlite_store, AGENTS, queue=queue) as world:
        world.gemini.script(say("hello"))
        assert (await world.runner.ask(key, "Hello.", message_id="m2")).text == "hello"
        assert (await world.runner.ask(key, "Pay.", message_id="m1")).status == "cancelled"
        events = (await world.session(key)).events
        assert [event.id for event in events] == ["m1:end", "m2:user", "m2:m1"]
        [asked] = world.gemini.model_calls()
        assert [content["parts"][0]["text"] for content in asked.contents] == ["Hello."]


async def held(world: World, key: SessionKey) -> asyncio.Task[Answer]:
    world.gemini.script(call("wait_at_gate", label="m1"), say("went through"), say("next"))
    turn = asyncio.create_task(world.runner.ask(key, "m1", message_id="m1"))
    await gate.held()
    return turn


async def queued(world: World, key: SessionKey, count: int) -> None:
    async def arrived() -> bool:
        return (await world.runner.status(key)).queued == count

    await until(arrived)


@pytest.mark.parametrize("during", ["queue", "join"])
async def test_one_that_waits_for_its_turn_is_not_run_and_the_turn_goes_on(
    world: World, during: During
) -> None:
    key = world.key("tester")
    first = await held(world, key)
    second = asyncio.create_task(world.runner.ask(key, "m2", message_id="m2", during=during))
    await queued(world, key, 1)
    await world.runner.message(key, "m3", message_id="m3")
    await queued(world, key, 2)
    await world.runner.cancel(key, "m2")
    await world.runner.cancel(key, "never-was")
    gate.open.set()
    assert (await first).text == "went through"
    assert (await second).status == "cancelled"
    assert (await world.runner.ask(key, "m3", message_id="m3")).text == "next"
    assert (await world.runner.ask(key, "m2", message_id="m2")).status == "cancelled", "sent again"
    texts = [event.text for event in (await world.session(key)).events if event.author == "user"]
    assert texts == ["m1", "m3"]
    assert len(world.gemini.model_calls()) == 3


async def test_one_that_was_answered_before_and_is_sent_again_keeps_its_answer(world: World) -> None:
    key = world.key("tester")
    world.gemini.script(say("zero"))
    zero = await world.runner.ask(key, "m0", message_id="m0")
    first = await held(world, key)
    again = asyncio.create_task(world.runner.ask(key, "m0", message_id="m0"))
    await queued(world, key, 1)
    await world.runner.cancel(key, "m0")
    gate.open.set()
    assert (await first).text == "went through"
    assert await again == zero


async def test_one_behind_an_end_writes_nothing_into_the_log(world: World) -> None:
    key = world.key("tester")
    first = await held(world, key)
    ending = asyncio.create_task(world.runner.end(key))
    await queued(world, key, 1)
    await world.runner.message(key, "m2", message_id="m2")
    await queued(world, key, 2)
    await world.runner.cancel(key, "m2")
    gate.open.set()
    assert (await first).text == "went through"
    head = (await ending).head

    async def closed() -> bool:
        return (await world.handle(key).describe()).close_time is not None

    await until(closed)
    assert (await world.session(key)).head == head
