"""The worker: it puts workflows and activities together and polls a task queue.

Run it as ``python worker.py`` or ``perdure worker``. It holds no state; start as many as
you like, and kill any at any time.

Asked to stop, it takes no more work and lets what runs go on for ``graceful_shutdown``
seconds. What is still running then is handed back to Temporal, which gives it to another
worker at once (:func:`activities.runtime.typed_errors`). Asked again, it ends on the spot.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig, WorkflowRunner

from activities.asking import AskingActivities
from activities.compaction import CompactionActivities
from activities.gemini import Gemini
from activities.mcp_servers import McpServers
from activities.memory import Memories, MemoryActivities
from activities.model import ModelActivities
from activities.retention import RetentionActivities
from activities.runtime import HEARTBEAT_HELD
from activities.schedules import ScheduleActivities
from activities.steering import SteeringActivities
from activities.tools import ToolActivities
from embedded.pollers import polls
from gateway.health import Checks, NotReady, health_app
from gateway.listening import address_of, listening
from gateway.opening import open_store
from gateway.runner import connect
from gateway.serving import beside_worker
from perdure import __version__, logs, searchattributes
from perdure.agent import Agent
from perdure.agenttool import AgentTool
from perdure.errors import InvalidOption, TemporalUnavailable
from perdure.leaving import end_with
from perdure.registry import Registry, load_agents
from perdure.settings import Settings
from perdure.tool import Tool
from perdure.transfer import team_of
from storage.sessions import SessionStore
from workflows.retention import Retention
from workflows.schedule import ScheduledMessage
from workflows.session import AgentSession

__all__ = ["build_worker", "main", "run_worker"]

TOOL_THREADS = "perdure-tool"
"""How the names of the threads begin in which sync tools run."""

OTHER_ACTIVITIES = 32
"""Slots that calls of models and tools cannot fill: for cancels, rewinds, ends and retention."""

_PASSING = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.RESOURCE_EXHAUSTED)
"""What Temporal answers where it will answer otherwise in a while."""

_log = logging.getLogger("perdure.worker")


def build_worker(
    client: Client,
    store: SessionStore,
    agents: Registry,
    gemini: Gemini,
    settings: Settings,
    *,
    workflow_runner: WorkflowRunner | None = None,
    tool_threads: Executor | None = None,
    servers: McpServers | None = None,
) -> Worker:
    """A worker for sessions of these agents; where ``settings.tools_only``, for their tools.

    Args:
        client: from :func:`gateway.runner.connect`.
        store: where sessions live.
        agents: the agents it serves.
        gemini: its model client.
        settings: task queue, concurrency, grace period.
        workflow_runner: the sandbox in tests. Production runs without: the workflow code
            imports nothing that varies, and the sandbox costs a third of the throughput.
        tool_threads: where sync tools run; None: in threads of the worker's own.
        servers: the connections to the agents' MCP servers, which the caller closes. Where None, the worker
            makes its own, and leaves them open.
    """
    servers = servers or McpServers()
    memories = Memories(store, agents, gemini)
    model = ModelActivities(
        store,
        agents,
        gemini,
        concurrency=settings.max_concurrent_model_calls,
        context_cache=settings.context_cache * 1_000_000,
        media_cache=settings.media_cache * 1_000_000,
        servers=servers,
        memories=memories,
    )
    tools = ToolActivities(
        store,
        agents,
        concurrency=settings.max_concurrent_tools,
        threads=tool_threads,
        memories=memories,
        servers=servers,
    )
    if settings.tools_only:
        return Worker(client, activities=[tools.run_tool], **_polling(settings, tools.room.most))
    compaction = CompactionActivities(
        store, agents, gemini, slots=model.slots, room=model.room, servers=servers
    )
    steering = SteeringActivities(store, agents)
    asking = AskingActivities(store)
    memory = MemoryActivities(store, agents, memories)
    retention = RetentionActivities(store, client)
    schedules = ScheduleActivities(store, client)
    return Worker(
        client,
        workflows=[AgentSession, Retention, ScheduledMessage],
        activities=[
            model.call_model,
            tools.run_tool,
            compaction.compact,
            steering.rewind,
            steering.interrupt,
            steering.end_session,
            steering.save_artifact,
            steering.note_progress,
            asking.await_child,
            asking.count_child,
            memory.remember,
            retention.find,
            retention.delete,
            retention.collect_blobs,
            schedules.deliver,
        ],
        workflow_runner=workflow_runner or UnsandboxedWorkflowRunner(),
        # How long a session waits for a worker that died before another may take its workflow.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=3),
        max_cached_workflows=settings.max_cached_workflows,
        **_polling(settings, model.room.most + tools.room.most + OTHER_ACTIVITIES),
    )


def _polling(settings: Settings, activities: int) -> dict[str, Any]:
    """What every worker is made with, whatever it runs."""
    return {
        "task_queue": settings.task_queue,
        # Waiting calls hold no thread, and heartbeat; so more are let in than may run at once.
        "max_concurrent_activities": activities,
        "graceful_shutdown_timeout": timedelta(seconds=settings.graceful_shutdown),
        # A cancel is heard of through a heartbeat, and must be felt within two seconds.
        "max_heartbeat_throttle_interval": timedelta(seconds=HEARTBEAT_HELD),
        # Left to itself the SDK hashes every module there is: seconds of CPU at each start, and 32
        # bytes of every workflow task.
        "build_id": None if settings.deployment else settings.build_id or __version__,
        "deployment_config": _deployment(settings),
    }


def _deployment(settings: Settings) -> WorkerDeploymentConfig | None:
    """Which version of which deployment the worker is.

    A session is open for months and idle for most of them, so it cannot stay with the version that
    it began on: it goes on with the current one, which replays the histories of those before it.
    """
    if settings.deployment is None:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.deployment, settings.build_id or __version__),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


async def run_worker(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; running activities then get ``graceful_shutdown`` seconds.

    Raises:
        InvalidOption: no agents, a Temporal without the search attributes, or a probe that cannot listen.
    """
    if not settings.agents:
        raise InvalidOption("a worker needs agents: set PERDURE_AGENTS or pass --agents examples.counter")
    agents = load_agents(settings.agents)
    if settings.tools_only:
        _check_queue(settings, agents)
    client = await connect(settings)
    await _check_search_attributes(client, settings)
    store = await open_store(settings)
    gemini = Gemini.of(settings)
    threads = ThreadPoolExecutor(settings.max_concurrent_tools, thread_name_prefix=TOOL_THREADS)
    servers = McpServers()
    stop = _until_asked_to_stop()
    worker = build_worker(client, store, agents, gemini, settings, tool_threads=threads, servers=servers)
    try:
        # The gateway ends last: whoever waits for a turn that is just being finished gets the answer.
        async with (
            _probe(settings, worker, store, stop),
            beside_worker(settings, client, store, agents, servers),
            worker,
        ):
            what = f"{'tools of ' if settings.tools_only else ''}{', '.join(agents)}"
            _log.info("serving %s on task queue %s", what, settings.task_queue)
            print(f"worker ready: {what} on task queue {settings.task_queue}", flush=True)
            await stop.wait()
            _log.info("asked to stop; what runs has %g seconds", settings.graceful_shutdown)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        await servers.close()
        await gemini.close()
        await store.close()


def _check_queue(settings: Settings, agents: Registry) -> None:
    """A worker of tools that polls the queue of sessions would be handed their steps, and fail each."""
    named = {
        tool.task_queue
        for agent in agents.agents.values()
        for tool in _tools_of(agent)
        if tool.task_queue is not None and tool.activity is None
    }
    if settings.task_queue not in named:
        raise InvalidOption(
            f"no tool of {', '.join(agents)} runs on the task queue {settings.task_queue}; a worker of tools "
            f"polls the queue that they name: --task-queue {' or '.join(sorted(named)) or '(none does)'}"
        )


def _tools_of(agent: Agent) -> Iterator[Tool]:
    """Its own, those of its team, and those of the agents that they ask."""
    for member in team_of(agent):
        for tool in member.tools:
            yield tool
            if isinstance(tool, AgentTool):
                yield from _tools_of(tool.agent)


def _until_asked_to_stop() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT. The second one ends the process as if nobody had caught it."""
    stop = asyncio.Event()

    def asked(number: signal.Signals) -> None:
        if stop.is_set():
            _log.warning("asked to stop again: ending now, what runs starts again elsewhere in seconds")
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked, number)
    return stop


@asynccontextmanager
async def _probe(
    settings: Settings, worker: Worker, store: SessionStore, stop: asyncio.Event
) -> AsyncIterator[None]:
    """``/healthz`` and ``/livez``, where the settings ask for them, until the last activity is over."""
    if settings.health_address is None:
        yield
        return
    host, port = address_of(settings.health_address)

    async def polls_temporal() -> None:
        if stop.is_set() or not worker.is_running:
            raise NotReady("the worker is stopping" if stop.is_set() else "the worker does not run")
        here, pid = socket.gethostname(), os.getpid()
        workflows = not settings.tools_only
        if not await polls(worker.client, settings.task_queue, host=here, pid=pid, workflows=workflows):
            raise NotReady(f"this worker does not poll the task queue {settings.task_queue}")

    checks = Checks(
        {"temporal": polls_temporal, "database": store.ping_database, "artifacts": store.ping_artifacts}
    )
    async with listening(health_app(checks), host, port):
        try:
            yield
        finally:
            await checks.close()


async def _check_search_attributes(client: Client, settings: Settings) -> None:
    """A workflow task that sets an unknown search attribute fails for ever; better not to start."""
    request = ListSearchAttributesRequest(namespace=settings.temporal_namespace)
    try:
        known = await client.operator_service.list_search_attributes(request, retry=True)
    except RPCError as error:
        if error.status in _PASSING:
            raise TemporalUnavailable(
                f"Temporal at {settings.temporal_address} does not say now which search attributes it has "
                f"({error.message}); start the worker again"
            ) from error
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
    logs.configure(settings.log_level, content=settings.log_content)
    asyncio.run(run_worker(settings))
    _leave_tools_behind()


def _leave_tools_behind() -> None:
    """End the process here if a sync tool still runs: Python would wait for its thread for ever."""
    running = [thread for thread in threading.enumerate() if thread.name.startswith(TOOL_THREADS)]
    for thread in running:
        thread.join(timeout=1)  # a thread with nothing to do ends at once
    if any(thread.is_alive() for thread in running):
        _log.warning("a tool did not end; its call has been handed back, and this process ends without it")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


def _program() -> int:
    main(Settings())
    return 0


if __name__ == "__main__":
    end_with(_program)
