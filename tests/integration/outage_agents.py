"""Agents for a worker process that one of them ends, again and again."""

from __future__ import annotations

import os
from pathlib import Path

from perdure import Agent, Limits, ToolContext, tool

__all__ = ["AGENTS"]


@tool
def die(path: str, context: ToolContext) -> str:
    """End the worker, as a segmentation fault would.

    Args:
        path: where to note this try.
    """
    with Path(path).open("a") as file:
        file.write(f"{context.idempotency_key}\n")
    os._exit(139)


AGENTS = [
    Agent(name="deadly", instruction="Use your tools.", tools=[die], limits=Limits(tool_attempts=2)),
    Agent(name="calm", instruction="Talk."),
]
