"""Which events of a log google-adk sees, and what of an event it knows by other names.

What google-adk appended and no column has is its own JSON, by its names on the wire, under
``meta["adk"]``. An event without that was written by Perdure itself, and is shown as what
google-adk would have made of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from perdure.types import Event, Json, JsonObject

__all__ = [
    "ARTIFACT",
    "COPIES",
    "META",
    "NOBODY",
    "TAKEN_OVER",
    "is_record",
    "is_shown",
    "said_of",
    "state_from_store",
    "state_to_store",
    "time_of",
]

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
TEMP_PREFIX = "temp:"

# Perdure never stores `temp_` keys; to google-adk they are keys like any other.
_ESCAPED = re.compile(r"(adk:)*temp_")


def is_shown(event: Event) -> bool:
    """Whether google-adk sees the event. It needs neither Perdure's summaries nor our own records."""
    return META in event.meta or (event.compaction is None and not is_record(event))


def is_record(event: Event) -> bool:
    """Whether the event is one of ours: a saved artifact, copies that were dropped, a session that began."""
    return META not in event.meta and event.id.endswith(RECORDS)


def said_of(event: Event) -> JsonObject:
    """What google-adk says of an event beyond the columns, by its names; ``actions`` without the state."""
    said: JsonObject | None = event.meta.get(META)
    return _said_by_perdure(event) if said is None else said


def time_of(event: Event) -> float:
    """The event's timestamp, in seconds since 1970."""
    said: JsonObject = event.meta.get(META) or {}
    if "timestamp" in said:
        return float(said["timestamp"])
    return event.created_at.timestamp() if event.created_at is not None else 0.0


def state_to_store(state: Mapping[str, Json]) -> dict[str, Json]:
    """State under the names that the store keeps it by, without ``temp:`` keys."""
    kept = ((name, value) for name, value in state.items() if not name.startswith(TEMP_PREFIX))
    return {f"adk:{name}" if _ESCAPED.match(name) else name: value for name, value in kept}


def state_from_store(state: Mapping[str, Json]) -> dict[str, Json]:
    """State under google-adk's names."""
    return {
        name.removeprefix("adk:") if name.startswith("adk:") and _ESCAPED.match(name) else name: value
        for name, value in state.items()
    }


def _said_by_perdure(event: Event) -> JsonObject:
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
