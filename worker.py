"""The worker: it puts workflows and activities together and polls a task queue.

Run it as ``python worker.py`` or ``perdure worker``. It holds no state; start as many as
you like, and kill any at any time.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from datetime import timedelta

from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkflowRunner

from activities.compaction import CompactionActivities
from activities.gemini import Gemini
from activities.model import ModelActivities
from activities.retention import RetentionActivities
from activities.steering import SteeringActivities
from activities.tools import ToolActivities
from gateway.opening import open_store
from gateway.runner import connect
from perdure import __version__, searchattributes
from perdure.errors import InvalidOption
from perdure.registry import Registry, load_agents
from perdure.settings import Settings
from storage.sessions import SessionStore
from workflows.retention import Retention
from workflows.session import AgentSession

__all__ = ["build_worker", "main", "run_worker"]

_log = logging.getLogger("perdure.worker")


def build_worker(
    client: Client,
    store: SessionStore,
    agents: Registry,
    gemini: Gemini,
    settings: Settings,
    *,
    workflow_runner: WorkflowRunner | None = None,
) -> Worker:
    """A worker for sessions of these agents.

    Args:
        client: from :func:`gateway.runner.connect`.
        store: where sessions live.
        agents: the agents it serves.
        gemini: its model client.
        settings: task queue, concurrency, grace period.
        workflow_runner: the sandbox in tests. Production runs without: the workflow code
            imports nothing that varies, and the sandbox costs a third of the throughput.
    """
    model = ModelActivities(store, agents, gemini, concurrency=settings.max_concurrent_model_calls)
    tools = ToolActivities(store, agents, concurrency=settings.max_concurrent_tools)
    compaction = CompactionActivities(store, agents, gemini)
    steering = SteeringActivities(store)
    retention = RetentionActivities(store, client)
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=[AgentSession, Retention],
        activities=[
            model.call_model,
            tools.run_tool,
            compaction.compact,
            steering.rewind,
            steering.interrupt,
            steering.end_session,
            steering.save_artifact,
            retention.find,
            retention.delete,
            retention.collect_blobs,
        ],
        workflow_runner=workflow_runner or UnsandboxedWorkflowRunner(),
        # Waiting calls hold no thread, and heartbeat; so let in more than may run at once.
        max_concurrent_activities=2 * (settings.max_concurrent_model_calls + settings.max_concurrent_tools),
        graceful_shutdown_timeout=timedelta(seconds=settings.graceful_shutdown),
        # A cancel is heard of through a heartbeat, and must be felt within two seconds.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        # How long a session waits for a worker that died before another may take its workflow.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=3),
        # Left to itself the SDK hashes every module there is: seconds of CPU at each start, and 32
        # bytes of every workflow task.
        build_id=__version__,
    )


async def run_worker(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; running activities then get ``graceful_shutdown`` seconds.

    Raises:
        InvalidOption: no agents, or a Temporal without the search attributes.
    """
    if not settings.agents:
        raise InvalidOption("a worker needs agents: set PERDURE_AGENTS or pass --agents examples.counter")
    agents = load_agents(settings.agents)
    client = await connect(settings)
    await _check_search_attributes(client, settings)
    store = await open_store(settings)
    gemini = Gemini(
        base_url=settings.model_base_url,
        api_key=settings.gemini_api_key.get_secret_value() if settings.gemini_api_key else None,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with build_worker(client, store, agents, gemini, settings):
            _log.info("serving %s on task queue %s", ", ".join(agents), settings.task_queue)
            print(f"worker ready: {', '.join(agents)} on task queue {settings.task_queue}", flush=True)
            await stop.wait()
    finally:
        await gemini.close()
        await store.close()


async def _check_search_attributes(client: Client, settings: Settings) -> None:
    """A workflow task that sets an unknown search attribute fails for ever; better not to start."""
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=settings.temporal_namespace)
        )
    except RPCError as error:
        # Temporal Cloud has no operator service; there they are set up in its console.
        _log.info("cannot list search attributes (%s); taking them as set up", error.status)
        return
    needed = {searchattributes.APP, searchattributes.USER, searchattributes.STATUS}
    if missing := ", ".join(sorted(needed - set(known.custom_attributes))):
        raise InvalidOption(
            f"Temporal at {settings.temporal_address} lacks the search attributes {missing}; "
            "`perdure temporal setup` prints the commands that add them"
        )


def main(settings: Settings) -> None:
    """Be a worker until asked to stop: log to stderr, then :func:`run_worker`."""
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    asyncio.run(run_worker(settings))


if __name__ == "__main__":
    main(Settings())
