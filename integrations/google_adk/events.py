"""Events, from google-adk's to the store's and back, without loss.

What other readers of the log know by a column has its column: ids, author, branch, the
content in wire form, the delta of the state, usage and errors. All the rest is google-adk's
own JSON, by its names on the wire, under ``meta["adk"]``. An event without that was written by
Perdure itself, and is shown as what google-adk would have made of it.

Versions of artifacts are the exception: google-adk saves them before, and often without,
an event, so they have events of their own (see ``artifacts.py``), and what an event says
about them stays in ``meta``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from google.adk.events import Event, EventActions
from google.adk.sessions.state import State
from pydantic import BaseModel

from integrations.google_adk.jsonform import json_of_model
from perdure.types import Event as LogEvent
from perdure.types import Json, JsonObject

__all__ = ["from_adk", "is_record", "is_shown", "state_from_store", "state_to_store", "time_of", "to_adk"]

META = "adk"
ARTIFACT = ":artifact"
"""Ends the ids of events that only record a saved artifact."""
COPIES = ":copies"
"""Ends the request ids of rewinds that drop the copies google-adk saved for its own rewind."""
TAKEN_OVER = ":created"
"""Ends the request ids of updates that make a stand-in a session."""
RECORDS = (ARTIFACT, f"{COPIES}:rewind", f"{TAKEN_OVER}:update")
NOBODY = "-"
"""Stands for an empty author or invocation: google-adk lets them pass, the store does not."""

_COLUMNS = {"id", "branch", "content", "usage_metadata"}
_PLAIN = json_of_model(EventActions(), "nothing")
_PLAIN_NODE = json_of_model(Event().node_info, "nothing")

# Perdure never stores `temp_` keys; to google-adk they are keys like any other.
_ESCAPED = re.compile(r"(adk:)*temp_")


def from_adk(event: Event) -> LogEvent:
    """The event as the store keeps it. ``temp:`` keys are left out."""
    where = f"event {event.id}"
    said = json_of_model(event, where, exclude=_COLUMNS)
    actions = said.pop("actions")
    delta = actions.pop("stateDelta", {})
    said["actions"] = {name: value for name, value in actions.items() if _PLAIN.get(name) != value}
    if said["nodeInfo"] == _PLAIN_NODE:
        del said["nodeInfo"]
    for name in ("author", "invocationId"):
        if said[name]:
            del said[name]
    return LogEvent(
        id=event.id,
        invocation_id=event.invocation_id or NOBODY,
        author=event.author or NOBODY,
        branch=event.branch,
        content=_wire(event.content, where),
        state_delta=state_to_store(delta),
        usage=_wire(event.usage_metadata, where),
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
        "invocationId": event.invocation_id,
        "author": event.author,
        "branch": event.branch,
        "content": event.content,
        "usageMetadata": event.usage,
    }
    return Event.model_validate({**known, **said, "actions": {**said["actions"], "stateDelta": delta}})


def is_shown(event: LogEvent) -> bool:
    """Whether google-adk sees the event. It needs neither Perdure's summaries nor our own records."""
    return META in event.meta or (event.compaction is None and not is_record(event))


def is_record(event: LogEvent) -> bool:
    """Whether the event is one of ours: a saved artifact, copies that were dropped, a session that began."""
    return META not in event.meta and event.id.endswith(RECORDS)


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


def _said_by_perdure(event: LogEvent) -> JsonObject:
    actions: JsonObject = {
        "artifactDelta": {name: version - 1 for name, version in event.artifact_delta.items()}
    }
    said: JsonObject = {"timestamp": time_of(event), "actions": actions}
    if event.rewind is not None:
        said["author"] = "user"
        actions["rewindBeforeInvocationId"] = event.rewind["before"]
    if event.error is not None:
        said |= {"errorCode": event.error.get("type"), "errorMessage": event.error.get("message")}
    if event.meta.get("interrupted"):
        said["interrupted"] = True
    return said


def _wire(model: BaseModel | None, where: str) -> JsonObject | None:
    return None if model is None else json_of_model(model, where)


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
