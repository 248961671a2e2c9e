"""What passes between a session's workflow and the activity that counts what cancelled agents took."""

from __future__ import annotations

from activities.protocol import Record

__all__ = ["COUNT_CHILD", "CountTask"]

COUNT_CHILD = "count_child"


class CountTask(Record):
    """Count what an agent took that was asked for a call, and is not to answer it any more."""

    session: str
    call_id: str
