"""A prompt that the model refuses for its length: summed up where the agent lets it, and tried once more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from embedded.temporal import TemporalServer
from gateway.runner import Answer
from perdure import Agent, Compaction, Limits
from perdure.settings import Settings
from perdure.testing import call, say
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from tests.integration.agents import gate, wait_at_gate
from tests.integration.harness import World, open_world, until

SAID = "The input token count (1234567) exceeds the maximum number of tokens allowed (1048576)."
SUMMED = "Summary of the conversation so far:\n"

AGENTS = [
    Agent(name="seldom", tools=[wait_at_gate], compaction=Compaction(interval=100, overlap=2)),
    Agent(name="hasty", compaction=Compaction(interval=100), limits=Limits(model_attempts=1)),
    Agent(name="each", compaction=Compaction(interval=1)),
]


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, store, AGENTS) as opened:
        yield opened


@pytest_asyncio.fixture
async def uncached(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    """Its worker remembers nothing."""
    settings = Settings(_env_file=None, context_cache=0)
    async with open_world(temporal.address, sqlite_store, AGENTS, settings=settings) as opened:
        yield opened


def prompts(world: World) -> list[list[str]]:
    """What was said in each prompt."""
    return [
        [part["text"] for content in request.contents for part in content["parts"] if "text" in part]
        for request in world.gemini.model_calls()
    ]


async def talked(world: World, key: SessionKey, turns: int = 3) -> None:
    for number in range(1, turns + 1):
        world.gemini.script(say(f"answer {number}"))
        assert (await world.runner.ask(key, f"number {number}", message_id=f"m{number}")).status == "answered"


async def summaries(world: World, key: SessionKey) -> list[Event]:
    return [event for event in (await world.session(key)).events if event.compaction]


def failed(answer: Answer) -> str:
    """The message of a turn that failed by the prompt's length."""
    assert answer.status == "failed"
    assert answer.failure is not None
    assert answer.failure.type == "PromptTooLong"
    return answer.failure.message


async def shortens(world: World) -> None:
    key = world.key("seldom")
    await talked(world, key)
    world.gemini.fail(400, SAID)
    world.gemini.script(say("It was numbers."), kind="summarise")
    world.gemini.script(say("as you say"))
    answer = await world.runner.ask(key, "number 4", message_id="m4")
    assert (answer.status, answer.text) == ("answered", "as you say")
    [summary] = await summaries(world, key)
    assert summary.compaction == {"start": 1, "end": 6, "tail": 7}, "the overlap too"
    before, after = prompts(world)[-2:]
    assert len(before) == 7
    assert after == [f"{SUMMED}It was numbers.", "number 4"]
    ids = [event.id for event in await world.log(key)]
    assert ids[6:] == ["m4:user", "m4:shortened", "m4:m1"]
    world.gemini.script(say("so be it"))
    await world.runner.ask(key, "number 5")
    assert prompts(world)[-1] == [*after, "as you say", "number 5"], "and from then on it is short"


async def test_what_came_before_is_summed_up_and_the_model_asked_again(world: World) -> None:
    await shortens(world)


async def test_and_so_without_the_workers_memory(uncached: World) -> None:
    await shortens(uncached)


async def test_it_is_no_try_of_the_model(world: World) -> None:
    key = world.key("hasty")
    await talked(world, key)
    world.gemini.fail(400, SAID)
    assert (await world.runner.ask(key, "number 4")).status == "answered"


async def test_the_running_turn_stays_as_it_is(world: World) -> None:
    key = world.key("seldom")
    await talked(world, key)
    gate.reset()
    world.gemini.script(call("wait_at_gate", label="held"), say("went through"))
    turn = asyncio.create_task(world.runner.ask(key, "hold", message_id="m4"))
    await gate.held()
    world.gemini.fail(400, SAID, kind="generate")
    gate.open.set()
    assert (await turn).text == "went through"
    [summary] = await summaries(world, key)
    assert summary.compaction == {"start": 1, "end": 6, "tail": 7}
    contents = world.gemini.model_calls()[-1].contents
    assert [next(iter(content["parts"][0])) for content in contents] == [
        "text",
        "text",
        "functionCall",
        "functionResponse",
    ]
    assert gate.calls == ["held"]


async def test_it_is_done_once_a_turn(world: World) -> None:
    key = world.key("seldom")
    await talked(world, key)
    world.gemini.fail(400, SAID, kind="generate", times=2)
    message = failed(await world.runner.ask(key, "number 4", message_id="m4"))
    assert "1048576" in message
    assert "what came before turn m4 has been summed up; rewind m4" in message
    assert len(world.gemini.model_calls("summarise")) == 1
    assert len(prompts(world)) == 5
    await world.runner.rewind(key, "m4")
    world.gemini.script(say("back again"))
    assert (await world.runner.ask(key, "are you there?")).text == "back again"
    assert prompts(world)[-1][0] == "number 1", "rewound with its turn"


async def test_once_a_turn_whichever_attempt_does_it(world: World) -> None:
    key = world.key("seldom")
    await talked(world, key)
    world.gemini.fail(400, SAID, kind="generate")
    world.gemini.fail(503, kind="generate", retry_after=0)
    world.gemini.fail(400, SAID, kind="generate")
    assert "has been summed up" in failed(await world.runner.ask(key, "number 4"))
    assert len(world.gemini.model_calls("summarise")) == 1


async def test_nothing_to_sum_up(world: World) -> None:
    key = world.key("seldom")
    world.gemini.fail(400, SAID)
    message = failed(await world.runner.ask(key, "a book", message_id="m1"))
    assert "nothing before turn m1 can be summed up; rewind m1" in message
    assert not world.gemini.model_calls("summarise")
    world.gemini.script(say("still here"))
    assert (await world.runner.ask(key, "are you there?")).text == "still here"


async def test_a_summariser_that_fails(world: World) -> None:
    key = world.key("seldom")
    await talked(world, key)
    world.gemini.fail(400, SAID, kind="generate")
    world.gemini.fail(400, "SECRET words", kind="summarise")
    message = failed(await world.runner.ask(key, "number 4", message_id="m4"))
    assert "could not be summed up: model gemini-3-flash-preview: HTTP 400" in message
    assert "SECRET" not in message
    assert not await summaries(world, key)


async def test_a_summariser_that_is_away_is_waited_for(world: World) -> None:
    key = world.key("seldom")
    await talked(world, key)
    world.gemini.fail(400, SAID, kind="generate", times=2)
    world.gemini.fail(503, kind="summarise", retry_after=0)
    world.gemini.script(say("as you say"))
    assert (await world.runner.ask(key, "number 4")).text == "as you say"
    assert len(await summaries(world, key)) == 1


async def test_a_cancel_meanwhile(world: World) -> None:
    key = world.key("seldom")
    await talked(world, key)
    world.gemini.fail(400, SAID, kind="generate")
    world.gemini.hang(kind="summarise")
    turn = asyncio.create_task(world.runner.ask(key, "number 4", message_id="m4"))
    await world.gemini.wait_for_requests(1, kind="summarise")
    await world.runner.cancel(key)
    assert (await turn).status == "cancelled"
    assert not await summaries(world, key)
    world.gemini.clear()
    world.gemini.script(say("still here"))
    assert (await world.runner.ask(key, "are you there?")).text == "still here"


async def test_a_compaction_behind_the_reply_before_may_be_faster(world: World) -> None:
    key = world.key("each")
    world.gemini.hang(kind="summarise", times=2)
    world.gemini.script(say("one"), say("two"))
    await world.runner.ask(key, "number 1", message_id="m1")
    await world.gemini.wait_for_requests(1, kind="summarise")
    world.gemini.fail(400, SAID, kind="generate")
    turn = asyncio.create_task(world.runner.ask(key, "number 2", message_id="m2"))
    behind, _ = await world.gemini.wait_for_requests(2, kind="summarise")
    world.gemini.release()
    assert (await turn).text == "two"

    async def settled() -> bool:
        return not (await world.runner.status(key)).compacting

    await until(settled)
    found = await summaries(world, key)
    assert len([one for one in found if one.compaction and one.compaction["end"] == 2]) == 1
    assert prompts(world)[-1][1:] == ["number 2"]
    assert behind.number < world.gemini.model_calls()[-1].number
