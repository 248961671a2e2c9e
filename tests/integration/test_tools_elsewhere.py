"""Tools that run on another task queue: by a worker of ours, or as an activity of any worker."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from activities.gemini import Gemini
from activities.remote import ARGUMENT_BYTES
from embedded.temporal import TemporalServer
from perdure.registry import Registry
from perdure.settings import Settings
from perdure.testing import call, say
from perdure.types import Event, Json
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.studio import AGENT, AGENTS, GPU, START, Studio, foreign, go_on, lingers, ran_on
from worker import build_worker
from workflows.remote import RESULT_BYTES


@pytest_asyncio.fixture(scope="module")
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, AGENTS) as opened:
        yield opened


@pytest_asyncio.fixture
async def studio(temporal: TemporalServer) -> AsyncIterator[Studio]:
    studio = Studio()
    async with foreign(temporal, studio):
        yield studio


@pytest_asyncio.fixture
async def gpu(world: World) -> AsyncIterator[None]:
    async with tools_worker(world):
        yield


@asynccontextmanager
async def tools_worker(world: World) -> AsyncIterator[None]:
    """A worker of ours for the tools of another queue."""
    settings = world.settings.model_copy(update={"task_queue": GPU, "tools_only": True})
    gemini = Gemini(base_url=world.gemini.url)
    async with build_worker(world.client, world.store, Registry([AGENT]), gemini, settings):
        yield
    await gemini.close()


async def test_a_worker_of_ours_on_another_queue_runs_the_tool(world: World, gpu: None) -> None:
    ran_on.clear()
    key = world.key("painter")
    world.gemini.script(call("embed", text="abc"), say("Done."))
    assert (await world.runner.ask(key, "Embed.")).text == "Done."
    assert set(ran_on) == {GPU}, "more than once, where its worker stood still so long that it was missed"
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
            RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"[" * 200 + b"]" * 200)),
            {"error": f"its result{'[0]' * 30}… is nested more than 200 levels deep, or contains itself."},
        ),
        (
            "x" * RESULT_BYTES,
            {
                "error": f"Its result has {RESULT_BYTES + 2} bytes; "
                f"an activity hands over {RESULT_BYTES} at most."
            },
        ),
    ],
    ids=["nothing", "a list", "bytes", "what no database holds", "too deep", "200 deep", "too much"],
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
    async with foreign(temporal, first):
        asking = asyncio.create_task(world.runner.ask(key, "Render."))
        await first.running.wait()
    second.endless = False
    async with foreign(temporal, second):
        assert (await asking).text == "Here."
    assert _responses(await world.log(key)) == [{"url": "https://pictures/endless"}]
    assert first.asked == second.asked


async def test_a_worker_that_is_killed_in_a_call_leaves_one_response(
    world: World, temporal: TemporalServer
) -> None:
    """Its death is no failure of the tool: the call is made again, under the same key."""
    key = world.key("sculptor")
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
    told = await _told(world, call("render_watched", scene="silent"))
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
    await studio.cancelled.wait()
    assert _responses(await world.log(key)) == []
    world.gemini.script(say("Gone."))
    await world.runner.rewind(key, "m1")
    assert (await world.runner.ask(key, "And now?")).text == "Gone."


@pytest.mark.parametrize("rewound", [False, True], ids=["cancelled", "rewound"])
async def test_s13_a_result_that_comes_too_late_is_not_written(
    world: World, studio: Studio, gpu: None, rewound: bool
) -> None:
    """Of an activity and of a tool of ours, neither of which heeds that it is cancelled."""
    key = world.key("painter")
    lingers.clear()
    go_on.clear()
    world.gemini.script(say("Before."), [call("render", scene="stubborn"), call("linger", text="a")])
    await world.runner.ask(key, "Hello.", message_id="m1")
    asking = asyncio.create_task(world.runner.ask(key, "Render.", message_id="m2"))
    await studio.running.wait()
    await asyncio.to_thread(lingers.wait)
    await (world.runner.rewind(key, "m2") if rewound else world.runner.cancel(key))
    assert (await asking).status == "cancelled"
    await studio.cancelled.wait()
    go_on.set()
    studio.release.set()

    async def over() -> bool:
        return not (await world.handle(key).describe()).raw_description.pending_activities

    await until(over)
    world.gemini.script(say("After."))
    assert (await world.runner.ask(key, "And now?", message_id="m3")).text == "After."
    assert _responses(await world.log(key)) == []
    session = await world.session(key)
    assert "lingered" not in session.state
    assert ("m2:m1" in [event.id for event in session.events]) is not rewound


async def test_an_end_waits_for_a_call_that_runs_elsewhere(world: World, studio: Studio) -> None:
    key = world.key("painter")
    world.gemini.script(call("render", scene="stubborn"), say("Here."))
    asking = asyncio.create_task(world.runner.ask(key, "Render."))
    await studio.running.wait()
    ending = asyncio.create_task(world.runner.end(key))

    async def queued() -> bool:
        return (await world.runner.status(key)).queued == 1

    await until(queued)
    studio.release.set()
    assert (await asking).text == "Here."
    assert (await ending).ended_at is not None
    assert _responses(await world.log(key)) == [{"url": "https://pictures/stubborn"}]


async def test_the_model_is_told_of_a_worker_that_cannot_decrypt(
    temporal: TemporalServer, sqlite_store: SessionStore, studio: Studio
) -> None:
    """Its worker lacks the codec of ours, and the turn goes on."""
    settings = Settings(_env_file=None, codec_keys=SecretStr("k1:" + "A" * 43 + "="))
    async with open_world(temporal.address, sqlite_store, [AGENT], settings=settings) as sealed:
        told = await _told(sealed, call("render_once", scene="dawn"))
    assert told == {"error": "ApplicationError: Failed decoding arguments"}
    assert studio.asked == []


@pytest.mark.parametrize(
    "wanted", [call("neglected", text="a"), call("render_nowhere", scene="a")], ids=["ours", "an activity"]
)
async def test_the_model_is_told_when_no_worker_begins_it(world: World, wanted: Any) -> None:
    told = await _told(world, wanted)
    assert "No worker of the task queue" in told["error"]
    assert "within 0.2 seconds" in told["error"]


async def test_the_model_is_told_that_it_may_have_been_done(world: World, temporal: TemporalServer) -> None:
    """Somebody had begun it, and nobody else takes it over."""
    key, studio = world.key("painter"), Studio()
    lingers.clear()
    go_on.clear()
    world.gemini.script(
        [call("render_lost", scene="endless"), call("linger_briefly", text="a")], say("Done.")
    )
    async with foreign(temporal, studio), tools_worker(world):
        asking = asyncio.create_task(world.runner.ask(key, "Do it."))
        await studio.running.wait()
        await asyncio.to_thread(lingers.wait)
    go_on.set()
    assert (await asking).text == "Done."
    lost = f"Its worker was lost, and no other of the task queue {{}} began it within {START} seconds; {{}}"
    unknown = "what it did is not known."
    told = sorted(response["error"] for response in _responses(await world.log(key)))
    assert told == [lost.format(queue, unknown) for queue in ("foreign", GPU)]


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
