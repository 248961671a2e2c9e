"""A session's events in google-adk's JSON: its names, its order of the fields, its defaults.

What google-adk's own runner appended is given back as it was. What Perdure wrote is given as
google-adk would have said it; where it says nothing of the sort (a turn that was cancelled,
say) the nearest of its fields is used. Versions of artifacts count from 0 there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.genai import types
from pydantic import BaseModel

from activities.prompt import calls_of
from activities.protocol import call_id_of
from gateway.adk_secrets import without_secrets
from integrations.adk_json.events import META, said_of, state_from_store
from integrations.adk_json.genai import careful
from perdure.types import ANSWERED_LATER, Event, Json, JsonObject

__all__ = ["ASKS", "OURS", "call_id", "event_json", "split_artifacts", "state_json"]

_FIRST = ("modelVersion", "content", "groundingMetadata", "partial", "turnComplete", "turnCompleteReason")
_FIELDS = (
    *_FIRST,
    "interactionStatus",
    "finishReason",
    "errorCode",
    "errorMessage",
    "interrupted",
    "customMetadata",
    "usageMetadata",
    "liveSessionResumptionUpdate",
    "liveSessionId",
    "goAway",
    "voiceActivity",
    "inputTranscription",
    "outputTranscription",
    "avgLogprobs",
    "logprobsResult",
    "cacheMetadata",
    "citationMetadata",
    "interactionId",
    "environmentId",
    "invocationId",
    "author",
    "actions",
    "output",
    "nodeInfo",
    "longRunningToolIds",
    "branch",
    "isolationScope",
    "id",
    "timestamp",
)
"""The fields of google-adk's Event, in the order in which it writes them."""
_ACTIONS = (
    "skipSummarization",
    "stateDelta",
    "artifactDelta",
    "transferToAgent",
    "transferReason",
    "escalate",
    "requestedAuthConfigs",
    "requestedToolConfirmations",
    "compaction",
    "endOfAgent",
    "agentState",
    "rewindBeforeInvocationId",
    "route",
    "renderUiWidgets",
    "setModelResponse",
)
_NO_ACTIONS: JsonObject = {
    "artifactDelta": {},
    "requestedAuthConfigs": {},
    "requestedToolConfirmations": {},
}
OURS = "adk-"
"""Begins the ids of calls that have none of the model's."""
ASKS = "adk_asks"
"""In the meta of an event that is made for google-adk's clients: its calls ask a person."""
_INTERNAL = "__adk_internal_"
"""Begins the keys of ``customMetadata`` that google-adk keeps to itself."""


def event_json(event: Event, *, streamed: bool = False) -> JsonObject:
    """The event as google-adk's server writes it.

    Args:
        event: one that google-adk sees, or a piece of a streamed answer.
        streamed: it is the whole of an answer whose pieces went before it.
    """
    said = said_of(event)
    fields: JsonObject = {
        "content": _ordered(types.Content, _with_call_ids(event)),
        "usageMetadata": _ordered(types.GenerateContentResponseUsageMetadata, event.usage),
        "invocationId": event.invocation_id,
        "author": event.author,
        "branch": event.branch,
        "id": event.id,
        **(_of_perdure(event, streamed=streamed) if META not in event.meta else {}),
        **said,
    }
    delta = state_from_store(event.state_delta)
    fields["actions"] = _in_order(_ACTIONS, {**_NO_ACTIONS, **said["actions"], "stateDelta": delta})
    fields.setdefault("nodeInfo", {"path": ""})
    fields["customMetadata"] = _public(fields.get("customMetadata"))
    shown: JsonObject = without_secrets(_in_order(_FIELDS, fields))
    return shown


def call_id(event: Event, number: int, call: JsonObject) -> str:
    """The id that a call of the model's has for google-adk's clients: its own, or one that we give it.

    Args:
        event: the model's.
        number: the call's, from 0.
        call: as the model asked for it.
    """
    given: str = call.get("id") or OURS + call_id_of(event.invocation_id, event.meta.get("step", 0), number)
    return given


def split_artifacts(event: JsonObject) -> Sequence[JsonObject]:
    """What ``/run_sse`` sends of an event: google-adk's UI shows a file twice if it comes with content."""
    actions = event["actions"]
    if not actions["artifactDelta"] or not (event.get("content") or {}).get("parts"):
        return [event]
    content = {**event, "actions": {**actions, "artifactDelta": {}}}
    return [content, {name: value for name, value in event.items() if name != "content"}]


def state_json(state: Mapping[str, Json]) -> dict[str, Json]:
    """State by google-adk's names, and in its order: the session's, the app's, the user's."""

    def place(name: str) -> int:
        return 1 if name.startswith("app:") else 2 if name.startswith("user:") else 0

    shown = state_from_store(state)
    return {name: shown[name] for name in sorted(shown, key=place)}


def _of_perdure(event: Event, *, streamed: bool) -> JsonObject:
    """What google-adk would have said of an event that Perdure wrote."""
    meta = event.meta
    said: JsonObject = {"modelVersion": meta.get("model_version"), "finishReason": meta.get("finish_reason")}
    if event.partial:
        said["partial"] = True
    elif streamed and "step" in meta:
        said["partial"] = False
    if ("step" in meta or "call" in meta or ASKS in meta) and event.author != "user":
        said["nodeInfo"] = {"path": f"{event.author}@1"}
    calls = calls_of(event) if "step" in meta and not event.partial else []
    if calls:
        later = meta.get(ANSWERED_LATER) or ()
        said["longRunningToolIds"] = [call_id(event, number, calls[number]) for number in later]
    elif ASKS in meta:
        said["longRunningToolIds"] = [call["id"] for call in calls_of(event)]
    if event.id == f"{event.invocation_id}:update":
        said["author"] = "user"
    return said


def _with_call_ids(event: Event) -> JsonObject | None:
    """The content, with ids for calls that the model gave none: clients find a call's response by its id."""
    parts = (event.content or {}).get("parts")
    if META in event.meta or not isinstance(parts, list):
        return event.content
    named: list[Json] = []
    calls = 0
    for part in parts:
        kind = next((name for name in ("functionCall", "functionResponse") if name in part), None)
        if kind is None:
            named.append(part)
            continue
        called = part[kind]
        if kind == "functionCall":
            named.append({**part, kind: {**called, "id": call_id(event, calls, called)}})
            calls += 1
        else:
            named.append(
                {**part, kind: called if called.get("id") else {**called, "id": f"{OURS}{event.id}"}}
            )
    return {**(event.content or {}), "parts": named}


def _ordered(model: type[BaseModel], value: JsonObject | None) -> JsonObject | None:
    """A value of genai's as genai writes it; as it is stored if it has fields that this release lacks."""
    if value is None:
        return None
    try:
        read = careful(value, model.model_validate)
    except ValueError:  # pydantic's own errors are such, too
        return value
    written: JsonObject = read.model_dump(mode="json", by_alias=True, exclude_none=True)
    return written


def _in_order(names: Sequence[str], fields: JsonObject) -> JsonObject:
    known = {name: fields[name] for name in names if fields.get(name) is not None}
    return known | {name: value for name, value in fields.items() if name not in names and value is not None}


def _public(metadata: JsonObject | None) -> JsonObject | None:
    return {name: value for name, value in (metadata or {}).items() if not name.startswith(_INTERNAL)} or None
