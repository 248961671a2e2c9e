"""What holds a session's turn up: what the last try of its step met, as Temporal has it.

The workflow itself does not know. Tries are made without it and cost its history nothing,
so who wants to know asks the server for the activities that are pending.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.enums.v1.workflow_pb2 import PENDING_ACTIVITY_STATE_SCHEDULED
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from activities.protocol import CALL_MODEL, RUN_TOOL, Failure
from activities.runtime import KEEPS_TRYING_TO_WRITE
from gateway.served import is_polled
from gateway.typed import typed
from perdure.errors import SessionNotFound, StorageUnavailable, TemporalUnavailable
from perdure.types import SessionKey
from workflows.messages import Status
from workflows.session import AgentSession

__all__ = ["Work", "status_of", "work_of"]

_TELL = frozenset({CALL_MODEL, RUN_TOOL})
"""The activities whose heartbeats tell that they keep trying to write."""
_KEPT = (
    "the step is done, and what came of it is kept until it can be written: the database or the artifacts' "
    "filesystem is out of order, the worker's log says which; nothing is to be done here"
)


class Work(Status):
    """What a session is doing now."""

    held_up: Failure | None = None
    """What the last try of the running step met: the database is away, say. It is tried again by itself.
    Or that no worker is there to take it."""


async def status_of(client: Client, key: SessionKey, within: timedelta | None = None) -> Status:
    """What a session's workflow says of itself; of one that has ended, what it said last.

    One that was cancelled or terminated could only tell what it did before, as if it still did.

    Args:
        client: of the namespace.
        key: the session.
        within: how long it is waited for; None is as long as the client does.

    Raises:
        SessionNotFound: no workflow of that session is open.
        RPCError: Temporal, or a worker, does not answer.
    """
    handle = client.get_workflow_handle(key.workflow_id)
    unless = QueryRejectCondition.NOT_COMPLETED_CLEANLY
    while True:
        try:
            asked = handle.query(AgentSession.status, reject_condition=unless, rpc_timeout=within)
            return await typed(asked, key)
        except WorkflowQueryRejectedError as error:
            # The run that was asked has handed over to the next one meanwhile: that is to be asked.
            if error.status is not WorkflowExecutionStatus.CONTINUED_AS_NEW:
                raise SessionNotFound(f"no workflow of session {key} is open") from error


async def work_of(client: Client, workflow_id: str, status: Status) -> Work:
    """A session's status, with what holds its turn up, storage before all else.

    Raises:
        RPCError: there is no such workflow, or Temporal does not answer.
    """
    work = Work(**status.model_dump())
    met = await _all_met(client, workflow_id) if status.doing else []
    if not met:
        return work
    stored = [one for one in met if one.type == StorageUnavailable.__name__]
    return work.model_copy(update={"held_up": (stored or met)[0]})


async def _all_met(client: Client, workflow_id: str) -> list[Failure]:
    described = (await client.get_workflow_handle(workflow_id).describe()).raw_description
    pending = described.pending_activities
    found = [await _met(one, client.data_converter) or await _unserved(one, client) for one in pending]
    return [one for one in found if one is not None]


async def _unserved(pending: PendingActivityInfo, client: Client) -> Failure | None:
    """That nobody polls the queue that it is on: that of a tool, say, whose worker is not started."""
    queue = pending.activity_options.task_queue.name
    if pending.state != PENDING_ACTIVITY_STATE_SCHEDULED or not queue:
        return None
    if await is_polled(client, queue, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY):
        return None
    message = (
        f"no worker polls the task queue {queue}, where {pending.activity_type.name} is to run; start one"
    )
    return Failure(type=TemporalUnavailable.__name__, message=message)


async def _met(pending: PendingActivityInfo, converter: DataConverter) -> Failure | None:
    ours = pending.activity_type.name in _TELL
    details = await converter.decode(pending.heartbeat_details.payloads) if ours else []
    if details[2:3] == [KEEPS_TRYING_TO_WRITE]:
        return Failure(type=StorageUnavailable.__name__, message=_KEPT)
    if not pending.HasField("last_failure"):
        return None
    error = await converter.decode_failure(pending.last_failure)
    kind = error.type if isinstance(error, ApplicationError) else None
    return Failure(type=kind or type(error).__name__, message=str(error.args[0] if error.args else error))
