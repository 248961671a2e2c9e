"""A cancel reaches what is at work: nothing here would come to an end by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from activities.runtime import HEARTBEAT_EVERY, HEARTBEAT_HELD
from embedded.temporal import TemporalServer
from perdure import Agent, ToolContext, tool
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import PATIENCE, World, open_world, until
from workflows.calls import HEARTBEAT


class Work:
    """What a tool is at."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()


work = Work()


@tool
async def awaits(context: ToolContext) -> str:
    """Wait in vain."""
    context.state["begun"] = True
    work.begun.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        work.cancelled.set()
        raise
    return "never"


@tool
def looks(context: ToolContext) -> str:
    """Look again and again whether to go on."""
    context.state["begun"] = True
    work.begun.set()
    pause = threading.Event()
    while not context.cancelled:
        pause.wait(0.01)
    work.cancelled.set()
    return "too late to be used"


@tool(task_queue="a-queue-that-nobody-serves")
def paints() -> str:
    """Paint where nobody is."""
    return "never"


@pytest.fixture(autouse=True)
def _fresh_work() -> None:
    work.__init__()  # type: ignore[misc]  # a fresh start is the constructor's


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    agent = Agent(name="worker", tools=[awaits, looks, paints])
    async with open_world(temporal.address, sqlite_store, [agent]) as opened:
        yield opened


async def set_soon(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, PATIENCE)


async def is_cancelled(world: World, key: SessionKey, turn: asyncio.Task[object]) -> None:
    assert getattr(await turn, "status", None) == "cancelled"
    session = await world.session(key)
    said = [event.id for event in session.events if event.meta.keys() != {"spent"}]
    assert said[-1] == "m1:end", "nothing came behind the end but the bill of what was cancelled"
    assert session.state == {}, "what was cancelled left nothing"


@pytest.mark.parametrize("after", [None, 1], ids=["silent", "streaming"])
async def test_a_model_call_hears_of_a_cancel(world: World, after: int | None) -> None:
    key = world.key("worker")
    world.gemini.hang(after=after)
    turn = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    await world.gemini.wait_in_flight()
    await world.runner.cancel(key)
    await world.gemini.wait_idle(timeout=PATIENCE)
    await is_cancelled(world, key, turn)


@pytest.mark.parametrize("name", ["awaits", "looks"])
@pytest.mark.parametrize("how", ["cancel", "rewind", "interrupt"])
async def test_a_tool_hears_that_its_turn_is_over(world: World, name: str, how: str) -> None:
    key = world.key("worker")
    world.gemini.script(call(name))
    turn = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    assert await set_soon(work.begun)
    if how == "cancel":
        await world.runner.cancel(key)
    elif how == "rewind":
        await world.runner.rewind(key, "m1")
    else:
        assert (await world.runner.ask(key, "instead", during="interrupt")).status == "answered"
    assert await set_soon(work.cancelled)
    if how == "cancel":
        await is_cancelled(world, key, turn)
    assert getattr(await turn, "status", None) == "cancelled"
    assert (await world.session(key)).state == {}


@pytest.mark.parametrize("what", ["the model, after a minute", "a worker of another queue"])
async def test_a_turn_that_waits_to_try_is_over_at_once(world: World, what: str) -> None:
    key = world.key("worker")
    if what == "a worker of another queue":
        world.gemini.script(call("paints"))
    else:
        world.gemini.fail(429, retry_after=60)
    turn = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    await world.gemini.wait_for_requests(1)

    async def held_up() -> bool:
        return (await world.runner.status(key)).held_up is not None

    await until(held_up)
    await world.runner.cancel(key)
    await asyncio.wait_for(is_cancelled(world, key, turn), PATIENCE)
    world.gemini.clear()
    world.gemini.script(say("next"))
    assert (await world.runner.ask(key, "go on")).text == "next"
    assert len(world.gemini.model_calls()) == 2


def test_a_cancel_is_to_be_felt_within_two_seconds() -> None:
    # It comes just behind a heartbeat at worst; the rest is for Temporal's way there.
    assert HEARTBEAT_HELD < HEARTBEAT_EVERY <= 1.0
    assert timedelta(seconds=5 * HEARTBEAT_EVERY) < HEARTBEAT, "a worker that lives is not taken for dead"


async def test_the_worker_holds_no_heartbeat_back_for_longer(world: World) -> None:
    assert world.worker.config()["max_heartbeat_throttle_interval"] == timedelta(seconds=HEARTBEAT_HELD)
