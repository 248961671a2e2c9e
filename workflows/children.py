"""The agents that a session's calls ask: a child workflow each, which ends with the call.

A child is an ordinary session's workflow that was handed its one message. When its call is cancelled, with
its turn or for itself, the turn goes on to its end at once; the child is seen to its own end beside it,
and what it took is counted then. No run of the session ends before that.

A child whose turn waits for a person or the world says so by a signal (:mod:`workflows.above`), and its
call waits with it: it holds no slot, and the turn that asked may be parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError, ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from activities.asking_tasks import AWAIT_CHILD, COUNT_CHILD, AwaitTask, CountTask
from activities.failures import refusal
from activities.protocol import Asked, CallRef, Child, Failure, ToolTask, call_id_of
from perdure.agenttool import REQUEST
from perdure.types import SessionKey
from workflows import calls
from workflows.messages import Carry, Item, Message
from workflows.wait_messages import AgentWaits, AskedAgent, Waiting

__all__ = ["Children"]

_IN_USE = Failure(type="Busy", message="somebody is talking to its session, and has not ended that")


@dataclass
class _Asking:
    """One agent that is being asked."""

    session: str
    call_id: str
    tool: str
    since: datetime
    let_go: Callable[[], None]
    """Gives back what its call holds."""
    run_id: str | None = None
    """The first run of its workflow, once that is started."""
    told: AgentWaits | None = None
    """What it has said last of its waits."""
    waits_since: datetime | None = None
    given_up: bool = False
    """Its call was cancelled, and it is ending."""
    tells: bool = False
    """It was asked by a worker that knows of its waits."""

    @property
    def waits(self) -> Sequence[Waiting]:
        """What it waits for, where its turn is parked."""
        told = self.told
        return () if told is None or told.run_id != self.run_id or self.given_up else told.waiting


class Children:
    """The agents that are being asked.

    Args:
        changed: told when one begins or ceases to wait.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.is_over: Callable[[str], bool] = lambda _: True
        """Whether a turn is over in the log, too."""
        self._calls: dict[asyncio.Task[None], _Asking] = {}

    @property
    def running(self) -> bool:
        """Whether one is, or was cancelled and is not over yet."""
        return bool(self._calls)

    @property
    def asked(self) -> list[AskedAgent]:
        """All of them, for people."""
        return [
            AskedAgent(
                session=each.session,
                call_id=each.call_id,
                tool=each.tool,
                since=each.since,
                waiting=each.waits,
                ending=each.given_up,
            )
            for each in self._calls.values()
        ]

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait because what they have asked does."""
        return [
            Waiting(
                call_id=each.call_id,
                tool=each.tool,
                kind="agent",
                since=each.waits_since or each.since,
                agent_session=each.session,
            )
            for each in self._calls.values()
            if each.waits
        ]

    def heard(self, told: AgentWaits) -> None:
        """One says that its turn begins or ceases to wait. One that is not asked any more is not heard."""
        for each in self._calls.values():
            if each.session == told.session and each.run_id in (None, told.run_id):
                each.told, each.waits_since = told, workflow.now()
                self._look(each)

    async def counted(self) -> None:
        """Until those are over whose calls were cancelled, and what they took is in the log."""
        if any(each.tells for each in self._calls.values()):
            await workflow.wait_condition(lambda: not self._calls)

    async def ask(self, task: ToolTask, call: CallRef, child: Child, let_go: Callable[[], None]) -> None:
        """Have an agent answer a call, and its answer written into the log.

        Args:
            task: the call.
            call: the same, as the model asked for it.
            child: where it is asked.
            let_go: gives back what the call holds while it runs; called when the agent waits, if it does.

        Raises:
            ActivityError: that was refused.
        """
        call_id = call_id_of(task.invocation_id, task.step, task.index)
        here = _Asking(child.session, call_id, call.name, workflow.now(), let_go, tells=child.tells)
        asking = asyncio.create_task(self._ask(task, call, child, here))
        self._calls[asking] = here
        asking.add_done_callback(self._over)
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            here.given_up = True
            asking.cancel()
            raise

    def _over(self, asking: asyncio.Task[None]) -> None:
        del self._calls[asking]
        if not asking.cancelled():
            asking.exception()  # whoever still waits for the call gets it; nobody does if it was cancelled

    def _look(self, here: _Asking) -> None:
        if here.waits:
            here.let_go()
        self._changed()

    async def _ask(self, task: ToolTask, call: CallRef, child: Child, here: _Asking) -> None:
        try:
            asked = await self._done(call, child, here)
            here.told = None
            self._changed()
            await calls.run_tool(task.model_copy(update={"asked": asked}), CallRef(name=call.name))
        except (asyncio.CancelledError, ActivityError, ChildWorkflowError):
            if here.tells:
                # From then on its response is refused, if an attempt to write it is late: one of them counts.
                await workflow.wait_condition(lambda: self.is_over(task.invocation_id))
            await _count(here)
            raise

    async def _done(self, call: CallRef, child: Child, here: _Asking) -> Asked:
        """Start it, and wait until it is over, however that comes."""
        try:
            started = await _started(call, child)
            if started is None:
                return Asked(failure=_IN_USE)
            here.run_id = started.first_execution_run_id
            self._look(here)  # it may have been heard before
            refused = await started
        except ChildWorkflowError:
            if _is_cancelled():
                raise
            # By somebody else: an operator, perhaps.
            return Asked(failure=Failure(type="Cancelled", message="its workflow was closed"))
        return Asked() if refused is None else Asked(failure=refused)


async def _started(
    call: CallRef, child: Child
) -> workflow.ChildWorkflowHandle[object, Failure | None] | None:
    key = SessionKey.parse(workflow.info().workflow_id)
    mine = SessionKey(app=key.app, user_id=key.user_id, session_id=child.session)
    message = Message(message_id=REQUEST, blob=child.blob)
    tells = {"tells": True} if child.tells else {}
    while True:
        try:
            return await workflow.start_child_workflow(
                "AgentSession",
                Carry(once=True, inbox=[Item(kind="turn", id=REQUEST, message=message)], **tells),
                id=mine.workflow_id,
                result_type=Failure | None,  # type: ignore[arg-type]  # a union is no type, but a type hint
                cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                static_summary=f"{key.app} · {key.user_id} · {call.name}, asked by {key.session_id}",
            )
        except WorkflowAlreadyStartedError:
            # Of a parent that is gone, and still ending; or of a user.
            awaited, title = AwaitTask(session=child.session), f"until {call.name} has ended"
            if not await calls.steer(AWAIT_CHILD, awaited, bool, title):
                return None


def _is_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


async def _count(here: _Asking) -> None:
    counted = CountTask(session=here.session, call_id=here.call_id)
    try:
        await calls.steer(COUNT_CHILD, counted, type(None), f"count what {here.call_id} took")
    except ActivityError as error:
        workflow.logger.warning(f"what {here.session} took is not counted: {refusal(error).type}")
