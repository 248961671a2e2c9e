"""Whether a worker polls its task queue, as Temporal has it: the one sign that it can be given work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

__all__ = ["polls"]

# A worker that was killed stays in the list for minutes; one that lives polls at least once a minute.
_FRESH = timedelta(seconds=90)


async def polls(
    client: Client, task_queue: str, *, host: str, pid: int | None = None, workflows: bool = False
) -> bool:
    """Whether a worker of this host, or this very process of it, has polled in the last minute and a half.

    Args:
        client: connected to the worker's namespace.
        task_queue: the queue it serves.
        host: its host's name, as ``socket.gethostname()`` gives it there.
        pid: its process id; None means any of that host.
        workflows: whether it polls for workflows; else for activities, which a worker that is full does not.

    Raises:
        RPCError: Temporal does not answer.
    """
    kind = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW if workflows else TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=kind
    )
    queue = await client.workflow_service.describe_task_queue(request)
    oldest = datetime.now(UTC) - _FRESH
    # The SDK's own identity of a worker is "pid@host".
    fresh = [one.identity for one in queue.pollers if one.last_access_time.ToDatetime(UTC) > oldest]
    return any(one == f"{pid}@{host}" if pid is not None else one.endswith(f"@{host}") for one in fresh)
