"""A friend who remembers what you said in other conversations.

    perdure dev examples.memory
    perdure chat friend                    # "My cat is called Mia"
    perdure sessions end friend/user/chat  # puts what was said into the memory
    perdure chat friend --session later    # "Search your memory: what is my cat called?"
    perdure memory search friend/user cat

See docs/memory.md.
"""

from __future__ import annotations

from perdure import Agent, Memory
from perdure.memory import search_memory

__all__ = ["agent"]

agent = Agent(
    name="friend",
    instruction=(
        "You are a good listener. When the user speaks of something that you may have talked about "
        "in an earlier conversation, search your memory before you answer."
    ),
    description="Remembers what you said in other conversations.",
    tools=[search_memory],
    memory=Memory(embedding_model="gemini-embedding-001"),
)
