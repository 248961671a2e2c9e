"""Agents that hand a conversation over to one another, inside one session."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from embedded.temporal import TemporalServer
from perdure import Agent, Budget, Limits, tool
from perdure.errors import InvalidAgent
from perdure.testing import call, say
from perdure.transfer import ACTING
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world


@tool
def refund(amount: int) -> str:
    """Give money back.

    Args:
        amount: how much.
    """
    return f"refunded {amount}"


expert = Agent(name="expert", description="Answers anything.")
billing = Agent(
    name="billing",
    model="gemini-3-pro-preview",
    instruction="You are billing.",
    description="Knows of money.",
    tools=[refund],
)
support = Agent(name="support", instruction="You are support.", tools=[expert], sub_agents=[])
desk = Agent(
    name="desk",
    instruction="You are the desk.",
    sub_agents=[billing, support],
    limits=Limits(steps=5),
    budget=Budget(steps=100),
)


@pytest_asyncio.fixture(scope="module")
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, [desk]) as opened:
        yield opened


async def test_the_other_agent_goes_on_and_the_next_turn_is_its_own(world: World) -> None:
    key = world.key("desk")
    world.gemini.script(
        call("transfer_to_agent", agent_name="billing"),
        call("refund", amount=5),
        say("Refunded."),
        contains="a1",
    )
    assert (await world.runner.ask(key, "my money, a1", message_id="m1")).text == "Refunded."
    events = (await world.session(key)).events
    assert [event.author for event in events] == ["user", "desk", "desk", "billing", "billing", "billing"]
    first, second = [each for each in world.gemini.model_calls() if "a1" in each.last_user_text][:2]
    assert "You are the desk." in first.system
    assert "- billing: Knows of money." in first.system
    assert "You are billing." in second.system
    assert "- desk" in second.system
    assert (first.model, second.model) == (desk.model, billing.model)
    assert first.tools == ["transfer_to_agent", "read_artifact"]
    assert second.tools == ["refund", "transfer_to_agent", "read_artifact"]
    world.gemini.script(say("Billing still."), contains="a2")
    await world.runner.ask(key, "and now, a2", message_id="m2")
    assert (await world.session(key)).events[-1].author == "billing"


async def test_a_rewind_brings_back_the_agent_before(world: World) -> None:
    key = world.key("desk")
    world.gemini.script(call("transfer_to_agent", agent_name="support"), say("Here."), contains="b1")
    await world.runner.ask(key, "help, b1", message_id="m1")
    assert (await world.session(key)).state == {ACTING: "support"}
    await world.runner.rewind(key, "m1", request_id="r1")
    world.gemini.script(say("The desk."), contains="b2")
    await world.runner.ask(key, "hello, b2", message_id="m2")
    assert (await world.session(key)).events[-1].author == "desk"
    await world.runner.rewind(key, "r1", request_id="r2")
    world.gemini.script(say("Support."), contains="b3")
    await world.runner.ask(key, "hello, b3", message_id="m3")
    assert (await world.session(key)).events[-1].author == "support"


async def test_an_unknown_agent_is_an_error_that_the_model_sees(world: World) -> None:
    key = world.key("desk")
    world.gemini.script(call("transfer_to_agent", agent_name="nobody"), say("I stay."), contains="c1")
    await world.runner.ask(key, "c1")
    events = (await world.session(key)).events
    assert "error" in str(events[2].content)
    assert events[-1].author == "desk"


async def test_a_member_of_the_team_may_have_agents_as_tools(world: World) -> None:
    key = world.key("desk")
    world.gemini.script(
        call("transfer_to_agent", agent_name="support"),
        call("expert", request="why d1"),
        say("So."),
        contains="d2",
    )
    world.gemini.script(say("Because."), contains="why d1")
    assert (await world.runner.ask(key, "d2")).text == "So."
    assert "Because." in str((await world.session(key)).events[4].content)


def test_a_team_that_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(InvalidAgent, match="two agents named 'billing'"):
        Agent(name="x", sub_agents=[billing, Agent(name="y", sub_agents=[billing])])
    with pytest.raises(InvalidAgent, match="two agents named 'x'"):
        Agent(name="x", sub_agents=[Agent(name="x")])
    with pytest.raises(InvalidAgent, match="list of agents"):
        Agent(name="x", sub_agents=[refund])  # type: ignore[list-item]
    other = Agent(name="expert", instruction="Another.")
    with pytest.raises(InvalidAgent, match="is two different agents"):
        Agent(name="x", tools=[other], sub_agents=[support])
