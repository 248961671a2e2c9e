"""Calls that wait for the world: events that notify answers, times, and results of long-running tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from temporalio.testing import TimeSkipper

from embedded.temporal import TemporalServer
from perdure.errors import AlreadySettled, CallNotFound, InvalidMessage, SessionNotFound
from perdure.testing import call, say
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.waiting_agents import WAITING_AGENTS, ran


@pytest_asyncio.fixture(scope="module")
async def skipping(tmp_path_factory: object) -> AsyncIterator[TemporalServer]:
    """A server that can skip time."""
    folder = tmp_path_factory.mktemp("skipping")  # type: ignore[attr-defined]  # a TempPathFactory
    config = {"frontend.WorkflowTimeSkippingEnabled": True}
    async with TemporalServer(folder, dynamic_config=config) as server:
        yield server


@pytest_asyncio.fixture
async def world(skipping: TemporalServer, store: SessionStore) -> AsyncIterator[World]:
    async with open_world(skipping.address, store, WAITING_AGENTS) as opened:
        yield opened


@pytest_asyncio.fixture
async def sqlite_world(skipping: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(skipping.address, sqlite_store, WAITING_AGENTS) as opened:
        yield opened


async def parked(world: World, *calls: JsonObject, app: str = "clerk", message_id: str = "m1") -> SessionKey:
    key = world.key(app)
    world.gemini.script(list(calls), say("done"))
    assert (await world.runner.ask(key, "go", message_id=message_id)).status == "waiting"
    return key


async def done(world: World, key: SessionKey) -> None:
    """The turn ends in its answer."""

    async def answered() -> bool:
        return (await world.kinds(key))[-2:] == ["tool", "model"]

    await until(answered)


async def response(world: World, key: SessionKey, call_id: str = "m1:t1.0") -> JsonObject:
    event = await world.store.event(key, call_id)
    assert event is not None
    assert event.content is not None
    said = event.content["parts"][0]["functionResponse"]["response"]
    assert isinstance(said, dict)
    return said


async def skip(world: World, key: SessionKey, days: float) -> None:
    await TimeSkipper(world.client).fast_forward(world.handle(key), timedelta(days=days))


EVENT = call("wait_for_event", name="paid")


async def test_a_notification_answers_the_call(world: World) -> None:
    key = await parked(world, EVENT)
    [waits] = await world.runner.waiting(key)
    assert (waits.kind, waits.event, waits.until) == ("event", "paid", None)
    await world.runner.notify(key, "paid", {"amount": 5})
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await response(world, key) == {"event": "paid", "payload": {"amount": 5}}


async def test_one_that_comes_early_is_kept(world: World) -> None:
    key = world.key("clerk")
    world.gemini.script(say("hello"))
    await world.runner.ask(key, "hello", message_id="m0")
    for number in (1, 2):
        await world.runner.notify(key, "paid", number)
    await world.runner.notify(key, "shipped", 3)
    assert (await world.runner.status(key)).mail == 3
    world.gemini.script(EVENT, EVENT, say("done"))
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await response(world, key, "m1:t1.0") == {"event": "paid", "payload": 1}, "the oldest first"
    assert await response(world, key, "m1:t2.0") == {"event": "paid", "payload": 2}
    assert (await world.runner.status(key)).mail == 1


async def test_one_notification_wakes_one_call_and_counts_once(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, EVENT, EVENT)
    for _ in range(2):
        await world.runner.notify(key, "paid", 1, notification_id="n1")
    await world.runner.notify(key, "other", 1)

    async def one_left() -> str | None:
        status = await world.runner.status(key)
        left = [each.call_id for each in status.waiting]
        return left[0] if len(left) == 1 and status.status == "waiting" else None

    left = await until(one_left)  # whichever of them began to wait last
    assert left is not None
    await world.runner.notify(key, "paid", 2)
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await response(world, key, left) == {"event": "paid", "payload": 2}


async def test_an_event_that_does_not_happen_in_time(world: World) -> None:
    key = await parked(world, call("wait_for_event", name="paid", timeout_seconds=3 * 86_400))
    await skip(world, key, 2.9)
    assert (await world.runner.status(key)).status == "waiting"
    await skip(world, key, 0.2)
    await done(world, key)
    assert await response(world, key) == {
        "event": "paid",
        "error": "It did not happen within 259200 seconds.",
    }
    await world.runner.notify(key, "paid", "late")
    assert (await world.runner.status(key)).mail == 1, "it is kept for the next who asks"


async def test_the_agents_limit_counts_where_the_call_sets_none(sqlite_world: World) -> None:
    key = await parked(sqlite_world, EVENT, app="strict")
    await done(sqlite_world, key)
    assert "0.3 seconds" in (await response(sqlite_world, key))["error"]


async def test_early_notifications_are_bounded(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    world.gemini.script(say("hello"))
    await world.runner.ask(key, "hello")
    for number in range(105):
        await world.handle(key).signal("notify", {"name": "paid", "payload": number})
    status = await world.runner.status(key)
    assert (status.mail, status.dropped) == (100, 5)
    world.gemini.script(EVENT, say("done"))
    await world.runner.ask(key, "go", message_id="m1")
    assert await response(world, key) == {"event": "paid", "payload": 5}
    for _ in range(3):
        await world.handle(key).signal("notify", {"name": "large", "payload": "x" * 100_000})
    assert (await world.runner.status(key)).mail < 100


async def test_a_large_payload_stays_out_of_temporal(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, EVENT)
    await world.runner.notify(key, "paid", {"text": "SECRET" + "x" * 31_000 * 2})
    await world.runner.ask(key, "go", message_id="m1")
    assert "SECRET" not in (await world.handle(key).fetch_history()).to_json()
    assert "SECRET" in str(await response(world, key))


async def test_what_makes_no_sense_is_refused(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, EVENT)
    with pytest.raises(InvalidMessage):
        await world.runner.notify(key, "")
    with pytest.raises(CallNotFound, match="event paid"):
        await world.runner.approve(key, "m1:t1.0")
    with pytest.raises(SessionNotFound):
        await world.runner.notify(world.key("clerk"), "paid")
    await world.handle(key).signal("notify", "not an object")
    assert (await world.runner.status(key)).status == "waiting"


async def test_a_tool_of_ones_own_waits_by_what_it_returns(world: World) -> None:
    key = await parked(world, call("charge", amount=7))
    assert (await world.session(key)).state == {"charged": 7}, "what it did so far is committed"
    await world.runner.notify(key, "payment:7", "accepted")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await response(world, key) == {"event": "payment:7", "payload": "accepted"}
    await world.runner.rewind(key, "m1")
    assert (await world.session(key)).state == {}


async def test_a_sleep_takes_its_time_and_holds_nothing(world: World) -> None:
    key = await parked(world, call("sleep_for", seconds=14 * 86_400))
    [waits] = await world.runner.waiting(key)
    assert (waits.kind, waits.tool) == ("timer", "sleep_for")
    await skip(world, key, 13)
    assert (await world.runner.status(key)).status == "waiting"
    assert not (await world.handle(key).describe()).raw_description.pending_activities
    await skip(world, key, 1.1)
    await done(world, key)
    assert "time" in await response(world, key)


async def test_a_sleep_until_a_moment(sqlite_world: World) -> None:
    world = sqlite_world
    moment = datetime.now(UTC) + timedelta(days=2)
    key = await parked(world, call("sleep_until", time=moment.isoformat()))
    [waits] = await world.runner.waiting(key)
    assert waits.until is not None
    assert abs(waits.until - moment) < timedelta(minutes=1)
    await skip(world, key, 2.1)
    await done(world, key)


async def test_times_that_make_no_sense_are_the_models_to_see(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    calls = [
        call("sleep_until", time="tomorrow"),
        call("sleep_for", seconds=-1),
        call("wait_for_event", name="x" * 200),
        call("wait_for_event", name="x", timeout_seconds=0),
    ]
    world.gemini.script(calls, call("sleep_until", time="2001-01-01"), say("done"))
    answer = await world.runner.ask(key, "go", message_id="m1")
    assert (answer.status, answer.text) == ("answered", "done"), "and what is past is over at once"
    for index in range(4):
        assert "error" in await response(world, key, f"m1:t1.{index}")
    assert "time" in await response(world, key, "m1:t2.0")


async def test_a_long_running_tool_leaves_a_ticket_and_gets_its_result(world: World) -> None:
    key = await parked(world, call("render", scene="sea"))
    [waits] = await world.runner.waiting(key)
    assert waits.kind == "result"
    assert waits.ticket == {"job": "job-sea", "answer_to": "m1:t1.0"}
    assert (await world.session(key)).state == {"renderings": 1}
    assert await world.store.event(key, "m1:t1.0") is None, "a ticket is no response"
    await world.runner.tool_progress(key, waits.call_id, "half", percent=50)
    [waits] = await world.runner.waiting(key)
    assert (waits.text, waits.percent) == ("half", 50)
    log = await world.log(key)
    assert log[-1].meta["progress"] == {"call_id": "m1:t1.0", "text": "half", "percent": 50}
    await skip(world, key, 9)
    assert (await world.runner.status(key)).status == "waiting"
    await world.runner.tool_result(key, waits.call_id, {"url": "https://example.com/sea.png"})
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await response(world, key) == {"url": "https://example.com/sea.png"}
    assert [scene for session, scene, _ in ran if session == key.session_id] == ["sea"], "it ran once"
    prompt = str(world.gemini.model_calls()[-1].contents)
    assert "example.com" in prompt
    assert "job-sea" not in prompt
    assert "half" not in prompt
    with pytest.raises(AlreadySettled):
        await world.runner.tool_result(key, "m1:t1.0", {})
    with pytest.raises(AlreadySettled):
        await world.runner.tool_progress(key, "m1:t1.0", "late")


async def test_a_long_running_tool_can_fail(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, call("render", scene="sea"))
    await world.handle(key).signal("tool_progress", {"call_id": "m1:t1.0", "percent": 10})
    await world.handle(key).signal("tool_result", {"call_id": "m1:t1.0", "error": "no light"})
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await response(world, key) == {"error": "no light"}
    event = await world.store.event(key, "m1:t1.0")
    assert event is not None
    assert event.error == {"type": "ToolError", "message": "no light"}


async def test_a_result_that_does_not_come_in_time(sqlite_world: World) -> None:
    key = await parked(sqlite_world, call("render_fast", scene="sea"))
    await done(sqlite_world, key)
    assert await response(sqlite_world, key) == {"error": "No result came within 0.3 seconds."}


async def test_a_result_that_is_too_large_for_a_prompt_is_put_away(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, call("render", scene="sea"))
    await world.runner.tool_result(key, "m1:t1.0", "SECRET" + "x" * 100_000)
    await world.runner.ask(key, "go", message_id="m1")
    assert "SECRET" not in (await world.handle(key).fetch_history()).to_json()
    assert len(str(await response(world, key))) < 40_000
    assert await world.store.list_artifacts(key)


async def test_a_tool_that_needs_approval_and_then_takes_long(world: World) -> None:
    key = await parked(world, call("render_costly", scene="sea"))
    await world.runner.approve(key, "m1:t1.0", by="boss")
    answer = await world.runner.ask(key, "go", message_id="m1")
    assert [each.kind for each in answer.waiting] == ["result"]
    with pytest.raises(AlreadySettled):
        await world.runner.approve(key, "m1:t1.0")
    await world.runner.tool_result(key, "m1:t1.0", "here")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await response(world, key) == {"result": "here"}


@pytest.mark.parametrize("failed", [False, True])
async def test_the_model_is_told_which_other_arguments_a_long_running_call_had(
    sqlite_world: World, failed: bool
) -> None:
    world = sqlite_world
    key = await parked(world, call("render_costly", scene="sea"))
    await world.runner.approve(key, "m1:t1.0", arguments={"scene": "pond"})
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    if failed:
        await world.runner.tool_result(key, "m1:t1.0", error="no light")
    else:
        await world.runner.tool_result(key, "m1:t1.0", {"url": "x"})
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    told = {"error": "no light"} if failed else {"url": "x"}
    assert await response(world, key) == {"called_with": {"scene": "pond"}, **told}


async def test_other_arguments_that_are_much_are_told_in_short(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, call("render_costly", scene="sea"))
    await world.runner.approve(key, "m1:t1.0", arguments={"scene": "x" * 20_000})
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    begun = await world.store.event(key, "m1:k1.0")
    assert begun is not None
    assert len(begun.meta["called_with"]) < 1_100
    await world.runner.tool_result(key, "m1:t1.0", 1)
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    told = await response(world, key)
    assert (str(told["called_with"]).startswith('{"scene": "xxx'), told["result"]) == (True, 1)


async def test_s60_a_ticket_outlives_its_workflow(world: World) -> None:
    key = await parked(world, call("render", scene="sea"))
    await world.handle(key).terminate()
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    await world.runner.tool_result(key, "m1:t1.0", "here")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert [scene for session, scene, _ in ran if session == key.session_id] == ["sea"], "it ran once"


async def test_s50_retention_takes_no_session_that_waits(sqlite_world: World) -> None:
    from gateway.retention import run_now

    world = sqlite_world
    key = await parked(world, EVENT)
    await run_now(world.client, world.settings.task_queue, days=0)
    await world.runner.notify(key, "paid")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"


async def test_s41_what_waits_is_in_no_summary(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    world.gemini.script(say("hello"))
    await world.runner.ask(key, "hello", message_id="m0")
    world.gemini.script(EVENT)
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    world.gemini.script(say("a summary"), kind="summarise")
    seq = await world.runner.compact(key)
    assert seq is not None
    [summary] = [event for event in await world.log(key) if event.seq == seq]
    assert summary.compaction is not None
    asked = await world.store.event(key, "m1:user")
    assert asked is not None
    assert summary.compaction["end"] < asked.seq
    world.gemini.script(say("done"))
    await world.runner.notify(key, "paid", 1)
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    contents = world.gemini.model_calls()[-1].contents
    assert [next(iter(part)) for content in contents for part in content["parts"]][-2:] == [
        "functionCall",
        "functionResponse",
    ]
