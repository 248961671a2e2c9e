"""What passes between a session's workflow and the activities that see to the agents it has asked."""

from __future__ import annotations

from activities.protocol import Record

__all__ = ["AWAIT_CHILD", "COUNT_CHILD", "AwaitTask", "CountTask"]

AWAIT_CHILD = "await_child"
COUNT_CHILD = "count_child"


class AwaitTask(Record):
    """Wait for the end of the workflow that an agent's session has still, of a parent that is gone."""

    session: str


class CountTask(Record):
    """Count what an agent took that was asked for a call, and is not to answer it any more."""

    session: str
    call_id: str
