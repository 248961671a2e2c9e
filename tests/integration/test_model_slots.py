"""A worker's limits on concurrent calls: what finds no room waits, is not lost, and holds up nothing else."""

from __future__ import annotations

import asyncio

from embedded.temporal import TemporalServer
from perdure import Agent, Compaction
from perdure.settings import Settings
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS, add, gate, wait_at_gate
from tests.integration.harness import PATIENCE, World, open_world, until

SUMMED = Agent(name="summed", compaction=Compaction(interval=1))
PATIENT = Agent(name="patient", tools=[wait_at_gate, add])
TWO = Settings(_env_file=None, max_concurrent_model_calls=2)
FEW = Settings(_env_file=None, max_concurrent_model_calls=2, max_concurrent_tools=1)


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

        watching = asyncio.create_task(world.gemini.wait(look, "all of them to be answered", PATIENCE))
        world.gemini.hang(times=2)
        turns = [asyncio.create_task(world.runner.ask(key, "hello", message_id="m1")) for key in keys]

        async def more_begun() -> bool:
            return len(await begun(world, keys)) > 2 and len(world.gemini.in_flight) == 2

        await until(more_begun)
        assert len(world.gemini.requests) == 2, "the others wait"
        world.gemini.slow(0.2, times=3)
        world.gemini.release()
        answers = await asyncio.gather(*turns)
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


async def begun(world: World, keys: list[SessionKey]) -> list[SessionKey]:
    """Those whose turn has got as far as a worker."""
    return [key for key in keys if await world.store.event(key, "m1:user") is not None]


async def test_models_that_hang_hold_up_no_cancel_no_rewind_and_no_tool(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(temporal.address, sqlite_store, [PATIENT], settings=FEW) as world:
        gate.reset()
        calm, past = world.key("patient"), world.key("patient")
        assert (await world.runner.ask(past, "hello", message_id="m1")).status == "answered"
        world.gemini.script([call("wait_at_gate", label="calm"), call("add", name="n")], say("calm"))
        calm_turn = asyncio.create_task(world.runner.ask(calm, "hold", message_id="m1"))
        await gate.held()
        world.gemini.hang(contains="poison", times=40)
        poison = [world.key("patient") for _ in range(20)]
        turns = {
            key: asyncio.create_task(world.runner.ask(key, f"poison {key.session_id}", message_id="m1"))
            for key in poison
        }

        async def as_many_as_may() -> list[SessionKey]:
            found = await begun(world, poison)
            return found if len(world.gemini.in_flight) == 2 and len(found) >= 4 else []

        first, *_, last = await until(as_many_as_may)
        async with asyncio.timeout(PATIENCE):
            gate.open.set()

            async def added() -> bool:
                return await world.store.event(calm, "m1:t1.1") is not None

            await until(added)
            await world.runner.rewind(past, "m1")
            await world.runner.end(past)
            for key in (first, last):
                await world.runner.cancel(key)
                assert (await turns.pop(key)).status == "cancelled"
        assert not any(turn.done() for turn in turns.values())
        hung = {request.last_user_text for request in world.gemini.model_calls()}
        world.gemini.clear()
        world.gemini.script(say("calm"), contains="hold")
        world.gemini.release()
        assert {answer.status for answer in await asyncio.gather(*turns.values())} == {"answered"}
        assert (await calm_turn).status == "answered"
        asked = [request.last_user_text for request in world.gemini.model_calls()]
        said = [text for text in asked if text.startswith("poison") and text not in hung]
        assert said
        assert len(said) == len(set(said)), "what waited for room was asked once"


async def test_tools_that_hang_hold_up_no_other_turn(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(temporal.address, sqlite_store, [PATIENT], settings=FEW) as world:
        gate.reset()
        poison = [world.key("patient") for _ in range(12)]
        world.gemini.script(
            *[call("wait_at_gate", label=str(n)) for n in range(len(poison))], contains="poison"
        )
        turns = {key: asyncio.create_task(world.runner.ask(key, "poison", message_id="m1")) for key in poison}

        async def all_called() -> bool:
            answers = [await world.store.event(key, "m1:m1") for key in poison]
            return all(answer is not None for answer in answers)

        await until(all_called)
        async with asyncio.timeout(PATIENCE):
            answer = await world.runner.ask(world.key("patient"), "hello")
            assert answer.status == "answered"
            await world.runner.cancel(poison[0])
            assert (await turns.pop(poison[0])).status == "cancelled"
        assert len(gate.calls) <= 2, "one at a time"
        gate.open.set()
        assert {answer.status for answer in await asyncio.gather(*turns.values())} == {"answered"}
        assert sorted(gate.calls) == sorted(set(gate.calls)), "what waited for room was tried once"
