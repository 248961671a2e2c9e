"""The sessions that are recorded of agents that ask one another, that hand over, and that answer in JSON."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from perdure import Agent, Budget
from perdure.testing import call, say
from perdure.waiting import sleep_for, wait_for_event
from tests.histories.play import Play
from tests.integration.harness import until

__all__ = ["BOSS", "DESK", "MENDER", "asked", "awaited", "awaiting", "child", "handed_over", "mended"]


class City(BaseModel):
    """What is to be answered."""

    name: str
    people: int


BOSS = Agent(
    name="boss",
    tools=[
        Agent(name="helper", description="Helps."),
        Agent(name="careful", tools=[sleep_for, wait_for_event]),
    ],
)
DESK = Agent(name="desk", sub_agents=[Agent(name="billing", description="Knows of invoices.")])
MENDER = Agent(name="mender", output_schema=City, budget=Budget(steps=4, money=1.0))


async def asked(play: Play) -> None:
    """Two agents asked at once; one that is cancelled while it answers; and a rewind of them all."""
    gemini = play.world.gemini
    gemini.script([call("helper", request="one"), call("helper", request="two")], contains="ask both")
    gemini.script(say("the first"), contains="one")
    gemini.script(say("the second"), contains="two")
    gemini.script(say("both"), contains="ask both")
    await play.ask("ask both", "m1")
    gemini.script(call("helper", request="slow"), contains="ask again")
    gemini.hang(contains="slow")
    turn = asyncio.create_task(play.ask("ask again", "m2"))
    await gemini.wait(lambda: len(gemini.in_flight) == 1, "the agent's model to be asked", 30)
    await play.world.runner.cancel(play.key)
    await turn
    await play.world.runner.rewind(play.key, "m1")


async def child(play: Play) -> None:
    """The session of an agent that was asked."""
    gemini = play.world.gemini
    gemini.script(call("helper", request="one"), contains="ask one")
    gemini.script(say("the first"), contains="one")
    gemini.script(say("done"), contains="ask one")
    await play.ask("ask one", "m1")
    [only] = await play.world.store.children(play.key)
    play.workflow_id = only.key.workflow_id


async def awaited(play: Play) -> None:
    """Agents that wait, and who asked them with them: one goes on and one is cancelled, by an end."""
    gemini = play.world.gemini
    for name in ("one", "two"):
        gemini.script(call("wait_for_event", name=name), say(name), contains=f"wait for {name}")
    for n, message in enumerate(("ask one", "ask two"), start=1):
        gemini.script(call("careful", request=f"wait for {message[4:]}"), say("done"), contains=message)
        assert await play.ask(message, f"m{n}") == "waiting"
        if n == 1:
            await _one_goes_on(play)
    await play.world.runner.end(play.key, request_id="e1")
    await play.closed()


async def awaiting(play: Play) -> None:
    """The session of an agent that waits twice, for an event and then for its time, in two runs."""
    gemini = play.world.gemini
    steps = call("wait_for_event", name="one"), call("sleep_for", seconds=0.5), say("one")
    gemini.script(*steps, contains="wait for one")
    gemini.script(call("careful", request="wait for one"), say("done"), contains="ask one")
    assert await play.ask("ask one", "m1") == "waiting"
    [only] = await play.world.store.children(play.key)
    for number in range(25):
        await play.world.runner.notify(only.key, f"early-{number}", notification_id=f"n{number}")
    await _one_goes_on(play)
    play.workflow_id = only.key.workflow_id


async def _one_goes_on(play: Play) -> None:
    only = (await play.world.store.children(play.key))[0]
    await play.world.runner.notify(only.key, "one", notification_id="one")

    async def over() -> bool:
        return not (await play.world.runner.status(play.key)).agents

    await until(over)
    assert await play.ask("ask one", "m1") == "answered"


async def handed_over(play: Play) -> None:
    """A conversation that another agent goes on with, in this turn and in the next."""
    gemini = play.world.gemini
    gemini.script(call("transfer_to_agent", agent_name="billing"), say("It is billing."), say("Still."))
    await play.ask("an invoice", "m1")
    await play.ask("another", "m2")


async def mended(play: Play) -> None:
    """An answer that is mended, one that cannot be, and a turn for which the budget has nothing left."""
    good, bad = '{"name": "Ulm", "people": 126000}', '{"name": "Ulm"}'
    play.world.gemini.script(say(bad), say(good), say(bad), say("Ulm"))
    statuses = [await play.ask("which city?", message_id) for message_id in ("m1", "m2", "m3")]
    assert statuses == ["answered", "failed", "failed"]
