"""What Temporal knows of a session's activities: what is under way, and how often one was given out again.

A worker that dies is missed after ten seconds, and what it was at is tried again. So is what a worker was
at that lives and has stood still for as long, as any may on a busy machine; that costs another model call
or try of a tool, and is none of the errors that a test looks for.
"""

from __future__ import annotations

from temporalio.api.enums.v1.workflow_pb2 import PENDING_ACTIVITY_STATE_STARTED
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import Client

__all__ = ["at_rest", "in_flight", "more_attempts"]


async def in_flight(client: Client, workflow_id: str) -> int:
    """How many activities are at work, as Temporal has it; if their worker has died, each is tried again."""
    described = await _described(client, workflow_id)
    return sum(each.state == PENDING_ACTIVITY_STATE_STARTED for each in described.pending_activities)


async def at_rest(client: Client, workflow_id: str) -> bool:
    """Whether the workflow has no activity under way, and has heard of the end of the last one."""
    described = await _described(client, workflow_id)
    return not described.pending_activities and not described.HasField("pending_workflow_task")


async def more_attempts(client: Client, workflow_id: str, *, cut_off: int = 0) -> int:
    """How many attempts of the workflow's activities, in all its runs, were not the first.

    Args:
        client: of the namespace.
        workflow_id: the workflow's.
        cut_off: how many its worker's deaths have cost, as :func:`in_flight` had it; they do not count.
    """
    run_id = (await _described(client, workflow_id)).workflow_execution_info.first_run_id
    more = 0
    while run_id:
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        events = (await handle.fetch_history()).events
        started = [event.activity_task_started_event_attributes for event in events]
        more += sum(each.attempt - 1 for each in started if each.attempt)
        run_id = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return max(more - cut_off, 0)


async def _described(client: Client, workflow_id: str) -> DescribeWorkflowExecutionResponse:
    return (await client.get_workflow_handle(workflow_id).describe()).raw_description
