"""``deliver_message``: what a schedule does when its time has come.

The message goes out under an id made of the schedule's and of the time, so that one whose delivery
is tried twice runs once. Whether the session is still there is asked now: a schedule outlives
whatever deleted its session without knowing of it, and must not make that again.
"""

from __future__ import annotations

import logging

from temporalio import activity
from temporalio.client import Client, ScheduleActionStartWorkflow
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.runtime import beating, log, typed_errors
from activities.schedule_tasks import DELIVER, Delivered, DeliverTask, name_of
from activities.starting import SESSION_WORKFLOW, attributes, summary
from perdure.errors import SessionNotFound
from perdure.types import Session, SessionKey
from storage.sessions import SessionStore

__all__ = ["ScheduleActivities"]


class ScheduleActivities:
    """The activity that schedules are made of.

    Args:
        store: where sessions live.
        client: of the namespace that their workflows run in.
    """

    def __init__(self, store: SessionStore, client: Client) -> None:
        self._store = store
        self._client = client

    @activity.defn(name=DELIVER)
    @typed_errors
    async def deliver(self, task: DeliverTask) -> Delivered:
        """Send the message, if there is somebody to get it."""
        key = SessionKey.parse(task.session)
        name = name_of(key, task.schedule_id)
        workflow_id = activity.info().workflow_id
        assert workflow_id is not None, "a schedule starts a workflow"
        message_id = f"{task.schedule_id}@{workflow_id.removeprefix(name).removeprefix('-')}"
        async with beating():
            session = await self._session(key, task)
            if session is None:
                await self._remove(name, task)
                log(logging.INFO, "unscheduled", key, message_id, "the session of %s is gone", name)
                return Delivered(outcome="deleted")
            if session.ended_at is not None:
                return Delivered(outcome="ended")
            await self._send(key, task, message_id)
        return Delivered(outcome="sent", message_id=message_id)

    async def _session(self, key: SessionKey, task: DeliverTask) -> Session | None:
        try:
            session = await self._store.get(key, max_events=0)
        except SessionNotFound:
            return None
        return session if task.made in (None, session.created_at) else None

    async def _send(self, key: SessionKey, task: DeliverTask, message_id: str) -> None:
        message = {"text": task.text, "message_id": message_id}
        if task.during != "queue":
            message["during"] = task.during
        await self._client.start_workflow(
            SESSION_WORKFLOW,
            id=key.workflow_id,
            task_queue=activity.info().task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes(key),
            static_summary=summary(key),
            start_signal="message",
            start_signal_args=[message],
        )

    async def _remove(self, name: str, task: DeliverTask) -> None:
        """Unless another has been made under its name meanwhile, of the session that is there now."""
        handle = self._client.get_schedule_handle(name)
        try:
            action = (await handle.describe()).schedule.action
            assert isinstance(action, ScheduleActionStartWorkflow), "our schedules start a workflow"
            [there] = await self._client.data_converter.decode(action.args, [DeliverTask])
            if there.made == task.made:
                await handle.delete()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
