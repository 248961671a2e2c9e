"""Sessions cross from one version of the workflow to the next, and back, with a turn under way.

``tests/integration/upgraded.py`` has the other versions. Workers are told apart by their
Worker Deployment's version, or, in a rollout without versions, by nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import ValidationError
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import NondeterminismError

import worker
from activities.conversion import data_converter
from activities.gemini import Gemini
from embedded.pollers import polls
from embedded.temporal import TemporalServer
from gateway.runner import Runner
from perdure.registry import Registry
from perdure.settings import Settings
from perdure.testing import StandIn, call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.histories.record import FOLDER, recorded
from tests.integration.agents import AGENTS, gate
from tests.integration.harness import RESTRICTIONS, until
from tests.integration.patience import Patient
from tests.integration.upgraded import PATCH, PatchedSession, UnpatchedSession
from workflows.retention import Retention
from workflows.schedule import ScheduledMessage
from workflows.session import AgentSession

FILES = sorted(FOLDER.glob("**/*.json*"))
DEPLOYMENT = "sessions"
NOT_YET = (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.DEADLINE_EXCEEDED)
"""What the server says of a version whose worker has not polled yet, or where it is busy itself."""
NONDETERMINISTIC = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR

TURN = ["m1:user", "m1:m1", "m1:t1.0", "m1:m2"]


@dataclass
class Release:
    """A version of the program that workers run."""

    workflow: type[AgentSession]
    build_id: str | None = None
    """Its version of the deployment; none for a worker without versions."""


@dataclass
class Site:
    """Where releases are rolled out: one task queue, one database, one model."""

    client: Client
    address: str
    store: SessionStore
    gemini: StandIn
    patch: pytest.MonkeyPatch
    queue: str = field(default_factory=lambda: f"site-{uuid.uuid4().hex[:8]}")

    @property
    def deployment(self) -> str:
        """One a site: the server knows them by name."""
        return f"{DEPLOYMENT}-{self.queue}"

    @property
    def runner(self) -> Runner:
        return Runner(self.client, self.store, task_queue=self.queue)

    def key(self) -> SessionKey:
        return SessionKey(app="tester", user_id="alice", session_id=uuid.uuid4().hex[:10])

    @asynccontextmanager
    async def runs(self, release: Release) -> AsyncIterator[None]:
        """A worker of that release."""
        versions = {"deployment": self.deployment, "build_id": release.build_id} if release.build_id else {}
        settings = Settings(_env_file=None).model_copy(
            update={"task_queue": self.queue, "graceful_shutdown": 1.0, **versions}
        )
        gemini = Gemini(base_url=self.gemini.url)
        # A client of its own, as in a process of its own: two workers of one must differ in version.
        client = await Client.connect(self.address, data_converter=data_converter, interceptors=[Patient()])
        with self.patch.context() as patched:
            patched.setattr(worker, "AgentSession", release.workflow)
            made = worker.build_worker(
                client,
                self.store,
                Registry(AGENTS),
                gemini,
                settings,
                workflow_runner=SandboxedWorkflowRunner(restrictions=RESTRICTIONS),
            )
        try:
            async with made:
                yield
        finally:
            await gemini.close()

    async def make_current(self, release: Release) -> None:
        """What ``temporal worker deployment set-current-version`` does; nothing without versions."""
        if release.build_id is None:
            return
        request = SetWorkerDeploymentCurrentVersionRequest(
            namespace=self.client.namespace,
            deployment_name=self.deployment,
            build_id=release.build_id,
            ignore_missing_task_queues=True,
        )

        async def known() -> bool:
            try:
                await self.client.workflow_service.set_worker_deployment_current_version(request)
            except RPCError as error:
                if error.status not in NOT_YET:
                    raise
                return False
            return True

        await until(known)

    async def held(self, key: SessionKey, message_id: str) -> asyncio.Task[str]:
        """A turn that is held in its tool."""
        self.gemini.script(call("wait_at_gate", label=message_id), say("went through"))

        async def ask() -> str:
            return (await self.runner.ask(key, "hold", message_id=message_id)).status

        task = asyncio.create_task(ask())
        await gate.held()
        return task

    async def history(self, key: SessionKey) -> list[HistoryEvent]:
        """Of the session's last run."""
        return list((await self.client.get_workflow_handle(key.workflow_id).fetch_history()).events)


@pytest_asyncio.fixture(scope="session")
async def brief_temporal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    """A server that suggests continue-as-new after a few turns."""
    config = {"limit.historyCount.suggestContinueAsNew": 70}
    async with TemporalServer(tmp_path_factory.mktemp("upgrades"), dynamic_config=config) as server:
        yield server


@pytest_asyncio.fixture
async def site(
    brief_temporal: TemporalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    gate.reset()
    store = await SessionStore.open(
        f"sqlite:///{tmp_path / 'perdure.db'}", f"file://{tmp_path / 'artifacts'}", migrate=True
    )
    async with StandIn() as gemini:
        client = await Client.connect(brief_temporal.address, data_converter=data_converter)
        yield Site(client, brief_temporal.address, store, gemini, monkeypatch)
        gate.open.set()
    await store.close()


def versions(events: list[HistoryEvent]) -> list[str]:
    """The builds that took the session's workflow tasks, in order."""
    completed = [
        event.workflow_task_completed_event_attributes
        for event in events
        if event.HasField("workflow_task_completed_event_attributes")
    ]
    return [one.deployment_version.build_id for one in completed]


def patches(events: list[HistoryEvent]) -> int:
    """How many changes of the workflow are noted in a history."""
    return sum(event.HasField("marker_recorded_event_attributes") for event in events)


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, None), (None, "2.0"), ("1.0", "2.0")],
    ids=["no versions", "versions from now on", "versions"],
)
async def test_s62_a_session_crosses_to_a_new_release_in_the_middle_of_a_turn(
    site: Site, before: str | None, after: str | None
) -> None:
    old, new = Release(AgentSession, before), Release(PatchedSession, after)
    key = site.key()
    async with AsyncExitStack() as rollout:
        async with site.runs(old):
            await site.make_current(old)
            assert (await site.runner.ask(key, "hello", message_id="m0")).status == "answered"
            turn = await site.held(key, "m1")
            run_id = (await site.client.get_workflow_handle(key.workflow_id).describe()).run_id
            await rollout.enter_async_context(site.runs(new))
            await site.make_current(new)
        gate.open.set()
        assert await turn == "answered"
        assert [event.id for event in await site.store.log(key)] == ["m0:user", "m0:m1", *TURN]
        assert (await site.store.get(key)).state == {"label": "m1"}
        site.gemini.script(say("two"))
        assert (await site.runner.ask(key, "hello", message_id="m2")).text == "two"
        described = await site.client.get_workflow_handle(key.workflow_id).describe()
        assert described.run_id == run_id, "the same run"
        assert await described.memo() == {}, "which began before the change, and goes on as it did"
        events = await site.history(key)
        assert patches(events) == 0
        taken = versions(events)
        assert (taken[0], taken[-1]) == (before or "", after or "")
        await _continues_as_new(site, key, run_id)
        assert versions(await site.history(key))[0] == (after or "")


async def _continues_as_new(site: Site, key: SessionKey, run_id: str) -> None:
    """The next run has the change."""
    handle = site.client.get_workflow_handle(key.workflow_id)
    turns = 3
    while (await handle.describe()).run_id == run_id:
        turns += 1
        assert (
            await site.runner.ask(key, f"number {turns}", message_id=f"m{turns - 1}")
        ).status == "answered"
    assert (await site.runner.ask(key, "one more", message_id="last")).status == "answered"

    async def noted() -> bool:
        return await (await handle.describe()).memo() == {"turns": turns + 1}

    await until(noted)
    events = await site.history(key)
    assert patches(events) == 1
    said = [event.invocation_id for event in await site.store.log(key) if event.author == "user"]
    assert said == [*(f"m{n}" for n in range(turns)), "last"]


async def test_s62_the_next_run_of_a_session_may_be_the_first_of_a_release(site: Site) -> None:
    """A message that waits while no worker runs at all is taken by whatever comes next."""
    old, new = Release(AgentSession, "1.0"), Release(PatchedSession, "2.0")
    key = site.key()
    async with site.runs(old):
        await site.make_current(old)
        assert (await site.runner.ask(key, "hello", message_id="m1")).status == "answered"
    await site.runner.message(key, "anyone?", message_id="m2")
    async with site.runs(new):
        await site.make_current(new)

        async def answered() -> bool:
            return (await site.store.log(key))[-1].id == "m2:m1"

        await until(answered)


@pytest.mark.parametrize("versioned", [False, True], ids=["no versions", "versions"])
async def test_s62_a_release_that_cannot_replay_a_session_is_rolled_back_and_nothing_is_lost(
    site: Site, versioned: bool
) -> None:
    good = Release(AgentSession, "1.0" if versioned else None)
    bad = Release(UnpatchedSession, "2.0" if versioned else None)
    key = site.key()
    async with AsyncExitStack() as rollout:
        async with site.runs(good):
            await site.make_current(good)
            assert (await site.runner.ask(key, "hello", message_id="m0")).status == "answered"
            turn = await site.held(key, "m1")
            await rollout.enter_async_context(site.runs(bad))
            await site.make_current(bad)
        gate.open.set()
        await site.runner.message(key, "meanwhile", message_id="m2")

        async def stuck() -> bool:
            failed = [event.workflow_task_failed_event_attributes for event in await site.history(key)]
            return any(one.cause == NONDETERMINISTIC for one in failed)

        await until(stuck)
        log = [event.id for event in await site.store.log(key)]
        assert log[-3:] in (TURN[:3], [log[-3], *TURN[:2]]), "it waits, and no further"
    async with site.runs(good):
        await site.make_current(good)
        assert await turn == "answered"

        async def answered() -> bool:
            return (await site.store.log(key))[-1].id == "m2:m1"

        await until(answered)
        ids = [event.id for event in await site.store.log(key)]
        assert ids == ["m0:user", "m0:m1", *TURN, "m2:user", "m2:m1"]

        async def counted() -> bool:
            return (await site.runner.status(key)).turns == 3

        await until(counted)


async def _replay(file: Path, workflow: type[AgentSession]) -> None:
    history = recorded(file)
    started = history["events"][0]["workflowExecutionStartedEventAttributes"]
    replayer = Replayer(
        workflows=[workflow, Retention, ScheduledMessage],
        workflow_runner=SandboxedWorkflowRunner(restrictions=RESTRICTIONS),
        data_converter=data_converter,
        build_id="replay",
    )
    await replayer.replay_workflow(WorkflowHistory.from_json(started["workflowId"], history))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.partition(".")[0])
async def test_s62_the_recorded_histories_let_a_patched_change_pass(file: Path) -> None:
    await _replay(file, PatchedSession)


@pytest.mark.parametrize("name", ["text", "tool", "rewind", "failed", "continued_2", "reopened", "limits_1"])
async def test_s62_the_recorded_histories_catch_a_change_without_a_patch(name: str) -> None:
    with pytest.raises(NondeterminismError):
        await _replay(FOLDER / f"{name}.json", UnpatchedSession)


async def test_a_patch_is_noted_once_a_run(site: Site) -> None:
    release = Release(PatchedSession)
    key = site.key()
    async with site.runs(release):
        for n in range(3):
            assert (await site.runner.ask(key, f"number {n}")).status == "answered"
    markers = [
        event.marker_recorded_event_attributes
        for event in await site.history(key)
        if event.HasField("marker_recorded_event_attributes")
    ]
    assert len(markers) == 1
    assert PATCH in str(markers[0].details)


async def test_a_worker_with_a_version_is_seen_polling(site: Site) -> None:
    async with site.runs(Release(AgentSession, "1.0")):

        async def seen() -> bool:
            host, pid = socket.gethostname(), os.getpid()
            return await polls(site.client, site.queue, host=host, pid=pid, workflows=True)

        await until(seen)


@pytest.mark.parametrize("name", ["", "with.dot", "with:colon", "with space"])
def test_a_deployment_that_temporal_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="deployment"):
        Settings(_env_file=None, deployment=name)
