"""What passes between the ``Retention`` workflow and its activities: ids, times and counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from activities.protocol import Record

__all__ = [
    "COLLECT_BLOBS",
    "DELETE_EXPIRED",
    "FIND_EXPIRED",
    "Batch",
    "Batched",
    "FindTask",
    "Found",
    "Retained",
    "RetentionTask",
]

FIND_EXPIRED = "find_expired_sessions"
DELETE_EXPIRED = "delete_expired_sessions"
COLLECT_BLOBS = "collect_blobs"


class RetentionTask(Record):
    """Delete what nobody has touched for so many days, and the blobs that nothing names."""

    days: float
    """Age of the last change, from when the run began."""
    before: datetime | None = None
    """The cutoff, once it is known: carried from run to run, like all that follows."""
    cursor: str | None = None
    deleted: int = 0
    kept: int = 0


class Retained(Record):
    """What a whole run did."""

    before: datetime
    """The cutoff: sessions last changed before it went."""
    deleted: int = 0
    kept: int = 0
    """Found expired, but at work or changed when their turn came."""
    blobs: int = 0


class FindTask(Record):
    """Find some sessions that have expired."""

    before: datetime
    cursor: str | None = None


class Found(Record):
    """Some of them, and where to look on."""

    sessions: Sequence[str] = ()
    next_cursor: str | None = None


class Batch(Record):
    """Delete these sessions, where they are still expired."""

    sessions: Sequence[str]
    before: datetime


class Batched(Record):
    """How many of a batch are gone, whoever deleted them, and how many were kept."""

    deleted: int = 0
    kept: int = 0
