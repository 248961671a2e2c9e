"""Patience with a machine so busy that this process, or a server, stands still for many seconds.

To a session's workflow a worker is dead after ten seconds without a heartbeat, and what it was at is tried
again: the model is asked twice, a tool that was held runs once more, and of two attempts either may be first.
That is as it should be, and tests with workers in processes of their own are about it. A test with a worker
in its own process would fail by it, by chance. So it would if Temporal had not answered a call in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import temporalio.client
import temporalio.worker
from temporalio.client import RPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import (
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

from gateway.held_up import Work
from gateway.runner import Runner, new_id
from perdure.types import SessionKey
from workflows.messages import Request
from workflows.wait_messages import Settled

__all__ = ["PATIENCE", "Patient", "PatientRunner", "came_too_late"]

T = TypeVar("T")

PATIENCE = 90.0
"""Seconds after which what a test waits for has not come, on a machine that stands still now and then."""
HEARTBEAT = timedelta(seconds=30)
"""For so long a worker may stand still. What was given to one that has just stopped is lost for no longer."""
SENT = 5
"""Times that a message is sent at most."""
AGAIN_AFTER = 1.0
"""Seconds between two of them."""


def came_too_late(error: Exception) -> bool:
    """Whether Temporal, or the worker that was to answer, took longer than a call was given."""
    if isinstance(error, RPCError):
        late = error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)
        # Where a worker has let the time for a task pass again and again, it lets no update in, and no query.
        return late or "Workflow Task in failed state" in error.message
    return isinstance(error, RPCTimeoutOrCancelledError)


class PatientRunner(Runner):
    """Sends again what was not answered in time, under its id, as whoever sends it is to do."""

    again = 0
    """How often it had to."""

    async def _send(self, key: SessionKey, update: str, request: Request, answer: type[T]) -> T:
        send = super()._send
        return await self._until_answered(lambda: send(key, update, request, answer))

    async def _update(self, key: SessionKey, name: str, request: Any, request_id: str | None) -> Settled:
        send, request_id = super()._update, request_id or new_id()
        return await self._until_answered(lambda: send(key, name, request, request_id))

    async def status(self, key: SessionKey) -> Work:
        status = super().status
        return await self._until_answered(lambda: status(key))

    async def _until_answered(self, send: Callable[[], Awaitable[T]]) -> T:
        for _ in range(SENT - 1):
            try:
                return await send()
            except (RPCError, RPCTimeoutOrCancelledError) as error:
                current = asyncio.current_task()
                if not came_too_late(error) or (current is not None and current.cancelling()):
                    raise
                self.again += 1
                await asyncio.sleep(AGAIN_AFTER)
        return await send()


class Patient(temporalio.client.Interceptor, temporalio.worker.Interceptor):
    """Given to a client, it has the workflows of that client's workers wait longer for a heartbeat."""

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - named so by the SDK
    ) -> type[WorkflowInboundInterceptor]:
        """For each workflow."""
        return _Inbound


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))


class _Outbound(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002 - as above
        # What is on another queue is run by another worker, whose heartbeats may be what a test is about.
        if input.heartbeat_timeout is not None and input.task_queue is None:
            input.heartbeat_timeout = max(input.heartbeat_timeout, HEARTBEAT)
        return super().start_activity(input)
