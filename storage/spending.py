"""What an event adds to what its session has spent.

The sums are columns of the session's row and move with its head, in the same statement. So
they cost no read, and hold whatever becomes of the events: a rewind takes back no money. A
fork begins at nothing, because its source has paid for what is copied.

An event counts by its ``usage``, as one model call. Its ``meta`` may say more, or otherwise, under
``spent``: ``{"nano_usd": …}`` of a call whose price is known, all three of something that stands for
several calls, an agent that was called as a tool, say.
"""

from __future__ import annotations

from collections.abc import Mapping

from perdure.types import Event, Json, JsonObject, Spent

__all__ = ["counts_of", "spent_on", "tokens_of"]

_PARTS = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
_MOST = 2**53
"""A number above it is no count of anything; sums must stay below 2**63."""


def spent_on(event: Event) -> Spent:
    """What an event says that its model calls took. What is no count is taken for 0."""
    told = event.meta.get("spent")
    told = told if isinstance(told, dict) else {}
    usage = event.usage or {}
    return Spent(
        tokens=_count(told["tokens"]) if "tokens" in told else tokens_of(usage),
        nano_usd=_count(told.get("nano_usd")),
        model_calls=_count(told.get("model_calls", 1 if usage else 0)),
    )


def tokens_of(usage: Mapping[str, Json]) -> int:
    """The tokens of a model call: its own count of them, or the sum of the parts where it gives no total."""
    total = _count(usage.get("totalTokenCount"))
    return total or sum(_count(usage.get(name)) for name in _PARTS)


def counts_of(spent: Spent) -> JsonObject:
    """The same, as an event's meta says it."""
    return {"tokens": spent.tokens, "nano_usd": spent.nano_usd, "model_calls": spent.model_calls}


def _count(number: Json) -> int:
    whole = isinstance(number, int) and not isinstance(number, bool)
    return number if whole and 0 <= number <= _MOST else 0
