"""Too much of anything is refused by type or waits; it loses nothing, and holds nobody else up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from functools import partial

import pytest
import pytest_asyncio
from temporalio.service import RPCError, RPCStatusCode

from embedded.temporal import TemporalServer
from gateway.runner import Answer
from perdure import Agent, Limits, tool
from perdure.errors import Busy
from perdure.settings import Settings
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS, Gate, add, gate, wait_at_gate
from tests.integration.harness import World, open_world, until
from workflows.inbox import ROOM, SIGNAL_ROOM
from workflows.session import TURNS_PER_RUN
from workflows.step import MOST_AT_ONCE

crowd = Gate()


@tool
async def wait_in_crowd(label: str) -> str:
    """Wait until the test lets it go on, beside other calls.

    Args:
        label: what to write down.
    """
    crowd.calls.append(label)
    crowd.entered.set()
    await crowd.open.wait()
    return label


TOKENS = 4_000
SECONDS = 4
"""Of a turn in a hurry. On a machine that stands still it may be over before it has begun to do anything."""

BOUNDED = [
    Agent(name="thrifty", tools=[add], limits=Limits(tokens=TOKENS)),
    Agent(name="hurried", tools=[wait_at_gate], limits=Limits(turn_timeout=SECONDS, model_timeout=60)),
    Agent(name="punctual", tools=[wait_at_gate], limits=Limits(turn_timeout=3600)),
    Agent(name="brief", tools=[add], limits=Limits(steps=2)),
    Agent(name="crowded", tools=[wait_in_crowd, add]),
]


@pytest.fixture(autouse=True)
def _fresh_gates() -> Iterator[None]:
    gate.reset()
    crowd.reset()
    yield
    gate.open.set()
    crowd.open.set()


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, store, [*AGENTS, *BOUNDED]) as opened:
        yield opened


@pytest_asyncio.fixture
async def sqlite_world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, [*AGENTS, *BOUNDED]) as opened:
        yield opened


@pytest_asyncio.fixture
async def narrow_world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    """Its worker asks the model one thing at a time."""
    settings = Settings(_env_file=None, max_concurrent_model_calls=1)
    async with open_world(temporal.address, sqlite_store, BOUNDED, settings=settings) as opened:
        yield opened


async def held(world: World, key: SessionKey, message_id: str) -> asyncio.Task[str]:
    """A turn that is held in its tool."""
    world.gemini.script(call("wait_at_gate", label=message_id), say("went through"))

    async def ask() -> str:
        return (await world.runner.ask(key, "hold", message_id=message_id)).status

    task = asyncio.create_task(ask())
    await gate.held()
    return task


async def goes_on(world: World, key: SessionKey) -> None:
    """The session takes the next message; in a hurry there may not be time enough for its turn, either."""
    for _ in range(5):
        world.gemini.clear()
        world.gemini.script(say("still here"))
        answer = await world.runner.ask(key, "are you there?")
        if key.app != "hurried" or not time_was_up(answer):
            break
    assert answer.text == "still here"


def time_was_up(answer: Answer) -> bool:
    """Whether that ended the turn."""
    why = answer.failure
    return why is not None and why.type == "LimitExceeded" and f"limit of {SECONDS} seconds" in why.message


# The inbox.


async def test_an_update_too_many_is_refused_at_no_cost(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    turn = await held(world, key, "m0")
    for n in range(1, ROOM + 1):
        await world.runner.message(key, f"number {n}", message_id=f"m{n}")

    async def waiting() -> bool:
        return (await world.runner.status(key)).queued == ROOM

    await until(waiting)

    async def one_too_many() -> None:
        with pytest.raises(Busy, match="8 messages waiting"):
            await world.runner.ask(key, "one too many", message_id="late")

    assert await world.costs_nothing(key, one_too_many)
    again = asyncio.create_task(world.runner.ask(key, "number 1", message_id="m1"))
    gate.open.set()
    assert (await again).status == "answered", "one that waits already is not one more"
    assert await turn == "answered"
    assert (await world.runner.ask(key, "one too many", message_id="late")).status == "answered"
    said = [event.invocation_id for event in await world.log(key) if event.author == "user"]
    assert said == [*(f"m{n}" for n in range(ROOM + 1)), "late"]
    assert (await world.runner.status(key)).refused == 0


async def test_a_signal_too_many_is_noted_by_its_id_and_may_come_again(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    turn = await held(world, key, "first")
    handle = world.handle(key)
    over = 7
    for start in range(0, SIGNAL_ROOM + over, 50):
        numbers = range(start, min(start + 50, SIGNAL_ROOM + over))
        for n in numbers:
            await handle.signal("message", {"text": f"number {n}", "message_id": f"m{n}"})

    async def noted() -> bool:
        return (await world.runner.status(key)).refused == over

    await until(noted)
    status = await world.runner.status(key)
    assert status.queued == SIGNAL_ROOM
    assert list(status.refused_ids) == [f"m{n}" for n in range(SIGNAL_ROOM, SIGNAL_ROOM + over)]
    assert status.last_error is not None
    assert status.last_error.type == "Busy"
    assert f"m{SIGNAL_ROOM + over - 1} was not taken: 1000 messages wait" in status.last_error.message
    gate.open.set()
    assert await turn == "answered"

    # From the log: queries would be held up by a run that has so much to replay.
    async def said() -> list[str]:
        return [event.invocation_id for event in await world.log(key) if event.author == "user"]

    async def room() -> bool:
        return len(await said()) > 2 * over

    await until(room)
    for n in range(SIGNAL_ROOM, SIGNAL_ROOM + over):
        await handle.signal("message", {"text": f"number {n}", "message_id": f"m{n}"})

    async def runs() -> bool:
        return len(await said()) > 2 * TURNS_PER_RUN + 2 * over

    await until(runs, within=200)
    asked = await said()
    assert asked == ["first", *(f"m{n}" for n in range(len(asked) - 1))], "in order, none lost, none twice"
    assert (await world.runner.status(key)).refused == over, "carried into the next run"
    await world.runner.delete(key)


async def test_s61_as_much_as_may_wait_is_carried_into_the_next_run(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    for n in range(62):
        await world.runner.ask(key, f"turn {n}")
    turn = await held(world, key, "held")
    first = (await world.handle(key).describe()).run_id
    # Control characters take six bytes each in JSON.
    for n in range(1, 7):
        await world.handle(key).signal("message", {"text": "\x01" * 32_000, "message_id": f"m{n}"})
    await world.handle(key).signal("message", {"text": "small", "message_id": "m7"})

    async def refused() -> bool:
        return (await world.runner.status(key)).refused == 1

    await until(refused)
    status = await world.runner.status(key)
    assert list(status.refused_ids) == ["m6"], "there was room for what came after it and is small"
    gate.open.set()
    assert await turn == "answered"

    async def done() -> bool:
        return (await world.runner.status(key)).turns == 69

    await until(done)
    assert (await world.handle(key).describe()).run_id != first
    said = [event.invocation_id for event in await world.log(key) if event.author == "user"]
    assert said[62:] == ["held", "m1", "m2", "m3", "m4", "m5", "m7"]
    assert (await world.runner.status(key)).refused == 1


# The limits of a turn.


async def test_a_turn_that_took_its_tokens_ends_by_type(world: World) -> None:
    key = world.key("thrifty")
    world.gemini.script(*[call("add", name="n")] * 20)
    answer = await world.runner.ask(key, "word " * 800, message_id="m1")
    assert answer.status == "failed"
    assert answer.failure is not None
    assert answer.failure.type == "LimitExceeded"
    log = await world.log(key)
    spent = [event.usage["totalTokenCount"] for event in log if event.usage]
    assert sum(spent) >= TOKENS > sum(spent[:-1]), "it was not asked once more than it had to be"
    assert f"took {sum(spent)} tokens in {len(spent)} model calls" in answer.failure.message
    assert log[-1].id == "m1:end"
    assert log[-1].error is not None
    assert log[-1].error["type"] == "LimitExceeded"
    assert (await world.session(key)).state == {"n": len(spent)}, "what the turn did stays"
    await world.runner.rewind(key, "m1")
    await goes_on(world, key)


async def test_tokens_of_other_turns_do_not_count(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("thrifty")
    for n in range(4):
        world.gemini.script(say("well"))
        assert (await world.runner.ask(key, "word " * 600 + str(n))).status == "answered"


async def test_a_turn_that_took_its_steps_ends_by_type(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("brief")
    world.gemini.script(*[call("add", name="n")] * 3)
    answer = await world.runner.ask(key, "loop")
    assert answer.failure is not None
    assert answer.failure.type == "LimitExceeded"
    assert "limit of 2 model calls" in answer.failure.message
    assert len(world.gemini.model_calls()) == 2
    await goes_on(world, key)


async def sits_in_its_tool(world: World) -> tuple[SessionKey, asyncio.Task[Answer]]:
    """A session in whose turn m1 there was time enough to get to the tool."""
    while True:
        key = world.key("hurried")
        world.gemini.clear()
        world.gemini.script(call("wait_at_gate", label=key.session_id), say("went through"))
        turn = asyncio.create_task(world.runner.ask(key, "hold", message_id="m1"))
        await until(partial(_is_there_or_over, key, turn))
        if key.session_id in gate.calls:
            return key, turn
        assert time_was_up(await turn)


async def _is_there_or_over(key: SessionKey, turn: asyncio.Task[Answer]) -> bool:
    return key.session_id in gate.calls or turn.done()


async def test_a_turn_that_sits_in_a_tool_ends_when_its_time_is_up(world: World) -> None:
    key, turn = await sits_in_its_tool(world)
    assert time_was_up(await turn)
    log = await world.log(key)
    assert [event.id for event in log] == ["m1:user", "m1:m1", "m1:end"]
    assert log[-1].error is not None
    assert log[-1].error["type"] == "LimitExceeded"
    assert f"limit of {SECONDS} seconds" in log[-1].error["message"]
    gate.open.set()  # what the tool still writes is refused
    status = await world.runner.status(key)
    assert (status.status, status.doing) == ("error", None)
    await goes_on(world, key)
    assert (await world.session(key)).state == {}
    again = await world.runner.ask(key, "hold", message_id="m1")
    assert again.status == "failed", "sent again, it gets the first reply"
    assert again.failure is not None
    assert again.failure.type == "LimitExceeded"


async def test_a_first_model_call_that_hangs_ends_when_the_turns_time_is_up(
    sqlite_world: World,
) -> None:
    world = sqlite_world
    key = world.key("hurried")
    world.gemini.hang()
    answer = await world.runner.ask(key, "hello", message_id="m1")
    assert answer.status == "failed"
    assert answer.failure is not None
    assert answer.failure.type == "LimitExceeded"
    assert await world.kinds(key) == ["user", "end"]
    await goes_on(world, key)


async def test_a_model_that_asks_for_more_patience_than_the_turn_has(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("hurried")
    world.gemini.fail(429, retry_after=3600)
    answer = await world.runner.ask(key, "hello")
    assert time_was_up(answer)
    assert len(world.gemini.model_calls()) <= 1, "none where the time was up before"
    await goes_on(world, key)


async def test_a_turn_in_time_leaves_nothing_behind_that_could_end_the_next(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("punctual")
    gate.open.set()
    world.gemini.script(call("wait_at_gate", label="x"), say("in time"))
    assert (await world.runner.ask(key, "go")).text == "in time"
    history = (await world.handle(key).fetch_history()).events
    assert sum(event.HasField("timer_started_event_attributes") for event in history) == 1
    assert sum(event.HasField("timer_canceled_event_attributes") for event in history) == 1


# The model calls of a worker.


async def beats(world: World, key: SessionKey) -> tuple[datetime | None, int]:
    """The last heartbeat of the session's model call, and the tries that it counts."""
    try:
        described = (await world.handle(key).describe()).raw_description
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return None, 0  # not started yet
    for pending in described.pending_activities:
        if pending.heartbeat_details.payloads:
            details = await world.client.data_converter.decode(pending.heartbeat_details.payloads)
            return pending.last_heartbeat_time.ToDatetime(), int(details[0])
    return None, 0


async def test_one_model_call_too_many_waits_and_tells_that_it_lives(narrow_world: World) -> None:
    world = narrow_world
    first, second = world.key("thrifty"), world.key("thrifty")
    world.gemini.hang(contains="the first")
    one = asyncio.create_task(world.runner.ask(first, "the first"))
    await world.gemini.wait_in_flight()
    two = asyncio.create_task(world.runner.ask(second, "the second"))

    async def first_beat() -> datetime | None:
        return (await beats(world, second))[0]

    began = await until(first_beat)
    assert began is not None

    async def next_beat() -> bool:
        now, tries = await beats(world, second)
        assert tries == 0, "to wait is no try"
        return now is not None and now > began

    await until(next_beat)
    assert [request.last_user_text for request in world.gemini.model_calls()] == ["the first"]
    await world.runner.cancel(first)
    assert (await one).status == "cancelled"
    assert (await two).status == "answered"
    assert [request.last_user_text for request in world.gemini.model_calls()] == ["the first", "the second"]


# Others.


async def test_a_turn_of_hundreds_of_calls_holds_nobody_up(sqlite_world: World) -> None:
    world = sqlite_world
    busy = world.key("crowded")
    many = 2 * (world.settings.max_concurrent_model_calls + world.settings.max_concurrent_tools) + 44
    calls = [call("wait_in_crowd", label=str(n)) for n in range(many)]
    world.gemini.script([*calls, call("add", name="n")], say("all done"), contains="everything")
    turn = asyncio.create_task(world.runner.ask(busy, "do everything"))
    await crowd.held()
    for n in range(3):
        world.gemini.script(call("add", name="n"), say("quick"), contains=f"quick {n}")
        answer = await world.runner.ask(world.key("tester"), f"quick {n}")
        assert answer.text == "quick"

    async def as_many_as_may() -> bool:
        return len(crowd.calls) == MOST_AT_ONCE

    await until(as_many_as_may)
    assert not turn.done()
    crowd.open.set()
    assert (await asyncio.wait_for(turn, 120)).text == "all done"
    assert sorted(crowd.calls, key=int) == [str(n) for n in range(many)], "each once"


async def test_a_session_with_a_full_inbox_holds_nobody_up(sqlite_world: World) -> None:
    world = sqlite_world
    busy = world.key("tester")
    turn = await held(world, busy, "m0")
    for n in range(100):
        await world.runner.message(busy, f"number {n}")
    for _ in range(3):
        await goes_on(world, world.key("tester"))
    assert not turn.done()
    gate.open.set()
    await turn
    await world.runner.delete(busy)
