"""The agents of the benchmark: one that only talks, one that calls a tool in every turn. No compaction."""

from __future__ import annotations

from perdure import Agent, tool

__all__ = ["caller", "talker"]


@tool
def count_words(text: str) -> int:
    """Count the words of a text.

    Args:
        text: the text.
    """
    return len(text.split())


talker = Agent(name="talker", instruction="Answer in a sentence.")
caller = Agent(name="caller", instruction="Use the tool for every count.", tools=[count_words])
