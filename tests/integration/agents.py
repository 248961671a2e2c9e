"""Agents that misbehave, for tests."""

from __future__ import annotations

import asyncio

from perdure import Agent, Limits, ToolContext, tool
from tests.integration.patience import PATIENCE

__all__ = ["AGENTS", "Gate", "gate"]


class Gate:
    """Lets a test hold a tool, and see that it is held."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.calls: list[str] = []

    async def held(self) -> None:
        """Until a tool waits here."""
        await asyncio.wait_for(self.entered.wait(), PATIENCE)

    def reset(self) -> None:
        """As new."""
        self.__init__()  # type: ignore[misc]  # a fresh start is the constructor's


gate = Gate()


@tool
def explode(reason: str) -> str:
    """Raise an error.

    Args:
        reason: what to say.
    """
    raise RuntimeError(reason)


@tool
def big(size: int) -> str:
    """Return a long text.

    Args:
        size: how many characters.
    """
    return "x" * size


@tool
def add(name: str, context: ToolContext) -> int:
    """Add one to a number in the state.

    Args:
        name: which.
    """
    value = int(context.state.get(name, 0)) + 1
    context.state[name] = value
    return value


@tool(parallel=True)
async def add_parallel(name: str, context: ToolContext) -> int:
    """Add one to a number in the state, beside other calls.

    Args:
        name: which.
    """
    value = int(context.state.get(name, 0)) + 1
    await asyncio.sleep(0.02)
    context.state[name] = value
    return value


@tool
async def wait_at_gate(label: str, context: ToolContext) -> str:
    """Set a key, then wait until the test lets it go on.

    Args:
        label: what to write down.
    """
    context.state["label"] = label
    gate.calls.append(label)
    gate.entered.set()
    await gate.open.wait()
    return label


@tool
def save(name: str, text: str, context: ToolContext) -> int:
    """Save a file.

    Args:
        name: its name.
        text: what is in it.
    """
    return context.blocking.save_artifact(name, text)


@tool
def not_json() -> object:
    """Return what JSON cannot hold."""
    return {"when": object()}


_flaky_calls: list[str] = []


@tool(retries=2)
def flaky(label: str) -> str:
    """Fail twice, then work.

    Args:
        label: tells one test from another.
    """
    _flaky_calls.append(label)
    if _flaky_calls.count(label) < 3:
        raise ConnectionError("not yet")
    return "worked"


@tool(timeout=0.3)
async def slow() -> str:
    """Take longer than it may."""
    await asyncio.sleep(30)
    return "never"


AGENTS = [
    Agent(
        name="tester",
        instruction="Do what you are told. Mood: {mood?}.",
        tools=[explode, big, add, add_parallel, wait_at_gate, save, not_json, flaky, slow],
        limits=Limits(steps=6, model_attempts=3),
    ),
    Agent(name="needy", instruction="Speak to {name}."),
]
