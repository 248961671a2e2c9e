"""Agents as tools: a child workflow with a session and log of its own, that shares its parent's fate."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel
from temporalio.client import WorkflowExecutionStatus

from embedded.temporal import TemporalServer
from examples import planner
from perdure import Agent, AgentTool, Budget, Limits, ToolContext, tool
from perdure.agenttool import REQUEST, child_session_id
from perdure.testing import call, say
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until


class Verdict(BaseModel):
    """What the judge answers."""

    guilty: bool
    years: int


@tool
def note(text: str, context: ToolContext) -> str:
    """Note something for all sessions of the user and of the app."""
    context.state["own"] = text
    context.state["user:noted"] = text
    context.state["app:noted"] = text
    return "noted"


@tool(confirm=True)
def risky() -> str:
    """Needs a yes."""
    return "done"


scout = Agent(name="scout", description="Finds things.", tools=[note, risky], limits=Limits(steps=3))
judge = Agent(name="judge", output_schema=Verdict)
deep = Agent(name="deep", tools=[scout], limits=Limits(agent_depth=1))
boss = Agent(
    name="boss",
    tools=[scout, judge, deep, AgentTool(scout, name="asked_scout", confirm=True)],
    limits=Limits(agent_calls=3),
    budget=Budget(steps=100),
)


@pytest_asyncio.fixture(scope="module", params=["sqlite", "postgres"])
async def world(
    request: pytest.FixtureRequest,
    temporal: TemporalServer,
    sqlite_store: SessionStore,
    postgres_store: SessionStore,
) -> AsyncIterator[World]:
    store = sqlite_store if request.param == "sqlite" else postgres_store
    async with open_world(temporal.address, store, [boss, planner.agent]) as opened:
        yield opened


def child_of(key: SessionKey, name: str, call_id: str) -> SessionKey:
    """The session of a call."""
    return SessionKey(
        app=key.app, user_id=key.user_id, session_id=child_session_id(key.session_id, name, call_id)
    )


def responses(events: Sequence[Event]) -> list[Any]:
    """What the calls were answered with."""
    return [
        part["functionResponse"]["response"]
        for event in events
        if "call" in event.meta
        for part in (event.content or {})["parts"]
    ]


async def test_a_call_is_a_session_of_its_own_that_shares_user_and_app_state(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("scout", request="go and note a1"), say("All noted."), contains="send a1")
    world.gemini.script(call("note", text="x"), say("Noted x."), contains="go and note a1")
    answer = await world.runner.ask(key, "send a1", message_id="m1")
    assert answer.text == "All noted."
    session, log = await world.session(key), await world.log(key)
    assert responses(log) == [{"result": "Noted x."}]
    assert session.state == {"user:noted": "x", "app:noted": "x"}, "not the child's own"
    child = child_of(key, "scout", "m1:t1.0")
    theirs = await world.session(child)
    assert [event.id for event in theirs.events] == [
        f"{REQUEST}:user",
        f"{REQUEST}:m1",
        f"{REQUEST}:t1.0",
        f"{REQUEST}:m2",
    ]
    assert theirs.state["own"] == "x"
    assert theirs.metadata == {"parent": key.session_id, "call": "m1:t1.0", "agent": "scout"}
    told = log[2].meta
    assert told["child"] == child.session_id
    assert told["spent"]["model_calls"] == theirs.spent.model_calls == 2
    own = sum((event.usage or {}).get("totalTokenCount", 0) for event in log)
    assert session.spent.tokens == own + theirs.spent.tokens
    assert session.spent.model_calls == 4
    assert answer.spent == session.spent
    described = await world.handle(child).describe()
    assert described.status is WorkflowExecutionStatus.COMPLETED
    assert described.raw_description.workflow_execution_info.parent_execution.workflow_id == key.workflow_id


async def test_nothing_of_what_is_said_is_in_the_histories(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("scout", request="the secret b1"), say("Fine."), contains="send b2")
    world.gemini.script(say("another secret"), contains="the secret b1")
    await world.runner.ask(key, "send b2", message_id="m1")
    for each in (key, child_of(key, "scout", "m1:t1.0")):
        history = (await world.handle(each).fetch_history()).to_json()
        assert "secret" not in history


async def test_the_answer_of_an_output_schema_is_json(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("judge", request="judge c1"), say("Two years."), contains="trial c2")
    world.gemini.script(say('{"guilty": true, "years": 2}'), contains="judge c1")
    await world.runner.ask(key, "trial c2")
    assert responses(await world.log(key)) == [{"guilty": True, "years": 2}]


async def test_an_agent_that_fails_is_an_error_that_the_model_sees(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("scout", request="fail d1"), say("A pity."), contains="send d2")
    world.gemini.fail(400, "no such thing", contains="fail d1")
    assert (await world.runner.ask(key, "send d2")).text == "A pity."
    [said] = responses(await world.log(key))
    assert said["error"].startswith("scout failed: ModelRefused: ")


async def test_depth_and_fan_out_are_limited(world: World) -> None:
    key = world.key("boss")
    asked = [call("scout", request=f"look {n} e1") for n in range(4)]
    world.gemini.script([*asked, call("deep", request="deep e2")], say("Enough."), contains="send e3")
    for n in range(4):
        world.gemini.script(say(f"saw {n}"), contains=f"look {n} e1")
    await world.runner.ask(key, "send e3", message_id="m1")
    said = responses((await world.session(key)).events)
    assert sorted(each["result"] for each in said if "result" in each) == ["saw 0", "saw 1", "saw 2"]
    refused = [each["error"] for each in said if "error" in each]
    assert len(refused) == 2
    assert all("3 is the limit" in each for each in refused)
    world.gemini.script(call("deep", request="go deep e4"), say("Oh."), contains="send e5")
    world.gemini.script(call("scout", request="too deep e6"), say("It cannot."), contains="go deep e4")
    await world.runner.ask(key, "send e5", message_id="m2")
    below = responses(await world.log(child_of(key, "deep", "m2:t1.0")))
    assert "1 deep, and this is deeper" in below[0]["error"]


async def test_names_too_long_for_one_more_workflow_are_an_error_that_the_model_sees(world: World) -> None:
    names = SessionKey(app="boss", user_id=f"{uuid.uuid4().hex[:8]}{'ü' * 120}", session_id="ü" * 42)
    assert len(names.workflow_id) <= 1000 < len(child_of(names, "scout", "m1:t1.0").workflow_id)
    world.gemini.script(call("scout", request="long e9"), say("Oh."), contains="send e9")
    assert (await world.runner.ask(names, "send e9", message_id="m1")).text == "Oh."
    assert "Temporal takes 1000" in responses(await world.log(names))[0]["error"]


async def test_a_cancel_ends_the_children_and_counts_what_they_took(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("scout", request="note f1"), contains="send f2")
    world.gemini.script(call("note", text="y"), contains="note f1")
    world.gemini.slow(0, contains="note f1")
    world.gemini.hang(contains="note f1")
    asking = asyncio.create_task(world.runner.ask(key, "send f2", message_id="m1"))
    child = child_of(key, "scout", "m1:t1.0")
    await world.gemini.wait(
        lambda: sum("note f1" in each.last_user_text for each in world.gemini.requests) == 2,
        "the second step",
    )
    await world.runner.cancel(key)
    assert (await asking).status == "cancelled"
    counted = await until(lambda: world.store.event(key, "m1:t1.0:spent"))
    assert counted is not None
    theirs = await world.session(child)
    assert theirs.events[-1].meta["interrupted"]
    assert (await world.handle(child).describe()).status is WorkflowExecutionStatus.CANCELED
    assert theirs.spent.model_calls == counted.meta["spent"]["model_calls"] == 1
    session = await world.session(key)
    assert session.spent.model_calls == 2
    world.gemini.script(say("Here I am."), contains="still there f3")
    assert (await world.runner.ask(key, "still there f3")).text == "Here I am."
    world.gemini.release()


async def test_a_rewind_rewinds_the_children_and_a_redo_brings_them_back(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(say("Hello."), contains="hello g0")
    await world.runner.ask(key, "hello g0", message_id="m0")
    world.gemini.script(call("scout", request="note g1"), say("All noted."), contains="send g2")
    world.gemini.script(call("note", text="z"), say("Noted z."), contains="note g1")
    await world.runner.ask(key, "send g2", message_id="m1")
    child = child_of(key, "scout", "m1:t1.0")
    spent = (await world.session(key)).spent
    await world.runner.rewind(key, "m1", request_id="r1")
    gone = await world.session(child)
    assert ([event.id for event in gone.events], gone.metadata["rewound"]) == (["r1:rewind"], "r1")
    assert "own" not in gone.state
    assert (await world.session(key)).spent == spent, "it was paid for"
    await world.runner.rewind(key, "r1", request_id="r2")
    back = await world.session(child)
    assert back.events[-2].text == "Noted z."
    assert (back.state["own"], "rewound" in back.metadata) == ("z", False)
    await world.runner.rewind(key, "m0", request_id="r3")
    assert (await world.session(child)).metadata["rewound"] == "r3"


async def test_a_rewind_during_the_call_ends_the_child_first(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("scout", request="hang h1"), contains="send h2")
    world.gemini.hang(contains="hang h1")
    asking = asyncio.create_task(world.runner.ask(key, "send h2", message_id="m1"))
    child = child_of(key, "scout", "m1:t1.0")
    await world.gemini.wait(lambda: any("hang h1" in r.last_user_text for r in world.gemini.requests), "it")
    await world.runner.rewind(key, "m1", request_id="r1")
    assert (await asking).status == "cancelled"

    async def over() -> bool:
        return (await world.handle(child).describe()).status is not WorkflowExecutionStatus.RUNNING

    await until(over)
    assert (await world.session(child)).metadata["rewound"] == "r1"
    assert responses((await world.session(key)).events) == []
    world.gemini.release()


async def test_a_child_may_wait_for_a_person_and_so_may_its_call(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("asked_scout", request="risk i1"), say("It dared."), contains="send i2")
    world.gemini.script(call("risky"), say("Dared."), contains="risk i1")
    assert (await world.runner.ask(key, "send i2", message_id="m1")).status == "waiting"
    await world.runner.approve(key, "m1:t1.0")
    child = child_of(key, "asked_scout", "m1:t1.0")
    await until(lambda: world.store.children(key))
    await until(lambda: world.store.event(child, f"{REQUEST}:user"))
    [listed] = await until(lambda: world.runner.waiting(child))
    assert (listed.tool, listed.kind) == ("risky", "approval")
    await world.runner.approve(child, f"{REQUEST}:t1.0")
    assert (await world.runner.ask(key, "send i2", message_id="m1")).text == "It dared."


async def test_a_delete_takes_the_children_with_it(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("scout", request="go j1"), say("Fine."), contains="send j2")
    world.gemini.script(say("Went."), contains="go j1")
    await world.runner.ask(key, "send j2")
    assert len(await world.store.children(key)) == 1
    assert await world.runner.delete(key)
    assert await world.store.children(key) == []


async def test_the_planner_merges_what_five_researchers_found_at_once(world: World) -> None:
    key = world.key("planner")
    topics = list(planner.FACTS)
    world.gemini.script(
        [call("researcher", request=f"Report on {topic} k1") for topic in topics],
        say("Move."),
        contains="Should we move k2?",
    )
    for topic in topics:
        world.gemini.script(
            call("look_up", topic=topic), say(f"About {topic}."), contains=f"Report on {topic} k1"
        )
        world.gemini.hang(contains=f"Report on {topic} k1")
    asking = asyncio.create_task(world.runner.ask(key, "Should we move k2?"))
    # None is answered before all are asked: so they run at once.
    await world.gemini.wait(
        lambda: sum("k1" in each.last_user_text for each in world.gemini.requests) == 5, "all five"
    )
    world.gemini.release()
    assert (await asking).text == "Move."
    session = await world.session(key)
    assert sorted(each["result"] for each in responses(session.events)) == sorted(
        f"About {topic}." for topic in topics
    )
    assert all(session.state[f"user:seen:{topic}"] for topic in topics)
    children = await world.store.children(key)
    assert [child.metadata["agent"] for child in children] == ["researcher"] * 5
    assert session.spent.tokens > sum(child.spent.tokens for child in children) > 0
    assert session.spent.model_calls == 2 + 10
