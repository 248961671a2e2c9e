"""Nobody serves the sessions: who asks is told so in the end, and what was sent is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from embedded.temporal import TemporalServer
from examples import counter
from gateway import served
from gateway.runner import Runner
from perdure.errors import TemporalUnavailable
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world
from workflows.session import AgentSession

CALLS: dict[str, Callable[[Runner, SessionKey], Awaitable[Any]]] = {
    "ask": lambda runner, key: runner.ask(key, "Add one.", message_id="m1"),
    "rewind": lambda runner, key: runner.rewind(key, "m0"),
    "compact": lambda runner, key: runner.compact(key),
    "end": lambda runner, key: runner.end(key),
    "save": lambda runner, key: runner.save_artifact(key, "a.txt", b"x", "text/plain"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_request_does_not_wait_for_ever(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(served, "LOOK_EVERY", 0.05)
    world, key = sqlite_world, sqlite_world.key()
    await world.store.create(key)
    nowhere = Runner(world.client, world.store, task_queue="a-queue-that-nobody-polls")
    with pytest.raises(TemporalUnavailable, match="no worker polls the task queue a-queue-that-nobody-polls"):
        await CALLS[call](nowhere, key)
    try:
        await world.handle(key).terminate()
    except RPCError as error:
        # Who gives up takes back the call that would start it, and that may not have come so far.
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def test_a_session_whose_own_queue_nobody_serves(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workflow runs already, on another queue than the one where it would be started now."""
    monkeypatch.setattr(served, "LOOK_EVERY", 0.05)
    world, key = sqlite_world, sqlite_world.key()
    old = await world.client.start_workflow(
        AgentSession.run, id=key.workflow_id, task_queue="a-queue-that-was-left"
    )
    with pytest.raises(TemporalUnavailable, match="no worker polls the task queue a-queue-that-was-left"):
        await world.runner.ask(key, "Add one.", message_id="m1")
    await old.terminate()


async def test_one_that_takes_long_is_waited_for_while_a_worker_is_there(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that has just been started may not have asked for work yet when it is first looked for.
    await sqlite_world.runner.ask(sqlite_world.key(), "hello")
    monkeypatch.setattr(served, "LOOK_EVERY", 0.05)
    looked = asyncio.Semaphore(0)
    is_polled = served.is_polled

    async def noted(*given: Any) -> bool:
        found = await is_polled(*given)
        looked.release()
        return found

    monkeypatch.setattr(served, "is_polled", noted)
    sqlite_world.gemini.hang()
    asking = asyncio.create_task(sqlite_world.runner.ask(sqlite_world.key(), "hello"))
    await sqlite_world.gemini.wait_in_flight()
    for _ in range(3):
        await looked.acquire()
    sqlite_world.gemini.release()
    assert (await asking).status == "answered"


async def test_a_message_that_found_no_worker_is_answered_once_there_is_one(
    temporal: TemporalServer, sqlite_store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "LOOK_EVERY", 0.05)
    async with open_world(temporal.address, sqlite_store, [counter.agent], queue="comes-late") as world:
        key = world.key()
        await world.worker.shutdown()
        # Temporal still lists the worker that has gone, for a while.
        monkeypatch.setattr(served, "_FRESH", -served._FRESH)
        with pytest.raises(TemporalUnavailable):
            await world.runner.ask(key, "Add one.", message_id="m1")
    monkeypatch.undo()
    async with open_world(temporal.address, sqlite_store, [counter.agent], queue="comes-late") as world:
        assert (await world.runner.ask(key, "Add one.", message_id="m1")).status == "answered"
        assert [event.id for event in await world.log(key) if event.author == "user"] == ["m1:user"]
