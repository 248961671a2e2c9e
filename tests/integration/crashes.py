"""A stage for crashes: one session, its own task queue, and a worker process that dies and is started again.

The model's stand-in runs in the test's own process and outlives every worker, so what it
counts is what a model would have been paid for.

Starting Python and importing a worker costs seconds of CPU. So most workers are forked
from a process that has imported everything once (``forkserver``); they run the same
``worker.main`` on the same settings as the command does.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import multiprocessing
import os
import signal
import sys
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Protocol

import asyncpg
from temporalio.client import Client
from temporalio.worker import Worker

from embedded.process import Process
from embedded.stack import environment_of
from gateway.runner import Answer
from perdure import crashpoints
from perdure.settings import Settings
from perdure.testing import Request, StandIn
from perdure.types import SessionKey
from storage.sessions import SessionStore
from storage.store import Store
from tests.integration.attempts import in_flight, more_attempts
from tests.integration.harness import until
from tests.integration.patience import PatientRunner
from tests.plain_http import trust_nobody
from workflows import calls, session

__all__ = [
    "AGENTS",
    "CommandWorker",
    "ForkedWorker",
    "Scene",
    "Stage",
    "WorkerProcess",
    "become",
    "end_of",
    "fork",
    "starting",
]

ROOT = Path(__file__).parents[2]
AGENTS = str(Path(__file__).with_name("crash_agents.py"))
STARTED_IN = 90.0
"""Seconds within which a worker process comes to its end, or to where it is wanted, on a busy machine."""

starting = asyncio.Semaphore(2)
"""Starts at a time: with more, workers that run would starve, and miss their heartbeats."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["__main__", "tests.integration.crashes", "worker", "tests.integration.warmed"])

fork = _forks.Process
"""A process that has everything imported, not started yet: ``fork(target=…, args=(…), daemon=True)``."""


@dataclass(frozen=True, kw_only=True)
class Late:
    """A process stops, by SIGSTOP, just before a write, and goes on with it when it is told to.

    Args:
        write: the name of the write's crash points, such as ``append``.
        time: the how manieth of them, from 1.
        slots: how many activities it runs at once.
        notes: a file that gets a line when it stops, and one that says what became of the write.
    """

    write: str
    time: int = 1
    slots: int = 1
    notes: Path

    def arm(self) -> None:
        """Do so in this process."""
        times = itertools.count(1)
        write, at_once = Store._write, Store._write_at_once

        async def watched(store: Store, name: str, *args: Any, **options: Any) -> Any:
            if name != self.write or next(times) != self.time:
                return await write(store, name, *args, **options)
            self._note("stopped")
            os.kill(os.getpid(), signal.SIGSTOP)
            # Its activity may be cancelled as soon as it goes on; the write must be made all the same.
            return await asyncio.shield(self._told(write(store, name, *args, **options)))

        async def never(store: Store, name: str, *args: Any, **options: Any) -> Any:
            return None if name == self.write else await at_once(store, name, *args, **options)

        def make(*args: Any, **options: Any) -> Worker:
            # No poll is left open that would swallow what others wait for.
            few = {"max_concurrent_activities": self.slots, "max_concurrent_workflow_task_polls": 2}
            return Worker(*args, **options | few)

        import worker

        setattr(Store, "_write", watched)  # noqa: B010 - their types are the store's own, and generic
        setattr(Store, "_write_at_once", never)  # noqa: B010
        setattr(worker, "Worker", make)  # noqa: B010 - it exports none

    async def noted(self, lines: int) -> str:
        """The last of so many lines."""

        async def there() -> str | None:
            said = self.notes.read_text().splitlines() if self.notes.exists() else []
            return said[lines - 1] if len(said) >= lines else None

        return str(await until(there, within=STARTED_IN))

    async def _told(self, write: Coroutine[Any, Any, Any]) -> Any:
        try:
            done = await write
        except BaseException as error:
            self._note(type(error).__name__)
            raise
        self._note("went through")
        return done

    def _note(self, line: str) -> None:
        with self.notes.open("a") as file:
            file.write(f"{line}\n")


class WorkerProcess(Protocol):
    """A worker in a process of its own."""

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""

    def start(self) -> None:
        """Start it; says nothing of when it is ready."""

    async def wait(self) -> int | None:
        """Wait for its end; the exit code, negative: the signal that ended it."""

    async def kill(self) -> None:
        """SIGKILL, and wait. Safe to call twice."""


class CommandWorker:
    """``perdure worker``, as production runs it.

    Args:
        environment: its settings.
        log: the file that it writes to.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        command = [sys.executable, "-m", "perdure", "worker"]
        self._process = Process("worker", command, log=log, env={**_bare(), **environment}, cwd=ROOT)

    @property
    def running(self) -> bool:
        return self._process.running

    def start(self) -> None:
        self._process.start()

    async def wait(self) -> int | None:
        return await self._process.wait(STARTED_IN)

    async def kill(self) -> None:
        await self._process.kill()


class ForkedWorker:
    """The same, from a process that has the imports behind it.

    Args:
        environment: its settings.
        log: the file that it writes to.
        turns_per_run: after how many turns a run continues as new, if not after the usual number.
        late: a write that it comes late with.
        heartbeat: after how long without one an activity of its sessions is tried again, if not after ten
            seconds.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        *,
        turns_per_run: int | None = None,
        late: Late | None = None,
        heartbeat: timedelta | None = None,
    ) -> None:
        self._environment = dict(environment)
        self._log = log
        self._turns_per_run = turns_per_run
        self._late = late
        self._heartbeat = heartbeat
        self._process: ForkServerProcess | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "started"
        assert self._process.pid is not None, "started"
        return self._process.pid

    def start(self) -> None:
        args = (self._environment, str(self._log), self._turns_per_run, self._late, self._heartbeat)
        self._process = fork(target=_serve, args=args, daemon=True)
        self._process.start()

    async def wait(self) -> int | None:
        assert self._process is not None, "started"
        return await end_of(self._process)

    async def kill(self) -> None:
        if self._process is not None and self.running:
            self._process.kill()
            await self.wait()


async def end_of(process: ForkServerProcess) -> int | None:
    """Wait for a process's end; the exit code, negative: the signal that ended it.

    Not in a thread: each start of another process looks for those that have ended, and how one did
    can be read only once. Who comes second is told 255.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), STARTED_IN)
    finally:
        loop.remove_reader(process.sentinel)
    process.join()
    return process.exitcode


def _serve(
    environment: Mapping[str, str],
    log: str,
    turns_per_run: int | None,
    late: Late | None,
    heartbeat: timedelta | None,
) -> None:
    """In the forked process: be a worker."""
    become(environment, log)
    import worker

    if late is not None:
        late.arm()
    if turns_per_run is not None:
        session.TURNS_PER_RUN = turns_per_run
    if heartbeat is not None:
        calls.HEARTBEAT = heartbeat
    worker.main(Settings(_env_file=None))


def become(environment: Mapping[str, str], log: str) -> None:
    """In a forked process: take on an environment, also as for crash points, and write to a file."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update({**_bare(), **environment})
    trust_nobody()
    importlib.reload(crashpoints)  # it looked at the environment when it was imported


def _bare() -> dict[str, str]:
    """Our environment without what anybody has set for Perdure."""
    keys = ("PERDURE_", "GEMINI_", "GOOGLE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(keys)}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the scenes of one database share."""

    client: Client
    address: str
    store: SessionStore
    database_url: str
    artifacts_url: str
    gemini: StandIn
    folder: Path

    def runner(self, task_queue: str) -> PatientRunner:
        """Talks to sessions that workers of that queue serve."""
        return PatientRunner(self.client, self.store, task_queue=task_queue)

    def settings(self, task_queue: str) -> Settings:
        """A worker's."""
        return Settings(
            _env_file=None,
            database_url=self.database_url,
            artifacts_url=self.artifacts_url,
            temporal_address=self.address,
            task_queue=task_queue,
            agents=(AGENTS,),
            model_base_url=self.gemini.url,
        )


class Scene:
    """One session and its worker.

    Args:
        stage: the servers.
        app: the agent.
        point: the crash point at which the first worker dies by itself; None: it is killed by hand.
        occurrence: the how manieth time that it gets there, from 1.
        command: whether the worker is the real command.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        app: str = "crasher",
        point: str | None = None,
        occurrence: int = 1,
        command: bool = False,
    ) -> None:
        self.mark = uuid.uuid4().hex[:10]
        self.key = SessionKey(app=app, user_id="alice", session_id=self.mark)
        self.store = stage.store
        self.gemini = stage.gemini
        self.runner = stage.runner(self.mark)
        self.log = stage.folder / f"{self.mark}.log"
        self.notes = stage.folder / f"{self.mark}.txt"
        environment = environment_of(stage.settings(self.mark))
        if point is not None:
            flag = stage.folder / f"{self.mark}.flag"
            environment |= crashpoints.crash_at(point, flag, occurrence=occurrence)
        make = CommandWorker if command else ForkedWorker
        self.worker: WorkerProcess = make(environment, self.log)
        self._starts = 0
        self._cut_off = 0
        self._asking: list[asyncio.Task[Answer]] = []

    async def __aenter__(self) -> Scene:
        await self.start()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.worker.kill()
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        if error is not None and self.log.exists():
            error.add_note(f"the end of the workers' log:\n{self.log.read_text()[-4000:]}")

    def say(self, verb: str, message_id: str) -> asyncio.Task[Answer]:
        """Have the agent use its tool of that name."""
        asking = self.runner.ask(self.key, f"{verb} on '{self.notes}'", message_id=message_id)
        self._asking.append(asyncio.create_task(asking))
        return self._asking[-1]

    async def start(self) -> None:
        """Start the worker, and wait until it serves."""
        self._starts += 1

        async def ready() -> bool:
            return self.log.exists() and self.log.read_text().count("worker ready") == self._starts

        async with starting:
            self.worker.start()
            await until(ready, within=STARTED_IN)

    async def dies_and_starts_again(self) -> None:
        """The worker dies at its crash point; a second one takes over."""
        assert await self.worker.wait() == -9, "it did not die by SIGKILL"
        await self._start_again()

    async def killed_and_started_again(self) -> None:
        """The worker is killed, now; a second one takes over."""
        await self.worker.kill()
        await self._start_again()

    async def _start_again(self) -> None:
        self._cut_off += await in_flight(self.runner.client, self.key.workflow_id)
        await self.start()

    async def spare(self) -> int:
        """How many attempts there were beside the first ones and those that a death has cost.

        A worker that stood still was taken for dead then, and each may have cost a model call or a try of
        a tool more.
        """
        return await more_attempts(self.runner.client, self.key.workflow_id, cut_off=self._cut_off)

    async def model_is_asked(self, count: int) -> None:
        """The model is being asked for the ``count``-th time, and hangs."""
        await self.gemini.wait(
            lambda: len(self.asked()) >= count and self.asked()[-1].in_flight,
            f"call {count} to hang",
            STARTED_IN,
        )

    async def model_has_answered(self, count: int) -> None:
        """The model has answered so many times."""
        await self.gemini.wait(
            lambda: sum(request.answered for request in self.asked()) >= count, f"answer {count}", STARTED_IN
        )

    async def waits_for_a_lock(self, url: str) -> None:
        """Somebody is about to insert an event, and waits for a lock."""
        connection = await asyncpg.connect(url)
        query = """
            SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND query LIKE '%perdure_append%'
        """

        async def waits() -> object:
            return await connection.fetchval(query)

        await until(waits, within=STARTED_IN)
        await connection.close()

    async def tool_is_held(self) -> None:
        """The tool's first try is under way."""

        async def noted() -> bool:
            return self.notes.exists() and bool(self.tries())

        await until(noted, within=STARTED_IN)

    def asked(self, kind: str = "generate") -> list[Request]:
        """What the model was asked in this session."""
        return [
            request
            for request in self.gemini.requests
            if request.kind == kind and self.mark in request.last_user_text
        ]

    def tries(self) -> list[str]:
        """The idempotency key of each try of a tool."""
        return [line.split()[0] for line in self.notes.read_text().splitlines()]

    async def ids(self) -> list[str]:
        """The log, by event ids, but for bills of answers that came too late: a worker stood still."""
        late = await self.spare() > 0
        ids = [event.id for event in await self.store.log(self.key)]
        return [each for each in ids if not (late and ":spent" in each)]

    async def state(self) -> object:
        """The session's state."""
        return (await self.store.get(self.key, max_events=0)).state

    async def settled(self) -> None:
        """No compaction is under way."""

        async def done() -> bool:
            return not (await self.runner.status(self.key)).compacting

        await until(done)

    async def versions(self) -> list[int]:
        """The listed versions of the file."""
        return [row.version for row in await self.store.artifact_versions(self.key, "work.txt")]
