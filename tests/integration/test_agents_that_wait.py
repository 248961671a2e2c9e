"""Agents that are asked, and wait for a person or the world: who asked them waits with them, and holds
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from cli.conversation import Chat
from cli.status import work_lines
from embedded.temporal import TemporalServer
from gateway.routes import travel
from perdure import Agent, Limits, tool
from perdure.agenttool import REQUEST, child_session_id
from perdure.client.work_results import work_of
from perdure.errors import CallNotFound
from perdure.testing import call, say
from perdure.types import JsonObject, Session, SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import PATIENCE, World, open_world, until

RENEW_AT = 60
"""Events after which the server suggests to continue as new."""
RISKY = f"{REQUEST}:t1.0"


@tool(confirm=True)
def risky(what: str) -> str:
    """Needs a yes.

    Args:
        what: to risk.
    """
    return f"risked {what}"


scout = Agent(name="scout", tools=[risky], limits=Limits(turn_timeout=600))
lead = Agent(name="lead", tools=[scout], limits=Limits(turn_timeout=600))
boss = Agent(name="boss", tools=[scout, lead, risky], limits=Limits(turn_timeout=600))


@pytest_asyncio.fixture(scope="module")
async def short(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    """A server that wants short histories."""
    config = {"limit.historyCount.suggestContinueAsNew": RENEW_AT}
    folder: Path = tmp_path_factory.mktemp("short")
    async with TemporalServer(folder, dynamic_config=config) as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def world(short: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(short.address, sqlite_store, [boss]) as opened:
        yield opened


def child_of(key: SessionKey, name: str, call_id: str) -> SessionKey:
    """The session of a call."""
    return SessionKey(
        app=key.app, user_id=key.user_id, session_id=child_session_id(key.session_id, name, call_id)
    )


async def parked(world: World, mark: str, *calls: JsonObject) -> SessionKey:
    """A session whose calls wait, one for each scout that it has asked."""
    key = world.key("boss")
    world.gemini.script(list(calls), say(f"All of {mark} is done."), contains=f"send {mark}")
    for each in calls:
        request = str((each["functionCall"].get("args") or {}).get("request"))
        if each["functionCall"]["name"] == "scout":
            world.gemini.script(call("risky", what=request), say(f"{request} is risked."), contains=request)
    answer = await world.runner.ask(key, f"send {mark}", message_id="m1")
    assert answer.status == "waiting"
    return key


async def status_is(world: World, key: SessionKey, status: str) -> None:
    async def so() -> bool:
        return (await world.runner.status(key)).status == status

    await until(so)


async def timers(world: World, key: SessionKey) -> int:
    """How many timers run, of a session whose turn may take only so long."""
    kinds = await world.history(key)
    assert "TIMER_STARTED" in kinds
    return kinds.count("TIMER_STARTED") - kinds.count("TIMER_CANCELED") - kinds.count("TIMER_FIRED")


async def closed(world: World, key: SessionKey) -> WorkflowExecutionStatus | None:
    """How its workflow ended."""

    async def over() -> bool:
        return (await world.handle(key).describe()).status is not WorkflowExecutionStatus.RUNNING

    await until(over)
    return (await world.handle(key).describe()).status


async def test_who_asked_waits_with_the_agent_and_says_where_to_decide(world: World) -> None:
    key = await parked(world, "a1", call("scout", request="look a2"))
    child = child_of(key, "scout", "m1:t1.0")
    status = await world.runner.status(key)
    assert status.status == "waiting"
    [waits] = status.waiting
    assert (waits.call_id, waits.tool, waits.kind) == ("m1:t1.0", "scout", "agent")
    assert waits.agent_session == child.session_id
    [agent] = status.agents
    assert (agent.session, agent.call_id, agent.tool) == (child.session_id, "m1:t1.0", "scout")
    assert [(each.call_id, each.kind, each.tool) for each in agent.waiting] == [(RISKY, "approval", "risky")]

    async def listed() -> bool:
        found = [each async for each in world.runner.all_waiting("boss", key.user_id)]
        return {(each.key, each.call_id, each.kind) for each in found} == {
            (key, "m1:t1.0", "agent"),
            (child, RISKY, "approval"),
        }

    await until(listed)
    with pytest.raises(CallNotFound, match=child.session_id):
        await world.runner.approve(key, "m1:t1.0")
    await world.runner.approve(child, RISKY)
    answer = await world.runner.ask(key, "send a1", message_id="m1")
    assert answer.text == "All of a1 is done.", "who asks after the decision is not told that it waits"
    status = await world.runner.status(key)
    assert (status.status, list(status.waiting), list(status.agents)) == ("open", [], [])


async def test_the_time_of_the_turn_stands_still_meanwhile(world: World) -> None:
    key = await parked(world, "b1", call("scout", request="look b2"))
    child = child_of(key, "scout", "m1:t1.0")
    for each in (key, child):
        description = (await world.handle(each).describe()).raw_description
        assert not description.pending_activities, "nothing is held"
        assert await timers(world, each) == 0
    await world.runner.approve(child, RISKY)
    assert (await world.runner.ask(key, "send b1", message_id="m1")).text == "All of b1 is done."


async def test_it_is_parked_only_once_all_wait(world: World) -> None:
    key = world.key("boss")
    asked = [call("scout", request=f"look {n} c2") for n in "ab"]
    world.gemini.script(asked, say("Both."), contains="send c1")
    world.gemini.script(call("risky", what="a"), say("a"), contains="look a c2")
    world.gemini.hang(contains="look b c2")
    await world.runner.message(key, "send c1", message_id="m1")
    one, other = (child_of(key, "scout", f"m1:t1.{n}") for n in range(2))

    async def one_waits() -> bool:
        return sorted(len(each.waiting) for each in (await world.runner.status(key)).agents) == [0, 1]

    await world.gemini.wait(lambda: len(world.gemini.in_flight) == 1, "the other to be asked")
    await until(one_waits)
    assert (await world.runner.status(key)).status == "open", "one still works"
    world.gemini.script(call("risky", what="b"), say("b"), contains="look b c2")
    world.gemini.release()
    await status_is(world, key, "waiting")
    assert (await world.runner.ask(key, "send c1", message_id="m1")).status == "waiting"
    await world.runner.decline(one, RISKY, reason="no")
    answer = await world.runner.ask(key, "send c1", message_id="m1")
    assert (answer.status, [each.agent_session for each in answer.waiting]) == ("waiting", [other.session_id])
    await world.runner.approve(other, RISKY)
    assert (await world.runner.ask(key, "send c1", message_id="m1")).text == "Both."


async def test_agents_that_wait_hold_no_place(world: World) -> None:
    asked = [call("scout", request=f"look {n:02} d2") for n in range(18)]
    key = await parked(world, "d1", *asked)
    assert len((await world.runner.status(key)).agents) == 18, "two more than run at a time"
    await world.runner.cancel(key)


async def test_those_above_wait_too(world: World) -> None:
    key = world.key("boss")
    world.gemini.script(call("lead", request="lead e2"), say("Led."), contains="send e1")
    world.gemini.script(call("scout", request="look e3"), say("Scouted."), contains="lead e2")
    world.gemini.script(call("risky", what="e4"), say("Risked."), contains="look e3")
    assert (await world.runner.ask(key, "send e1", message_id="m1")).status == "waiting"
    middle = child_of(key, "lead", "m1:t1.0")
    lowest = child_of(middle, "scout", RISKY)
    [agent] = (await world.runner.status(key)).agents
    assert [(each.kind, each.agent_session) for each in agent.waiting] == [("agent", lowest.session_id)]
    await world.runner.approve(lowest, RISKY)
    await status_is(world, key, "open")
    assert (await world.runner.ask(key, "send e1", message_id="m1")).text == "Led."


@pytest.mark.parametrize("how", ["cancel", "rewind", "end", "interrupt"])
async def test_what_ends_the_turn_ends_the_agent_that_waits(world: World, how: str) -> None:
    mark = f"{how} f1"
    key = await parked(world, mark, call("scout", request=f"look {how} f2"))
    child = child_of(key, "scout", "m1:t1.0")
    steer: dict[str, Callable[[], Awaitable[object]]] = {
        "cancel": lambda: world.runner.cancel(key),
        "rewind": lambda: world.runner.rewind(key, "m1", request_id="r1"),
        "end": lambda: world.runner.end(key),
        "interrupt": lambda: world.runner.ask(key, f"stop {mark}", message_id="m2", during="interrupt"),
    }
    world.gemini.script(say("Stopped."), contains=f"stop {mark}")
    await steer[how]()
    # By a rewind its turn is over in the log before its workflow is cancelled.
    await closed(world, child)
    log = await world.log(child)
    assert any(event.meta.get("interrupted") for event in log)
    session = await world.session(child)
    assert session.metadata.get("rewound") == ("r1" if how == "rewind" else None)
    counted = await until(lambda: world.store.event(key, "m1:t1.0:spent"))
    assert counted is not None
    assert counted.meta["spent"]["model_calls"] == 1
    if how == "end":
        assert await closed(world, key) is WorkflowExecutionStatus.COMPLETED
        assert (await world.session(key)).spent.model_calls == 2
    else:
        world.gemini.script(say("Here."), contains=f"there {how} f3")
        assert (await world.runner.ask(key, f"there {how} f3", message_id="m3")).text == "Here."


async def test_s61_the_run_of_an_agent_that_waits_is_continued(world: World) -> None:
    key = await parked(world, "g1", call("scout", request="look g2"))
    child = child_of(key, "scout", "m1:t1.0")
    first = (await world.handle(child).describe()).run_id
    for number in range(RENEW_AT):
        await world.runner.notify(child, f"early-{number}", notification_id=f"n{number}")

    async def renewed() -> bool:
        return (await world.handle(child).describe()).run_id != first

    await until(renewed)
    assert (await world.runner.status(key)).status == "waiting"
    await world.runner.approve(child, RISKY)
    assert (await world.runner.ask(key, "send g1", message_id="m1")).text == "All of g1 is done."
    assert await closed(world, child) is WorkflowExecutionStatus.COMPLETED


async def test_s61_a_run_with_agents_that_wait_is_continued_once_they_are_over(world: World) -> None:
    key = await parked(world, "h1", call("scout", request="look h2"))
    child = child_of(key, "scout", "m1:t1.0")
    first = (await world.handle(key).describe()).run_id
    for number in range(RENEW_AT):
        await world.runner.notify(key, f"early-{number}", notification_id=f"n{number}")
    behind = await world.runner.message(key, "next h3", message_id="m2")
    assert (await world.runner.status(key)).mail == RENEW_AT
    assert (await world.handle(key).describe()).run_id == first, "its agents are of this run"
    world.gemini.script(say("Next."), contains="next h3")
    await world.runner.approve(child, RISKY)
    assert (await world.runner.ask(key, "next h3", message_id=behind)).text == "Next."

    async def renewed() -> bool:
        return (await world.handle(key).describe()).run_id != first

    await until(renewed)
    assert (await world.session(key)).events[-1].text == "Next."


async def test_another_worker_goes_on_with_both(short: TemporalServer, sqlite_store: SessionStore) -> None:
    async with open_world(short.address, sqlite_store, [boss]) as first:
        key = await parked(first, "i1", call("scout", request="look i2"))
        queue = first.settings.task_queue
    child = child_of(key, "scout", "m1:t1.0")
    async with open_world(short.address, sqlite_store, [boss], queue=queue) as second:
        second.gemini.script(say("i2 is risked."), contains="look i2")
        second.gemini.script(say("All is done."), contains="send i1")
        [waits] = (await second.runner.status(key)).waiting
        assert waits.agent_session == child.session_id
        await second.runner.approve(child, RISKY)
        assert (await second.runner.ask(key, "send i1", message_id="m1")).text == "All is done."


async def test_what_no_agent_of_the_session_says_is_not_heard(world: World) -> None:
    key = await parked(world, "j1", call("scout", request="look j2"))
    child = child_of(key, "scout", "m1:t1.0")
    handle = world.handle(key)
    await handle.signal("agent_waits", {"session": child.session_id, "run_id": "another", "waiting": []})
    await handle.signal("agent_waits", {"session": "nobody", "run_id": "x"})
    assert (await world.runner.status(key)).status == "waiting"
    await handle.signal("agent_waits", {"session": 5})
    status = await world.runner.status(key)
    assert status.last_error is not None
    assert status.last_error.type == "InvalidMessage"
    await asyncio.gather(world.runner.end(key), closed(world, child))


async def test_what_an_agent_took_is_counted_after_the_turn_is_over_in_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await parked(world, "k1", call("scout", request="look k2"))
    child = child_of(key, "scout", "m1:t1.0")
    get, answering = SessionStore.get, asyncio.Event()

    async def held(store: SessionStore, of: SessionKey, **how: Any) -> Session:
        if of == child and not how:  # its answer is being read
            answering.set()
            await asyncio.Event().wait()
        return await get(store, of, **how)

    monkeypatch.setattr(SessionStore, "get", held)
    await world.runner.approve(child, RISKY)
    await asyncio.wait_for(answering.wait(), PATIENCE)
    await world.handle(key).cancel()
    await asyncio.gather(closed(world, key), closed(world, child))
    events = (await world.handle(key).fetch_history()).events
    scheduled = {
        event.activity_task_scheduled_event_attributes.activity_type.name: event.event_id
        for event in events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    }
    ended = {
        event.activity_task_completed_event_attributes.scheduled_event_id: event.event_id
        for event in events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
    }
    assert ended[scheduled["interrupt"]] < scheduled["count_child"], "else a late response counts it again"
    monkeypatch.undo()
    session, theirs = await world.session(key), await world.session(child)
    assert theirs.spent.model_calls == 2
    assert session.spent.model_calls == 1 + 2


async def answered(world: World, key: SessionKey, call_id: str) -> str:
    """What a call was answered with."""
    event = await world.store.event(key, call_id)
    assert event is not None
    return str(event.content)


async def test_a_session_that_somebody_talks_to_is_not_asked(world: World) -> None:
    key = world.key("boss")
    child = child_of(key, "scout", "m1:t1.0")
    world.gemini.script(say("Hello."), contains="mine l1")
    await world.runner.ask(child, "mine l1")
    world.gemini.script(call("scout", request="look l2"), say("A pity."), contains="send l3")
    assert (await world.runner.ask(key, "send l3", message_id="m1")).text == "A pity."
    assert "scout failed: Busy: somebody is talking" in await answered(world, key, "m1:t1.0")


async def test_one_whose_parent_is_gone_is_asked_again_when_it_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await parked(world, "n1", call("scout", request="look n2"))
    child = child_of(key, "scout", "m1:t1.0")
    interrupt, release = SessionStore.interrupt, asyncio.Event()

    async def held(store: SessionStore, of: SessionKey, *given: Any, **how: Any) -> int:
        if of == child:
            await release.wait()
        return await interrupt(store, of, *given, **how)

    monkeypatch.setattr(SessionStore, "interrupt", held)
    await world.handle(key).terminate()
    again = asyncio.create_task(world.runner.ask(key, "send n1", message_id="m1"))

    async def awaits() -> bool:
        try:
            described = (await world.handle(key).describe()).raw_description
        except RPCError:
            return False
        return [each.activity_type.name for each in described.pending_activities] == ["await_child"]

    await until(awaits)
    release.set()
    assert (await again).text == "All of n1 is done."
    assert "was interrupted before it had answered" in await answered(world, key, "m1:t1.0")
    started = (await world.handle(child).describe()).raw_description.workflow_execution_info
    assert started.parent_execution.run_id == (await world.handle(key).describe()).run_id


@pytest.mark.usefixtures("time_to_close")
async def test_s22_a_delete_takes_with_it_what_waits(world: World) -> None:
    key = await parked(world, "o1", call("scout", request="look o2"))
    child = child_of(key, "scout", "m1:t1.0")
    assert await world.runner.delete(key)
    assert await closed(world, child) is WorkflowExecutionStatus.CANCELED
    assert await closed(world, key) is WorkflowExecutionStatus.CANCELED
    assert await world.store.children(key) == []
    assert not await world.runner.delete(key)


async def test_a_fork_has_no_part_in_the_agents_of_its_source(world: World) -> None:
    key = await parked(world, "p1", call("scout", request="look p2"))
    child = child_of(key, "scout", "m1:t1.0")
    fork = await world.store.fork(key, f"{key.session_id}-fork")
    assert await world.store.children(fork.key) == []
    world.gemini.script(say("In the fork."), contains="fork p3")
    assert (await world.runner.ask(fork.key, "fork p3")).text == "In the fork."
    await world.runner.rewind(fork.key, "m1", request_id="r1")
    assert "rewound" not in (await world.session(child)).metadata
    await world.runner.approve(child, RISKY)
    assert (await world.runner.ask(key, "send p1", message_id="m1")).text == "All of p1 is done."


async def test_a_chat_and_the_commands_say_what_agents_wait_for(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    key = world.key("boss")
    chat = Chat(world.runner, key)
    steps = call("scout", request="look q2"), call("risky", what="q"), say("Done.")
    world.gemini.script(*steps, contains="send q1")
    world.gemini.script(call("risky", what="q3"), say("Risked."), contains="look q2")
    await chat.say("send q1")
    [agent] = (await world.runner.status(key)).agents
    out = capsys.readouterr().out
    assert f"the agent that it has asked in session {agent.session}" in out
    assert '  risky {"what": "q3"}' in out
    lines = list(work_lines(await world.runner.status(key)))
    assert lines[0].startswith("waiting, in turn ")
    assert any(f"has asked scout in session {agent.session}, which waits for approval of" in x for x in lines)
    await chat.command("/approve")
    assert "waits for approval" in capsys.readouterr().out, "its own call is next"
    await chat.command(f"/decline {(await world.runner.waiting(key))[0].call_id} no")
    assert capsys.readouterr().out.splitlines()[-1] == "Done."


async def test_the_clients_record_of_the_status_is_what_the_route_tells(world: World) -> None:
    key = await parked(world, "r1", call("scout", request="look r2"))
    told = travel._work(await world.runner.status(key))
    travel.WorkBody.model_validate(told)
    [agent] = work_of(told).agents
    assert (agent.session, agent.call_id, agent.tool, agent.ending) == (
        child_of(key, "scout", "m1:t1.0").session_id,
        "m1:t1.0",
        "scout",
        False,
    )
    assert [(each.call_id, each.kind) for each in agent.waiting] == [(RISKY, "approval")]
