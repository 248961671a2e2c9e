"""Agents for workers that get killed in a call: of a tool on another queue, and of an MCP server's."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from perdure import Agent, McpServer, ToolContext, tool

__all__ = ["AGENTS", "QUEUE"]

QUEUE = "elsewhere"
_NOTES = Path(os.environ.get("MCP_NOTES", os.devnull))
_SERVER = str(Path(__file__).with_name("mcp_server.py"))


@tool(task_queue=QUEUE)
def ponder(question: str, context: ToolContext) -> int:
    """Its first try never comes to an end.

    Args:
        question: what.
    """
    with _NOTES.open("a") as notes:
        notes.write(f"ponder {context.idempotency_key}\n")
    if context.attempt == 1:
        threading.Event().wait()
    n = int(context.state.get("n", 0)) + 1
    context.state["n"] = n
    return n


AGENTS = [
    Agent("thinker", tools=[ponder]),
    Agent("keeper", tools=[McpServer.stdio(sys.executable, [_SERVER], env={"MCP_NOTES": str(_NOTES)})]),
]
