"""What a session takes for its calls that wait: decisions, results, notifications.

The handlers of ``AgentSession`` that are about waiting, in a class of their own, which it inherits.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.failures import refusal
from activities.protocol import NOTE_PROGRESS, ProgressTask
from workflows import calls
from workflows.above import Above
from workflows.edges import typed, update_id
from workflows.standing import Standing
from workflows.wait_messages import (
    AGENT_WAITS,
    AgentWaits,
    Decision,
    Notification,
    Progress,
    Result,
    Settled,
)
from workflows.waiting import Waits

__all__ = ["WaitHandlers"]


class WaitHandlers:
    """See ``AgentSession``, which sets these up before any handler runs."""

    _standing: Standing
    _waits: Waits
    _above: Above

    @workflow.update
    async def approve(self, request: Any = None) -> Settled:
        """A person's yes or no to a call that waits for it."""
        with typed():
            return await self._settle(Decision.of(request))

    @approve.validator
    def _check_approve(self, request: Any = None) -> None:
        with typed():
            self._waits.check(Decision.of(request))

    @workflow.signal(name="approve")
    async def approve_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait; an error is shown by ``status``."""
        with self._standing.noted():
            await self._settle(Decision.of(request))

    @workflow.update
    async def tool_result(self, request: Any = None) -> Settled:
        """The outcome of a long-running tool."""
        with typed():
            return await self._settle(Result.of(request))

    @tool_result.validator
    def _check_tool_result(self, request: Any = None) -> None:
        with typed():
            self._waits.check(Result.of(request))

    @workflow.signal(name="tool_result")
    async def tool_result_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait; an error is shown by ``status``."""
        with self._standing.noted():
            await self._settle(Result.of(request))

    async def _settle(self, request: Decision | Result) -> Settled:
        await self._waits.arrived(request)
        settled = self._waits.settle(request)
        await self._above.heard()  # who asks that session next is not to be told that it still waits
        return settled

    @workflow.update
    async def tool_progress(self, request: Any = None) -> Settled:
        """How far a long-running tool has come: shown by ``status``, and noted in the log."""
        with typed():
            return await self._progress(Progress.of(request), update_id())

    @tool_progress.validator
    def _check_tool_progress(self, request: Any = None) -> None:
        with typed():
            self._waits.check(Progress.of(request))

    @workflow.signal(name="tool_progress")
    async def tool_progress_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait; an error is shown by ``status``."""
        with self._standing.noted():
            await self._progress(Progress.of(request), str(workflow.uuid7()))

    async def _progress(self, progress: Progress, request_id: str) -> Settled:
        await self._waits.arrived(progress)
        self._waits.report(progress)
        self._standing.show()
        turn = self._standing.turn
        assert turn is not None, "a call waits, so a turn runs"
        assert turn.epoch is not None, "it has had its first step"
        task = ProgressTask(
            request_id=request_id,
            invocation_id=turn.id,
            epoch=turn.epoch,
            **progress.model_dump(exclude_unset=True),
        )
        try:
            await calls.steer(NOTE_PROGRESS, task, int, f"progress of {progress.call_id}")
        except ActivityError as error:
            raise refusal(error) from None
        return Settled(call_id=progress.call_id, decision="progress")

    @workflow.signal(name=AGENT_WAITS)
    def agent_waits(self, request: Any = None) -> None:
        """The turn of an agent that this session has asked begins or ceases to wait."""
        with self._standing.noted():
            self._waits.children.heard(AgentWaits.of(request))
            self._standing.show()

    @workflow.signal
    def notify(self, request: Any = None) -> None:
        """Something has happened: it wakes the call that waits for it, or is kept until one does."""
        with self._standing.noted():
            self._waits.notify(Notification.of(request))
            self._standing.show()
