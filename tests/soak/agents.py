"""The agents of the soak. What an order says is all that a tool does, so the log tells what has to be there.

An order is a mark and what to do: ``s7-m3.0 own user app file``. Each try of a tool leaves
a line in the file that :data:`NOTES` names: that is what it did to the world outside.
"""

from __future__ import annotations

import asyncio
import os

from perdure import Agent, Compaction, Limits, ToolContext, tool

__all__ = ["AGENTS", "DEEDS", "NOTES", "bytes_of", "deeds_of"]

NOTES = "SOAK_NOTES"
"""The environment variable with the path of the notes."""

DEEDS = ("own", "user", "app", "file", "shared")
"""Count in the state of the session, the user, the app; save a file of the session's, or of the user's."""


def deeds_of(order: str) -> list[str]:
    """What an order says to do."""
    return order.split()[1:]


def bytes_of(order: str, idempotency_key: str) -> bytes:
    """What a call with this order saves; the same in each try."""
    return f"{order} by {idempotency_key}".encode()


@tool
async def work(order: str, context: ToolContext) -> str:
    """Do it, one after the other; what is shared is counted under the session's own name.

    Args:
        order: what to do.
    """
    _note(context)
    mine = {"own": "own", "user": f"user:{context.session_id}", "app": f"app:{context.session_id}"}
    return await _do(order, context, mine, "worked.txt")


@tool(parallel=True)
async def juggle(order: str, context: ToolContext) -> str:
    """Do it, all at once; everybody counts under one name.

    Args:
        order: what to do.
    """
    _note(context)
    return await _do(order, context, {"own": "own", "user": "user:all", "app": "app:all"}, "juggled.txt")


@tool
async def ponder(order: str) -> str:
    """Change nothing.

    Args:
        order: what to think of.
    """
    await asyncio.sleep(0.05)
    return f"did {order}"


async def _do(order: str, context: ToolContext, counters: dict[str, str], file: str) -> str:
    data = bytes_of(order, context.idempotency_key)
    for deed in deeds_of(order):
        if deed in counters:
            key = counters[deed]
            count = int(context.state.get(key, 0)) + 1
            await asyncio.sleep(0.005)
            context.state[key] = count
        elif deed in ("file", "shared"):
            await context.save_artifact(file if deed == "file" else "user:shared.txt", data, "text/plain")
    return f"did {order}"


def _note(context: ToolContext) -> None:
    """Write down that this call is tried; one write, so that lines of several workers do not mix."""
    with open(os.environ[NOTES], "ab", buffering=0) as file:
        file.write(f"{context.idempotency_key} {context.attempt}\n".encode())


_LIMITS = Limits(model_timeout=6, model_attempts=100, tool_attempts=100, tool_timeout=120)

AGENTS = [
    Agent(name="soak", instruction="Use your tools.", tools=[work, juggle, ponder], limits=_LIMITS),
    Agent(
        name="summed",
        instruction="Use your tools.",
        tools=[work, juggle, ponder],
        limits=_LIMITS,
        compaction=Compaction(interval=3, overlap=1),
    ),
]
