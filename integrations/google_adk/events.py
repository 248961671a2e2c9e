"""Events, from google-adk's to the store's and back, without loss.

What other readers of the log know by a column has its column: ids, author, branch, the
content in wire form, the delta of the state, usage and errors. All the rest is google-adk's
own JSON, by its names on the wire, under ``meta["adk"]``. An event without that was written by
Perdure itself, and is shown as what google-adk would have made of it (see ``integrations/adk_json``).

Versions of artifacts are the exception: google-adk saves them before, and often without,
an event, so they have events of their own (see ``artifacts.py``), and what an event says
about them stays in ``meta``.
"""

from __future__ import annotations

from datetime import UTC, datetime

from google.adk.events import Event, EventActions
from pydantic import BaseModel

from integrations.adk_json.events import META, NOBODY, said_of, state_from_store, state_to_store
from integrations.adk_json.jsonform import json_of_model
from perdure.types import Event as LogEvent
from perdure.types import JsonObject

__all__ = ["from_adk", "to_adk"]

_COLUMNS = {"id", "branch", "content", "usage_metadata"}
_PLAIN = json_of_model(EventActions(), "nothing")
_PLAIN_NODE = json_of_model(Event().node_info, "nothing")


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
    said = said_of(event)
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
