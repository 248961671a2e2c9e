"""A worker's limit on concurrent calls of the model: what finds no room waits, and is not lost."""

from __future__ import annotations

import asyncio

from embedded.temporal import TemporalServer
from perdure import Agent, Compaction
from perdure.settings import Settings
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS
from tests.integration.harness import open_world, until

SUMMED = Agent(name="summed", compaction=Compaction(interval=1))
TWO = Settings(_env_file=None, max_concurrent_model_calls=2)


async def test_no_more_calls_run_at_once_than_allowed_and_all_get_their_turn(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(temporal.address, sqlite_store, AGENTS, settings=TWO) as world:
        keys = [world.key("tester") for _ in range(5)]
        peak = 0

        def look() -> bool:
            nonlocal peak
            peak = max(peak, len(world.gemini.in_flight))
            return len(world.gemini.requests) == 5 and not world.gemini.in_flight

        watching = asyncio.create_task(world.gemini.wait(look, "all of them to be answered"))
        world.gemini.slow(0.2, times=5)
        answers = await asyncio.gather(*(world.runner.ask(key, "hello") for key in keys))
        await watching
        assert {answer.status for answer in answers} == {"answered"}
        assert peak == 2


async def test_a_summary_takes_a_place_of_the_same_limit(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    one = TWO.model_copy(update={"max_concurrent_model_calls": 1})
    async with open_world(temporal.address, sqlite_store, [SUMMED], settings=one) as world:
        first, second = world.key("summed"), world.key("summed")
        world.gemini.hang(kind="summarise")
        await world.runner.ask(first, "hello")
        await world.gemini.wait_in_flight()
        turn = asyncio.create_task(world.runner.ask(second, "hello", message_id="m1"))

        async def begun() -> bool:
            return await world.store.event(second, "m1:user") is not None

        await until(begun)
        assert len(world.gemini.in_flight) == 1
        assert len(world.gemini.model_calls()) == 1, "the turn waits for the summary"
        world.gemini.release()
        assert (await turn).status == "answered"
