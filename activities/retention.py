"""``find_expired_sessions``, ``delete_expired_sessions``, ``collect_blobs``: what retention does.

Each can be done again. A session's row goes first and its workflow is closed after: an
attempt that died between finds the session gone, and closes the workflow. Only the chain of
runs that was seen before the delete is closed, never that of a successor under the same id.
"""

from __future__ import annotations

import logging

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from activities.retention_tasks import (
    COLLECT_BLOBS,
    DELETE_EXPIRED,
    FIND_EXPIRED,
    Batch,
    Batched,
    FindTask,
    Found,
)
from activities.runtime import beating, log, typed_errors
from perdure import searchattributes
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = ["BATCH", "RetentionActivities"]

BATCH = 100
"""Sessions a batch: a few kilobytes of history."""

_STATUS = SearchAttributeKey.for_keyword(searchattributes.STATUS)

_NO_WORKFLOW = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)
"""There is none, or there can be none: a session of a store used without workflows may have a longer id."""


class RetentionActivities:
    """The activities that retention is made of.

    Args:
        store: where sessions live.
        client: of the namespace that their workflows run in.
    """

    def __init__(self, store: SessionStore, client: Client) -> None:
        self._store = store
        self._client = client

    @activity.defn(name=FIND_EXPIRED)
    @typed_errors
    async def find(self, task: FindTask) -> Found:
        """The next batch of sessions that have expired."""
        async with beating():
            page = await self._store.expired(None, task.before, limit=BATCH, cursor=task.cursor)
        return Found(sessions=[str(key) for key in page.keys], next_cursor=page.next_cursor)

    @activity.defn(name=DELETE_EXPIRED)
    @typed_errors
    async def delete(self, batch: Batch) -> Batched:
        """Delete each session that is still expired and whose workflow has nothing to do."""
        deleted = kept = 0
        async with beating():
            for name in batch.sessions:
                if await self._take(SessionKey.parse(name), batch):
                    deleted += 1
                else:
                    kept += 1
        return Batched(deleted=deleted, kept=kept)

    @activity.defn(name=COLLECT_BLOBS)
    @typed_errors
    async def collect_blobs(self) -> int:
        """Remove the blobs that nothing names."""
        async with beating():
            return await self._store.collect_blobs()

    async def _take(self, key: SessionKey, batch: Batch) -> bool:
        run = await self._open_run(key)
        if run is not None and _is_at_work(run):
            return False
        done = await self._store.delete_expired(key, batch.before)
        if done == "kept":
            return False
        if run is not None:
            await self._close(key, run)
        log(logging.INFO, "expired", key, "", "%s; last change before %s", done, batch.before)
        return True

    async def _open_run(self, key: SessionKey) -> WorkflowExecutionDescription | None:
        try:
            run = await self._client.get_workflow_handle(key.workflow_id).describe()
        except RPCError as error:
            if error.status in _NO_WORKFLOW:
                return None
            raise
        return run if run.status is WorkflowExecutionStatus.RUNNING else None

    async def _close(self, key: SessionKey, run: WorkflowExecutionDescription) -> None:
        chain = run.raw_description.workflow_execution_info.first_run_id
        handle = self._client.get_workflow_handle(key.workflow_id, first_execution_run_id=chain)
        try:
            await handle.terminate(reason="the session was deleted by retention")
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:  # it closed by itself
                raise


def _is_at_work(run: WorkflowExecutionDescription) -> bool:
    """Whether an activity is under way, a turn waits, or a message came that no worker has taken up."""
    raw = run.raw_description
    waits = run.typed_search_attributes.get(_STATUS) == "waiting"
    return waits or bool(raw.pending_activities) or raw.HasField("pending_workflow_task")
