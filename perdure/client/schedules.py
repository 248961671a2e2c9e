"""Messages by the clock: the requests."""

from __future__ import annotations

from perdure.client.call import Call, body_of, header_of, session_path, step_of
from perdure.client.schedule_results import Scheduled, scheduled_of
from perdure.types import During, SessionKey

__all__ = ["schedule", "schedules", "unschedule"]


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
        parse=lambda reply: [scheduled_of(each) for each in reply.json()["schedules"]],
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
