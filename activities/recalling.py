"""What the model is shown of its user's memory without having asked: what the turn's message finds.

It is searched anew for each step, and kept nowhere: what was rewound or forgotten since is not in it, and
the log has nothing of what other sessions said. It stands before the message, in its content, so that what
a prompt begins with stays the same from turn to turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from activities.memory import Memories, policy_of
from perdure.registry import Registry
from perdure.types import Event, Passage, SessionKey, text_of
from storage.sessions import Context

__all__ = ["recall"]

LONGEST_QUERY = 4_000
"""Characters of a message that are looked for."""
HEADING = """\
<memory>
From earlier conversations with this user, found by the message below; it may have nothing to do with it.
"""


async def recall(
    memories: Memories, agents: Registry, key: SessionKey, context: Context
) -> Mapping[str, str]:
    """What goes before the message of the last turn, by that event's id; nothing where no agent wants it.

    Args:
        memories: the users'.
        agents: the agents, by name.
        key: the session. What it says itself is not looked for: the model has it.
        context: what the store has of it for the model.
    """
    policy = policy_of(agents, key.app)
    message = _message(context.events)
    if policy is None or not policy.preload or message is None:
        return {}
    said = text_of(message.content)[:LONGEST_QUERY]
    found = await memories.search(key.app, key.user_id, said, policy.preload, but=key.session_id)
    # What a fork has of its source is in both.
    there = {(event.id, event.created_at) for event in context.events}
    new = [passage for passage in found if (passage.event_id, passage.said_at) not in there]
    return {message.id: _told(new)} if new else {}


def _message(events: Sequence[Event]) -> Event | None:
    """The last one that began a turn: one that has joined another has no id of that kind."""
    begun = (event for event in reversed(events) if event.id == f"{event.invocation_id}:user")
    return next(begun, None)


def _told(found: Sequence[Passage]) -> str:
    lines = [f"[{passage.said_at:%Y-%m-%d %H:%M} UTC] {passage.author}: {passage.text}" for passage in found]
    return HEADING + "\n".join(lines) + "\n</memory>"
