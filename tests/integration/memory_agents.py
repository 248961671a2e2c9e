"""Agents whose sessions leave something to their users' others."""

from __future__ import annotations

from perdure import Agent, Memory, ToolContext, tool
from perdure.memory import search_memory

__all__ = ["MEMORY_AGENTS"]


@tool
def recall(context: ToolContext) -> list[str]:
    """What a tool of one's own, in a thread, finds."""
    return [passage.text for passage in context.blocking.search_memory("cat", limit=1)]


@tool
def nothing() -> str:
    """So that there is a second step."""
    return "done"


MEMORY_AGENTS = [
    Agent(name="friend", tools=[search_memory, recall], memory=Memory()),
    Agent(name="knower", tools=[search_memory], memory=Memory(embedding_model="embedder", dimensions=64)),
    Agent(name="discreet", memory=Memory(on_end=False)),
    Agent(name="forgetful"),
    Agent(name="reminded", tools=[recall], memory=Memory(preload=2)),
    Agent(name="seer", tools=[nothing], memory=Memory(embedding_model="embedder", dimensions=64, preload=2)),
]
