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
clerk = Agent(name="clerk", instruction="You are the clerk.")
closed = Agent(
    name="closed",
    instruction="You are closed.",
    sub_agents=[clerk],
    disallow_transfer_to_parent=True,
    disallow_transfer_to_peers=True,
)
alone = Agent(
    name="alone",
    instruction="You are alone.",
    disallow_transfer_to_parent=True,
    disallow_transfer_to_peers=True,
)
desk = Agent(
    name="desk",
    instruction="You are the desk.",
    sub_agents=[billing, support, closed, alone],
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


async def test_one_that_may_not_hand_back_has_its_turn_and_no_more(world: World) -> None:
    key = world.key("desk")
    world.gemini.script(
        call("transfer_to_agent", agent_name="closed"),
        call("transfer_to_agent", agent_name="desk"),
        call("transfer_to_agent", agent_name="clerk"),
        say("The clerk."),
        contains="e1",
    )
    await world.runner.ask(key, "to the clerk, e1", message_id="m1")
    assert [event.author for event in (await world.session(key)).events][-1] == "clerk"
    asked = [each for each in world.gemini.model_calls() if "e1" in each.last_user_text]
    assert "- clerk" in asked[1].system
    assert not any(f"- {name}" in asked[1].system for name in ("desk", "billing", "support", "alone"))
    assert "error" in str((await world.session(key)).events[4].content), "there is no way up"
    for number in (2, 3):
        world.gemini.script(say("The desk."), contains=f"e{number}")
        await world.runner.ask(key, f"hello, e{number}", message_id=f"m{number}")
        session = await world.session(key)
        assert (session.events[-1].author, session.state) == ("desk", {})
    await world.runner.rewind(key, "m2", request_id="r1")
    assert (await world.session(key)).state == {ACTING: "clerk"}


async def test_one_that_may_hand_over_to_nobody_is_not_told_how(world: World) -> None:
    key = world.key("desk")
    world.gemini.script(call("transfer_to_agent", agent_name="alone"), say("Alone."), contains="f1")
    await world.runner.ask(key, "f1")
    last = [each for each in world.gemini.model_calls() if "f1" in each.last_user_text][-1]
    assert (last.system, last.tools) == ("You are alone.", [])


async def test_a_team_that_hands_over_for_ever_ends_at_its_limit(world: World) -> None:
    key = world.key("desk")
    names = ["billing", "desk", "support", "billing", "desk", "support"]
    world.gemini.script(*[call("transfer_to_agent", agent_name=name) for name in names], contains="g1")
    answer = await world.runner.ask(key, "g1")
    assert answer.failure is not None
    assert answer.failure.type == "LimitExceeded"
    world.gemini.clear()
    world.gemini.script(say("Still here."), contains="g2")
    assert (await world.runner.ask(key, "g2")).text == "Still here."


async def test_an_agent_that_was_taken_away_is_replaced_by_the_first(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(temporal.address, sqlite_store, [desk]) as before:
        key = before.key("desk")
        before.gemini.script(call("transfer_to_agent", agent_name="billing"), say("Billing."))
        await before.runner.ask(key, "hello", message_id="m1")
        queue = before.settings.task_queue
    smaller = Agent(name="desk", instruction="You are the desk.", sub_agents=[support])
    async with open_world(temporal.address, sqlite_store, [smaller], queue=queue) as after:
        after.gemini.script(call("transfer_to_agent", agent_name="billing"), say("The desk."))
        await after.runner.ask(key, "hello again", message_id="m2")
        session = await after.session(key)
        assert [event.author for event in session.events][-3:] == ["desk", "desk", "desk"]
        assert session.state == {}


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
