"""Events, from google-adk's to the store's and back, without loss.

What other readers of the log know by a column has its column: ids, author, branch, the
content in wire form, the state's delta, usage and errors. All the rest is google-adk's own
JSON under ``meta["adk"]``. An event without that was written by Perdure itself, and is
shown as what google-adk would have made of it.

Versions of artifacts are the exception: google-adk saves them before, and often without,
an event, so they have events of their own (see ``artifacts.py``), and what an event says
about them stays in ``meta``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.adk.events import Event, EventActions
from google.adk.sessions.state import State

from perdure.types import Event as LogEvent
from perdure.types import Json, JsonObject

__all__ = ["from_adk", "is_shown", "own_delta", "state_from_store", "state_to_store", "time_of", "to_adk"]

META = "adk"
ARTIFACT = ":artifact"
"""Ends the ids of events that only record a saved artifact."""
NOBODY = "-"
"""Stands for an empty author or invocation: google-adk lets them pass, the store does not."""

_COLUMNS = {"id", "branch", "content", "usage_metadata"}
_PLAIN = EventActions().model_dump(mode="json", exclude_none=True)
_PLAIN_NODE = Event().node_info.model_dump(mode="json", exclude_none=True)

# Perdure never stores `temp_` keys; to google-adk they are keys like any other.
_ESCAPED = re.compile(r"(adk:)*temp_")


def from_adk(event: Event) -> LogEvent:
    """The event as the store keeps it. ``temp:`` keys are left out."""
    said = event.model_dump(mode="json", exclude_none=True, exclude=_COLUMNS)
    actions = said.pop("actions")
    delta = actions.pop("state_delta", {})
    said["actions"] = {name: value for name, value in actions.items() if _PLAIN.get(name) != value}
    if said["node_info"] == _PLAIN_NODE:
        del said["node_info"]
    for name in ("author", "invocation_id"):
        if said[name]:
            del said[name]
    return LogEvent(
        id=event.id,
        invocation_id=event.invocation_id or NOBODY,
        author=event.author or NOBODY,
        branch=event.branch,
        content=_wire(event.content),
        state_delta=state_to_store(delta),
        usage=_wire(event.usage_metadata),
        error=_error(event),
        meta={META: said},
        created_at=_moment(event.timestamp),
    )


def to_adk(event: LogEvent) -> Event:
    """The event as google-adk knows it: equal to what was appended, or made from one of Perdure's own."""
    said = event.meta.get(META) or _said_by_perdure(event)
    delta = state_from_store(event.state_delta)
    known = {
        "id": event.id,
        "invocation_id": event.invocation_id,
        "author": event.author,
        "branch": event.branch,
        "content": event.content,
        "usage_metadata": event.usage,
    }
    return Event.model_validate({**known, **said, "actions": {**said["actions"], "state_delta": delta}})


def is_shown(event: LogEvent) -> bool:
    """Whether google-adk sees the event. It needs neither Perdure's summaries nor its records of saves."""
    return META in event.meta or (event.compaction is None and not is_save(event))


def is_save(event: LogEvent) -> bool:
    """Whether the event does nothing but record a saved artifact."""
    return META not in event.meta and event.id.endswith(ARTIFACT)


def time_of(event: LogEvent) -> float:
    """The event's timestamp, in seconds since 1970."""
    said: JsonObject = event.meta.get(META) or {}
    if "timestamp" in said:
        return float(said["timestamp"])
    return event.created_at.timestamp() if event.created_at is not None else 0.0


def state_to_store(state: Mapping[str, Json]) -> dict[str, Json]:
    """State under the names that the store keeps it by, without ``temp:`` keys."""
    kept = ((name, value) for name, value in state.items() if not name.startswith(State.TEMP_PREFIX))
    return {f"adk:{name}" if _ESCAPED.match(name) else name: value for name, value in kept}


def state_from_store(state: Mapping[str, Json]) -> dict[str, Json]:
    """State under google-adk's names."""
    return {
        name.removeprefix("adk:") if name.startswith("adk:") and _ESCAPED.match(name) else name: value
        for name, value in state.items()
    }


def own_delta(event: Event) -> dict[str, Any]:
    """The changes of state in an event that outlive its invocation."""
    delta = event.actions.state_delta if event.actions else {}
    return {name: value for name, value in delta.items() if not name.startswith(State.TEMP_PREFIX)}


def _said_by_perdure(event: LogEvent) -> JsonObject:
    actions: JsonObject = {
        "artifact_delta": {name: version - 1 for name, version in event.artifact_delta.items()}
    }
    said: JsonObject = {"timestamp": time_of(event), "actions": actions}
    if event.rewind is not None:
        said["author"] = "user"
        actions["rewind_before_invocation_id"] = event.rewind["before"]
    if event.error is not None:
        said |= {"error_code": event.error.get("type"), "error_message": event.error.get("message")}
    if event.meta.get("interrupted"):
        said["interrupted"] = True
    return said


def _wire(model: Any) -> JsonObject | None:
    if model is None:
        return None
    wire: JsonObject = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return wire


def _error(event: Event) -> JsonObject | None:
    if not event.error_code and not event.error_message:
        return None
    return {"type": event.error_code or "", "message": event.error_message or ""}


def _moment(timestamp: float) -> datetime | None:
    """For people who read the log; the exact number is in ``meta``, and order is by seq."""
    try:
        return datetime.fromtimestamp(timestamp, UTC)
    except (OverflowError, ValueError, OSError):
        return None
