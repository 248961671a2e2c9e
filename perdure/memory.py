"""The user's memory as a tool that an agent can be given.

    from perdure import Agent, Memory
    from perdure.memory import search_memory

    agent = Agent(name="friend", tools=[search_memory], memory=Memory())

A tool of one's own asks :meth:`perdure.ToolContext.search_memory`. See ``docs/memory.md``.
"""

from __future__ import annotations

from perdure.context import ToolContext
from perdure.tool import tool
from perdure.types import JsonObject, Passage

__all__ = ["search_memory"]

FOUND = 10
"""Passages that the model gets of one search."""


# Parallel: it touches no state.
@tool(parallel=True)
async def search_memory(query: str, context: ToolContext) -> JsonObject:
    """Search what was said in earlier conversations with this user.

    Args:
        query: What to look for: a few words, or a question.
    """
    return {"found": [_told(passage) for passage in await context.search_memory(query, FOUND)]}


def _told(passage: Passage) -> JsonObject:
    return {
        "said_by": passage.author,
        "at": passage.said_at.isoformat(timespec="seconds"),
        "session": passage.session_id,
        "text": passage.text,
    }
