"""What a store answers, and the way between a row and a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypedDict

from sqlalchemy import Row

from perdure.errors import InvalidContent, PerdureError
from perdure.types import ArtifactVersion, Event, JsonObject, Session, SessionKey, Spent
from storage import projection
from storage.storable import canonical, check_id, check_json

__all__ = [
    "Context",
    "Remembered",
    "Rewound",
    "SessionPage",
    "SessionUpdate",
    "Turn",
    "UpdateOutcome",
    "artifact_of",
    "check_event",
    "event_of",
    "event_values",
    "owner",
    "same_event",
    "session_of",
    "stored_event",
]

MAX_ID_BYTES = 600
_OPTIONAL = ("state_delta", "state_undo", "artifact_delta", "meta")
_COMPARED = ("branch", "content", "compaction", "rewind", "usage", "error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """How a turn stands after :meth:`SessionStore.begin_turn`."""

    epoch: int
    """What the turn's appends must carry."""
    seq: int
    """Of the user's event; of the end marker if the turn was interrupted before that was written."""
    done: Event | None
    """The event that ended the invocation, if it has ended: its answer or its end marker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewound:
    """The outcome of a rewind."""

    epoch: int
    """What the session's turns must carry from now on."""
    event: Event
    """The marker."""
    repeated: bool
    """The request had been carried out before, and nothing was written now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a prompt is built from, as one transaction saw it."""

    session: Session
    """With its state, or the keys of it that were asked for, and without events."""
    summary: Event | None
    """The newest live compaction event."""
    events: Sequence[Event]
    """The live events from the summary's tail on, or all of them; summaries left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionPage:
    """Sessions without state and events, newest first, and the cursor of the next page if there is one."""

    sessions: Sequence[Session]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionUpdate:
    """One change of a batch; the fields are those of :meth:`SessionStore.update`."""

    key: SessionKey
    request_id: str
    state: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    expected_version: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateOutcome:
    """What became of one change of a batch: the session after it, or why nothing of it was written."""

    key: SessionKey
    session: Session | None = None
    error: PerdureError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Remembered:
    """What a user's memory holds of a session, after it was remembered."""

    upto: int
    """The seq up to which all that is live is in it."""
    added: int
    """Passages that were added now."""
    passages: int
    """Passages there are of this session."""


class Whose(TypedDict):
    """Whose memory is searched; the names are those of the statements' parameters."""

    app: str
    user_id: str
    but: str
    """A session that is left out; no session has the name that is empty."""


def owner(key: SessionKey) -> dict[str, str]:
    """The columns that name a session in every table but ``sessions``."""
    return {"app": key.app, "user_id": key.user_id, "session_id": key.session_id}


def check_event(event: Event) -> None:
    """Refuse an event that some store could not hold, or that would mislead a reader of the log.

    Raises:
        InvalidContent: an id, a name or a value in it cannot be stored, or is not what its field takes.
    """
    check_id(event.id, "the event's id", max_bytes=MAX_ID_BYTES)
    check_id(event.invocation_id, f"the invocation id of event {event.id}", max_bytes=MAX_ID_BYTES)
    check_id(event.author, f"the author of event {event.id}")
    check_json(event.branch, f"branch of event {event.id}")
    for name in ("content", "compaction", "usage", "error", "meta"):
        value = getattr(event, name)
        check_json(value, f"{name} of event {event.id}")
        if not isinstance(value, dict) and (value is not None or name == "meta"):
            raise InvalidContent(f"{name} of event {event.id} is a {type(value).__name__}; give an object")
    for name in ("state_delta", "artifact_delta"):
        check_json(dict(getattr(event, name)), f"{name} of event {event.id}")
    if any(type(version) is not int for version in event.artifact_delta.values()):
        raise InvalidContent(f"artifact_delta of event {event.id} has a version that is no whole number")
    if event.rewind is not None:
        raise InvalidContent(f"event {event.id} says that it is a rewind; only rewind() makes those")
    if event.compaction is not None:
        _check_range(event.id, event.compaction)
    if event.created_at is not None:
        _check_time(event.id, event.created_at)


def _check_range(event_id: str, compaction: JsonObject) -> None:
    seqs: list[Any] = [compaction.get(name) for name in ("start", "end", "tail")]
    start, end, tail = seqs
    whole = all(isinstance(seq, int) for seq in seqs)
    if not whole or not 1 <= start <= end or not 1 <= tail <= end + 1:
        raise InvalidContent(
            f"compaction of event {event_id} is no range; give the seqs start, end and tail, "
            "with 1 <= start <= end and 1 <= tail <= end + 1"
        )


def _check_time(event_id: str, created_at: datetime) -> None:
    if created_at.utcoffset() is None:
        raise InvalidContent(f"created_at of event {event_id} has no timezone; give one")
    try:
        created_at.astimezone(UTC)
    except OverflowError:
        raise InvalidContent(f"created_at of event {event_id} is out of the calendar; mend it") from None


def event_values(key: SessionKey, event: Event) -> dict[str, Any]:
    """The row of an event. Empty mappings are NULL, so that partial indexes pass over them."""
    values = {name: getattr(event, name) for name in _COMPARED}
    values |= {name: dict(getattr(event, name)) or None for name in _OPTIONAL}
    return {
        **owner(key),
        **values,
        "seq": event.seq,
        "event_id": event.id,
        "invocation_id": event.invocation_id,
        "author": event.author,
        "created_at": event.created_at,
    }


def event_of(row: Row[Any], ranges: projection.Ranges | None) -> Event:
    """The event in a row of ``events``; ``ranges`` None where it is known to be live."""
    columns: dict[str, Any] = dict(row._mapping)
    return Event(
        id=columns["event_id"],
        invocation_id=columns["invocation_id"],
        author=columns["author"],
        branch=columns["branch"],
        content=columns["content"],
        state_delta=columns["state_delta"] or {},
        state_undo=columns["state_undo"] or {},
        artifact_delta=columns["artifact_delta"] or {},
        compaction=columns["compaction"],
        rewind=columns["rewind"],
        usage=columns["usage"],
        error=columns["error"],
        meta=columns["meta"] or {},
        created_at=columns["created_at"],
        seq=columns["seq"],
        live=ranges is None or projection.contains(ranges, columns["seq"]),
    )


def same_event(stored: Event, event: Event) -> bool:
    """Whether an event says what the stored one does. Order and clock are the store's and don't count."""
    return _said(stored) == _said(event)


def session_of(
    row: Row[Any], state: Mapping[str, Any] | None = None, events: Sequence[Event] = ()
) -> Session:
    """The session in a row of ``sessions``."""
    columns: dict[str, Any] = dict(row._mapping)
    key = SessionKey(app=columns.pop("app"), user_id=columns.pop("user_id"), session_id=columns.pop("id"))
    spent = Spent(**{name: columns.pop(name) for name in ("tokens", "nano_usd", "model_calls")})
    return Session(key=key, state=state or {}, events=events or [], spent=spent, **columns)


def artifact_of(row: Row[Any]) -> ArtifactVersion:
    """The version in a row of ``artifacts``."""
    columns = row._mapping
    return ArtifactVersion(
        **{name: columns[name] for name in ("name", "version", "mime_type", "size", "blob", "created_at")}
    )


def stored_event(event: Event, *, seq: int, created_at: datetime) -> Event:
    """The event as it will be stored under ``seq``."""
    return replace(event, seq=seq, created_at=event.created_at or created_at, live=True)


def _said(event: Event) -> tuple[str, ...]:
    values = [getattr(event, name) for name in _COMPARED]
    values += [dict(event.state_delta), dict(event.artifact_delta), event.meta]
    return (event.id, event.invocation_id, event.author, *(canonical(value) for value in values))
