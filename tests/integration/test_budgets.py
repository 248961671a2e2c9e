"""What sessions and turns may spend: counted, warned of, and stopped at; the session goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateFailedError

from activities import gemini
from activities.prices import nano_usd
from embedded.temporal import TemporalServer
from perdure import Agent, Budget, Compaction, Limits, Price
from perdure.errors import BudgetExceeded, InvalidAgent
from perdure.registry import Registry
from perdure.testing import call, say
from perdure.types import Event, SessionKey, Spent
from storage.sessions import SessionStore
from storage.spending import spent_on
from tests.integration.agents import add, gate, wait_at_gate
from tests.integration.harness import PATIENCE, World, open_world, until
from worker import build_worker

DEAR = {"gemini-dear": Price(input=10_000, output=20_000)}
"""A cent and more for a token: a few words cost dollars."""

AGENTS = [
    Agent(name="calls", tools=[add], budget=Budget(steps=5)),
    Agent(name="tokens", tools=[add], budget=Budget(tokens=3_000, warn_at=0.5)),
    Agent(name="money", tools=[add], model="gemini-dear", budget=Budget(money=1.0, prices=DEAR)),
    Agent(name="turn", tools=[add], model="gemini-dear", budget=Budget(turn_money=1.0, prices=DEAR)),
    Agent(
        name="summing",
        compaction=Compaction(interval=1),
        model="gemini-dear",
        budget=Budget(steps=3, prices=DEAR),
    ),
    Agent(name="free", tools=[add], limits=Limits(model_attempts=2)),
    Agent(name="short", tools=[wait_at_gate], limits=Limits(steps=1)),
    Agent(name="unlisted", model="my-own-model"),
]


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, AGENTS) as opened:
        yield opened


def of_log(log: list[Event]) -> Spent:
    return sum(map(spent_on, log), Spent())


async def noted(world: World, key: SessionKey, event_id: str) -> Event:
    """An event that comes behind what the caller is told."""
    found = await until(lambda: world.store.event(key, event_id))
    assert found is not None
    return found


async def test_a_session_that_had_its_model_calls_is_refused_by_type_and_lives(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = world.key("calls")
    world.gemini.script(call("add", name="n"), call("add", name="n"), say("two"))
    first = await world.runner.ask(key, "count", message_id="m1")
    assert (first.status, first.spent and first.spent.model_calls) == ("answered", 3)
    assert (await world.runner.status(key)).warning is None
    with caplog.at_level(logging.WARNING, "perdure"):
        world.gemini.script(call("add", name="n"), call("add", name="n"), say("never asked for"))
        second = await world.runner.ask(key, "count on", message_id="m2")
    assert second.failure is not None
    assert second.failure.type == "BudgetExceeded"
    assert "has used 5 of its 5 model calls" in second.failure.message
    assert "raise steps in the Budget of agent calls" in second.failure.message
    assert len(world.gemini.model_calls()) == 5
    warned = [record for record in caplog.records if getattr(record, "action", "") == "budget.warning"]
    assert len(warned) == 1, "once a turn, as it comes near"
    log = await world.log(key)
    assert [event.id for event in log if event.meta.get("budget")] == ["m2:m1"]
    assert log[-1].id == "m2:end"
    status = await world.runner.status(key)
    assert (status.status, status.warning) == ("error", "the session has used 4 of its 5 model calls")
    assert status.budget == {"steps": 5}
    await world.runner.rewind(key, "m1")
    third = await world.runner.ask(key, "again", message_id="m3")
    assert third.failure is not None, "what was rewound was paid for"
    assert third.failure.type == "BudgetExceeded"
    assert third.spent == Spent()
    assert len(world.gemini.model_calls()) == 5
    assert (await world.session(key)).spent == of_log(await world.log(key))


async def test_a_budget_that_is_raised_lets_the_session_go_on(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    poor = Agent(name="raised", budget=Budget(steps=1))
    async with open_world(temporal.address, sqlite_store, [poor]) as world:
        key = world.key("raised")
        assert (await world.runner.ask(key, "one")).status == "answered"
        assert (await world.runner.ask(key, "two")).status == "failed"
        queue = world.settings.task_queue
    richer = Agent(name="raised", budget=Budget(steps=2))
    async with open_world(temporal.address, sqlite_store, [richer], queue=queue) as world:
        assert (await world.runner.ask(key, "three")).status == "answered"
        assert (await world.runner.ask(key, "four")).status == "failed"


async def test_tokens_of_a_session_are_counted_over_turns_and_forks_begin_anew(world: World) -> None:
    key = world.key("tokens")
    for n in range(5):
        answer = await world.runner.ask(key, "word " * 300 + str(n))
        if answer.status == "failed":
            break
    assert answer.failure is not None
    assert answer.failure.type == "BudgetExceeded"
    spent = (await world.session(key)).spent
    assert spent == of_log(await world.log(key))
    assert spent.tokens >= 3_000
    fork = await world.store.fork(key, key.session_id + "-fork")
    assert (await world.runner.ask(fork.key, "and now")).status == "answered"


async def test_money_of_a_session_and_what_it_is_counted_by(world: World) -> None:
    key = world.key("money")
    world.gemini.script(call("add", name="n"), say("done"))
    answer = await world.runner.ask(key, "count", message_id="m1")
    assert answer.status == "failed", "the first call took it all"
    assert answer.failure is not None
    log = await world.log(key)
    [asked] = [event for event in log if event.usage]
    assert asked.usage is not None
    expected = asked.usage["promptTokenCount"] * 10_000_000 + asked.usage["candidatesTokenCount"] * 20_000_000
    assert spent_on(asked).nano_usd == expected
    assert answer.spent == (await world.session(key)).spent == spent_on(asked)
    assert "of its $1.00" in answer.failure.message
    status = await world.runner.status(key)
    assert status.usd == answer.spent.usd > 1
    assert status.warning is not None


async def test_money_of_a_turn_is_that_turns_own(world: World) -> None:
    key = world.key("turn")
    for n in range(2):
        world.gemini.script(call("add", name="n"))
        answer = await world.runner.ask(key, f"count {n}")
        assert answer.failure is not None
        assert answer.failure.type == "BudgetExceeded"
        assert "raise turn_money" in answer.failure.message
    assert len(world.gemini.model_calls()) == 2


async def test_a_summary_is_paid_for_and_none_is_made_where_nothing_is_left(world: World) -> None:
    key = world.key("summing")
    assert (await world.runner.ask(key, "one")).status == "answered"
    await world.runner.compact(key)
    spent = (await world.session(key)).spent
    assert spent.model_calls == 2
    assert spent == of_log(await world.log(key))
    assert (await world.runner.ask(key, "two")).status == "answered"
    assert (await world.runner.ask(key, "three")).status == "failed"
    with pytest.raises(BudgetExceeded, match="used 3 of its 3 model calls"):
        await world.runner.compact(key)
    assert (await world.session(key)).spent.model_calls == 3


async def test_a_message_does_not_join_a_step_that_is_not_to_be(world: World) -> None:
    """Its turn has had its model calls: nobody would read it there."""
    gate.reset()
    key = world.key("short")
    world.gemini.script(call("wait_at_gate", label="m1"), say("and to you"))
    first = asyncio.create_task(world.runner.ask(key, "work", message_id="m1"))
    await gate.held()
    second = asyncio.create_task(world.runner.ask(key, "good day", message_id="m2", during="join"))

    async def arrived() -> bool:
        return (await world.runner.status(key)).queued == 1

    await until(arrived)
    gate.open.set()
    assert (await first).status == "failed"
    assert ((await second).text, (await second).invocation_id) == ("and to you", "m2")


async def test_tries_that_gave_no_answer_took_their_tokens_all_the_same(world: World) -> None:
    key = world.key("free")
    world.gemini.cut(after=1)
    answer = await world.runner.ask(key, "hello", message_id="m1")
    assert answer.status == "answered"
    [event] = [event for event in await world.log(key) if event.usage]
    assert event.usage is not None
    assert spent_on(event).tokens > event.usage["totalTokenCount"]
    assert spent_on(event).model_calls == 1
    world.gemini.finish("SAFETY", "well")
    failed = await world.runner.ask(key, "and now", message_id="m2")
    assert failed.status == "failed"
    assert failed.spent is not None
    assert failed.spent.tokens > 0
    assert (await world.session(key)).spent == of_log(await world.log(key))


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_what_a_cancelled_call_took_is_counted_as_far_as_the_server_had_said(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    streamed = asyncio.Event()
    monkeypatch.setattr(gemini, "reach", lambda name: streamed.set())
    key = world.key("free")
    world.gemini.hang(after=1)
    turn = asyncio.create_task(world.runner.ask(key, "word " * 50, message_id="m1"))
    await asyncio.wait_for(streamed.wait(), PATIENCE)
    if how == "cancel":
        await world.runner.cancel(key)
        assert (await turn).status == "cancelled"
    else:
        await world.handle(key).terminate()
        with pytest.raises(WorkflowUpdateFailedError):
            await turn
    counted = await noted(world, key, "m1:m1:spent1")
    assert spent_on(counted).tokens >= 50
    assert spent_on(counted).nano_usd > 0
    session = await world.session(key)
    assert session.spent == spent_on(counted)
    world.gemini.script(say("hello"))
    assert (await world.runner.ask(key, "hello")).text == "hello"
    assert (await world.session(key)).spent == of_log(await world.log(key))


async def test_an_answer_that_came_too_late_to_be_kept_was_paid_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, answered, go_on = world.store.append, asyncio.Event(), asyncio.Event()

    async def held(key: SessionKey, event: Event, **options: Any) -> Event:
        if event.id == "m1:m1":
            answered.set()
            await go_on.wait()
        return await append(key, event, **options)

    monkeypatch.setattr(world.store, "append", held)
    key = world.key("free")
    turn = asyncio.create_task(world.runner.ask(key, "word " * 50, message_id="m1"))
    await asyncio.wait_for(answered.wait(), PATIENCE)
    await world.runner.cancel(key)
    assert (await turn).status == "cancelled"
    go_on.set()
    counted = await noted(world, key, "m1:m1:spent1")
    assert spent_on(counted).tokens >= 50
    assert (await world.session(key)).spent == spent_on(counted) == of_log(await world.log(key))


async def test_a_summary_that_is_of_no_use_was_paid_for_all_the_same(world: World) -> None:
    key = world.key("summing")
    world.gemini.finish("MAX_TOKENS", "half a summ", kind="summarise")
    assert (await world.runner.ask(key, "one", message_id="m1")).status == "answered"
    counted = await noted(world, key, "m1:compact:spent1")
    assert spent_on(counted).nano_usd > 0
    session = await world.session(key)
    assert session.spent.model_calls == 2
    assert session.spent == of_log(await world.log(key))


async def test_the_face_and_the_status_tell_of_money(world: World) -> None:
    key = world.key("free")
    answer = await world.runner.ask(key, "hello")
    assert answer.spent is not None
    status = await world.runner.status(key)
    assert (status.tokens, status.usd) == (answer.spent.tokens, answer.spent.usd)
    assert (status.turn_tokens, status.turn_usd) == (0, 0.0)
    plain = await world.runner.ask(world.key("unlisted"), "hello")
    assert plain.spent is not None
    assert (plain.spent.tokens > 0, plain.spent.nano_usd) == (True, 0)


async def test_a_budget_in_money_needs_a_price(world: World) -> None:
    unknown = Agent(name="unknown", model="my-own-model", budget=Budget(money=1))
    with pytest.raises(InvalidAgent, match=r"price of 'my-own-model' is not known.*prices="):
        build_worker(world.client, world.store, Registry([unknown]), None, world.settings)  # type: ignore[arg-type]  # not reached
    sums = Agent(name="sums", compaction=Compaction(interval=1, model="other"), budget=Budget(money=1))
    with pytest.raises(InvalidAgent, match="'other'"):
        build_worker(world.client, world.store, Registry([sums]), None, world.settings)  # type: ignore[arg-type]  # not reached
    assert nano_usd(unknown, "my-own-model", {"totalTokenCount": 5}) is None
    known = dataclasses.replace(unknown.budget, prices={"my-own-model": Price(input=1, output=1)})  # type: ignore[type-var]  # it has one
    assert nano_usd(Agent(name="known", budget=known), "my-own-model", {"totalTokenCount": 5}) == 5_000
