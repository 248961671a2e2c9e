"""The sessions that are recorded of agents that ask one another, and that hand over."""

from __future__ import annotations

import asyncio

from perdure import Agent
from perdure.testing import call, say
from tests.histories.play import Play

__all__ = ["BOSS", "DESK", "asked", "child", "handed_over"]

BOSS = Agent(name="boss", tools=[Agent(name="helper", description="Helps.")])
DESK = Agent(name="desk", sub_agents=[Agent(name="billing", description="Knows of invoices.")])


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
