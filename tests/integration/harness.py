"""One running Perdure for a test: real Temporal, real database, the stand-in for the model."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, RPCTimeoutOrCancelledError, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.codec import converter
from activities.gemini import Gemini
from activities.mcp_servers import McpServers
from gateway.runner import Runner
from perdure import Agent
from perdure.registry import Registry
from perdure.settings import Settings
from perdure.testing import StandIn
from perdure.types import Event, Session, SessionKey
from storage.sessions import SessionStore
from tests.integration.patience import PATIENCE, Patient, PatientRunner, came_too_late
from worker import build_worker

__all__ = ["PATIENCE", "World", "open_world", "until"]

T = TypeVar("T")

RESTRICTIONS = SandboxRestrictions.default.with_passthrough_modules(
    "activities", "perdure", "workflows.messages", "workflows.wait_messages", "workflows.request"
)
"""The sandbox of most tests: it loads the workflows anew for each session, but not the records and
errors they use, which takes most of the time. That those do nothing forbidden either is shown where
the histories of all that a session can do are replayed in the whole sandbox (``test_replay.py``)."""
TRIES = 20
"""Times that something is done until nothing comes between, at most."""


@dataclass
class World:
    """What a test talks to."""

    runner: Runner
    store: SessionStore
    gemini: StandIn
    client: Client
    worker: Worker
    settings: Settings

    def key(self, app: str = "counter", user: str | None = None) -> SessionKey:
        """A session nobody else has, of a user nobody else is."""
        unique = uuid.uuid4().hex[:12]
        return SessionKey(app=app, user_id=user or f"user-{unique}", session_id=unique)

    def handle(self, key: SessionKey) -> WorkflowHandle[object, object]:
        """The session's workflow."""
        return self.client.get_workflow_handle(key.workflow_id)

    async def history(self, key: SessionKey) -> list[str]:
        """The events of the history, by the names of their types."""
        events = (await self.handle(key).fetch_history()).events
        return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in events]

    async def costs_nothing(self, key: SessionKey, refused: Callable[[], Awaitable[None]]) -> bool:
        """Whether what is refused leaves nothing in the history.

        Temporal forgets a task in which nothing but a refusal was done; not where the worker stood still, or
        the heartbeat of an activity was written meanwhile. Then it is refused once more.
        """
        for _ in range(TRIES):
            before = len(await self.history(key))
            await refused()
            new = (await self.history(key))[before:]
            if not new or not all(kind.startswith("WORKFLOW_TASK_") for kind in new):
                return not new
        return False

    async def log(self, key: SessionKey) -> list[Event]:
        """The whole log."""
        return await self.store.log(key)

    async def session(self, key: SessionKey) -> Session:
        """The session with its live events."""
        return await self.store.get(key)

    async def kinds(self, key: SessionKey) -> list[str]:
        """The live events as words: user, model, tool, compaction, rewind, end, other."""
        return [kind_of(event) for event in (await self.store.get(key)).events]


def kind_of(event: Event) -> str:
    """What an event is, in a word."""
    if event.compaction:
        return "compaction"
    if event.rewind:
        return "rewind"
    if event.meta.get("final"):
        return "end"
    if "call" in event.meta:
        return "tool"
    if "step" in event.meta:
        return "model"
    return "user" if event.author == "user" and event.content else "other"


@asynccontextmanager
async def open_world(
    address: str,
    store: SessionStore,
    agents: Sequence[Agent],
    *,
    settings: Settings | None = None,
    queue: str = "",
) -> AsyncIterator[World]:
    """A worker in this process, in the workflow sandbox, on a task queue of its own if none is named."""
    settings = (settings or Settings(_env_file=None)).model_copy(
        update={"task_queue": queue or f"test-{uuid.uuid4().hex[:8]}", "graceful_shutdown": 1.0}
    )
    client = await Client.connect(address, data_converter=converter(settings), interceptors=[Patient()])
    async with StandIn() as gemini:
        model = Gemini(base_url=gemini.url)
        servers = McpServers()
        worker = build_worker(
            client,
            store,
            Registry(agents),
            model,
            settings,
            workflow_runner=SandboxedWorkflowRunner(restrictions=RESTRICTIONS),
            servers=servers,
        )
        # To the SDK a process that stands still for two seconds is a deadlock, and a query then would fail.
        assert worker._workflow_worker is not None
        worker._workflow_worker._deadlock_timeout_seconds = int(PATIENCE)
        try:
            async with worker:
                runner = PatientRunner(client, store, task_queue=settings.task_queue)
                yield World(runner, store, gemini, client, worker, settings)
        finally:
            await servers.close()
            await model.close()


async def until(look: Callable[[], Awaitable[T]], *, within: float = PATIENCE) -> T:
    """What ``look`` finds, once it finds something; a test that waits longer has failed."""
    async with asyncio.timeout(within):
        while True:
            try:
                if found := await look():
                    return found
            except (RPCError, RPCTimeoutOrCancelledError) as error:
                if not came_too_late(error):
                    raise
            await asyncio.sleep(0.02)
