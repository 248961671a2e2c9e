"""A worker that is asked to stop: what runs may end, the rest is handed back, nothing is lost.

The workers are processes. The model's stand-in and the history count what happened; that a
call was handed back, and not missed after its heartbeats, is read from the failure that the
history keeps of the attempt.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest_asyncio
from temporalio.api.enums.v1 import EventType, TimeoutType
from temporalio.api.failure.v1 import Failure

from activities.runtime import WORKER_STOPS
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from perdure.testing import StandIn
from tests.integration.crashes import ForkedWorker, Scene, Stage
from tests.integration.harness import until
from tests.integration.test_crashes import TURN, open_stage

ENOUGH = {"PERDURE_GRACEFUL_SHUTDOWN": "60"}
NONE = {"PERDURE_GRACEFUL_SHUTDOWN": "0.2"}
HEARTBEAT = timedelta(seconds=20)
"""Longer than a worker stands still on a busy machine: what is tried again was handed back, or is wrong."""

IMPATIENT = """
from perdure import Agent, Limits
from tests.integration.crash_agents import work

agent = Agent(name="impatient", instruction="Work.", tools=[work], limits=Limits(model_attempts=2))
"""


@pytest_asyncio.fixture
async def gemini() -> AsyncIterator[StandIn]:
    async with StandIn() as stand_in:
        yield stand_in


@pytest_asyncio.fixture
async def stage(temporal: TemporalServer, gemini: StandIn, tmp_path: Path) -> AsyncIterator[Stage]:
    opened = await open_stage(temporal.address, f"sqlite:///{tmp_path / 'perdure.db'}", gemini, tmp_path)
    yield opened
    await opened.store.close()


class Deployed(Scene):
    """A scene whose worker has settings of its own, and may be asked to stop.

    Args:
        stage: the servers.
        settings: more environment variables.
        app: the agent.
    """

    def __init__(self, stage: Stage, *, settings: Mapping[str, str], app: str = "crasher") -> None:
        super().__init__(stage, app=app)
        self._environment = {**environment_of(stage.settings(self.mark)), **settings}
        self.forked = self.worker = ForkedWorker(self._environment, self.log, heartbeat=HEARTBEAT)

    async def __aenter__(self) -> Deployed:
        await super().__aenter__()
        return self

    def signal(self, number: signal.Signals) -> None:
        """Ask the worker to stop."""
        os.kill(self.forked.pid, number)

    async def hears_of_it(self) -> None:
        """The worker has noted the signal."""

        async def noted() -> bool:
            return "asked to stop;" in self.log.read_text()

        await until(noted)

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[ForkedWorker]:
        """Another worker on the same task queue, which is up."""
        log = self.log.with_suffix(".beside.log")
        other = ForkedWorker(self._environment, log, heartbeat=HEARTBEAT)

        async def ready() -> bool:
            return log.exists() and "worker ready" in log.read_text()

        other.start()
        try:
            await until(ready)
            yield other
        finally:
            await other.kill()


async def failures(stage: Stage, scene: Scene) -> list[Failure]:
    """What ended each attempt of an activity that was not its last, by the history."""
    history = await stage.client.get_workflow_handle(scene.key.workflow_id).fetch_history()
    started = EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    found = [e.activity_task_started_event_attributes for e in history.events if e.event_type == started]
    return [attributes.last_failure for attributes in found if attributes.HasField("last_failure")]


def was_handed_back(failure: Failure) -> bool:
    missed = failure.timeout_failure_info.timeout_type == TimeoutType.TIMEOUT_TYPE_HEARTBEAT
    return not missed and failure.application_failure_info.type == WORKER_STOPS


async def test_s58_a_model_call_that_ends_within_the_grace_is_not_made_again(
    stage: Stage, gemini: StandIn
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        async with Deployed(stage, settings=ENOUGH) as scene:
            gemini.hang(contains=scene.mark)
            turn = scene.say("work", "m1")
            await scene.model_is_asked(1)
            scene.signal(number)
            await scene.hears_of_it()
            gemini.release()
            assert await scene.forked.wait() == 0
            assert [event.id for event in await stage.store.log(scene.key)] == TURN[:2]
            await scene.start()
            assert (await turn).status == "answered"
            assert await scene.ids() == TURN
            assert len(scene.asked()) == 2, "a model call a step"
            assert await failures(stage, scene) == []


async def test_s58_a_model_call_that_does_not_end_is_handed_to_another_worker(
    stage: Stage, gemini: StandIn
) -> None:
    async with Deployed(stage, settings=NONE) as scene:
        gemini.hang(contains=scene.mark)
        turn = scene.say("work", "m1")
        await scene.model_is_asked(1)
        async with scene.beside() as other:
            scene.signal(signal.SIGTERM)
            assert await scene.forked.wait() == 0
            assert (await turn).status == "answered"
            assert other.running
        assert await scene.ids() == TURN
        assert await scene.state() == {"n": 1}
        assert len(scene.asked()) == 3, "one that was given up, and one a step"
        [failure] = await failures(stage, scene)
        assert was_handed_back(failure), failure


async def test_s58_a_tool_that_does_not_end_is_handed_over_and_the_process_ends_all_the_same(
    stage: Stage,
) -> None:
    async with Deployed(stage, settings=NONE) as scene:
        turn = scene.say("hold", "m1")
        await scene.tool_is_held()  # in a thread, which nothing can stop
        async with scene.beside():
            scene.signal(signal.SIGTERM)
            assert await scene.forked.wait() == 0
            assert (await turn).status == "answered"
        assert await scene.ids() == TURN
        assert await scene.state() == {"n": 1}
        lines = [line.split() for line in scene.notes.read_text().splitlines()]
        assert [attempt for _, attempt in lines] == ["1", "1"], "the first was no try of the tool's"
        assert len({key for key, _ in lines}) == 1
        [failure] = await failures(stage, scene)
        assert was_handed_back(failure), failure


async def test_handing_back_costs_no_try_of_the_model(stage: Stage, gemini: StandIn, tmp_path: Path) -> None:
    """However often workers are deployed meanwhile: the agent allows two tries."""
    agents = tmp_path / "impatient.py"
    agents.write_text(IMPATIENT)
    settings = {**NONE, "PERDURE_AGENTS": json.dumps([str(agents)])}
    async with Deployed(stage, app="impatient", settings=settings) as scene:
        gemini.hang(contains=scene.mark, times=3)
        turn = scene.say("work", "m1")
        for asked in range(1, 4):
            await scene.model_is_asked(asked)
            scene.signal(signal.SIGTERM)
            assert await scene.forked.wait() == 0
            await scene.start()
        assert (await turn).status == "answered"
        assert await scene.ids() == TURN
        assert len(scene.asked()) == 3 + 2


async def test_a_second_signal_ends_it_at_once(stage: Stage, gemini: StandIn) -> None:
    async with Deployed(stage, settings=ENOUGH) as scene:
        gemini.hang(contains=scene.mark)
        turn = scene.say("work", "m1")
        await scene.model_is_asked(1)
        scene.signal(signal.SIGTERM)
        await scene.hears_of_it()
        assert scene.forked.running
        scene.signal(signal.SIGTERM)
        assert await scene.forked.wait() == -signal.SIGTERM
        await scene.start()
        assert (await turn).status == "answered"
        assert await scene.ids() == TURN
        assert len(scene.asked()) == 3
