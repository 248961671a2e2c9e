"""Tools that run on another task queue: by a worker of ours, or as an activity of any worker."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from activities.gemini import Gemini
from activities.remote import ARGUMENT_BYTES
from embedded.temporal import TemporalServer
from perdure import Agent, Limits, Tool, ToolContext, tool
from perdure.registry import Registry
from perdure.testing import call, say
from perdure.types import Event, Json
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from worker import build_worker
from workflows.remote import RESULT_BYTES

GPU = "gpu"
ran_on: list[str] = []
"""The task queues on which ``embed`` has run."""


@tool(task_queue=GPU)
def embed(text: str, context: ToolContext) -> int:
    """Its own queue, our own worker."""
    ran_on.append(activity.info().task_queue)
    context.state["embedded"] = text
    return len(text)


@tool
async def quit_early(text: str) -> str:
    """It gives up by the wrong error."""
    raise asyncio.CancelledError("had enough")


@tool(task_queue="nobody", start_timeout=0.2)
def neglected(text: str) -> str:
    """Nobody serves its queue, and it says how long it waits."""
    raise AssertionError("it runs nowhere")


@tool(task_queue="nobody-for-ever")
def forsaken(text: str) -> str:
    """Nobody serves its queue, and it waits."""
    raise AssertionError("it runs nowhere")


@tool(task_queue="foreign", activity="render", retries=1, heartbeat_timeout=1, timeout=20)
def render(scene: str, width: int = 640) -> dict[str, Any]:
    """An activity of another worker."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign", activity="render", retries=2, timeout=1)
def render_briefly(scene: str) -> dict[str, Any]:
    """It has little time."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign", activity="render", heartbeat_timeout=20)
def render_once(scene: str) -> dict[str, Any]:
    """It is not run again when it has failed."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="fragile", activity="render", heartbeat_timeout=2)
def render_fragile(scene: str) -> dict[str, Any]:
    """Its worker is killed."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign", activity="render", confirm=True)
def render_dear(scene: str) -> dict[str, Any]:
    """The same, once a person said yes."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign-unserved", activity="render", start_timeout=0.2)
def render_nowhere(scene: str) -> dict[str, Any]:
    """An activity that no worker has."""
    raise AssertionError("it runs nowhere")


RENDER: list[Tool] = [render, render_briefly, render_dear, render_fragile, render_nowhere, render_once]
TOOLS: list[Tool] = [embed, quit_early, neglected, forsaken, *RENDER]
AGENT = Agent(name="painter", tools=TOOLS, limits=Limits(tool_attempts=2))


class Studio:
    """The activity ``render``, as somebody else would write it: plain JSON in and out."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.running = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.endless = True
        self.answers: dict[str, Any] = {}
        self.errors: dict[str, Exception] = {
            "breaks": ApplicationError("no light", type="TooDark"),
            "breaks for good": ApplicationError("no lamp", type="NoLamp", non_retryable=True),
            "rants": ApplicationError('"' * 1_500_000, type="Rant"),
        }

    @activity.defn
    async def render(self, given: dict[str, Any]) -> Any:
        self.asked.append(given)
        self.running.set()
        scene = given["arguments"]["scene"]
        if scene in self.errors:
            raise self.errors[scene]
        if scene == "endless" and self.endless:
            await self._endless()
        if scene == "silent":
            await asyncio.Event().wait()
        return self.answers.get(scene, {"url": f"https://pictures/{scene}"})

    async def _endless(self) -> None:
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest_asyncio.fixture(scope="module")
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, [AGENT]) as opened:
        yield opened


@pytest_asyncio.fixture
async def studio(temporal: TemporalServer) -> AsyncIterator[Studio]:
    studio = Studio()
    async with _foreign(temporal, studio):
        yield studio


@asynccontextmanager
async def _foreign(temporal: TemporalServer, studio: Studio) -> AsyncIterator[None]:
    """A worker that knows nothing of Perdure: no converter, no settings, no database."""
    client = await Client.connect(temporal.address)
    async with Worker(
        client,
        task_queue="foreign",
        activities=[studio.render],
        max_heartbeat_throttle_interval=timedelta(seconds=0.1),
    ):
        yield


async def test_a_worker_of_ours_on_another_queue_runs_the_tool(world: World) -> None:
    ran_on.clear()
    settings = world.settings.model_copy(update={"task_queue": GPU, "tools_only": True})
    gemini = Gemini(base_url=world.gemini.url)
    worker = build_worker(world.client, world.store, Registry([AGENT]), gemini, settings)
    key = world.key("painter")
    world.gemini.script(call("embed", text="abc"), say("Done."))
    async with worker:
        assert (await world.runner.ask(key, "Embed.")).text == "Done."
    await gemini.close()
    assert ran_on == [GPU]
    session = await world.session(key)
    assert session.state["embedded"] == "abc"
    assert _responses(session.events) == [{"result": 3}]


async def test_an_activity_of_any_worker_is_handed_json_and_answers_with_json(
    world: World, studio: Studio
) -> None:
    key = world.key("painter")
    world.gemini.script(call("render", scene="dawn"), say("Here."))
    assert (await world.runner.ask(key, "Render dawn.", message_id="m1")).text == "Here."
    assert studio.asked == [
        {
            "session": key.workflow_id,
            "invocation_id": "m1",
            "call_id": "m1:t1.0",
            "idempotency_key": f"{key}:m1:t1.0",
            "name": "render",
            "arguments": {"scene": "dawn", "width": 640},
        }
    ]
    assert _responses(await world.log(key)) == [{"url": "https://pictures/dawn"}]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, {"result": None}),
        ([1, "two"], {"result": [1, "two"]}),
        (b"\x89PNG", {"error": "Its result is no JSON but binary/plain; the tool must be mended."}),
        ("\x00", {"error": "its result contains U+0000, which a database cannot hold; remove it."}),
        (
            RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"[" * 50_000 + b"]" * 50_000)),
            {"error": "Its result is nested too deep to be read; the tool must be mended."},
        ),
        (
            "x" * RESULT_BYTES,
            {
                "error": f"Its result has {RESULT_BYTES + 2} bytes; "
                f"an activity hands over {RESULT_BYTES} at most."
            },
        ),
    ],
    ids=["nothing", "a list", "bytes", "what no database holds", "too deep", "too much"],
)
async def test_whatever_it_answers_with_the_turn_goes_on(
    world: World, studio: Studio, answer: Any, told: Json
) -> None:
    studio.answers["odd"] = answer
    assert await _told(world, call("render", scene="odd")) == told


async def test_a_long_result_becomes_an_artifact_like_any_other(world: World, studio: Studio) -> None:
    studio.answers["long"] = {"text": "word " * 20_000}
    told = await _told(world, call("render", scene="long"))
    assert told["artifact"].startswith("results/")
    assert told["characters"] > 100_000


async def test_arguments_that_are_too_many_stay_here(world: World, studio: Studio) -> None:
    told = await _told(world, call("render", scene="x" * ARGUMENT_BYTES))
    assert "takes 65536 at most" in told["error"]
    assert "argument 'scene' is missing" in (await _told(world, call("render", width=1)))["error"]
    assert studio.asked == []


async def test_an_error_of_it_is_shown_to_the_model_after_its_retries(world: World, studio: Studio) -> None:
    assert await _told(world, call("render", scene="breaks")) == {"error": "TooDark: no light"}
    assert len(studio.asked) == 2
    assert len({each["idempotency_key"] for each in studio.asked}) == 1
    assert await _told(world, call("render", scene="breaks for good")) == {"error": "NoLamp: no lamp"}
    assert len(studio.asked) == 3, "it says itself that it need not be run again"


async def test_a_tool_that_calls_itself_cancelled_has_failed(world: World) -> None:
    """Nobody has cancelled it: an await of its own was, and Temporal would take no such failure."""
    assert await _told(world, call("quit_early", text="a")) == {"error": "CancelledError: had enough"}


async def test_an_error_of_many_words_is_cut(world: World, studio: Studio) -> None:
    told = await _told(world, call("render", scene="rants"))
    assert told["error"].startswith('Rant: """')
    assert told["error"].endswith("… (1500006 characters in all)")
    assert len(told["error"]) < 11_000


async def test_a_worker_that_is_asked_to_stop_hands_its_call_to_another(
    world: World, temporal: TemporalServer
) -> None:
    """No failure of the tool either, and as little as a death does it use up a try."""
    first, second = Studio(), Studio()
    key = world.key("painter")
    world.gemini.script(call("render_once", scene="endless"), say("Here."))
    async with _foreign(temporal, first):
        asking = asyncio.create_task(world.runner.ask(key, "Render."))
        await first.running.wait()
    second.endless = False
    async with _foreign(temporal, second):
        assert (await asking).text == "Here."
    assert _responses(await world.log(key)) == [{"url": "https://pictures/endless"}]
    assert first.asked == second.asked


async def test_a_worker_that_is_killed_in_a_call_leaves_one_response(
    world: World, temporal: TemporalServer
) -> None:
    """Its death is no failure of the tool: the call is made again, under the same key."""
    key = world.key("painter")
    world.gemini.script(call("render_fragile", scene="dawn"), say("Here."))
    async with _killed_later(temporal, "hold") as first:
        asking = asyncio.create_task(world.runner.ask(key, "Render.", message_id="m1"))
        begun = await _line(first)
        first.kill()
        async with _killed_later(temporal) as second:
            assert await _line(second) == begun == f"runs {key}:m1:t1.0"
            assert (await asking).text == "Here."
    assert _responses(await world.log(key)) == [{"by": "the second worker"}]


async def test_one_that_takes_too_long_is_not_run_again(world: World, studio: Studio) -> None:
    told = await _told(world, call("render_briefly", scene="endless"))
    assert told == {"error": "It took longer than 1 seconds, or its worker died."}
    assert len(studio.asked) == 1


async def test_one_that_dies_each_time_is_given_up(world: World, studio: Studio) -> None:
    told = await _told(world, call("render", scene="silent"))
    assert told == {"error": "The worker died in each of 2 tries of this call."}
    assert len(studio.asked) == 2, "its retries are for errors of its own"


async def test_a_person_says_yes_to_other_arguments(world: World, studio: Studio) -> None:
    key = world.key("painter")
    world.gemini.script(call("render_dear", scene="palace"), say("Cheaper."))
    assert (await world.runner.ask(key, "Render.", message_id="m1")).status == "waiting"
    assert studio.asked == []
    await world.runner.approve(key, "m1:t1.0", arguments={"scene": "hut"}, by="boss")
    assert (await world.runner.ask(key, "Render.", message_id="m1")).text == "Cheaper."
    [event] = [event for event in await world.log(key) if "call" in event.meta]
    assert _responses([event]) == [{"called_with": {"scene": "hut"}, "url": "https://pictures/hut"}]
    assert event.meta["settled"] == {"decision": "changed", "by": "boss"}


async def test_a_cancel_reaches_what_runs_there(world: World, studio: Studio) -> None:
    key = world.key("painter")
    world.gemini.script(call("render", scene="endless"))
    asking = asyncio.create_task(world.runner.ask(key, "Render.", message_id="m1"))
    await studio.running.wait()
    await world.runner.cancel(key)
    assert (await asking).status == "cancelled"
    async with asyncio.timeout(10):
        await studio.cancelled.wait()
    assert _responses(await world.log(key)) == []
    world.gemini.script(say("Gone."))
    await world.runner.rewind(key, "m1")
    assert (await world.runner.ask(key, "And now?")).text == "Gone."


@pytest.mark.parametrize(
    "wanted", [call("neglected", text="a"), call("render_nowhere", scene="a")], ids=["ours", "an activity"]
)
async def test_the_model_is_told_when_no_worker_begins_it(world: World, wanted: Any) -> None:
    told = await _told(world, wanted)
    assert "No worker of the task queue" in told["error"]
    assert "within 0.2 seconds" in told["error"]


async def test_the_status_says_that_nobody_serves_the_queue(world: World) -> None:
    key = world.key("painter")
    world.gemini.script(call("forsaken", text="a"))
    await world.runner.message(key, "Do it.", message_id="m1")

    async def held_up() -> str | None:
        work = await world.runner.status(key)
        return None if work.held_up is None else work.held_up.message

    message = await until(held_up)
    assert message == ("no worker polls the task queue nobody-for-ever, where run_tool is to run; start one")
    assert (await world.runner.status(key)).doing == "tool forsaken"
    await world.runner.cancel(key)
    assert (await world.runner.ask(key, "Do it.", message_id="m1")).status == "cancelled"


@asynccontextmanager
async def _killed_later(temporal: TemporalServer, *arguments: str) -> AsyncIterator[Process]:
    program = str(Path(__file__).with_name("foreign.py"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, program, temporal.address, "fragile", *arguments), stdout=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(90):
        return (await process.stdout.readline()).decode().strip()


async def _told(world: World, wanted: Any) -> Any:
    """What the model is told of a call."""
    key = world.key("painter")
    world.gemini.script(wanted, say("Done."))
    assert (await world.runner.ask(key, "Do it.")).text == "Done."
    [told] = _responses(await world.log(key))
    return told


def _responses(events: Any) -> list[Any]:
    found: list[Event] = [event for event in events if "call" in event.meta]
    return [event.content["parts"][0]["functionResponse"]["response"] for event in found if event.content]
