"""The agents that a session's calls ask: a child workflow each, which ends with the call.

A child is an ordinary session's workflow that was handed its one message. When its call is cancelled, with
its turn or for itself, the turn goes on to its end at once; the child is seen to its own end beside it,
and what it took is counted then. No run of the session ends before that.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from activities.asking_tasks import COUNT_CHILD, CountTask
from activities.failures import refusal
from activities.protocol import Asked, CallRef, Child, Failure, ToolTask, call_id_of
from perdure.agenttool import REQUEST
from perdure.types import SessionKey
from workflows import calls
from workflows.messages import Carry, Item, Message

__all__ = ["Children"]

LOOK_AGAIN = timedelta(seconds=2)
"""Until a child is begun again whose last workflow, of a parent that is gone, is still ending."""


class Children:
    """The agents that are being asked."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether one is, or was cancelled and is not over yet."""
        return bool(self._calls)

    async def ask(self, task: ToolTask, call: CallRef, child: Child) -> None:
        """Have an agent answer a call, and its answer written into the log.

        Raises:
            ActivityError: that was refused.
        """
        asking = asyncio.create_task(_ask(task, call, child))
        self._calls.add(asking)
        asking.add_done_callback(self._over)
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.cancel()
            raise

    def _over(self, asking: asyncio.Task[None]) -> None:
        self._calls.discard(asking)
        if not asking.cancelled():
            asking.exception()  # whoever still waits for the call gets it; nobody does if it was cancelled


async def _ask(task: ToolTask, call: CallRef, child: Child) -> None:
    try:
        asked = await _done(call, child)
        await calls.run_tool(task.model_copy(update={"asked": asked}), CallRef(name=call.name))
    except (asyncio.CancelledError, ActivityError, ChildWorkflowError):
        await _count(task, child)
        raise


async def _done(call: CallRef, child: Child) -> Asked:
    """Start it, and wait until it is over, however that comes."""
    try:
        refused = await (await _started(call, child))
    except ChildWorkflowError:
        if _is_cancelled():
            raise
        # By somebody else: an operator, perhaps.
        return Asked(failure=Failure(type="Cancelled", message="its workflow was closed"))
    return Asked() if refused is None else Asked(failure=refused)


async def _started(call: CallRef, child: Child) -> workflow.ChildWorkflowHandle[object, Failure | None]:
    key = SessionKey.parse(workflow.info().workflow_id)
    mine = SessionKey(app=key.app, user_id=key.user_id, session_id=child.session)
    message = Message(message_id=REQUEST, blob=child.blob)
    while True:
        try:
            return await workflow.start_child_workflow(
                "AgentSession",
                Carry(once=True, inbox=[Item(kind="turn", id=REQUEST, message=message)]),
                id=mine.workflow_id,
                result_type=Failure | None,  # type: ignore[arg-type]  # a union is no type, but a type hint
                cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                static_summary=f"{key.app} · {key.user_id} · {call.name}, asked by {key.session_id}",
            )
        except WorkflowAlreadyStartedError:
            await workflow.sleep(LOOK_AGAIN, summary=f"{call.name} is still ending")


def _is_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


async def _count(task: ToolTask, child: Child) -> None:
    call_id = call_id_of(task.invocation_id, task.step, task.index)
    counted = CountTask(session=child.session, call_id=call_id)
    try:
        await calls.steer(COUNT_CHILD, counted, type(None), f"count what {call_id} took")
    except ActivityError as error:
        workflow.logger.warning(f"what {child.session} took is not counted: {refusal(error).type}")
