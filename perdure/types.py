"""The plain records of a session, shared by every layer.

They hold JSON, not google-genai objects: a ``content`` is the wire form of a genai
``Content`` (camelCase keys, bytes as base64), exactly as it came from the model. So an
event reloads as it was whatever release of google-genai reads it, and workflows can
import this module without importing a model client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, unquote

from perdure.errors import InvalidMessage

__all__ = [
    "ANSWERED_LATER",
    "NANO",
    "ArtifactVersion",
    "During",
    "Event",
    "Json",
    "JsonObject",
    "Passage",
    "Session",
    "SessionKey",
    "Spent",
    "given",
    "text_of",
]

Json = Any
"""A value that JSON can carry: None, bool, int, finite float, str, list, dict with str keys."""
JsonObject = dict[str, Any]
During = Literal["queue", "join", "interrupt"]
"""What a message does where a turn runs: it waits for its end, joins its next step, or ends it."""

ANSWERED_LATER = "answered_later"
"""In the meta of a model's event: the numbers, from 0, of its calls of long-running tools. Where one has no
response it need not wait: its turn may be over, or lost."""
NANO = 1_000_000_000
"""Billionths of a US dollar in one: money is counted in whole ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionKey:
    """What names a session: all three together. The same id under two users is two sessions."""

    app: str
    user_id: str
    session_id: str

    @property
    def workflow_id(self) -> str:
        """The id of the session's workflow: ``{app}/{user}/{session}``, each part percent-encoded."""
        return "/".join(quote(part, safe="") for part in (self.app, self.user_id, self.session_id))

    @classmethod
    def parse(cls, workflow_id: str) -> SessionKey:
        """The key behind a workflow id.

        Raises:
            InvalidMessage: it is not three non-empty parts.
        """
        parts = [unquote(part) for part in workflow_id.split("/")]
        if len(parts) != 3 or not all(parts):
            raise InvalidMessage(f"workflow id {workflow_id!r} is not app/user/session, each percent-encoded")
        return cls(app=parts[0], user_id=parts[1], session_id=parts[2])

    def __str__(self) -> str:
        return self.workflow_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One row of a session's log. ``seq``, ``state_undo`` and ``live`` are the store's to fill."""

    id: str
    invocation_id: str
    author: str
    """``user``, an agent's name, or ``perdure`` for what the runtime itself records."""
    branch: str | None = None
    content: JsonObject | None = None
    state_delta: Mapping[str, Json] = field(default_factory=dict[str, Json])
    state_undo: Mapping[str, Json] = field(default_factory=dict[str, Json])
    artifact_delta: Mapping[str, int] = field(default_factory=dict[str, int])
    compaction: JsonObject | None = None
    """``{"start", "end", "tail"}`` seqs: it sums up start..end; the prompt keeps tail.. raw."""
    rewind: JsonObject | None = None
    """``{"before", "seq", "projection"}``: target, its seq, the projection until then."""
    usage: JsonObject | None = None
    error: JsonObject | None = None
    """``{"type", "message"}`` where something went wrong that the session survived."""
    meta: JsonObject = field(default_factory=dict[str, Any])
    """What has no column: finish_reason, model_version, interrupted, turn_complete, call …"""
    created_at: datetime | None = None
    """Timezone-aware; the store's clock where the appender gives none. Never used for order."""
    seq: int = 0
    live: bool = True
    partial: bool = False
    """A piece of a streamed answer: never stored, changes nothing."""

    @property
    def text(self) -> str:
        """The text a person would read: text parts joined, thoughts left out."""
        return text_of(self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What model calls took."""

    tokens: int = 0
    """Prompts, thoughts and answers, by the model's own count."""
    nano_usd: int = 0
    """Money, in billionths of a US dollar; calls of models without a known price are not in it."""
    model_calls: int = 0

    @property
    def usd(self) -> float:
        """The money in US dollars."""
        return self.nano_usd / NANO

    def __add__(self, more: Spent) -> Spent:
        return Spent(
            tokens=self.tokens + more.tokens,
            nano_usd=self.nano_usd + more.nano_usd,
            model_calls=self.model_calls + more.model_calls,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A session as one transaction saw it."""

    key: SessionKey
    version: int
    epoch: int
    head: int
    projection: Sequence[Sequence[int | None]]
    state: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """Session keys as they are, with the user's keys under ``user:`` and the app's under ``app:``."""
    metadata: JsonObject = field(default_factory=dict[str, Any])
    events: Sequence[Event] = ()
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    forked_from: JsonObject | None = None
    spent: Spent = field(default_factory=Spent)
    """What all model calls of its log took, also those that were rewound and those that summed up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactVersion:
    """One saved version of an artifact. Versions start at 1 and are never used twice."""

    name: str
    version: int
    mime_type: str
    size: int
    """In bytes."""
    blob: str
    """The content-addressed key of its bytes."""
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """What was said in a session, as its user's memory has it: an event's text, or a piece of it."""

    session_id: str
    seq: int
    event_id: str
    invocation_id: str
    author: str
    """``user`` or an agent's name."""
    said_at: datetime
    text: str
    """Up to 2,000 characters."""
    excerpt: str = ""
    """The part of the text that the search was about, up to 300 characters."""


def given(**fields: Json) -> JsonObject:
    """Those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def text_of(content: JsonObject | None) -> str:
    """The readable text of a content in wire form, thoughts left out."""
    parts = (content or {}).get("parts") or ()
    return "".join(part["text"] for part in parts if part.get("text") and not part.get("thought"))
