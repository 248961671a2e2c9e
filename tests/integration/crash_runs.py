"""Scenarios played on two workers, one after the other: the first dies at a crash point.

A run takes ten seconds of waiting, until the dead worker's heartbeats are missed, and little
else; so many are under way at once.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from temporalio.client import Client

from activities.conversion import data_converter
from activities.gemini import Gemini
from activities.waits import waits_of
from embedded.postgres import PostgresServer
from embedded.stack import environment_of
from perdure.crashpoints import crash_at, note_in, noted
from perdure.registry import load_agents
from perdure.testing import StandIn
from storage.sessions import SessionStore
from tests.integration.attempts import in_flight, more_attempts
from tests.integration.crash_scenarios import Outcome, Scenario, Script, outcome_of
from tests.integration.crashes import AGENTS, STARTED_IN, ForkedWorker, Stage, starting
from tests.integration.harness import until
from worker import build_worker

__all__ = ["Matrix", "Played", "Stages", "open_stages", "started", "successor"]

AT_ONCE = 40
"""Runs at a time: enough to wait for heartbeats together, few enough for two cores."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """How a run went."""

    outcome: Outcome
    models: int
    """How often a model was asked, in all."""
    points: list[tuple[str, int]]
    """What an undisturbed worker passed."""
    unpaid: int = 0
    """Of the models that the dead worker had asked, those whose answers were not in the log."""
    more_tries: int = 0
    """Of the tools that it had begun, those whose responses were not in the log."""
    tries: int = 0
    spare: int = 0
    """Attempts of activities beside the first ones, and those that the death has cost: a worker that lives
    stood still, and was taken for dead. Each may have cost a model call, a try of a tool, and a bill in the
    log, of an answer that nobody waited for any more."""
    again: int = 0
    """How often a client had sent again what was not answered in time."""


@asynccontextmanager
async def successor(stage: Stage, script: Script, turns_per_run: int | None = None) -> AsyncIterator[None]:
    """Another worker of the same queue: in this process, where that is as good."""
    if turns_per_run is not None:
        worker = forked(stage, script, {}, turns_per_run)
        await started(worker, script)
        try:
            yield
        finally:
            await worker.kill()
        return
    agents = load_agents((AGENTS,))
    model = Gemini(base_url=stage.gemini.url)
    settings = stage.settings(script.mark).model_copy(update={"graceful_shutdown": 1.0})
    try:
        async with build_worker(stage.client, stage.store, agents, model, settings):
            yield
    finally:
        await model.close()


def forked(stage: Stage, script: Script, more: dict[str, str], turns_per_run: int | None) -> ForkedWorker:
    environment = environment_of(stage.settings(script.mark)) | more
    return ForkedWorker(environment, log_of(stage, script), turns_per_run=turns_per_run)


def log_of(stage: Stage, script: Script) -> Path:
    return stage.folder / f"{script.mark}.log"


async def started(worker: ForkedWorker, script: Script) -> None:
    """Start it, and wait until it serves."""
    log = log_of(script.stage, script)
    before = log.read_text().count("worker ready") if log.exists() else 0

    async def ready() -> bool:
        return log.exists() and log.read_text().count("worker ready") > before

    async with starting:
        worker.start()
        await until(ready, within=STARTED_IN)


async def play(stage: Stage, scenario: Scenario, at: tuple[str, int] | None) -> Played:
    """Play a scenario; with ``at``, its first worker dies at the n-th time of a point."""
    script = Script(stage, uuid.uuid4().hex[:10], scenario.app)
    notes = stage.folder / f"{script.mark}.points"
    flag = stage.folder / f"{script.mark}.flag"
    more = note_in(notes) if at is None else crash_at(at[0], flag, occurrence=at[1])
    victim = forked(stage, script, more, scenario.turns_per_run)
    try:
        await script.talked(*scenario.before)
        if scenario.prepare is not None:
            await scenario.prepare(script)
        await started(victim, script)
        playing = asyncio.create_task(scenario.play(script))
        try:
            if at is None:
                told = await playing
                outcome = await outcome_of(script, told, own_ids=scenario.own_ids)
                return Played(
                    outcome=outcome,
                    models=script.asked(),
                    points=noted(notes),
                    tries=script.tries().total(),
                    spare=await more_attempts(stage.client, script.key.workflow_id),
                    again=script.runner.again,
                )
            return await play_on(stage, scenario, script, victim, playing)
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
    except Exception as error:
        log = log_of(stage, script)
        error.add_note(f"{scenario.name} at {at}; the end of the workers' log:")
        error.add_note(log.read_text()[-4000:] if log.exists() else "there is none")
        raise
    finally:
        await victim.kill()


async def play_on(
    stage: Stage, scenario: Scenario, script: Script, victim: ForkedWorker, playing: asyncio.Task[list[str]]
) -> Played:
    """From the death of the first worker on."""
    dying = asyncio.create_task(victim.wait())
    await asyncio.wait({dying, playing}, return_when=asyncio.FIRST_COMPLETED)
    if playing.done():
        playing.result()  # else what went wrong with it would not be told, but that nobody died
    # What comes last may come after the reply.
    assert await asyncio.wait_for(dying, STARTED_IN) == -9, "it did not die by SIGKILL"
    cut_off = await in_flight(stage.client, script.key.workflow_id)
    log = await script.log()
    responses = {f"{script.key}:{event.id}" for event in log if "call" in event.meta}
    # Whose ticket is in the log, need not run again either.
    responses |= {f"{script.key}:{each['call_id']}" for each in waits_of(log) if each["kind"] == "result"}
    begun = script.tries()
    unpaid = script.asked() - await script.answered()
    async with successor(stage, script, scenario.turns_per_run):
        told = await playing
    return Played(
        spare=await more_attempts(stage.client, script.key.workflow_id, cut_off=cut_off),
        outcome=await outcome_of(script, told, own_ids=scenario.own_ids),
        models=script.asked(),
        points=[],
        unpaid=unpaid,
        more_tries=sum(count for call, count in begun.items() if call not in responses),
        tries=script.tries().total(),
    )


def compare(scenario: Scenario, undisturbed: Played, disturbed: Played) -> None:
    """Everything is as if nobody had died."""
    for name, value in asdict(undisturbed.outcome).items():
        found = getattr(disturbed.outcome, name)
        assert found == value, f"{name}: {found} and not {value}"
    assert 0 <= disturbed.unpaid <= 1
    if scenario.hangs:
        assert undisturbed.models <= disturbed.models <= undisturbed.models + disturbed.unpaid
    else:
        assert disturbed.models == undisturbed.models + disturbed.unpaid, "model calls"
    assert disturbed.tries == undisturbed.tries + disturbed.more_tries, "tries of tools"


Stages = Mapping[str, Stage]
"""By database."""


@asynccontextmanager
async def open_stages(
    address: str, postgres: PostgresServer, name: str, gemini: StandIn, folder: Path
) -> AsyncIterator[Stages]:
    """A stage on a database of each kind.

    Args:
        address: Temporal's.
        postgres: makes the database, of this ``name``.
        gemini: the model.
        folder: for files of all kinds.
    """
    artifacts_url = f"file://{folder / 'artifacts'}"
    urls = {
        "sqlite": f"sqlite:///{folder / 'perdure.db'}",
        "postgres": await postgres.create_database(name),
    }
    client = await Client.connect(address, data_converter=data_converter)
    stages = {
        database: Stage(
            client=client,
            address=address,
            store=await SessionStore.open(url, artifacts_url, migrate=True),
            database_url=url,
            artifacts_url=artifacts_url,
            gemini=gemini,
            folder=folder,
        )
        for database, url in urls.items()
    }
    yield stages
    for stage in stages.values():
        await stage.store.close()


class Matrix:
    """Runs, so many at a time, each undisturbed one once."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._room = asyncio.Semaphore(AT_ONCE)
        self._undisturbed: dict[tuple[str, str], asyncio.Task[Played]] = {}

    async def undisturbed(self, database: str, scenario: Scenario) -> Played:
        """The run in which nobody dies."""
        name = (database, scenario.name)
        if name not in self._undisturbed:
            self._undisturbed[name] = asyncio.create_task(self.played_anew(database, scenario))
        return await asyncio.shield(self._undisturbed[name])

    async def played_anew(self, database: str, scenario: Scenario) -> Played:
        """Another such run. One whose worker stood still, or whose answers came late, was disturbed."""
        played = await self._play(database, scenario, None)
        while played.spare or played.again:
            played = await self._play(database, scenario, None)
        return played

    async def killed_at(self, database: str, scenario: Scenario, at: tuple[str, int]) -> None:
        """Play it with a death, and compare it with the run that had none."""
        undisturbed = await self.undisturbed(database, scenario)
        while True:
            played = await self._play(database, scenario, at)
            try:
                return compare(scenario, undisturbed, played)
            except AssertionError as error:
                # With more than the one death in it, it was another play, and is not what is compared.
                if not played.spare:
                    error.add_note(f"{scenario.name} on {database}, killed at {at[0]}, time {at[1]}")
                    raise

    async def _play(self, database: str, scenario: Scenario, at: tuple[str, int] | None) -> Played:
        async with self._room:
            return await play(self._stages[database], scenario, at)
