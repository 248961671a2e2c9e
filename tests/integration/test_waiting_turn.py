"""A turn that waits: what comes behind it, what ends it, and that it is found."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata

from perdure import Agent
from perdure.errors import AlreadySettled, CallNotFound, InvocationNotFound, SessionNotFound
from perdure.testing import call, say
from tests.integration.agents import gate
from tests.integration.harness import PATIENCE, World, until
from tests.integration.waiting_agents import WAITING_AGENTS
from tests.integration.waiting_turns import TRANSFER, made, parked


@pytest.fixture
def agents() -> list[Agent]:
    return WAITING_AGENTS


async def test_messages_queue_behind_a_turn_that_waits(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER)
    for _ in range(2):
        behind = await world.runner.ask(key, "next", message_id="m2")
        assert (behind.invocation_id, behind.status) == ("m2", "waiting"), "nobody is kept for months"
        assert [each.call_id for each in behind.waiting] == ["m1:t1.0"]
    assert (await world.runner.status(key)).queued == 1
    world.gemini.script(say("next done"))
    await world.runner.approve(key, "m1:t1.0")
    assert (await world.runner.ask(key, "next", message_id="m2")).text == "next done"
    order = [event.invocation_id for event in await world.log(key)]
    assert order == sorted(order)


async def test_s63_what_was_answered_before_is_answered_again_behind_a_turn_that_waits(world: World) -> None:
    key, large = world.key("clerk"), "much " * 20_000
    world.gemini.script(say("zero"), say("large"), TRANSFER, say("done"))
    first = [await world.runner.ask(key, text, message_id=text[:4]) for text in ("zero", large)]
    world.gemini.fail(400, "no such thing")
    first.append(await world.runner.ask(key, "fails", message_id="fail"))
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    again = [await world.runner.ask(key, text, message_id=text[:4]) for text in ("zero", large, "fails")]
    assert again == first
    assert [each.status for each in first] == ["answered", "answered", "failed"]
    other = await world.runner.ask(key, "one", message_id="zero")
    assert other.status == "waiting", "with other words it is none that was answered"
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    await world.runner.approve(key, "m1:t1.0")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await world.runner.ask(key, large, message_id="much") == first[1]
    assert len(world.gemini.model_calls()) == 5, "none was asked twice"


async def test_who_asked_before_the_turn_waited_is_told_so_too(sqlite_world: World) -> None:
    world = sqlite_world
    gate.reset()
    key = world.key("clerk")
    world.gemini.script([TRANSFER, call("wait_at_gate", label="x")], say("done"), say("next done"))
    asked = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    await gate.held()
    behind = asyncio.create_task(world.runner.ask(key, "next", message_id="m2"))

    async def queued() -> bool:
        return (await world.runner.status(key)).queued == 1

    await until(queued)
    gate.open.set()
    assert [(await each).status for each in (asked, behind)] == ["waiting", "waiting"]
    await world.runner.approve(key, "m1:t1.0")
    assert (await world.runner.ask(key, "next", message_id="m2")).text == "next done"


async def test_requests_about_a_call_may_have_ids_as_long_as_any(sqlite_world: World) -> None:
    world, runner, long = sqlite_world, sqlite_world.runner, "🌍" * 128
    key = await parked(world, call("render", scene="sea"), message_id=long)
    call_id = f"{long}:t1.0"
    for _ in range(2):
        await runner.tool_progress(key, call_id, "half", request_id=long)
    assert sum("progress" in event.meta for event in await world.log(key)) == 1
    for _ in range(2):
        assert (await runner.tool_result(key, call_id, "done", request_id=long)).decision == "result"


async def test_a_cancel_ends_the_wait(world: World) -> None:
    key = await parked(world, TRANSFER)
    await world.runner.cancel(key)
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "cancelled"
    with pytest.raises(AlreadySettled):
        await world.runner.approve(key, "m1:t1.0")
    status = await world.runner.status(key)
    assert (status.status, status.waiting) == ("open", [])
    world.gemini.clear()
    world.gemini.script(say("next"))
    assert (await world.runner.ask(key, "go on")).text == "next"
    assert made(key) == []
    assert "interrupted" in str(world.gemini.model_calls()[-1].contents), "the call has no result for ever"


async def test_s35_a_rewind_ends_the_wait(world: World) -> None:
    key = await parked(world, TRANSFER)
    await world.runner.rewind(key, "m1", request_id="r1")
    with pytest.raises((AlreadySettled, CallNotFound)):
        await world.runner.approve(key, "m1:t1.0")
    assert (await world.runner.status(key)).status == "open"
    assert [event.id for event in (await world.session(key)).events] == ["r1:rewind"]
    world.gemini.clear()
    world.gemini.script(say("next"))
    assert (await world.runner.ask(key, "afresh", message_id="m2")).text == "next"
    assert made(key) == []


@pytest.mark.parametrize("how", ["update", "signal"])
async def test_an_end_ends_the_wait(world: World, how: str) -> None:
    key = await parked(world, TRANSFER)
    if how == "update":
        await world.runner.end(key)
    else:
        await world.handle(key).signal("end")

    async def closed() -> bool:
        return (await world.handle(key).describe()).close_time is not None

    await until(closed)
    session = await world.session(key)
    assert session.ended_at is not None
    assert session.events[-1].meta["reason"] == "session ended"
    assert made(key) == []


async def test_an_end_that_is_queued_keeps_the_turn_from_parking(sqlite_world: World) -> None:
    world = sqlite_world
    gate.reset()
    key = world.key("clerk")
    world.gemini.script(call("wait_at_gate", label="x"), TRANSFER)
    asked = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    await gate.held()
    ended = asyncio.create_task(world.runner.end(key))

    async def queued() -> bool:
        return (await world.runner.status(key)).queued == 1

    await until(queued)
    gate.open.set()
    assert (await ended).ended_at is not None
    assert (await asked).status in ("waiting", "cancelled")


async def test_a_delete_ends_the_wait(sqlite_world: World) -> None:
    key = await parked(sqlite_world, TRANSFER)
    assert await sqlite_world.runner.delete(key)
    with pytest.raises(SessionNotFound):
        await sqlite_world.runner.approve(key, "m1:t1.0")


async def test_the_time_of_the_turn_runs_on_after_the_wait(sqlite_world: World) -> None:
    world = sqlite_world
    gate.reset()
    key = world.key("hasty")
    world.gemini.script(TRANSFER, call("wait_at_gate", label="x"))
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    await world.runner.approve(key, "m1:t1.0")
    answer = await world.runner.ask(key, "go", message_id="m1")
    assert answer.failure is not None
    assert answer.failure.type == "LimitExceeded"
    gate.open.set()


async def test_the_sessions_that_wait_are_found(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER)

    async def found() -> bool:
        waits = [each async for each in world.runner.all_waiting("clerk", key.user_id)]
        return [(each.key, each.call_id) for each in waits] == [(key, "m1:t1.0")]

    await until(found)
    await world.runner.decline(key, "m1:t1.0")

    async def gone() -> bool:
        return [each async for each in world.runner.all_waiting("clerk", key.user_id)] == []

    await until(gone)


async def test_s60_a_workflow_that_is_lost_waits_again(world: World) -> None:
    key = await parked(world, TRANSFER)
    await world.handle(key).terminate()
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    assert len(world.gemini.model_calls()) == 1
    await world.runner.approve(key, "m1:t1.0")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert made(key) == [("ann", 5)]


async def test_s63_the_message_of_a_turn_that_waits_can_be_sent_again(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER)
    first, second = [await world.runner.ask(key, "go", message_id="m1") for _ in range(2)]
    assert first == second
    assert first.status == "waiting"


@pytest.mark.parametrize("how", ["cancel", "rewind", "refused"])
async def test_who_asks_for_a_turn_that_is_being_ended_waits_for_its_end(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    world, waiting, let = sqlite_world, asyncio.Event(), asyncio.Event()
    name = "interrupt" if how == "cancel" else "rewind"
    end = getattr(world.store, name)

    async def held(*args: Any, **options: Any) -> Any:
        waiting.set()
        await let.wait()
        return await end(*args, **options)

    monkeypatch.setattr(world.store, name, held)
    gate.reset()
    key = world.key("clerk")
    world.gemini.script([TRANSFER, call("wait_at_gate", label="x")], say("done"))
    asked = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    await gate.held()
    before = "m1" if how == "rewind" else "nothing"
    steering = world.runner.cancel(key) if how == "cancel" else world.runner.rewind(key, before)
    steered = asyncio.create_task(steering)
    await asyncio.wait_for(waiting.wait(), PATIENCE)
    gate.open.set()

    async def parked() -> bool:
        return (await world.runner.status(key)).status == "waiting"

    await until(parked)
    again = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))

    async def taken() -> bool:
        history = await world.handle(key).fetch_history()
        kinds = [event.event_type for event in history.events]
        return kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED) >= 2 + (how != "cancel")

    await until(taken)
    let.set()
    status = "waiting" if how == "refused" else "cancelled"
    assert ((await asked).status, (await again).status) == (status, status)
    with pytest.raises(InvocationNotFound) if how == "refused" else nullcontext():
        await steered


async def test_the_ui_tells_that_a_turn_waits_and_what_is_behind_it(sqlite_world: World) -> None:
    """From the first moment: nothing else happens that would bring it up to date."""
    world = sqlite_world
    key = await parked(world, TRANSFER)

    async def details() -> str:
        told = await world.handle(key).query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
        return str(told.current_details)

    shown = await details()
    assert shown.startswith("**Waiting**: nothing runs, and `m1` waits with 1 call")
    assert "- **Waits** for approval of transfer since 20" in shown
    assert "- **Status** waiting" in shown
    assert "- **Queued** 0 messages" in shown
    assert (await world.runner.ask(key, "next", message_id="m2")).status == "waiting"
    assert "- **Queued** 1 message\n" in await details()
