"""What a client knows of a session's work: what it does, what it took, what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from perdure.client.waiting_results import WaitingCall, waiting_of
from perdure.types import NANO, JsonObject, Spent

__all__ = ["AskedAgent", "Failure", "Work", "failure_of", "spent_of", "work_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a turn failed: the name of a class of :mod:`perdure.errors`, or of a tool's, and its message."""

    type: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedAgent:
    """An agent that a call has asked, in a session of its own, of the same app and user."""

    session: str
    call_id: str
    tool: str
    since: datetime
    waiting: Sequence[WaitingCall]
    """What it waits for; empty while it works."""
    ending: bool
    """Its call was cancelled, and it is being seen to its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a session's workflow is doing, as :class:`workflows.messages.Status` says it."""

    status: str
    doing: str | None
    """What it waits for, in words."""
    invocation_id: str | None
    """The turn that runs."""
    queued: int
    """Messages that wait for their turn."""
    turns: int
    model_calls: int
    tool_calls: int
    tokens: int
    usd: float
    """What they cost in US dollars, where prices are known."""
    turn_tokens: int
    """Of the turn that runs, so far."""
    turn_usd: float
    warning: str | None
    """What of the agent's budget is nearly spent."""
    budget: Mapping[str, float]
    """What that allows: ``tokens``, ``money`` (US dollars) and ``steps`` of the session, ``turn_money``."""
    rewinds: int
    compacting: bool
    agents: Sequence[AskedAgent]
    """The agents that it has asked, and that are not over."""
    last_error: Failure | None
    held_up: Failure | None
    """What the last try of the running step met: the database is away, say. It is tried again by itself."""


def work_of(data: JsonObject) -> Work:
    """What a session's workflow is doing."""
    return Work(
        status=data["status"],
        doing=data.get("doing"),
        invocation_id=data.get("invocationId"),
        queued=data["queued"],
        turns=data["turns"],
        model_calls=data["modelCalls"],
        tool_calls=data["toolCalls"],
        tokens=data["tokens"],
        usd=data["usd"],
        turn_tokens=data["turnTokens"],
        turn_usd=data["turnUsd"],
        warning=data.get("warning"),
        budget=data.get("budget") or {},
        rewinds=data["rewinds"],
        compacting=data["compacting"],
        agents=tuple(_agent_of(each) for each in data.get("agents") or ()),
        last_error=failure_of(data.get("lastError")),
        held_up=failure_of(data.get("heldUp")),
    )


def _agent_of(data: JsonObject) -> AskedAgent:
    return AskedAgent(
        session=data["session"],
        call_id=data["callId"],
        tool=data["tool"],
        since=datetime.fromisoformat(data["since"]),
        waiting=tuple(waiting_of(each) for each in data["waiting"]),
        ending=data["ending"],
    )


def spent_of(data: JsonObject) -> Spent:
    """What model calls took."""
    return Spent(tokens=data["tokens"], nano_usd=round(data["usd"] * NANO), model_calls=data["modelCalls"])


def failure_of(data: JsonObject | None) -> Failure | None:
    """Why something failed, where it did."""
    return None if data is None else Failure(type=data["type"], message=data["message"])
