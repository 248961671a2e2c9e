"""The floor under a turn: a bare workflow whose update runs one activity that does nothing.

    python -m bench.floor ADDRESS TASK_QUEUE

is a worker for it, set up like Perdure's own.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

__all__ = ["Floor"]


@activity.defn
async def nothing(text: str) -> None:
    """Take a message and do nothing with it."""


@workflow.defn
class Floor:
    """A workflow that lives until it is terminated."""

    @workflow.run
    async def run(self) -> None:
        """Wait for ever."""
        await workflow.wait_condition(lambda: False)

    @workflow.update
    async def turn(self, text: str) -> None:
        """One update, one activity."""
        await workflow.execute_activity(
            nothing,
            text,
            start_to_close_timeout=timedelta(hours=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def _serve(address: str, task_queue: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Worker(
        await Client.connect(address),
        task_queue=task_queue,
        workflows=[Floor],
        activities=[nothing],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        build_id="floor",
    ):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
