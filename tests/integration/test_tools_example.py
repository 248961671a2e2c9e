"""examples/anywhere.py: its tools on a worker of their own, in TypeScript, and in an MCP server."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import PendingActivityState

from activities.gemini import Gemini
from embedded.temporal import TemporalServer
from examples import anywhere
from perdure.registry import Registry
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.typescript.environment import Absent, compiled
from worker import build_worker

WORKER = Path(anywhere.__file__).with_name("draw_worker.ts")


async def test_a_worker_of_its_own_and_an_mcp_server(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(temporal.address, sqlite_store, [anywhere.agent]) as world:
        settings = world.settings.model_copy(update={"task_queue": "heavy", "tools_only": True})
        gemini = Gemini(base_url=world.gemini.url)
        worker = build_worker(world.client, world.store, Registry([anywhere.agent]), gemini, settings)
        key = world.key("studio")
        async with worker:
            world.gemini.script(
                call("primes", below=10), call("shelf_put", name="four", what="2 3 5 7"), say("Kept.")
            )
            assert (await world.runner.ask(key, "Count the primes below 10, and keep that.")).text == "Kept."
        await gemini.close()
        assert (await world.session(key)).state["primes"] == {"10": 4}
        world.gemini.script(call("shelf_clear"))
        assert (await world.runner.ask(key, "Clear the shelf.", message_id="m2")).status == "waiting"
        world.gemini.script(call("shelf_look"), say("It is all there."))
        await world.runner.decline(key, "m2:t1.0", reason="never")
        assert (await world.runner.ask(key, "Clear the shelf.", message_id="m2")).text == "It is all there."
        assert (await _responses(world, key))[-1] == {"four": "2 3 5 7"}


async def test_an_activity_in_typescript(
    temporal: TemporalServer, sqlite_store: SessionStore, tmp_path: Path
) -> None:
    try:
        script = await asyncio.to_thread(compiled, WORKER.read_text("utf-8"), tmp_path)
    except Absent as why:
        pytest.skip(str(why))
    async with (
        open_world(temporal.address, sqlite_store, [anywhere.agent]) as world,
        _drawing(script, temporal.address) as first,
    ):
        key = world.key("studio")
        world.gemini.script(call("draw", sides=4, size=10), say("A square."))
        assert (await world.runner.ask(key, "Draw a square.")).text == "A square."
        world.gemini.script(call("draw", sides=2), say("That cannot be."))
        assert (await world.runner.ask(key, "Draw a line.")).text == "That cannot be."
        drawn, refused = await _responses(world, key)
        assert drawn == {"svg": '<svg><polygon points="10,20 20,10 10,0 0,10"/></svg>'}
        assert refused == {"error": "Error: a shape has 3 sides or more, and not 2"}

        world.gemini.script(call("draw", sides=2_000), say("A circle, nearly."))
        asking = asyncio.create_task(world.runner.ask(key, "Draw a circle."))
        await until(lambda: _is_drawn(world, key))
        first.terminate()
        await first.wait()
        async with _drawing(script, temporal.address):
            assert (await asking).text == "A circle, nearly."
        assert len(await _responses(world, key)) == 3
        events = (await world.handle(key).fetch_history()).events
        begun = [event.activity_task_scheduled_event_attributes.activity_type.name for event in events]
        assert begun.count("draw") >= 4, "the one that stopped was no more waited for"


async def _is_drawn(world: World, key: SessionKey) -> bool:
    described = (await world.handle(key).describe()).raw_description
    started = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
    return any(
        one.activity_type.name == "draw" and one.state == started for one in described.pending_activities
    )


@asynccontextmanager
async def _drawing(script: Path, address: str) -> AsyncIterator[Process]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "TEMPORAL_ADDRESS": address}
    process = await asyncio.create_subprocess_exec("node", str(script), env=environment, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            while (line := await process.stdout.readline()) != b"ready to draw\n":
                assert line, "the worker ended"
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _responses(world: World, key: Any) -> list[Any]:
    events = [event for event in await world.log(key) if "call" in event.meta]
    return [event.content["parts"][0]["functionResponse"]["response"] for event in events if event.content]
