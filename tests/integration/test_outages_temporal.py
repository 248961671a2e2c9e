"""The Temporal server is killed, or loses all its data: what was said goes on from the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from gateway.runner import Answer
from perdure.errors import SessionNotFound, TemporalUnavailable
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.outages import AGENTS, PATIENCE, Talk, gate


async def lose_all(server: TemporalServer) -> None:
    """It is killed, its data is deleted, and it starts empty."""
    await server.kill()
    for path in server.data.glob("temporal.db*"):
        path.unlink()
    await server.start()


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    async with TemporalServer(tmp_path_factory.mktemp("temporal")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", params=["sqlite", "postgres"])
async def world(
    request: pytest.FixtureRequest,
    server: TemporalServer,
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("outages")
    url = f"sqlite:///{folder / 'p.db'}"
    if request.param == "postgres":
        url = await postgres.create_database("outages_temporal")
    store = await SessionStore.open(url, f"file://{folder}", migrate=True)
    async with open_world(server.address, store, AGENTS) as world:
        yield world
    await store.close()


async def settled(talk: Talk, turn: asyncio.Task[Answer], message_id: str) -> Answer:
    """The answer to a message whose caller sends it again for as long as it is cut off."""
    while True:
        try:
            return await turn
        except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError, TemporalUnavailable, SessionNotFound):
            await asyncio.sleep(0.1)
            turn = talk.again(message_id)


async def test_s59_temporal_is_killed_in_the_middle_of_turns(world: World, server: TemporalServer) -> None:
    """In a model call, in a tool, and with messages that wait: sent by callers that wait, and that do not."""
    asking, held = Talk(world), Talk(world)
    world.gemini.hang(contains=asking.mark)
    turns = {(asking, "m1"): asking.ask("m1", "work"), (held, "m1"): held.ask("m1", "hold")}
    await held.held()
    await world.gemini.wait(lambda: len(asking.asked()) == 1, "the model to be asked", PATIENCE)
    held.script("m2", "work")
    await world.runner.message(held.key, held.says("m2"), message_id="m2")
    held.script("m3")
    turns[held, "m3"] = held.again("m3")

    async def queued() -> bool:
        return (await world.runner.status(held.key)).queued == 2

    await until(queued)
    await server.kill()
    world.gemini.release()
    held.let_go()
    await world.gemini.wait(lambda: asking.asked()[0].answered, "the answer", PATIENCE)
    await server.start()
    answers = await asyncio.gather(*(settled(talk, turn, name) for (talk, name), turn in turns.items()))
    assert [answer.status for answer in answers] == ["answered"] * 3
    await asking.exact("m1:1", models=2, tries=1, n=1)
    await held.exact("m1:1", "m2:1", "m3", models=5, tries=2, n=2)


async def test_s60_temporal_loses_all_its_data(world: World, server: TemporalServer) -> None:
    """Idle sessions, a model call, a tool, queued messages: callers send again what got no answer."""
    idle, asking, held = (Talk(world) for _ in range(3))
    await idle.ask("m1", "work")
    epoch = (await world.store.get(idle.key)).epoch
    world.gemini.hang(contains=asking.mark)
    turns = {asking: asking.ask("m1", "work"), held: held.ask("m1", "hold")}
    await held.held()
    await world.gemini.wait(lambda: len(asking.asked()) == 1, "the model to be asked", PATIENCE)
    for message_id in ("m2", "m3"):
        held.script(message_id, "work")
        await world.runner.message(held.key, held.says(message_id), message_id=message_id)

    async def queued() -> bool:
        return (await world.runner.status(held.key)).queued == 2

    await until(queued)
    await lose_all(server)
    # A conversation that nothing of Temporal remembers goes on.
    assert (await settled(idle, idle.ask("m2", "work"), "m2")).status == "answered"
    await idle.exact("m1:1", "m2:1", models=4, tries=2, n=2)
    assert (await world.store.get(idle.key)).epoch > epoch, "nothing left over from the old run can write"
    # What was under way, or waited, goes on when it is sent again. The call of the model that was lost is
    # given up by then; else its answer could be used up, and come too late to be written.
    await world.gemini.wait(lambda: not asking.asked()[0].in_flight, "the lost call to be given up", PATIENCE)
    held.let_go()
    for talk, turn in turns.items():
        assert (await settled(talk, turn, "m1")).status == "answered"
    for message_id in ("m2", "m3"):
        assert (await held.again(message_id)).status == "answered"
    await asking.exact("m1:1", models=3, n=1)  # one of them was paid for in vain
    await held.exact("m1:1", "m2:1", "m3:1", models=6, n=3)
    assert len(set(gate.tries[held.mark])) == 3, "one idempotency key a call"


async def test_s60_a_turn_that_was_lost_and_overtaken_is_over(world: World, server: TemporalServer) -> None:
    """It cannot answer into the midst of what has been said since; who sends it again is told so."""
    talk = Talk(world)
    talk.script("m1", "hold")
    await world.runner.message(talk.key, talk.says("m1"), message_id="m1")
    await talk.held()
    await lose_all(server)
    assert (await settled(talk, talk.ask("m2"), "m2")).text == f"answer {talk.says('m2')}"
    talk.let_go()
    again = await talk.again("m1")
    assert (again.status, again.failure) == ("cancelled", None)
    assert await talk.ids() == ["m1:user", "m1:m1", "m2:user", "m2:m1", "m1:end"]
    assert await talk.again("m1") == again
    await talk.goes_on("m3")
    assert len(talk.asked()) == 3
    assert (await world.store.get(talk.key)).state == {}
