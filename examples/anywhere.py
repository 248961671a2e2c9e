"""An agent whose tools run anywhere: on a worker of their own, in TypeScript, in an MCP server.

    perdure dev examples.anywhere
    perdure worker --agents examples.anywhere --task-queue heavy --tools-only --data .perdure
    node draw_worker.js                    # of examples/draw_worker.ts
    perdure chat studio                    # "Draw a shape with 4 sides", "Clear the shelf"

See docs/tools.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from perdure import Agent, McpServer, ToolContext, tool

__all__ = ["agent", "draw", "primes"]


@tool(task_queue="heavy", start_timeout=60)
def primes(below: int, context: ToolContext) -> int:
    """Count the primes below a number.

    Args:
        below: The number.
    """
    # It runs on a worker that polls the queue "heavy", and has all that a tool has.
    count = sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))
    context.state["primes"] = {**context.state.get("primes", {}), str(below): count}
    return count


@tool(task_queue="drawing", activity="draw", start_timeout=60, heartbeat_timeout=10)
def draw(sides: int, size: int = 100) -> dict[str, Any]:
    """Draw a regular shape.

    Args:
        sides: How many.
        size: Its radius.
    """
    raise NotImplementedError("the activity runs instead; this says what it takes")


shelf = McpServer.stdio(
    *(sys.executable, [str(Path(__file__).with_name("shelf.py"))]),
    name="shelf",
    prefix="shelf_",
    confirm=["clear"],
)

agent = Agent(
    name="studio",
    instruction="You draw what you are asked to, and keep it on the shelf.",
    description="Draws, and keeps what it has drawn.",
    tools=[primes, draw, shelf],
)
