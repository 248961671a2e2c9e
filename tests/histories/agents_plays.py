"""The sessions that are recorded of agents that ask one another, that hand over, and that answer in JSON."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from perdure import Agent, Budget
from perdure.testing import call, say
from tests.histories.play import Play

__all__ = ["BOSS", "DESK", "MENDER", "asked", "child", "handed_over", "mended"]


class City(BaseModel):
    """What is to be answered."""

    name: str
    people: int


BOSS = Agent(name="boss", tools=[Agent(name="helper", description="Helps.")])
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
