"""What a session takes for its calls that wait: decisions, results, notifications.

The handlers of ``AgentSession`` that are about waiting, in a class of their own, which it inherits.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from workflows.edges import typed
from workflows.standing import Standing
from workflows.wait_messages import Decision, Notification, Result, Settled
from workflows.waiting import Waits

__all__ = ["WaitHandlers"]


class WaitHandlers:
    """See ``AgentSession``, which sets these up before any handler runs."""

    _standing: Standing
    _waits: Waits

    @workflow.update
    def approve(self, request: Any = None) -> Settled:
        """A person's yes or no to a call that waits for it."""
        with typed():
            return self._waits.settle(Decision.of(request))

    @approve.validator
    def _check_approve(self, request: Any = None) -> None:
        with typed():
            self._waits.check(Decision.of(request))

    @workflow.signal(name="approve")
    def approve_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait; an error is shown by ``status``."""
        with self._standing.noted():
            self._waits.settle(Decision.of(request))

    @workflow.update
    def tool_result(self, request: Any = None) -> Settled:
        """The outcome of a long-running tool."""
        with typed():
            return self._waits.settle(Result.of(request))

    @tool_result.validator
    def _check_tool_result(self, request: Any = None) -> None:
        with typed():
            self._waits.check(Result.of(request))

    @workflow.signal(name="tool_result")
    def tool_result_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait; an error is shown by ``status``."""
        with self._standing.noted():
            self._waits.settle(Result.of(request))

    @workflow.signal
    def notify(self, request: Any = None) -> None:
        """Something has happened: it wakes the call that waits for it, or is kept until one does."""
        with self._standing.noted():
            self._waits.notify(Notification.of(request))
            self._standing.show()
