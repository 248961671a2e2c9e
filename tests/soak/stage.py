"""The servers and workers of the soak, each of which may be killed and started again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from temporalio.client import Client
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from activities.codec import converter
from embedded.postgres import PostgresServer
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from gateway.runner import Runner
from perdure.settings import Settings
from perdure.testing import StandIn
from storage.sessions import SessionStore
from tests.integration.crashes import ForkedWorker
from tests.soak.agents import NOTES

__all__ = ["Berth", "Stage", "open_stage"]

AGENTS = str(Path(__file__).with_name("agents.py"))
QUEUE = "soak"
TURNS_PER_RUN = 12
"""So that sessions continue as new many times."""
GRACE = 2.0
"""Seconds that a worker has when it is asked to stop: less than some calls take."""


class Berth:
    """A place for a worker: whenever one ends, another is started.

    Args:
        environment: the settings of the workers.
        log: what they write.
        rng: how long the place is empty.
    """

    def __init__(self, environment: dict[str, str], log: Path, rng: random.Random) -> None:
        self._environment = environment
        self._log = log
        self._rng = rng
        self._worker: ForkedWorker | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._signalled = False
        self.by_itself: list[int | None] = []
        """The exit codes of workers that nobody has killed."""

    def start(self) -> None:
        """Keep a worker running from now on."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self._log.stem}")

    async def stop(self) -> None:
        """Keep none any more; the one that runs is killed."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self.signal(signal.SIGCONT)
        if self._worker is not None:
            await self._worker.kill()

    def signal(self, number: signal.Signals) -> bool:
        """Send the worker a signal; whether there was one."""
        if self._worker is None or not self._worker.running:
            return False
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._signalled = True
        try:
            os.kill(self._worker.pid, number)
        except ProcessLookupError:
            return False
        return True

    async def freeze(self, seconds: float) -> bool:
        """Stop the worker for so long, as a machine that swaps or a network that is cut would."""
        frozen = self._worker
        if not self.signal(signal.SIGSTOP):
            return False
        try:
            await asyncio.sleep(seconds)
        finally:
            if frozen is self._worker:
                self.signal(signal.SIGCONT)
        return True

    def check(self) -> None:
        """Raise what keeping it raised, which is a defect of the soak."""
        if self._keeper is not None and self._keeper.done():
            self._keeper.result()

    async def _keep(self) -> None:
        while True:
            self._signalled = False
            self._worker = ForkedWorker(self._environment, self._log, turns_per_run=TURNS_PER_RUN)
            self._worker.start()
            code = await _end_of(self._worker)
            if not self._signalled:
                self.by_itself.append(code)
            await asyncio.sleep(self._rng.uniform(0, 2))


@dataclass(kw_only=True)
class Stage:
    """All that runs."""

    folder: Path
    temporal: TemporalServer
    postgres: PostgresServer | None
    gemini: StandIn
    client: Client
    store: SessionStore
    settings: Settings
    berths: list[Berth] = field(default_factory=list)

    @property
    def runner(self) -> Runner:
        """Talks to the sessions."""
        return Runner(self.client, self.store, task_queue=QUEUE)

    @property
    def notes(self) -> Path:
        """Where tools note their tries."""
        return self.folder / "notes.txt"

    def forget_prompts(self) -> None:
        """Of requests to the model that are over, keep no more than that they were."""
        for request in self.gemini.requests:
            if not request.in_flight and request.raw:
                request.raw, request.body, request.answer = b"", {}, []


@asynccontextmanager
async def open_stage(folder: Path, *, database: str, workers: int, seed: str) -> AsyncIterator[Stage]:
    """Start everything.

    Args:
        folder: for data and logs.
        database: ``postgres`` or ``sqlite``.
        workers: how many processes.
        seed: of what is left to chance.
    """
    temporal = TemporalServer(folder / "temporal")
    postgres = PostgresServer(fsync=False) if database == "postgres" else None
    async with temporal, StandIn() as gemini:
        if postgres is not None:
            await postgres.start()
        try:
            url = f"sqlite:///{folder / 'perdure.db'}"
            if postgres is not None:
                url = await postgres.create_database("soak")
            settings = Settings(
                _env_file=None,
                database_url=url,
                artifacts_url=f"file://{folder / 'artifacts'}",
                temporal_address=temporal.address,
                task_queue=QUEUE,
                agents=(AGENTS,),
                model_base_url=gemini.url,
                graceful_shutdown=GRACE,
            )
            client = await Client.connect(
                temporal.address, data_converter=converter(settings), runtime=_quiet_runtime()
            )
            store = await SessionStore.open(url, settings.artifacts_url, migrate=True)
            stage = Stage(
                folder=folder,
                temporal=temporal,
                postgres=postgres,
                gemini=gemini,
                client=client,
                store=store,
                settings=settings,
            )
            environment = {**environment_of(settings), NOTES: str(stage.notes)}
            stage.notes.touch()
            for number in range(1, workers + 1):
                log, rng = folder / f"worker-{number}.log", random.Random(f"{seed}/worker/{number}")
                stage.berths.append(Berth(environment, log, rng))
            for berth in stage.berths:
                berth.start()
            try:
                yield stage
            finally:
                await asyncio.gather(*(berth.stop() for berth in stage.berths))
                await store.close()
        finally:
            if postgres is not None:
                await postgres.stop()


def _quiet_runtime() -> Runtime:
    """Without a line for every call that fails: that they do is the point."""
    quiet = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    return Runtime(telemetry=TelemetryConfig(logging=quiet))


async def _end_of(worker: ForkedWorker) -> int | None:
    while True:
        try:
            return await worker.wait()
        except TimeoutError:  # it lives on
            continue
