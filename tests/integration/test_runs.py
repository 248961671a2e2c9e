"""Continue-as-new with a full inbox, and what a turn costs in history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from embedded.temporal import TemporalServer
from perdure import Agent, Budget
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS, add, gate
from tests.integration.harness import World, open_world, until


@pytest_asyncio.fixture(scope="session")
async def hasty_temporal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    """A server that suggests continue-as-new after a handful of turns."""
    config = {"limit.historyCount.suggestContinueAsNew": 60}
    async with TemporalServer(tmp_path_factory.mktemp("hasty"), dynamic_config=config) as server:
        yield server


@pytest_asyncio.fixture
async def hasty_world(hasty_temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(hasty_temporal.address, sqlite_store, AGENTS) as opened:
        yield opened


async def runs_of(world: World, key: SessionKey) -> int:
    query = f"WorkflowId = '{key.workflow_id}'"

    async def listed() -> int:
        return len([found async for found in world.client.list_workflows(query)])

    return await until(listed)


async def test_s61_a_full_inbox_survives_continue_as_new(hasty_world: World) -> None:
    world = hasty_world
    key = world.key("tester")
    gate.reset()
    world.gemini.script(call("wait_at_gate", label="held"), say("first"))
    await world.runner.message(key, "held")
    await gate.held()
    for n in range(40):
        await world.runner.message(key, f"number {n}", message_id=f"s{n}")
    gate.open.set()

    async def all_done() -> bool:
        return (await world.runner.status(key)).turns == 41

    await until(all_done)
    last = await world.runner.ask(key, "the last")
    assert last.status == "answered"
    texts = [event.text for event in (await world.session(key)).events if event.author == "user"]
    assert texts == ["held", *[f"number {n}" for n in range(40)], "the last"]

    async def renewed() -> bool:
        return await runs_of(world, key) >= 3

    await until(renewed)
    status = await world.runner.status(key)
    assert (status.turns, status.queued) == (42, 0)
    run = await world.handle(key).describe()
    assert run.typed_search_attributes, "search attributes come along"


async def test_s61_updates_under_constant_load_cross_runs(hasty_world: World) -> None:
    world = hasty_world
    key = world.key("tester")

    async def client(number: int) -> None:
        for n in range(10):
            answer = await world.runner.ask(key, f"client {number} says {n}")
            assert answer.status == "answered"

    await asyncio.gather(*(client(number) for number in range(3)))
    texts = [event.text for event in (await world.session(key)).events if event.author == "user"]
    assert len(texts) == len(set(texts)) == 30
    for number in range(3):
        mine = [text for text in texts if text.startswith(f"client {number}")]
        assert mine == [f"client {number} says {n}" for n in range(10)], (
            "in the order in which they were sent"
        )


async def test_s63_a_message_resent_after_continue_as_new(hasty_world: World) -> None:
    world = hasty_world
    key = world.key("tester")
    world.gemini.script(say("the first answer"))
    first = await world.runner.ask(key, "hello", message_id="m1")
    epoch = (await world.runner.status(key)).epoch
    for n in range(12):
        await world.runner.ask(key, f"number {n}")

    async def renewed() -> bool:
        return await runs_of(world, key) >= 2

    await until(renewed)
    assert await world.runner.ask(key, "hello", message_id="m1") == first
    assert (await world.runner.status(key)).epoch == epoch, "carried over: no run took the session over"


async def test_what_was_spent_is_carried_over_and_stops_in_a_later_run(
    hasty_temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    budget = Budget(steps=14, money=5.0, warn_at=0.9)
    agent = Agent(name="thrifty", tools=[add], budget=budget)
    async with open_world(hasty_temporal.address, sqlite_store, [agent]) as world:
        key = world.key("thrifty")
        world.gemini.script(call("add", name="n"), say("counted"))
        for n in range(13):
            assert (await world.runner.ask(key, f"number {n}")).status == "answered"

        async def renewed() -> bool:
            return await runs_of(world, key) >= 2

        await until(renewed)
        spent, status = (await world.session(key)).spent, await world.runner.status(key)
        assert (status.model_calls, status.tokens, status.usd) == (14, spent.tokens, spent.usd)
        assert spent.model_calls == 14
        assert (status.budget, status.tool_calls) == ({"steps": 14, "money": 5.0}, 1)
        assert status.warning == "the session has used 14 of its 14 model calls"
        assert status.usd > 0
        refused = await world.runner.ask(key, "one more")
        assert refused.failure is not None
        assert refused.failure.type == "BudgetExceeded"


async def measure(world: World, key: SessionKey) -> tuple[int, int]:
    """Events and bytes of the session's history so far.

    Without the workflow tasks that Temporal has given up, and gives again, since the worker stood still.
    """

    async def idle() -> bool:
        return (await world.runner.status(key)).doing is None

    await until(idle)
    events = (await world.handle(key).fetch_history()).events
    given_up: set[int] = set()
    for event in events:
        if event.HasField("workflow_task_timed_out_event_attributes"):
            task = event.workflow_task_timed_out_event_attributes
            given_up |= {event.event_id, task.scheduled_event_id, task.started_event_id}
    kept = [event for event in events if event.event_id not in given_up]
    return len(kept), sum(event.ByteSize() for event in kept)


@pytest.mark.parametrize(("kind", "events", "size"), [("text", 12, 2000), ("tool", 24, 4200)])
async def test_what_a_turn_costs_in_history(sqlite_world: World, kind: str, events: int, size: int) -> None:
    world = sqlite_world
    key = world.key("tester")
    said = "hello " * 30
    costs = []
    before = (0, 0)
    for n in range(6):
        if kind == "tool":
            world.gemini.script(call("big", size=300_000), say("done " * 50))
        else:
            world.gemini.script(say("well " * 60))
        await world.runner.ask(key, said)
        after = await measure(world, key)
        if n > 0:
            costs.append((after[0] - before[0], after[1] - before[1] - len(said)))
        before = after
    assert max(cost[0] for cost in costs) <= events, costs
    assert max(cost[1] for cost in costs) <= size, costs
    assert costs[-1][1] <= costs[0][1] * 1.05, "it does not grow"
