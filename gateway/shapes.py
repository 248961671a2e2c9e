"""The JSON of our own routes: camelCase, times in ISO 8601 with their zone, nothing that is null.

An event is google-adk's ``Event`` where a field means the same, and more beside it. Versions
of artifacts count from 1, as everywhere in Perdure; only google-adk's routes count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gateway.runner import Answer, WaitingCall
from perdure.types import ANSWERED_LATER, ArtifactVersion, Event, JsonObject, Session, Spent, given
from workflows.wait_messages import Waiting

__all__ = [
    "WHOLE",
    "ArtifactBody",
    "Body",
    "EventBody",
    "Record",
    "SessionBody",
    "WaitingBody",
    "answer_json",
    "artifact_json",
    "event_json",
    "session_json",
    "waiting_json",
]


class Record(BaseModel):
    """An answer."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True)


class Body(BaseModel):
    """What a request carries. A field that is not known is refused: it would be a slip."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", serialize_by_alias=True
    )


def _whole(value: Any) -> Any:
    """Refuse what would else be taken for a number: true, and a number in a text."""
    if isinstance(value, bool | str):
        raise ValueError("Input should be a number")
    return value


WHOLE = BeforeValidator(_whole)
"""Of a whole number in a body, behind its limits; 1.0 is one, in JSON."""


class Actions(Record):
    """What an event changed."""

    state_delta: dict[str, Any] = Field(default={}, description="Keys of the state; null removes one.")


class EventBody(Record):
    """One event of a session's log; fields that are empty are left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "m1:user",
                    "invocationId": "m1",
                    "author": "user",
                    "content": {"role": "user", "parts": [{"text": "Add one."}]},
                    "actions": {"stateDelta": {}},
                    "timestamp": 1795000000.5,
                    "createdAt": "2026-11-18T10:13:20.500000+00:00",
                    "seq": 1,
                    "live": True,
                }
            ]
        }
    )

    id: str
    invocation_id: str
    author: str = Field(description="`user`, an agent's name, or `perdure`.")
    branch: str | None = None
    content: dict[str, Any] | None = Field(default=None, description="A genai `Content`.")
    actions: Actions
    usage_metadata: dict[str, Any] | None = None
    finish_reason: str | None = None
    model_version: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    interrupted: bool | None = None
    partial: bool | None = Field(default=None, description="A piece of a streamed answer; never stored.")
    long_running_tool_ids: list[str] | None = None
    timestamp: float = Field(description="Seconds since 1970.")
    created_at: datetime
    seq: int = Field(description="Its place in the log: the only order there is.")
    live: bool = Field(description="False where it was rewound.")
    artifacts: dict[str, int] | None = Field(default=None, description="Versions it saved, from 1.")
    compaction: dict[str, Any] | None = Field(default=None, description="What it sums up, in seqs.")
    rewind: dict[str, Any] | None = Field(default=None, description="What was rewound to.")
    meta: dict[str, Any] | None = Field(default=None, description="What else the runtime noted.")


class SpentBody(Record):
    """What model calls took."""

    tokens: int
    usd: float = Field(description="Money; calls of models whose price is not known are not in it.")
    model_calls: int


class SessionBody(Record):
    """A session as one moment saw it; fields that are empty are left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "s1",
                    "appName": "counter",
                    "userId": "ann",
                    "state": {"count": 1},
                    "lastUpdateTime": 1795000000.5,
                    "version": 4,
                    "epoch": 1,
                    "head": 4,
                    "projection": [[1, None]],
                    "metadata": {"ticket": 7},
                    "createdAt": "2026-11-18T10:13:18.000000+00:00",
                    "updatedAt": "2026-11-18T10:13:20.500000+00:00",
                    "spent": {"tokens": 1450, "usd": 0.000875, "modelCalls": 2},
                }
            ]
        }
    )

    id: str
    app_name: str
    user_id: str
    state: dict[str, Any] | None = Field(default=None, description="Left out of lists.")
    events: list[EventBody] | None = Field(default=None, description="The live ones, where asked for.")
    last_update_time: float = Field(description="Seconds since 1970.")
    version: int = Field(description="Moves by one with every change; what `expectedVersion` means.")
    epoch: int = Field(description="Moves with every rewind and cancel.")
    head: int = Field(description="The seq of the last event.")
    projection: list[list[int | None]] = Field(description="Which part of the log is live: ranges of seqs.")
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    forked_from: dict[str, Any] | None = None
    spent: SpentBody = Field(description="By all of its log, also what was rewound, and summaries.")


class WaitingBody(Record):
    """A call that waits for a person or the world; fields that are empty are left out."""

    call_id: str = Field(examples=["m1:t1.0"])
    tool: str
    kind: str = Field(
        description="`approval`, `result`, `event` or `timer`; or `agent`: what it has asked waits."
    )
    since: datetime
    until: datetime | None = None
    event: str | None = Field(default=None, description="The name of the notification that answers it.")
    agent_session: str | None = Field(
        default=None, description="The id of the agent's session: what it waits for is decided there."
    )
    then: str | None = Field(
        default=None, description="What becomes of an approval at its deadline: `approve` or `fail`."
    )
    text: str | None = Field(default=None, description="The last progress that was reported.")
    percent: float | None = None
    arguments: dict[str, Any] | None = Field(default=None, description="Only where what waits is listed.")
    ticket: Any = Field(default=None, description="What a long-running tool has returned, there too.")


class ArtifactBody(Record):
    """One version of an artifact, without its bytes."""

    name: str = Field(examples=["report.pdf"])
    version: int = Field(examples=[1], description="From 1, and never used twice.")
    mime_type: str = Field(examples=["application/pdf"])
    size: Annotated[int, Field(examples=[48213], description="In bytes.")]
    sha256: str = Field(description="Of its bytes, in hex; also its ETag.")
    created_at: datetime


def event_json(event: Event) -> JsonObject:
    """An event as our routes and streams give it."""
    created = event.created_at
    meta = dict(event.meta)
    error = event.error or {}
    told: JsonObject = {
        "id": event.id,
        "invocationId": event.invocation_id,
        "author": event.author,
        "branch": event.branch,
        "content": event.content,
        "actions": {"stateDelta": dict(event.state_delta)},
        "usageMetadata": event.usage,
        "finishReason": meta.pop("finish_reason", None),
        "modelVersion": meta.pop("model_version", None),
        "errorCode": error.get("type"),
        "errorMessage": error.get("message"),
        "interrupted": True if meta.pop("interrupted", None) else None,
        "partial": event.partial or None,
        "longRunningToolIds": _long_running(event),
        "timestamp": created.timestamp() if created else None,
        "createdAt": created.isoformat() if created else None,
        "seq": event.seq,
        "live": event.live,
        "artifacts": dict(event.artifact_delta) or None,
        "compaction": event.compaction,
        "rewind": event.rewind,
        "meta": meta or None,
    }
    return given(**told)


def session_json(
    session: Session, *, state: bool = True, events: Sequence[Event] | None = None
) -> JsonObject:
    """A session as our routes give it.

    Args:
        session: the session.
        state: whether its state was read.
        events: those to show; None for none.
    """
    told: JsonObject = {
        "id": session.key.session_id,
        "appName": session.key.app,
        "userId": session.key.user_id,
        "state": dict(session.state) if state else None,
        "events": None if events is None else [event_json(event) for event in events],
        "lastUpdateTime": session.updated_at.timestamp(),
        "version": session.version,
        "epoch": session.epoch,
        "head": session.head,
        "projection": [list(span) for span in session.projection],
        "metadata": dict(session.metadata),
        "createdAt": session.created_at.isoformat(),
        "updatedAt": session.updated_at.isoformat(),
        "endedAt": session.ended_at.isoformat() if session.ended_at else None,
        "forkedFrom": session.forked_from,
        "spent": spent_json(session.spent),
    }
    return given(**told)


def artifact_json(artifact: ArtifactVersion) -> JsonObject:
    """A version of an artifact as our routes give it."""
    return {
        "name": artifact.name,
        "version": artifact.version,
        "mimeType": artifact.mime_type,
        "size": artifact.size,
        "sha256": sha256_of(artifact),
        "createdAt": artifact.created_at.isoformat(),
    }


def spent_json(spent: Spent) -> JsonObject:
    """What model calls took, as our routes give it."""
    return {"tokens": spent.tokens, "usd": spent.usd, "modelCalls": spent.model_calls}


def answer_json(answer: Answer) -> JsonObject:
    """An answer as our routes give it."""
    told: JsonObject = {
        "invocationId": answer.invocation_id,
        "status": answer.status,
        "seq": answer.seq,
        "text": answer.text,
    }
    if answer.output is not None:
        told["output"] = answer.output
    if answer.spent is not None:
        told["spent"] = spent_json(answer.spent)
    if answer.waiting:
        told["waiting"] = [waiting_json(each) for each in answer.waiting]
    if answer.failure is not None:
        told["failure"] = {"type": answer.failure.type, "message": answer.failure.message}
    return told


def waiting_json(call: Waiting | WaitingCall) -> JsonObject:
    """A call that waits, as our routes give it."""
    told: JsonObject = {
        "callId": call.call_id,
        "tool": call.tool,
        "kind": call.kind,
        "since": call.since.isoformat(),
        "until": call.until.isoformat() if call.until else None,
        "event": call.event,
        "agentSession": call.agent_session,
        "then": call.then,
        "text": call.text,
        "percent": call.percent,
    }
    if isinstance(call, WaitingCall):
        told |= {"arguments": call.arguments, "ticket": call.ticket}
    return given(**told)


def sha256_of(artifact: ArtifactVersion) -> str:
    """The hash of its bytes, which is how its blob is named."""
    return artifact.blob.rpartition("/")[2]


def _long_running(event: Event) -> list[str] | None:
    """Ids of the calls of this event that wait for the world, as google-adk names them."""
    numbers = event.meta.get("long_running") or event.meta.get(ANSWERED_LATER) or ()
    calls = [
        part["functionCall"] for part in (event.content or {}).get("parts") or () if part.get("functionCall")
    ]
    ids = [
        str(calls[number].get("id")) for number in numbers if number < len(calls) and calls[number].get("id")
    ]
    return ids or None
