"""``Retention``: one cleaning, from a Temporal Schedule or by hand.

The cutoff is taken from the workflow's clock once, and carried along; a page of sessions is
found, then deleted, so a repeated attempt deletes what was found and not what came after.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow

from activities.retention_tasks import (
    COLLECT_BLOBS,
    DELETE_EXPIRED,
    FIND_EXPIRED,
    Batch,
    Batched,
    FindTask,
    Found,
    Retained,
    RetentionTask,
)
from workflows.calls import HEARTBEAT, PATIENT

__all__ = ["PAGES_PER_RUN", "Retention"]

PAGES_PER_RUN = 200
"""Pages after which a run continues as new."""

T = TypeVar("T")


@workflow.defn(name="Retention")
class Retention:
    """Deletes the sessions that have expired, then the blobs that nothing names."""

    @workflow.run
    async def run(self, task: RetentionTask) -> Retained:
        """Clean once."""
        before = task.before or workflow.now() - timedelta(days=task.days)
        deleted, kept, cursor, pages = task.deleted, task.kept, task.cursor, 0
        while True:
            found = await _call(FIND_EXPIRED, Found, FindTask(before=before, cursor=cursor))
            if found.sessions:
                batch = await _call(DELETE_EXPIRED, Batched, Batch(sessions=found.sessions, before=before))
                deleted += batch.deleted
                kept += batch.kept
            cursor, pages = found.next_cursor, pages + 1
            if cursor is None:
                break
            if pages >= PAGES_PER_RUN or workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(
                    RetentionTask(days=task.days, before=before, cursor=cursor, deleted=deleted, kept=kept)
                )
        blobs = await _call(COLLECT_BLOBS, int)
        return Retained(before=before, deleted=deleted, kept=kept, blobs=blobs)


async def _call(name: str, result: type[T], *task: Any) -> T:
    done: T = await workflow.execute_activity(
        name,
        args=task,
        result_type=result,
        start_to_close_timeout=timedelta(hours=12),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
    )
    return done
