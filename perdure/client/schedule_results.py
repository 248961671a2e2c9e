"""Messages by the clock, as the gateway tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from perdure.types import JsonObject

__all__ = ["Scheduled", "scheduled_of"]


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


def scheduled_of(data: JsonObject) -> Scheduled:
    """A message that is sent again and again."""
    same = ("cron", "timezone", "text", "during", "paused", "sent")
    return Scheduled(
        schedule_id=data["scheduleId"],
        next_times=[datetime.fromisoformat(when) for when in data["nextTimes"]],
        **{name: data[name] for name in same},
    )
