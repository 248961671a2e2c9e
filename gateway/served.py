"""Waiting for a session only as long as there is a worker that could answer.

Temporal itself waits for ever: an update that no worker has taken is not in any history yet,
and the client asks for it again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionStatus

from gateway.typed import found
from perdure.errors import TemporalUnavailable

__all__ = ["LOOK_EVERY", "is_polled", "while_served"]

T = TypeVar("T")

LOOK_EVERY = 30.0
"""Seconds without an answer after which it is looked whether a worker is there."""
_FRESH = timedelta(seconds=90)
"""A worker that was killed stays in the list for minutes; one that lives polls at least once a minute."""


async def while_served(client: Client, workflow_id: str, task_queue: str, call: Coroutine[Any, Any, T]) -> T:
    """The result of a call to a workflow.

    Args:
        client: of the namespace.
        workflow_id: the workflow's.
        task_queue: where it is started, if it does not run yet.
        call: what is waited for; it is cancelled with this.

    Raises:
        TemporalUnavailable: it took long, and no worker polls the queue.
    """
    calling = asyncio.create_task(call)
    try:
        while not (await asyncio.wait([calling], timeout=LOOK_EVERY))[0]:
            queue = await _queue_of(client, workflow_id) or task_queue
            if not await is_polled(client, queue):
                raise TemporalUnavailable(
                    f"no worker polls the task queue {queue}, so nothing is done now; "
                    "start one, and send the same again under its id"
                )
        return calling.result()
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


async def _queue_of(client: Client, workflow_id: str) -> str | None:
    """The task queue of a workflow that runs: it may have been started on another one."""
    described = await found(client.get_workflow_handle(workflow_id).describe())
    if described is None or described.status is not WorkflowExecutionStatus.RUNNING:
        return None
    return described.task_queue


async def is_polled(
    client: Client,
    task_queue: str,
    kind: TaskQueueType.ValueType = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
) -> bool:
    """Whether a worker asks a queue for tasks of that kind."""
    queue = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=kind,
        )
    )
    oldest = datetime.now(UTC) - _FRESH
    return any(one.last_access_time.ToDatetime(UTC) > oldest for one in queue.pollers)
