"""What a gateway answers, as records: those of :mod:`perdure.types` where they are the same inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, TypeVar

from perdure.client.schedule_results import Scheduled, scheduled_of
from perdure.client.waiting_results import WaitingCall, waiting_of
from perdure.client.work_results import Failure, Work, failure_of, spent_of, work_of
from perdure.context import Artifact
from perdure.errors import ArtifactNotFound, PerdureError, error_of
from perdure.types import Event, Json, JsonObject, Session, SessionKey, Spent

__all__ = [
    "Answer",
    "ArtifactInfo",
    "Compacted",
    "Context",
    "Failure",
    "Moment",
    "Page",
    "Partial",
    "Rewind",
    "Rewound",
    "SessionUpdate",
    "Status",
    "UpdateOutcome",
    "Work",
]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a turn ended."""

    invocation_id: str
    status: Literal["answered", "failed", "cancelled", "waiting"]
    """With ``waiting`` it goes on later: ask again under its id."""
    seq: int
    """Of the event that ended it; 0 where it waits."""
    text: str
    failure: Failure | None = None
    """Set where it failed."""
    waiting: Sequence[WaitingCall] = ()
    """The calls that it waits for."""
    output: Json = None
    """What the text is as JSON, where the agent has an ``output_schema``."""
    spent: Spent | None = None
    """What the turn's model calls took; None where it waits, or was cancelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """A piece of an answer that a model is just giving. It is stored nowhere; the event replaces it.

    Keep what is shown as ``shown = shown[: piece.offset] + piece.text``.
    """

    event_id: str
    """The id that the event will have, if it comes."""
    invocation_id: str
    author: str
    offset: int
    """Characters of the answer's text before it. 0 begins it, also again, after an attempt that failed."""
    text: str
    thought: str = ""
    """The piece of what the model thinks, which is no part of the answer."""

    @property
    def partial(self) -> Literal[True]:
        """As of an :class:`perdure.types.Event`, of which it is a preview."""
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewound:
    """What is live has changed: it follows the marker of a rewind."""

    projection: Sequence[Sequence[int | None]]
    """Which part of the log is live from now on: ranges of seqs."""
    epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewind:
    """A rewind that was done."""

    request_id: str
    """Rewinding to before it is redo."""
    seq: int
    """Of the event that records it."""
    session: Session
    """As it is now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compacted:
    """What came of a request to sum up."""

    summary: Event | None
    """None where there was nothing to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A session, and what it is doing."""

    session: Session
    work: Work | None
    """None where no workflow is open: the session rests."""
    schedules: Sequence[Scheduled] = ()
    """What it is sent by the clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What the model would get now, but for the message that will be at its end."""

    head: int
    summary_seq: int | None
    """The seq of the summary it begins with."""
    contents: Sequence[JsonObject]
    """The conversation in it, as genai ``Content`` in wire form."""
    request: JsonObject | None
    """The request as it goes to the model; None where there would be none."""
    problem: PerdureError | None
    """Why there would be none."""
    left_out: Sequence[str] = ()
    """The MCP servers whose tools are left out: nobody in the gateway's process knows them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactInfo:
    """One version of an artifact, without its bytes."""

    name: str
    version: int
    """From 1, and never used twice."""
    mime_type: str
    size: int
    """In bytes."""
    sha256: str
    """Of its bytes, in hex."""
    created_at: datetime

    def artifact(self, data: bytes) -> Artifact:
        """It, with bytes of it."""
        return Artifact(
            name=self.name, version=self.version, mime_type=self.mime_type, data=data, size=self.size
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A session as it was just before an invocation."""

    session: Session
    artifacts: Sequence[ArtifactInfo]


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionUpdate:
    """One change of a batch."""

    user_id: str
    session_id: str
    state: Mapping[str, Json] | None = None
    metadata: Mapping[str, Json] | None = None
    expected_version: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateOutcome:
    """What became of one change of a batch: the session after it, or why nothing of it was written."""

    key: SessionKey
    session: Session | None = None
    error: PerdureError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Page(Generic[T]):
    """A part of a list."""

    items: Sequence[T]
    next: str | int | None
    """Where the next part begins; None after the last."""


def event_of(data: JsonObject) -> Event:
    """An event of the log; what only the store needs (``state_undo``) is empty."""
    meta = dict(data.get("meta") or {})
    for name, key in (("finishReason", "finish_reason"), ("modelVersion", "model_version")):
        if name in data:
            meta[key] = data[name]
    if data.get("interrupted"):
        meta["interrupted"] = True
    error = {"type": data["errorCode"], "message": data.get("errorMessage")} if "errorCode" in data else None
    created = data.get("createdAt")
    return Event(
        id=data["id"],
        invocation_id=data["invocationId"],
        author=data["author"],
        branch=data.get("branch"),
        content=data.get("content"),
        state_delta=data["actions"]["stateDelta"],
        artifact_delta=data.get("artifacts") or {},
        compaction=data.get("compaction"),
        rewind=data.get("rewind"),
        usage=data.get("usageMetadata"),
        error=error,
        meta=meta,
        created_at=datetime.fromisoformat(created) if created else None,
        seq=data["seq"],
        live=data["live"],
    )


def session_of(data: JsonObject) -> Session:
    """A session; without state or events where they were not asked for."""
    ended = data.get("endedAt")
    return Session(
        key=SessionKey(app=data["appName"], user_id=data["userId"], session_id=data["id"]),
        version=data["version"],
        epoch=data["epoch"],
        head=data["head"],
        projection=data["projection"],
        state=data.get("state") or {},
        metadata=data["metadata"],
        events=tuple(event_of(event) for event in data.get("events") or ()),
        created_at=datetime.fromisoformat(data["createdAt"]),
        updated_at=datetime.fromisoformat(data["updatedAt"]),
        ended_at=datetime.fromisoformat(ended) if ended else None,
        forked_from=data.get("forkedFrom"),
        spent=spent_of(data["spent"]),
    )


def answer_of(data: JsonObject) -> Answer:
    """How a turn ended."""
    return Answer(
        invocation_id=data["invocationId"],
        status=data["status"],
        seq=data["seq"],
        text=data["text"],
        failure=failure_of(data.get("failure")),
        waiting=tuple(waiting_of(each) for each in data.get("waiting") or ()),
        output=data.get("output"),
        spent=spent_of(data["spent"]) if "spent" in data else None,
    )


def artifact_of(data: JsonObject) -> ArtifactInfo:
    """A version of an artifact."""
    return ArtifactInfo(
        name=data["name"],
        version=data["version"],
        mime_type=data["mimeType"],
        size=data["size"],
        sha256=data["sha256"],
        created_at=datetime.fromisoformat(data["createdAt"]),
    )


def artifacts_of(data: JsonObject) -> list[ArtifactInfo]:
    """A list of versions."""
    return [artifact_of(file) for file in data["files"]]


def newest_of(found: Sequence[ArtifactInfo], name: str, version: int | None, key: SessionKey) -> ArtifactInfo:
    """A version among all that are live, oldest first.

    Raises:
        ArtifactNotFound: it is not among them.
    """
    matching = [each for each in found if version in (None, each.version)]
    if not matching:
        wanted = f"artifact {name!r}" if version is None else f"version {version} of artifact {name!r}"
        raise ArtifactNotFound(
            f"{wanted} of {key} was never saved, or was rewound or deleted; list the artifacts"
        )
    return matching[-1]


def sessions_page(data: JsonObject) -> Page[Session]:
    """A page of sessions."""
    return Page(items=[session_of(each) for each in data["sessions"]], next=data.get("nextCursor"))


def events_page(data: JsonObject) -> Page[Event]:
    """A page of a log."""
    return Page(items=[event_of(event) for event in data["events"]], next=data.get("next"))


def rewind_of(data: JsonObject) -> Rewind:
    """A rewind that was done."""
    return Rewind(request_id=data["requestId"], seq=data["seq"], session=session_of(data["session"]))


def rewound_of(data: JsonObject) -> Rewound:
    """What is live from now on."""
    return Rewound(projection=data["projection"], epoch=data["epoch"])


def compacted_of(data: JsonObject) -> Compacted:
    """What came of a request to sum up."""
    return Compacted(summary=event_of(data["summary"]) if "summary" in data else None)


def status_of(data: JsonObject) -> Status:
    """A session, and what it is doing."""
    work = data.get("work")
    return Status(
        session=session_of(data["session"]),
        work=None if work is None else work_of(work),
        schedules=[scheduled_of(each) for each in data.get("schedules", ())],
    )


def context_of(data: JsonObject) -> Context:
    """What the model would get."""
    problem = data.get("problem")
    return Context(
        head=data["head"],
        summary_seq=data.get("summarySeq"),
        contents=data["contents"],
        request=data.get("request"),
        problem=problem_of(problem) if problem else None,
        left_out=data.get("leftOut") or (),
    )


def moment_of(data: JsonObject) -> Moment:
    """A session as it was."""
    artifacts = [artifact_of(each) for each in data["artifacts"]]
    return Moment(session=session_of(data["session"]), artifacts=artifacts)


def outcomes_of(app: str, data: JsonObject) -> list[UpdateOutcome]:
    """What became of a batch, in its order."""
    return [_outcome(app, outcome) for outcome in data["outcomes"]]


def problem_of(data: JsonObject) -> PerdureError:
    """The error that a problem stands for."""
    return error_of(
        data["code"], data["detail"], actual=data.get("actual"), retry_after=data.get("retryAfter")
    )


def _outcome(app: str, data: JsonObject) -> UpdateOutcome:
    return UpdateOutcome(
        key=SessionKey(app=app, user_id=data["userId"], session_id=data["sessionId"]),
        session=session_of(data["session"]) if "session" in data else None,
        error=problem_of(data["problem"]) if "problem" in data else None,
    )
