"""A turn that waits outlives its worker, its run and the weeks; time is skipped, not slept through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
from temporalio.testing import TimeSkipper

from embedded.temporal import TemporalServer
from gateway.runner import Runner, WaitingCall
from perdure.errors import AlreadySettled
from perdure.testing import call, say
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.studio import AGENT, Studio, foreign
from tests.integration.waiting_agents import WAITING_AGENTS, ran

RENEW_AT = 60
"""Events after which the server suggests to continue as new."""
TRANSFER = call("transfer", to="ann", amount=5)


@pytest_asyncio.fixture(scope="module")
async def skipping(tmp_path_factory: object) -> AsyncIterator[TemporalServer]:
    """A server that can skip time, and wants short histories."""
    config = {
        "limit.historyCount.suggestContinueAsNew": RENEW_AT,
        "frontend.WorkflowTimeSkippingEnabled": True,
    }
    folder = tmp_path_factory.mktemp("skipping")  # type: ignore[attr-defined]  # a TempPathFactory
    async with TemporalServer(folder, dynamic_config=config) as server:
        yield server


@pytest_asyncio.fixture
async def world(skipping: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(skipping.address, sqlite_store, WAITING_AGENTS) as opened:
        yield opened


async def parked(world: World, *calls: JsonObject, app: str = "clerk") -> SessionKey:
    key = world.key(app)
    world.gemini.script(list(calls), say("done"))
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    return key


async def skip(world: World, key: SessionKey, days: float) -> None:
    """Let so many days pass for a session."""
    await TimeSkipper(world.client).fast_forward(world.handle(key), timedelta(days=days))


async def run_id(world: World, key: SessionKey) -> str:
    return (await world.handle(key).describe()).run_id


async def test_an_approval_waits_for_days_and_a_yes_still_counts(world: World) -> None:
    key = await parked(world, TRANSFER)
    before = (await world.handle(key).describe()).history_length
    await skip(world, key, 30)
    status = await world.runner.status(key)
    assert (status.status, len(status.waiting)) == ("waiting", 1)
    description = await world.handle(key).describe()
    assert not description.raw_description.pending_activities
    assert description.history_length <= before + 8, "nothing happens in a month but its passing"
    await world.runner.approve(key, "m1:t1.0")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert [to for session, to, _ in ran if session == key.session_id] == ["ann"]


async def test_the_time_of_the_turn_stands_still_meanwhile(world: World) -> None:
    key = await parked(world, TRANSFER, app="unhurried")
    await skip(world, key, 1)  # longer than the turn may take
    assert (await world.runner.status(key)).status == "waiting"
    await world.runner.approve(key, "m1:t1.0")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"


async def test_the_deadline_comes_after_its_days_and_not_before(world: World) -> None:
    key = await parked(world, call("weekly", note="x"))
    await skip(world, key, 6)
    assert (await world.runner.status(key)).status == "waiting"
    await skip(world, key, 1.1)

    async def answered() -> bool:
        return (await world.kinds(key))[-2:] == ["tool", "model"]

    await until(answered)
    try:
        await world.runner.approve(key, "m1:t1.0")
    except AlreadySettled:
        return
    raise AssertionError("a week is over")


async def test_s58_another_worker_goes_on_where_the_first_one_was(
    skipping: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(skipping.address, sqlite_store, WAITING_AGENTS) as first:
        key = await parked(first, TRANSFER, call("transfer", to="bob", amount=7))
        await first.runner.approve(key, "m1:t1.1")

        async def one_left() -> bool:
            return (await first.runner.status(key)).status == "waiting" and len(
                (await first.runner.status(key)).waiting
            ) == 1

        await until(one_left)
        queue = first.settings.task_queue
    async with open_world(skipping.address, sqlite_store, WAITING_AGENTS, queue=queue) as second:
        second.gemini.script(say("done by the second"))
        [waits] = await second.runner.waiting(key)
        assert waits.arguments == {"to": "ann", "amount": 5}
        await second.runner.approve(key, waits.call_id)
        assert (await second.runner.ask(key, "go", message_id="m1")).text == "done by the second"
    assert sorted(to for session, to, _ in ran if session == key.session_id) == ["ann", "bob"]


async def test_a_decision_that_comes_while_no_worker_lives(
    skipping: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(skipping.address, sqlite_store, WAITING_AGENTS) as first:
        key = await parked(first, TRANSFER)
        queue, client = first.settings.task_queue, first.client
    decision = {"call_id": "m1:t1.0", "decision": "yes"}
    await client.get_workflow_handle(key.workflow_id).signal("approve", decision)
    async with open_world(skipping.address, sqlite_store, WAITING_AGENTS, queue=queue) as second:
        second.gemini.script(say("done"))
        assert (await second.runner.ask(key, "go", message_id="m1")).text == "done"


async def test_s61_a_run_is_continued_while_its_turn_is_parked(world: World) -> None:
    key = await parked(world, TRANSFER, call("weekly", note="x"))
    behind = await world.runner.message(key, "next", message_id="m2")
    before, run = await world.runner.status(key), await run_id(world, key)
    for number in range(RENEW_AT):
        await world.runner.notify(key, f"early-{number}", {"number": number}, notification_id=f"n{number}")

    async def renewed() -> bool:
        return await run_id(world, key) != run

    await until(renewed)
    after = await world.runner.status(key)
    assert (after.status, after.queued, after.invocation_id) == ("waiting", 1, "m1")
    assert {each.call_id: each.until for each in after.waiting} == {
        each.call_id: each.until for each in before.waiting
    }
    assert after.mail == RENEW_AT
    again = await world.runner.ask(key, "go", message_id="m1")
    assert (again.status, len(again.waiting)) == ("waiting", 2)
    world.gemini.script(say("next done"))
    await world.runner.approve(key, "m1:t1.0")
    await world.runner.decline(key, "m1:t1.1")
    assert (await world.runner.ask(key, "next", message_id=behind)).text == "next done"
    status = await world.runner.status(key)
    assert (status.turns, status.model_calls, status.tool_calls) == (2, 3, 2)
    assert [to for session, to, _ in ran if session == key.session_id] == ["ann"]
    assert [event.id for event in (await world.session(key)).events if "step" in event.meta] == [
        "m1:m1",
        "m1:m2",
        "m2:m1",
    ]


async def test_s61_a_call_elsewhere_is_carried_over_while_it_waits(
    skipping: TemporalServer, sqlite_store: SessionStore
) -> None:
    """Beside one that has run already: each of them runs once."""
    studio = Studio()
    async with open_world(skipping.address, sqlite_store, [AGENT]) as world, foreign(skipping, studio):
        key = world.key("painter")
        world.gemini.script([call("render_dear", scene="palace"), call("render", scene="dawn")], say("done"))
        assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
        run = await run_id(world, key)
        for number in range(RENEW_AT):
            await world.runner.notify(key, f"early-{number}", {}, notification_id=f"n{number}")

        async def renewed() -> bool:
            return await run_id(world, key) != run

        await until(renewed)
        assert [each["arguments"]["scene"] for each in studio.asked] == ["dawn"]
        await world.runner.approve(key, "m1:t1.0", arguments={"scene": "hut"})
        assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
        assert [each["arguments"]["scene"] for each in studio.asked] == ["dawn", "hut"]
        assert {event.id for event in await world.log(key) if "call" in event.meta} == {"m1:t1.0", "m1:t1.1"}


async def test_a_turn_that_was_carried_over_can_be_steered(world: World) -> None:
    for how in ("cancel", "rewind", "end"):
        key = await parked(world, TRANSFER)
        run = await run_id(world, key)
        for number in range(RENEW_AT):
            await world.runner.notify(key, f"early-{number}")

        async def renewed(key: SessionKey = key, run: str = run) -> bool:
            return await run_id(world, key) != run

        await until(renewed)
        if how == "cancel":
            await world.runner.cancel(key)
            assert (await world.runner.ask(key, "go", message_id="m1")).status == "cancelled"
        elif how == "rewind":
            await world.runner.rewind(key, "m1", request_id="r1")
            assert [event.id for event in (await world.session(key)).events] == ["r1:rewind"]
        else:
            assert (await world.runner.end(key)).ended_at is not None
        assert [to for session, to, _ in ran if session == key.session_id] == []
        world.gemini.clear()


async def test_decisions_and_renewals_at_once_lose_nothing(world: World) -> None:
    key = await parked(world, TRANSFER)
    for number in range(RENEW_AT - 20):
        await world.runner.notify(key, f"early-{number}")
    noise = [world.runner.notify(key, f"more-{number}") for number in range(30)]
    await asyncio.gather(*noise, world.runner.approve(key, "m1:t1.0"))
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert [to for session, to, _ in ran if session == key.session_id] == ["ann"]
    status = await world.runner.status(key)
    assert status.mail + status.dropped == RENEW_AT + 10


async def test_what_was_settled_is_known_to_the_next_run(world: World) -> None:
    key = await parked(world, TRANSFER, call("transfer", to="bob", amount=7))
    await world.runner.decline(key, "m1:t1.0", request_id="r1")
    run = await run_id(world, key)
    for number in range(RENEW_AT):
        await world.runner.notify(key, f"early-{number}")

    async def renewed() -> bool:
        return await run_id(world, key) != run

    await until(renewed)
    for other in (None, "r2"):
        with pytest.raises(AlreadySettled, match="'no'"):
            await world.runner.approve(key, "m1:t1.0", request_id=other)
    again = await world.runner.decline(key, "m1:t1.0", request_id="r1")
    assert again.decision == "no", "whoever lost the answer sends the same again"
    await world.runner.approve(key, "m1:t1.1")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"


async def by_id(calls: AsyncIterator[WaitingCall]) -> list[WaitingCall]:
    """They begin to wait side by side, in whatever order."""
    return sorted([each async for each in calls], key=lambda each: each.call_id)


async def test_what_waits_is_listed_also_where_no_worker_lives(
    skipping: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(skipping.address, sqlite_store, WAITING_AGENTS) as first:
        key = await parked(first, call("weekly", note="x"), call("render", scene="sea"))

        async def listed() -> bool:
            return len([each async for each in first.runner.all_waiting(user_id=key.user_id)]) == 2

        await until(listed)
        served = await by_id(first.runner.all_waiting(user_id=key.user_id))
        client = first.client
    runner = Runner(client, sqlite_store, task_queue="another")
    unserved = await by_id(runner.all_waiting(user_id=key.user_id))
    assert [each.call_id for each in unserved] == ["m1:t1.0", "m1:t1.1"]
    for now, before in zip(unserved, served, strict=True):
        assert replace(now, since=before.since, until=before.until) == before
        assert (now.until is None) == (before.until is None)
