"""What a client knows of calls that wait for a person or the world."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from perdure.types import Json, JsonObject, SessionKey

__all__ = ["Settled", "WaitingCall", "settled_of", "waiting_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingCall:
    """A call that waits for a person or the world."""

    call_id: str
    tool: str
    kind: str
    """``approval``, ``result``, ``event`` or ``timer``; or ``agent``: what it has asked waits."""
    since: datetime
    until: datetime | None = None
    event: str | None = None
    """The name of the notification that answers it."""
    agent_session: str | None = None
    """The id of the agent's session, where the kind is ``agent``: what it waits for is decided there."""
    then: str | None = None
    """What becomes of an approval at its deadline, where that is not a refusal."""
    text: str | None = None
    """The last progress that was reported."""
    percent: float | None = None
    arguments: JsonObject | None = None
    """What the model wants it called with; None in an answer, which does not say."""
    ticket: Json = None
    """What a long-running tool has returned; None in an answer, too."""
    key: SessionKey | None = None
    """The session, where what waits across sessions is listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """A decision, a result or a progress was taken."""

    call_id: str
    decision: str
    """``yes``, ``no``, ``changed``, ``result``, ``failed`` or ``progress``."""


def waiting_of(data: JsonObject) -> WaitingCall:
    """A call that waits."""
    until = data.get("until")
    names = [data[name] for name in ("appName", "userId", "sessionId") if name in data]
    same = ("tool", "kind", "event", "then", "text", "percent", "arguments", "ticket")
    return WaitingCall(
        call_id=data["callId"],
        since=datetime.fromisoformat(data["since"]),
        until=datetime.fromisoformat(until) if until else None,
        key=SessionKey(app=names[0], user_id=names[1], session_id=names[2]) if names else None,
        agent_session=data.get("agentSession"),
        **{name: data[name] for name in same if name in data},
    )


def settled_of(data: JsonObject) -> Settled:
    """What was taken."""
    return Settled(call_id=data["callId"], decision=data["decision"])
