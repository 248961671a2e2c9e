"""Workers that are killed in a call that is not theirs alone: for another queue, or to an MCP server.

The calls are made again once their heartbeats have been missing for ten seconds; so both are killed at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from gateway.runner import Answer, Runner
from perdure.settings import Settings
from perdure.testing import call, say
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.integration import elsewhere_agents
from tests.integration.crashes import ForkedWorker
from tests.integration.harness import World, open_world, until

MCP_QUEUE = "elsewhere-mcp"


class Killed:
    """A worker in a call, killed there, and one that takes its place."""

    def __init__(self, world: World, runner: Runner, app: str, folder: Path) -> None:
        self.world = world
        self.key: SessionKey = world.key(app)
        self.notes = folder / f"{app}.notes"
        self._runner = runner
        self._log = folder / f"{app}.log"

    async def play(self, settings: Settings, wanted: JsonObject) -> Answer:
        """Have the model want a call, kill the worker in it, start another."""
        mark = self.key.session_id
        self.world.gemini.script(wanted, say("Done."), contains=mark)
        environment = environment_of(settings) | {"MCP_NOTES": str(self.notes)}
        first, second = ForkedWorker(environment, self._log), ForkedWorker(environment, self._log)
        try:
            first.start()
            asking = asyncio.create_task(self._runner.ask(self.key, f"Go on, {mark}.", message_id="m1"))
            await self.noted(1)
            await first.kill()
            second.start()
            return await asking
        finally:
            await first.kill()
            await second.kill()

    async def noted(self, count: int) -> list[str]:
        """What was noted of the call, once it was begun so often."""

        async def there() -> list[str]:
            lines = self.notes.read_text().splitlines() if self.notes.exists() else []
            found = [line for line in lines if line.startswith(("ponder", "hold"))]
            return found if len(found) >= count else []

        return await until(there)

    async def responses(self) -> list[object]:
        """What the model was told."""
        events = [event for event in await self.world.log(self.key) if "call" in event.meta]
        return [
            event.content["parts"][0]["functionResponse"]["response"] for event in events if event.content
        ]


@pytest_asyncio.fixture(scope="module")
async def world(temporal: TemporalServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("elsewhere")
    database, artifacts = f"sqlite:///{folder / 'perdure.db'}", f"file://{folder / 'artifacts'}"
    store = await SessionStore.open(database, artifacts, migrate=True)
    settings = Settings(
        _env_file=None,
        database_url=database,
        artifacts_url=artifacts,
        temporal_address=temporal.address,
        agents=(elsewhere_agents.__file__,),
    )
    async with open_world(temporal.address, store, elsewhere_agents.AGENTS, settings=settings) as opened:
        yield opened
    await store.close()


async def test_s58_a_worker_killed_in_a_call_elsewhere(world: World, tmp_path: Path) -> None:
    there = world.settings.model_copy(update={"model_base_url": world.gemini.url})
    away = Killed(world, world.runner, "thinker", tmp_path)
    tools_only = there.model_copy(update={"task_queue": elsewhere_agents.QUEUE, "tools_only": True})
    server = Killed(world, Runner(world.client, world.store, task_queue=MCP_QUEUE), "keeper", tmp_path)
    whole = there.model_copy(update={"task_queue": MCP_QUEUE})
    answers = await asyncio.gather(
        away.play(tools_only, call("ponder", question="why")), server.play(whole, call("hold", article="tea"))
    )
    assert [answer.text for answer in answers] == ["Done.", "Done."]

    assert await away.responses() == [{"result": 1}]
    # Once more for each worker that stood still so long that it was taken for dead, too.
    assert set(await away.noted(2)) == {f"ponder {away.key}:m1:t1.0"}
    assert (await world.session(away.key)).state == {"n": 1}

    assert await server.responses() == [{"result": "held tea"}]
    begun = [line.split() for line in await server.noted(2)]
    assert len({key for _, key, _ in begun}) == 1, "all under one idempotency key"

    async def gone() -> bool:
        return all(not psutil.pid_exists(int(pid)) for _, _, pid in begun)

    await until(gone)
