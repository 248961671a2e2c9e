"""Agents for workers that get killed. Each try of a tool leaves a line in a file, to be counted."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from perdure import Agent, Compaction, ToolContext, tool

__all__ = ["AGENTS"]


@tool
async def work(path: str, context: ToolContext) -> dict[str, int]:
    """Work: change the state and save a file.

    Args:
        path: where to note this try.
    """
    _note(path, context)
    return await _worked(context)


@tool
def hold(path: str, context: ToolContext) -> dict[str, int]:
    """Hold: do the same, but the first try never comes to its end.

    Args:
        path: where to note this try.
    """
    if _note(path, context) == 1:
        threading.Event().wait()
    n = _count(context)
    return {"n": n, "version": context.blocking.save_artifact("work.txt", f"worked {n}")}


@tool
async def linger(path: str, context: ToolContext) -> None:
    """Linger: no try ever comes to its end.

    Args:
        path: where to note this try.
    """
    _note(path, context)
    await asyncio.Event().wait()


@tool
async def strive(path: str, context: ToolContext) -> dict[str, int]:
    """Strive: do the same as work, but no later try ever comes to its end.

    Args:
        path: where to note this try.
    """
    if _note(path, context) > 1:
        await asyncio.Event().wait()
    return await _worked(context)


@tool
def fill(path: str, context: ToolContext) -> str:
    """Fill: return more than a prompt holds.

    Args:
        path: where to note this try.
    """
    return f"try {_note(path, context)} " * 10_000


@tool(parallel=True)
async def juggle(path: str, context: ToolContext) -> str:
    """Juggle: change the state, save a file, or neither, as the path ends.

    Args:
        path: where to note this try.
    """
    _note(path, context)
    kind = Path(path).suffix
    if kind == ".state":
        _count(context)
        context.state["user:n"] = 1
    elif kind == ".file":
        await context.save_artifact("juggled.txt", "a ball")
    return f"juggled {kind}"


@tool(confirm=True, long_running=True)
def order(path: str, context: ToolContext, remark: str = "") -> str:
    """Order: once a person has said yes, leave a ticket, and wait for what comes of it.

    Args:
        path: where to note this try.
        remark: whatever.
    """
    _note(path, context)
    _count(context)
    return f"a ticket, remarked {len(remark)}"


def _note(path: str, context: ToolContext) -> int:
    """Write down that this call is tried; how many tries there are now."""
    with Path(path).open("a+") as file:
        file.write(f"{context.idempotency_key} {context.attempt}\n")
        file.seek(0)
        return len(file.readlines())


async def _worked(context: ToolContext) -> dict[str, int]:
    n = _count(context)
    return {"n": n, "version": await context.save_artifact("work.txt", f"worked {n}")}


def _count(context: ToolContext) -> int:
    n = int(context.state.get("n", 0)) + 1
    context.state["n"] = n
    return n


helper = Agent(name="helper", instruction="Use your tools.", tools=[work])

AGENTS = [
    Agent(
        name="crasher",
        instruction="Use your tools.",
        tools=[work, hold, linger, strive, fill, juggle, order],
    ),
    Agent(name="summed", instruction="Use your tools.", tools=[work], compaction=Compaction(interval=1)),
    Agent(name="seldom", instruction="Answer.", compaction=Compaction(interval=100)),
    Agent(name="delegating", instruction="Use your tools.", tools=[helper]),
]
