"""Patience with a worker in the test's own process, which may stand still for many seconds on a busy machine.

To a session's workflow a worker is dead after ten seconds without a heartbeat, and what it was at is tried
again: the model is asked twice, a tool that was held runs once more, and of two attempts either may be first.
That is as it should be, and tests with workers in processes of their own are about it. Any other test would
fail by it, by chance.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import temporalio.client
import temporalio.worker
from temporalio.worker import (
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

__all__ = ["PATIENCE", "Patient"]

PATIENCE = 90.0
"""Seconds after which what a test waits for has not come, on a machine that stands still now and then."""
HEARTBEAT = timedelta(seconds=30)
"""Longer than that; and what was given to a worker that has just stopped is lost no longer than this."""


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
