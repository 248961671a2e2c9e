"""``ScheduledMessage``: one delivery, started by a Temporal Schedule whose time has come.

A schedule starts workflows and cannot signal one. This one lives for as long as it takes to
send the message; the session's own workflow takes it from there.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from activities.schedule_tasks import DELIVER, Delivered, DeliverTask
from workflows.calls import HEARTBEAT, PATIENT

__all__ = ["ScheduledMessage"]


@workflow.defn(name="ScheduledMessage")
class ScheduledMessage:
    """Sends one message to one session."""

    @workflow.run
    async def run(self, task: DeliverTask) -> Delivered:
        """Send it."""
        done: Delivered = await workflow.execute_activity(
            DELIVER,
            task,
            result_type=Delivered,
            start_to_close_timeout=timedelta(minutes=10),
            heartbeat_timeout=HEARTBEAT,
            retry_policy=PATIENT,
            summary=f"{task.schedule_id} to {task.session}",
        )
        return done
