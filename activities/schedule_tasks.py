"""What passes between a schedule, the ``ScheduledMessage`` workflow and its activity."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote, unquote

from activities.protocol import Record
from perdure.types import SessionKey

__all__ = ["DELIVER", "PREFIX", "DeliverTask", "Delivered", "name_of", "parse_name"]

DELIVER = "deliver_message"

PREFIX = "perdure-schedule/"
"""What the names of schedules begin with, and the ids of their workflows."""


class DeliverTask(Record):
    """Send a message to a session, as a schedule has it."""

    session: str
    schedule_id: str
    text: str
    cron: str
    """When; the schedule itself has it in another form."""
    timezone: str = "UTC"
    during: str = "queue"
    made: datetime | None = None
    """When the session was made; another of the same name is none of the schedule's."""


class Delivered(Record):
    """What came of it."""

    outcome: str
    """``sent``; ``ended``: the session is closed; ``deleted``: it is gone, and the schedule with it."""
    message_id: str | None = None


def name_of(key: SessionKey, schedule_id: str) -> str:
    """A schedule's name in Temporal."""
    return f"{PREFIX}{key.workflow_id}/{quote(schedule_id, safe='')}"


def parse_name(name: str) -> tuple[SessionKey, str]:
    """The session and the id behind a schedule's name."""
    session, _, schedule_id = name.removeprefix(PREFIX).rpartition("/")
    return SessionKey.parse(session), unquote(schedule_id)
