"""Messages by the clock: the requests, and what a client knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from perdure.client.call import Call, body_of, header_of, session_path, step_of
from perdure.types import During, JsonObject, SessionKey

__all__ = ["Scheduled", "schedule", "schedules", "unschedule"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheduled:
    """A message that is sent again and again."""

    schedule_id: str
    cron: str
    timezone: str
    text: str
    during: str
    paused: bool
    """Somebody has paused it in Temporal."""
    next_times: Sequence[datetime]
    """When it is sent next, a few times."""
    sent: int
    """How often its time has come."""


def schedule(
    key: SessionKey, cron: str, text: str, schedule_id: str, timezone: str, during: During
) -> Call[str]:
    """Have a message sent."""
    body = {"cron": cron, "text": text, "timezone": timezone, "during": during}
    headers = {
        "idempotency-key": header_of(schedule_id, "the schedule's id"),
        "content-type": "application/json",
    }
    return Call(
        method="POST",
        path=session_path(key, "/schedules"),
        parse=lambda reply: str(reply.json()["scheduleId"]),
        content=body_of(body),
        headers=headers,
        id=schedule_id,
    )


def schedules(key: SessionKey) -> Call[list[Scheduled]]:
    """The schedules of a session."""
    return Call(
        method="GET",
        path=session_path(key, "/schedules"),
        parse=lambda reply: [_scheduled_of(each) for each in reply.json()["schedules"]],
    )


def unschedule(key: SessionKey, schedule_id: str) -> Call[None]:
    """Send it no more."""
    name = step_of(schedule_id, "the schedule's id")
    return Call(
        method="DELETE",
        path=session_path(key, f"/schedules/{name}"),
        parse=lambda reply: None,
        id=schedule_id,
    )


def _scheduled_of(data: JsonObject) -> Scheduled:
    same = ("cron", "timezone", "text", "during", "paused", "sent")
    return Scheduled(
        schedule_id=data["scheduleId"],
        next_times=[datetime.fromisoformat(when) for when in data["nextTimes"]],
        **{name: data[name] for name in same},
    )
